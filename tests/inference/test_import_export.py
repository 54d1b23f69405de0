"""Runs out to transformers, which predicts there what they predict here, and back: every family, tokenizer and task."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.identity import run_id
from lmexp.config.schema import RunConfig, RunInfo
from lmexp.config.scoring import Scoring
from lmexp.config.tokenizers import BPETokenizerConfig, WordPieceTokenizerConfig
from lmexp.cost.flops import count_model
from lmexp.cost.hf import describe
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.errors import UserError
from lmexp.inference.evaluate import evaluate
from lmexp.inference.generate import write
from lmexp.inference.import_export import class_named, export_run, import_run
from lmexp.inference.score import score
from lmexp.models.build import build_model
from lmexp.models.labels import LabelModel
from lmexp.runs.directory import RunDir
from lmexp.train.checkpoint import Loaded, load_final, save_final
from tests.data.test_library_files import MAKE, bert_like, texts_of

CONTEXT = 48
STACK = "hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32"
GPT2 = "n_layer: 1, n_embd: 16, n_head: 2"
FAMILIES = {
    "gpt": ["model=gpt_nano"],
    "llama": ["model=llama_nano"],
    "moe": ["model=moe_nano"],
    "bert": ["model=bert_nano"],
    "hf gpt2": ["model=hf_config", "model.model_type=gpt2", f"model.config={{{GPT2}, n_positions: {CONTEXT}}}"],
    "hf bert": [
        *("model=hf_config", "model.model_type=bert", "model.predicts=masked"),
        f"model.config={{{STACK}, max_position_embeddings: {CONTEXT}}}",
    ],
}
TASKS = ("text", "classify", "tag", "classify task.pooling=mean")
QUICK = {("gpt", "classify"), ("bert", "classify"), ("llama", "classify"), ("hf bert", "tag")}
"""Heads over labels of each kind; the others are tested with the slow tests."""
CASES = [
    pytest.param(
        *(family, task, tuple(MAKE)[(i + j) % len(MAKE)]),  # each family with several tokenizers, and the reverse
        marks=() if task == "text" or (family, task) in QUICK else pytest.mark.slow,
    )
    for i, family in enumerate(FAMILIES)
    for j, task in enumerate(TASKS)
    if "mean" not in task or family in ("gpt", "bert")
]
LEARNED = {
    "bpe": BPETokenizerConfig(kind="bpe", vocab_size=300),
    "wordpiece": WordPieceTokenizerConfig(kind="wordpiece", vocab_size=101),
}


def finished_run(family: str, task: str, tokenizer: Tokenizer, outputs: Path, *words: str) -> RunDir:
    """A run with weights that nobody trained, but large enough for a wrong position or mask to show."""
    size = [] if family.startswith("hf") else ["model.d_model=16", "model.n_layers=1"]
    encodes = "bert" in family
    predicts = ["task=masked_lm" if encodes else "task=causal_lm"]
    chosen = predicts if task == "text" else [*f"task={task}".split(), "task.labels=[O,B-A,I-A]"]
    rows = max(tokenizer.vocab_size, 1 + (tokenizer.own_mask_id or 0) if task == "text" and encodes else 0)
    sizes = [f"model.context={CONTEXT}", f"model.vocab_size={rows}", f"batch.tokens={CONTEXT}"]
    config = Composer(paths.search_roots(), words=[*FAMILIES[family], *size, *chosen, *sizes, *words]).config({})
    return kept(config, tokenizer, outputs)


def kept(config: RunConfig, tokenizer: Tokenizer, outputs: Path, target: Tokenizer | None = None) -> RunDir:
    """Keep a run of a config as training does at its end."""
    model = build_model(config.model, 0, config.task).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    config = config.model_copy(update={"run": RunInfo(id=run_id(config), sweep="made", slug="t")})
    run = RunDir.create(outputs / "made" / f"t-{run_id(config)}", config)
    save_final(run, model, config, tokenizer, target)
    run.update_state(state="done")
    return run


def of_texts(logits: torch.Tensor, valid: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return the logits of texts by those of their tokens, as the export says that they are read."""
    lengths = valid.sum(1)
    whole = (logits * valid[..., None]).sum(1) / lengths[:, None]
    return {"first": logits[:, 0], "last": logits[torch.arange(len(logits)), lengths - 1], "mean": whole}[pooling]


@cache
def exported(family: str, task: str, kind: str) -> tuple[Loaded, Path, list[str]]:
    """Return a run, the folder that it was exported to, and what the export said."""
    outputs, said = Path(mkdtemp()), list[str]()
    run = finished_run(family, task, MAKE[kind](), outputs)
    return load_final(run), export_run(str(run.path), outputs / "folder", outputs, said.append), said


@cache
def from_transformers(folder: Path) -> tuple[Any, str, Any]:
    """Return the model that transformers loads, nothing missing, its class there, and the tokenizer."""
    import transformers

    name = class_named(folder)
    assert hasattr(transformers, name)
    heads = ("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM")
    auto = f"AutoModel{next((head for head in heads if name.endswith(head)), 'ForCausalLM')}"
    model, told = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not any(told[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), auto, transformers.AutoTokenizer.from_pretrained(folder)


@cache
def imported(folder: Path) -> Loaded:
    return load_final(import_run(folder, folder.parent))


@pytest.mark.parametrize(("family", "task", "kind"), CASES)
@settings(max_examples=4)
@given(data=st.data())
@torch.no_grad()
def test_an_export_predicts_in_transformers_what_the_run_does(family: str, task: str, kind: str, data: st.DataObject):
    texts = data.draw(st.lists(texts_of(kind).filter(str.strip), min_size=2, max_size=3))
    loaded, folder, said = exported(family, task, kind)
    theirs, auto, tokenizer = from_transformers(folder)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    tokens, valid = batch["input_ids"], batch["attention_mask"].bool()
    for row, text in enumerate(texts):
        ids = [loaded.tokenizer.bos_id, *loaded.tokenizer.encode(text).tolist()][:CONTEXT]
        assert tokens[row][valid[row]].tolist() == ids
    ours, logits = loaded.model(tokens, valid=valid), theirs(**batch).logits
    pooling = loaded.model.pooling if isinstance(loaded.model, LabelModel) else None
    is_by_token = pooling is not None and auto == "AutoModelForTokenClassification"
    assert len(said) == is_by_token  # how a text's label is read off
    if is_by_token:
        logits = of_texts(logits, valid, pooling)
    if pooling is None:
        ours, logits = ours[valid], logits[valid]
    torch.testing.assert_close(logits, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "task", "kind"), CASES)
def test_an_export_comes_back_as_the_same_model_or_is_refused_by_its_reason(family: str, task: str, kind: str):
    loaded, folder, _ = exported(family, task, kind)
    if isinstance(loaded.model, LabelModel):
        assert from_transformers(folder)[0].config.id2label == {0: "O", 1: "B-A", 2: "I-A"}
        with pytest.raises(UserError, match="holds a head over labels"):
            imported(folder)
        return
    back, text = imported(folder), "the cat sat on a hat"
    assert back.tokenizer.encode(text).tolist() == loaded.tokenizer.encode(text).tolist()
    mask = loaded.tokenizer.own_mask_id if back.config.model.reads == "both_ways" else None
    assert back.tokenizer.bos_id == loaded.tokenizer.bos_id and mask in (None, back.tokenizer.own_mask_id)
    assert score(back, text).log_probability == pytest.approx(score(loaded, text).log_probability, abs=1e-3)
    again = export_run("imported/folder", folder.with_name("again"), folder.parent)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((again / name).read_text()) == json.loads((folder / name).read_text())


@pytest.mark.parametrize(("family", "kind"), [("gpt", "bpe"), ("bert", "wordpiece")])
def test_out_to_transformers_and_back_it_has_the_same_quality(family: str, kind: str, text: Path, tmp_path: Path):
    words = ["data=text", f"data.path={text}", "data.document=paragraph"]
    tokenizer = build_tokenizer(LEARNED[kind], [("train", text.read_text())])
    run = finished_run(family, "text", tokenizer, tmp_path)
    expected = evaluate(str(run.path), words, tmp_path, scoring=Scoring(name="x"))["scores"]
    folder = export_run(str(run.path), tmp_path / "model", tmp_path)
    theirs = evaluate(f"hf:{folder}", words, tmp_path, scoring=Scoring(name="x"))["scores"]
    back = import_run(folder, tmp_path)
    again = evaluate(str(back.path), words, tmp_path, scoring=Scoring(name="x"))["scores"]
    assert theirs["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert again["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert import_run(folder, tmp_path).path == back.path
    row, made = back.read_record()[0], run.read_config()
    assert row["loss"] is None and row["n_params"] == count_model(made.model, made.task).n_params


def test_an_imported_character_model_names_the_character_that_it_does_not_know(tmp_path: Path):
    run = finished_run("gpt", "text", MAKE["char"](), tmp_path)
    folder = export_run(str(run.path), tmp_path / "model", tmp_path)
    back = load_final(import_run(folder, tmp_path))
    assert score(back, "the cat").tokens == 7
    for use in (lambda: score(back, "the Жcat"), lambda: back.tokenizer.encode_words([["the", "Ж"]])):
        with pytest.raises(UserError, match=r"this tokenizer does not know the character 'Ж'"):
            use()


def test_a_pretrained_model_gets_its_tokenizer_back_as_it_came_unless_its_head_is_new(tmp_path: Path):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = bert_like(tmp_path / "theirs")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=tokenizer.vocab_size, **shape)).save_pretrained(tmp_path / "theirs")
    words = ["model=hf_pretrained", f"model.pretrained={tmp_path}/theirs"]
    words += ["model.predicts=masked", f"model.context={CONTEXT}"]
    for task, expected in (("task=masked_lm", ["[CLS]", "the", "[SEP]"]), ("task=tag", ["[CLS]", "the"])):
        labels = ["task.labels=[O,B-A]"] if task == "task=tag" else []
        config = Composer(paths.search_roots(), words=[*words, task, *labels]).config({})
        known = config.model.model_copy(update={"fingerprint": "x"})  # as when the config is resolved
        run = kept(config.model_copy(update={"model": describe(known)}), tokenizer, tmp_path)
        theirs = AutoTokenizer.from_pretrained(export_run(str(run.path), tmp_path / task, tmp_path))
        assert theirs.convert_ids_to_tokens(theirs("the")["input_ids"]) == expected
        assert (theirs.pad_token, theirs.sep_token) == ("[PAD]", "[SEP]")


@pytest.mark.parametrize("target", [None, "char"])
def test_a_fresh_seq2seq_model_writes_there_what_it_writes_here(target: str | None, tmp_path: Path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    shape = "{d_model: 16, num_layers: 1, num_heads: 2, d_kv: 8, d_ff: 32}"
    words = ["model=hf_config", "model.model_type=t5", "model.predicts=seq2seq", f"model.config={shape}"]
    source_tokenizer, target_tokenizer = MAKE["byte"](), MAKE[target]() if target else None
    config = Composer(paths.search_roots(), words=[*words, f"model.context={CONTEXT}", "task=seq2seq"]).config({})
    sizes = [tokenizer.vocab_size for tokenizer in (target_tokenizer or source_tokenizer, source_tokenizer)]
    config = config.model_copy(update={"model": config.model.with_vocabularies(*sizes)})
    assert config.model.vocab_size == max(sizes)
    run = kept(config, source_tokenizer, tmp_path, target_tokenizer)
    loaded, folder = load_final(run), export_run(str(run.path), tmp_path / "model", tmp_path)
    theirs, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    writer = AutoTokenizer.from_pretrained(folder / "target_tokenizer") if target else tokenizer
    for source in ("the cat", "a mat"):
        assert tokenizer(source)["input_ids"] == list(source.encode())  # a source begins with no token of documents
        ids = theirs.generate(**tokenizer(source, return_tensors="pt"), max_new_tokens=12, do_sample=False)[0]
        assert writer.decode(ids, skip_special_tokens=True) == "".join(write(loaded, source, 12))
