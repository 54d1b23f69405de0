"""Seq2seq: what the loss is of, what is written, and how that is scored."""

import math

import pytest
import torch

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig
from lmexp.models.build import build_model
from lmexp.tasks.base import IGNORED
from lmexp.tasks.seq2seq import Seq2Seq
from lmexp.tasks.texts import WORD, details, scores
from tests.models.test_encdec import SOURCES, TARGETS, model_of, tiny

EOS = 30


def task_of(dropout: float = 0.0, **options: object) -> Seq2Seq:
    words = ["task=seq2seq", *(f"task.{key}={value}" for key, value in options.items())]
    config: RunConfig = Composer(paths.search_roots(), words=words).config({})
    return Seq2Seq(model_of(tiny(dropout=dropout)), config)


def batch_of(lengths: list[int], seed: int = 3) -> dict[str, torch.Tensor]:
    """Pairs of which the i-th target has lengths[i] tokens, the end token included."""
    dice = torch.Generator().manual_seed(seed)
    tokens = torch.randint(30, (len(lengths), TARGETS), generator=dice)
    there = torch.arange(TARGETS) < torch.tensor(lengths)[:, None]
    last = torch.arange(TARGETS) == torch.tensor(lengths)[:, None] - 1
    targets = tokens.masked_fill(last, EOS)
    return {
        "sources": torch.randint(19, (len(lengths), SOURCES), generator=dice),
        "source_valid": torch.arange(SOURCES) < torch.randint(1, SOURCES + 1, (len(lengths), 1), generator=dice),
        "inputs": torch.cat([torch.full((len(lengths), 1), EOS), targets[:, :-1]], 1),
        "targets": targets.masked_fill(~there, IGNORED),
        "step_targets": torch.tensor(float(sum(lengths))),
    }


def nll_by_hand(task: Seq2Seq, batch: dict[str, torch.Tensor]) -> list[float]:
    """Minus the log-probability of each target token, pair by pair, without padding."""
    each = []
    for row, targets in enumerate(batch["targets"]):
        count = int((targets != IGNORED).sum())
        source = batch["sources"][row : row + 1, batch["source_valid"][row]]
        log_p = task.model(source, None, batch["inputs"][row : row + 1, :count])[0].log_softmax(-1)
        each += (-log_p[torch.arange(count), targets[:count]]).tolist()
    return each


@torch.no_grad()
def test_the_loss_is_that_of_each_target_given_its_source_and_what_came_before():
    task, batch = task_of(), batch_of([7, 2, 4])
    expected = nll_by_hand(task, batch)
    assert float(task.training_step(batch, 0)) == pytest.approx(sum(expected) / 13, rel=1e-5)
    quality = task.evaluate([batch], None)
    assert quality.tokens == 13 and quality.loss == pytest.approx(sum(expected) / 13, rel=1e-5)


@torch.no_grad()
def test_label_smoothing_is_in_the_training_loss_and_not_in_the_validation_loss():
    plain, smooth, batch = task_of(), task_of(label_smoothing=0.1), batch_of([7, 2, 4])
    logits, targets = plain.predict(batch)
    log_p = logits[targets != IGNORED].double().log_softmax(-1)
    uniform = -log_p.mean(-1).sum() / 13
    expected = 0.9 * float(plain.training_step(batch, 0)) + 0.1 * float(uniform)
    assert float(smooth.training_step(batch, 0)) == pytest.approx(expected, rel=1e-5)
    assert smooth.evaluate([batch], None) == plain.evaluate([batch], None)


# writing


def test_what_is_written_does_not_depend_on_the_targets_and_leaves_the_task_in_training():
    task, batch = task_of(dropout=0.5).train(), batch_of([7, 2, 4])
    first = task.generate(batch, EOS, TARGETS)
    others = batch | {"targets": torch.full_like(batch["targets"], IGNORED)}
    others["inputs"] = torch.cat([batch["inputs"][:, :1], torch.zeros_like(batch["inputs"][:, 1:])], 1)
    assert task.generate(others, EOS, TARGETS) == first
    assert task.training and len(first) == 3 and all(len(target) <= TARGETS for target in first)


def test_a_longer_search_finds_likelier_targets():
    greedy, wide = task_of(), task_of(beams=8, length_penalty=0.0)
    batch = batch_of([2] * 12)
    found = [task.generate(batch, EOS, 5) for task in (greedy, wide)]
    assert found[0] != found[1]

    def log_p(targets: list[list[int]]) -> float:
        total = 0.0
        for row, target in enumerate(targets):
            whole = [*target, EOS][:5]
            source = batch["sources"][row : row + 1, batch["source_valid"][row]]
            scores = greedy.model(source, None, torch.tensor([[EOS, *whole[:-1]]]))[0].log_softmax(-1)
            total += float(scores[torch.arange(len(whole)), whole].sum())
        return total

    with torch.no_grad():
        assert log_p(found[1]) > log_p(found[0])


@pytest.mark.slow
def test_a_trained_model_writes_what_it_was_taught():
    """Reversing, which needs the source, the order of it, and an end."""
    config = Composer(paths.search_roots(), words=["task=seq2seq"]).config({})
    task = Seq2Seq(build_model(tiny(d_model=48, d_ff=96, vocab_size=31), 0), config)
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    dice = torch.Generator().manual_seed(0)

    def pairs(count: int) -> dict[str, torch.Tensor]:
        lengths = torch.randint(1, 5, (count, 1), generator=dice)
        valid = torch.arange(SOURCES) < lengths
        sources = torch.randint(1, 6, (count, SOURCES), generator=dice) * valid
        ends = torch.arange(TARGETS)
        reverse = sources.gather(1, (lengths - 1 - ends).clamp(min=0))
        targets = torch.where(ends < lengths, reverse, torch.where(ends == lengths, EOS, IGNORED))
        inputs = torch.cat([torch.full((count, 1), EOS), targets[:, :-1]], 1).clamp(min=0)
        batch = {"sources": sources, "source_valid": valid, "inputs": inputs, "targets": targets}
        return batch | {"step_targets": (targets != IGNORED).sum()}

    for _ in range(600):
        optimizer.zero_grad()
        task.training_step(pairs(64), 0).backward()
        optimizer.step()
    batch = pairs(50)
    expected = [[token for token in row.tolist() if token not in (EOS, IGNORED)] for row in batch["targets"]]
    right = sum(a == b for a, b in zip(task.generate(batch, EOS, TARGETS), expected, strict=True))
    assert right >= 45


# scoring


def test_bleu_is_the_geometric_mean_of_the_shares_of_n_grams():
    # Of 5 words 4 are right, of 4 pairs 3, of 3 triples 2, of 2 quadruples 1: (4/5 3/4 2/3 1/2)^(1/4).
    assert scores(["a b c d e"], ["a b c d f"])["bleu"] == pytest.approx(100 * 0.2**0.25)
    # Shorter by one word of six: the brevity penalty exp(1 - 6/5), all n-grams right.
    assert scores(["a b c d e"], ["a b c d e f"])["bleu"] == pytest.approx(100 * math.exp(-1 / 5))


def test_chrf_is_the_papers_weighted_mean_of_precision_and_recall():
    # Characters of "abc" against "abd": 2/3, pairs 1/2, triples 0; longer n-grams there are none of. Precision and
    # recall are the same, so F is their mean over the orders: (2/3 + 1/2 + 0) / 3.
    assert scores(["abc"], ["abd"])["chrf"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 3)


def test_rouge_is_the_value_that_its_package_documents():
    # torchmetrics' own example: 3 of 4 words, no pair, a longest common subsequence of 2.
    rouge = scores(["My name is John"], ["Is your name John"])
    assert (rouge["rouge1"], rouge["rouge2"], rouge["rougeL"]) == (0.75, 0.0, 0.5)


TEXTS = ["The cat sat on the mat.", "it's a trap -- 42 times", "He said: never again, never!", "Nothing at all"]
REFERENCES = ["The cat sat upon a mat.", "It's a trap, 42 times!", "He said never, ever again.", "all at nothing"]


def test_the_packages_own_numbers_are_passed_on():
    import sacrebleu
    from torchmetrics.functional.text.rouge import rouge_score

    ours = scores(TEXTS, REFERENCES)
    assert ours["bleu"] == sacrebleu.corpus_bleu(TEXTS, [REFERENCES]).score
    assert ours["chrf"] == sacrebleu.corpus_chrf(TEXTS, [REFERENCES]).score
    names = ("rouge1", "rouge2", "rougeL")
    theirs = rouge_score(TEXTS, REFERENCES, rouge_keys=names)
    assert [ours[name] for name in names] == [theirs[f"{name}_fmeasure"].item() for name in names]
    assert 0 < ours["bleu"] < 100 and 0 < ours["rouge2"] < 1


def test_a_text_equal_to_its_reference_is_an_exact_match_whatever_surrounds_it():
    assert scores(["one", " two\n", "Three", ""], ["one", "two", "three", ""])["exact_match"] == 0.75


def test_texts_equal_to_their_references_have_the_highest_scores():
    perfect = {"bleu": 100, "chrf": 100, "rouge1": 1, "rouge2": 1, "rougeL": 1, "exact_match": 1}
    assert scores(REFERENCES, REFERENCES) == pytest.approx(perfect)


@pytest.mark.parametrize("texts", [["", "", "", ""], ["  ", "\n", " \t", ""]])
def test_empty_texts_score_nothing(texts: list[str]):
    assert scores(texts, REFERENCES) == dict.fromkeys(("bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match"), 0)


def test_an_empty_text_among_others_counts_as_one():
    some = scores(["", *REFERENCES[1:]], REFERENCES)
    assert some["rouge1"] == some["exact_match"] == 0.75 and 0 < some["bleu"] < 100


def test_chinese_is_scored_by_its_characters():
    text, reference = "今天的天气非常好。", "今天天气非常好。"
    found = scores([text], [reference])
    # One of 9 characters is too many, the full stop among them; it is in 2 of 8 pairs, 3 of 7 triples, 3 of 6 fours.
    assert found["bleu"] == pytest.approx(100 * (8 / 9 * 6 / 8 * 4 / 7 * 3 / 6) ** 0.25)
    # ROUGE leaves punctuation out: 7 characters of 8 and of 7, and the same in order.
    assert found["rouge1"] == found["rougeL"] == pytest.approx(2 * 7 / (8 + 7))
    assert "tok:zh" in details([reference])["bleu"]
    assert "tok:13a" in details(["mostly English, with 中文 in it"])["bleu"]


@pytest.mark.parametrize(
    ("reference", "near"),
    [
        ("あしたはあめがふるでしょう", "あしたはあめがふるでしよう"),
        ("東京の天気は雨です", "東京の天気は雪です"),
        ("ฉันชอบอ่านหนังสือมาก", "ฉันชอบอ่านหนังสือ"),
        ("ຂ້ອຍມັກອ່ານປຶ້ມ", "ຂ້ອຍມັກອ່ານ"),
        ("ខ្ញុំចូលចិត្តអានសៀវភៅ", "ខ្ញុំចូលចិត្តអាន"),
        ("ကျွန်တော်စာဖတ်ရတာကြိုက်တယ်", "ကျွန်တော်စာဖတ်ရတာ"),
    ],
)
def test_scripts_without_spaces_are_scored_by_their_characters(reference: str, near: str):
    equal, close = scores([reference], [reference]), scores([near], [reference])
    assert equal["bleu"] == pytest.approx(100) and equal["rouge1"] == equal["rouge2"] == equal["rougeL"] == 1.0
    assert 30 < close["bleu"] < 100 and 0.5 < close["rouge1"] < 1 and 0.3 < close["rouge2"] < 1
    assert "tok:char" in details([reference])["bleu"]
    assert "tok:13a" in details([f"mostly English words, with {reference[:6]}"])["bleu"]


def test_a_few_kana_do_not_make_a_chinese_text_japanese():
    assert "tok:zh" in details(["今天天气非常好，我们去买一些東西の店"])["bleu"]


def test_vowels_above_and_below_belong_to_their_letter_for_rouge():
    assert WORD.findall("กี่ ที่๒") == ["กี่", "ที่", "๒"]
    assert WORD.findall("ラーメン・2つ。") == ["ラ", "ー", "メ", "ン", "2", "つ"]


def test_words_with_accents_and_of_other_alphabets_stay_whole_for_rouge():
    assert scores(["über привет"], ["uber привет"])["rouge1"] == 0.5


def test_vowel_signs_are_part_of_a_word_for_rouge():
    assert scores(["हिंदी"], ["हदा"])["rouge1"] == 0.0  # the same letters between other signs
    assert scores(["मैं हिंदी बोलता हूँ"], ["मैं उर्दू बोलता हूँ"])["rouge1"] == 0.75
    assert WORD.findall("हिंदी, ভাষা... தமிழ்! עִבְרִית") == ["हिंदी", "ভাষা", "தமிழ்", "עִבְרִית"]


def test_an_accent_counts_the_same_in_both_of_its_spellings_for_rouge():
    from unicodedata import normalize

    composed, apart = (normalize(form, "naïve Café") for form in ("NFC", "NFD"))
    assert composed != apart
    assert scores([apart], [composed])["rouge2"] == scores([composed], [apart])["rouge2"] == 1.0
    assert scores([apart], ["nave café"])["rouge1"] == 0.5
    assert WORD.findall("m\u0304o\u0302t x\u0332_y") == ["m\u0304o\u0302t", "x\u0332", "y"]  # not all have a letter


def test_a_mark_without_a_letter_is_no_word_for_rouge():
    assert WORD.findall("I \u2764\ufe0f 4 \u0301 中\ufe00文") == ["I", "4", "中", "文"]


def test_details_name_the_packages_settings_and_version():
    said = details(REFERENCES)
    assert said["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert said["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


@pytest.mark.parametrize(("texts", "references"), [([], []), (["a"], []), (["a"], ["b", "c"])])
def test_texts_without_their_references_are_refused(texts: list[str], references: list[str]):
    with pytest.raises(ValueError, match="cannot be scored"):
        scores(texts, references)
