"""A model of ours as lm-eval sees it: probabilities and texts as counted by hand, and as its own model says."""

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmexp.config.tokenizers import BPETokenizerConfig
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.data.tokenizers.lossless import ByteTokenizer
from lmexp.inference.harness.model import HarnessModel, Writing
from lmexp.models.exchange.folders import export_folder
from lmexp.models.sampling import sample
from lmexp.train.checkpoint import Loaded
from tests.inference.harness_models import CONTEXT, by_hand, loaded_of, requests, windowed

PAIRS = [
    ("the cat", " sat"),
    ("", "the cat sat"),
    ("a long text that is cut on the left, for it", " does not fit"),
    ("the cat ", "sat"),
    ("a", "b" * 70),  # the continuation alone is longer than the context
    ("one", ""),
    ("naïve", " 日本"),
]


@pytest.fixture
def loaded(config) -> Loaded:
    return loaded_of(config, ByteTokenizer())


def likeliest(loaded: Loaded, prompt: list[int], count: int) -> list[int]:
    return list(sample(loaded.model, prompt, count, CONTEXT, temperature=0))


@pytest.mark.parametrize(
    ("family", "batch"), [("gpt", 1), ("gpt", 3), ("gpt", 16), ("llama", 3), ("moe", 3), ("lstm", 3)]
)
def test_likelihoods_are_those_of_the_logits(config, family: str, batch: int):
    words = [f"model={family}_nano"] if family != "gpt" else []
    loaded = loaded_of(config, ByteTokenizer(), *words)
    encode, start = loaded.tokenizer.encode, loaded.tokenizer.bos_id
    pairs = [pair for pair in PAIRS if len(pair[0] + pair[1]) < CONTEXT]
    found = HarnessModel(loaded, batch).loglikelihood(requests("loglikelihood", pairs))
    assert len(pairs) == 5
    for (context, text), (total, greedy) in zip(pairs, found, strict=True):
        context, text = context.rstrip(), context[len(context.rstrip()) :] + text  # as in lm-eval
        expected = by_hand(loaded, [start, *encode(context).tolist()], encode(text).tolist())
        assert total == pytest.approx(expected[0], abs=1e-3)
        assert greedy == expected[1]


def test_what_the_model_would_write_is_greedy_and_nothing_else_is(loaded: Loaded):
    model = HarnessModel(loaded)
    prompt = [loaded.tokenizer.bos_id, *b"the cat"]
    ids = likeliest(loaded, prompt, 6)
    others = [*ids[:-1], (ids[-1] + 1) % 256]
    windows = [w for owner, after in enumerate((ids, others)) for w in model._windows(owner, prompt, after)]
    (first, yes), (second, no) = model._scores(windows, 2)
    assert yes and not no
    assert first > second


def test_a_text_longer_than_the_context_is_cut_on_the_left(loaded: Loaded):
    said: list[str] = []
    found = HarnessModel(loaded, say=said.append).loglikelihood(requests("loglikelihood", PAIRS))
    assert said == ["lm-eval: 2 of 7 texts are cut on the left to a context of 32"]
    context, text = PAIRS[2]
    tokens = list((context + text).encode())[-CONTEXT - 1 :]
    with torch.inference_mode():
        scores = loaded.model(torch.tensor([tokens[:-1]]))[0].log_softmax(-1)
    expected = sum(float(scores[place, tokens[place + 1]]) for place in range(CONTEXT - len(text), CONTEXT))
    assert found[2][0] == pytest.approx(expected, abs=1e-3)
    # All of a longer continuation counts, in parts.
    assert found[4][0] < 0
    rolled = windowed(loaded, list(PAIRS[4][1].encode()), list(b"a"))
    assert found[4][0] == pytest.approx(rolled, abs=1e-3)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 64, 65, 100])
def test_a_text_by_itself_has_each_token_once_with_as_much_before_it_as_fits(loaded: Loaded, length: int):
    model, text = HarnessModel(loaded), ("the cat sat on a mat. " * 5)[:length]
    tokens = list(text.encode())
    windows = list(model._windows(0, [loaded.tokenizer.bos_id], tokens))
    theirs = get_rolling_token_windows(tokens, loaded.tokenizer.bos_id, CONTEXT, 1)
    disjoint = [make_disjoint_window(window) for window in theirs]
    assert [(window.tokens[: -window.scored], window.tokens[-window.scored :]) for window in windows] == disjoint
    assert [token for window in windows for token in window.tokens[-window.scored :]] == tokens
    (found,) = model.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,)]))
    assert found == pytest.approx(windowed(loaded, tokens), abs=1e-3)


def test_likelihoods_and_texts_are_those_of_lm_evals_own_model(config, text: Path, tmp_path: Path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from tokenizers.processors import TemplateProcessing

    # It starts processes for it, which nothing here asks for.
    for name, members in {
        "accelerate": ("Accelerator", "InitProcessGroupKwargs", "find_executable_batch_size"),
        "accelerate.utils": ("get_max_memory",),
    }.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(dict.fromkeys(members))
        monkeypatch.setitem(sys.modules, name, module)
    from lm_eval.models.huggingface import HFLM

    documents = [("train", part) for part in text.read_text().split("\n\n")]
    tokenizer = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=300), documents)
    loaded = loaded_of(config, tokenizer, scale=3.0)
    export_folder(loaded.config.model, loaded.model, tokenizer, tmp_path / "model")
    library = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    # A folder of ours puts nothing in front of a text by itself.
    library.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{library.bos_token} $A", special_tokens=[(library.bos_token, library.bos_token_id)]
    )
    theirs = HFLM(
        pretrained=transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        tokenizer=library,
        add_bos_token=True,
        max_length=CONTEXT,
        batch_size=2,
    )
    theirs.logits_cache = False  # it answers wrongly where one text goes on in one token, and again in several
    ours = HarnessModel(loaded, batch=3)
    # It refuses continuations that are empty or longer than the context.
    pairs = [*PAIRS[:4], PAIRS[6], ("the bird saw our ol", "d stone house"), ("our", "old"), ("  ", "x")]
    asked = requests("loglikelihood", pairs)
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked)
    assert [total for total, _ in found] == pytest.approx([total for total, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]

    wanted = [{"max_gen_toks": 12}, {"max_gen_toks": 20, "until": ["e", "zz"]}, {"max_gen_toks": 5, "until": " "}]
    asked = requests("generate_until", [(context, how) for context, _ in pairs if context.strip() for how in wanted])
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)

    theirs.add_bos_token = False  # such a text has one anyway
    asked = requests("loglikelihood_rolling", [("the cat sat " * 30,), ("a",), (documents[0][1],)])
    assert ours.loglikelihood_rolling(asked) == pytest.approx(
        theirs.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-4
    )


def test_a_text_is_written_until_it_is_told_to_stop(loaded: Loaded):
    model, prompt = HarnessModel(loaded), [loaded.tokenizer.bos_id, *b"the cat"]
    whole = loaded.tokenizer.decode(likeliest(loaded, prompt, 12))
    assert len(whole) == 12
    stop = whole[5:7]
    wanted = [{"max_gen_toks": 12, "until": []}, {"max_gen_toks": 12, "until": [stop, "never"]}, {"max_new_tokens": 3}]
    asked = requests("generate_until", [("the cat", how) for how in wanted])
    assert model.generate_until(asked) == [whole, whole[: whole.find(stop)], whole[:3]]


def test_a_prompt_leaves_room_for_what_is_written(loaded: Loaded):
    model, words = HarnessModel(loaded), "a prompt that is longer than all of the context"
    asked = requests("generate_until", [(words, {"max_gen_toks": 10}), (words, {"max_gen_toks": CONTEXT + 8})])
    cut = likeliest(loaded, list(words.encode())[-(CONTEXT - 10) :], 10)
    moving = likeliest(loaded, list(words.encode())[-CONTEXT:], CONTEXT + 8)
    assert model.generate_until(asked) == [loaded.tokenizer.decode(ids) for ids in (cut, moving)]


def test_the_end_of_a_document_ends_what_is_written(loaded: Loaded):
    model, prompt = HarnessModel(loaded), [loaded.tokenizer.bos_id, *b"the cat"]
    ids = likeliest(loaded, prompt, 8)
    model.ends = {ids[5]}
    (found,) = model.generate_until(requests("generate_until", [("the cat", {"max_gen_toks": 8})]))
    assert found == loaded.tokenizer.decode(ids[: ids.index(ids[5])])


def test_what_is_drawn_is_the_same_each_time_and_of_what_is_likely(loaded: Loaded):
    model = HarnessModel(loaded)
    how = {"max_gen_toks": 8, "do_sample": True, "temperature": 2.0}
    asked = requests("generate_until", [("the cat", how)] * 4)
    drawn = model.generate_until(asked)
    assert drawn == model.generate_until(asked)
    assert len(set(drawn)) == 4
    best = loaded.tokenizer.decode(likeliest(loaded, [loaded.tokenizer.bos_id, *b"the cat"], 8))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"do_sample": False}):
        asked = requests("generate_until", [("the cat", how | narrow)])
        assert model.generate_until(asked) == [best]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, Writing((), 256, 0.0, None, 1.0)),
        ({"until": "\n", "max_gen_toks": None}, Writing(("\n",), 256, 0.0, None, 1.0)),
        ({"do_sample": True, "max_tokens": 5}, Writing((), 5, 1.0, None, 1.0)),
        ({"temperature": 0.5, "top_k": 3, "num_beams": 1}, Writing((), 256, 0.5, 3, 1.0)),
        ({"temperature": 0.5, "do_sample": False, "top_p": 0.9}, Writing((), 256, 0.0, None, 0.9)),
    ],
)
def test_how_a_task_wants_texts_is_read_as_lm_eval_reads_it(wanted: dict[str, Any], expected: Writing):
    assert Writing.of(wanted) == expected
