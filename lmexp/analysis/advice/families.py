"""Which model family suits a purpose, with the reason and its source, and what a study's own runs say about it.

The reasons are general and come from the literature. The numbers come from a study: the best setting of each family, by
the mean over its seeds, at matched cost, which is the largest number of FLOPs that every family has a run for. The
ranking's test (effects/ranking.py) says which families are tied. If no setting has two finished seeds, the noise is
unknown, and it is the best run of each family.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.effects.more_seeds import about_unknown_noise
from lmexp.analysis.effects.noise import LEVEL
from lmexp.analysis.effects.pairing import axis_values
from lmexp.analysis.effects.ranking import Ranking, ranking
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.rankable import obstacles
from lmexp.analysis.table import Study
from lmexp.errors import UserError, nearest
from lmexp.runs.columns import column, higher_is_better
from lmexp.units import listed


@dataclass(frozen=True)
class Suggestion:
    """A family and the reason why it suits a purpose."""

    family: str
    why: str
    source: str


@dataclass(frozen=True)
class Purpose:
    """Something that a model is used for."""

    name: str
    words: tuple[str, ...]
    """Other words for it that people may type."""
    what: str
    task: str
    """The task in conf/task that trains for it."""
    qualities: tuple[str, ...]
    """Columns to judge it by; the first one that a study has is used."""
    families: tuple[Suggestion, ...]
    """In order of preference."""
    command: str
    """A run that works without downloading or preparing any file."""
    sweep: str
    """A shipped sweep that compares families for it."""


_LSTM = Suggestion(
    "lstm",
    "its state does not grow with the text, so memory and the time of a token stay the same: where these are tight. "
    "Transformers use the far context better",
    "Zaremba et al. 2014; Kaplan et al. 2020, figure 7",
)
_MINGRU = Suggestion(
    "mingru",
    "a small state that does not grow with the text, as the LSTM's, and it trains in parallel as a Transformer does",
    "Feng et al. 2024",
)
PURPOSES = (
    Purpose(
        "generating",
        ("generate", "writing", "completion", "continuing", "chat", "code"),
        "continuing a text",
        "causal_lm",
        ("loss",),
        (
            Suggestion(
                "llama",
                "reads left to right as it writes; rotary positions, RMSNorm, SwiGLU, grouped heads for a small cache",
                "Touvron et al. 2023; Shazeer 2020; Ainslie et al. 2023",
            ),
            Suggestion(
                "gpt",
                "the same with learned positions and GELU: the plainest, and simple to run anywhere",
                "Radford et al. 2019",
            ),
            Suggestion(
                "moe",
                "more parameters at the same FLOPs a token: where memory is plenty and compute is not",
                "Shazeer et al. 2017; Jiang et al. 2024",
            ),
            _LSTM,
            _MINGRU,
        ),
        "lmexp train model=llama_nano",
        "families",
    ),
    Purpose(
        "judging",
        ("judge", "classifying", "sentiment", "verdict", "plausibility", "scoring"),
        "a verdict on a whole text: sentiment, topic, right or wrong",
        "classify",
        ("score/classify/f1_macro", "accuracy"),
        (
            Suggestion(
                "bert",
                "sees the text from both sides at once; pretrained as a masked model, then given a small head",
                "Devlin et al. 2018, sections 3 and 4.1",
            ),
            Suggestion(
                "gpt",
                "where one model is to write too, or a pretrained one is at hand; it sees each word from the left only",
                "Radford et al. 2018, section 3.2",
            ),
            _LSTM,
        ),
        "lmexp train model=bert_nano task=classify data=sentiment tokenizer=byte",
        "bert_vs_gpt",
    ),
    Purpose(
        "labelling",
        ("label", "tagging", "ner", "entities", "roles", "pos"),
        "a label for each word: entities, roles, parts of speech",
        "tag",
        ("score/tag/span_f1", "accuracy"),
        (
            Suggestion(
                "bert",
                "a word's label often hangs on what follows it, and an encoder sees that",
                "Devlin et al. 2018, section 5.3",
            ),
            Suggestion(
                "gpt",
                "where a pretrained one is at hand; it labels a word before it has seen the next",
                "Radford et al. 2018",
            ),
            _LSTM,
        ),
        "lmexp train model=bert_nano task=tag data=roles tokenizer=byte",
        "tagging",
    ),
    Purpose(
        "translating",
        ("translate", "translation", "summarising", "summarizing", "rewriting", "pairs"),
        "another text for a text: translation, summary, correction",
        "seq2seq",
        ("score/seq2seq/bleu", "score/seq2seq/chrf", "loss"),
        (
            Suggestion(
                "encdec",
                "an encoder reads the whole source, and every step of the decoder attends to it",
                "Vaswani et al. 2017; Raffel et al. 2020, table 2",
            ),
            Suggestion(
                "lstm_encdec",
                "two LSTMs with attention between them, what Transformers replaced: the baseline to beat",
                "Luong et al. 2015; Vaswani et al. 2017, table 2",
            ),
            Suggestion(
                "hf",
                "a pretrained encoder-decoder (T5, BART, Marian): pairs are expensive, and pretraining saves many",
                "Raffel et al. 2020; Lewis et al. 2020",
            ),
        ),
        "lmexp train model=encdec_nano model.context=16 task=seq2seq data=reverse tokenizer=char batch.tokens=1024",
        "translation",
    ),
    Purpose(
        "filling",
        ("fill", "masked", "pretraining", "representing", "embedding"),
        "words that are missing from a text; the pretraining of encoders",
        "masked_lm",
        ("loss",),
        (
            Suggestion(
                "bert", "trained on just that: a masked word from both its sides", "Devlin et al. 2018, section 3.1"
            ),
            Suggestion(
                "hf",
                "a pretrained encoder: it has seen more text than most can pay for",
                "Liu et al. 2019; Warner et al. 2024",
            ),
        ),
        "lmexp train model=bert_nano task=masked_lm tokenizer=byte",
        "families",
    ),
)


def purpose_of(word: str) -> Purpose:
    """Return the purpose that a word stands for. Raises UserError, with the nearest word, if it is unknown."""
    wanted = word.strip().lower()
    for purpose in PURPOSES:
        if wanted in (purpose.name, purpose.task, *purpose.words):
            return purpose
    known = [name for purpose in PURPOSES for name in (purpose.name, *purpose.words)]
    names = ", ".join(purpose.name for purpose in PURPOSES)
    raise UserError(f"--for {word}: {names}.{nearest(wanted, known)}")


def guide(purpose: Purpose, study: Study | None = None) -> dict[str, Any]:
    """Return the suggested families for a purpose, and the evidence of a study under `study`; null without a study."""
    return {
        "for": purpose.name,
        "what": purpose.what,
        "task": purpose.task,
        "families": [asdict(family) for family in purpose.families],
        "command": purpose.command,
        "sweep": purpose.sweep,
        "study": None if study is None else _evidence(purpose, study),
    }


def _evidence(purpose: Purpose, study: Study) -> dict[str, Any]:
    """Return the best setting of each family at matched cost, the best first; `families` is empty if no run qualifies.

    Of a setting, the quality is the mean over its `seeds`, and the other columns are those of its first run. `p_holm`
    compares it with the first family, and `tied` says what follows. `obstacle` says why the runs do not compare; it is
    null if they do. `noise_unknown` says what it takes to know the noise; without it, families have their best run.
    """
    part = study.of_task(purpose.task)
    done = part.table[is_done(part.table)]
    flops = numbers(done, "train_flops")
    empty: dict[str, Any] = {"name": study.name, "rows": 0, "quality": None, "most_flops": None, "families": []}
    empty |= {"obstacle": None, "noise": None, "noise_unknown": [], "test": None}
    quality = _quality(purpose, part, done)
    if quality is None:
        return empty
    if reasons := obstacles(done, quality):
        return empty | {"rows": len(done), "obstacle": reasons[0]}
    families = done["family"].fillna("").astype(str).to_numpy()
    known = np.isfinite(numbers(done, quality)) & np.isfinite(flops)
    if not known.any():
        return empty
    most = min(float(flops[known & (families == name)].max()) for name in sorted(set(families[known])))
    matched = part.of_rows(part.table.index.isin(done.index[known & (flops <= most * (1 + 1e-9))]))
    ranked = ranking(matched, quality, "train_flops")
    best = _best_runs(matched.table, quality) if ranked is None else _best_settings(matched, quality, ranked)
    evidence: dict[str, Any] = {"quality": quality, "most_flops": most, "families": best, "test": None}
    if ranked is None:
        evidence["noise_unknown"] = about_unknown_noise(part, quality, "train_flops")
    else:
        evidence["test"] = ranked.test_in_words
        evidence["noise"] = {"sd": ranked.noise.sd, "df": ranked.noise.df}
    return empty | {"rows": int(known.sum())} | evidence


SHOWN = ("slug", "model", "precision", "n_params", "tokens", "train_flops", "train_seconds", "peak_memory_gb")
"""Columns of a family's run."""


def _best_runs(table: pd.DataFrame, quality: str) -> list[dict[str, Any]]:
    """Return the best run of each family, the best first."""
    ordered = table.sort_values(quality, ascending=not higher_is_better(quality), kind="stable")
    best = ordered.assign(family=ordered["family"].fillna("")).drop_duplicates("family")
    alone = {"setting": None, "seeds": 1, "p_holm": None, "tied": None}
    return [_of_run(row, quality, float(row[quality])) | alone for _, row in best.iterrows()]


def _best_settings(study: Study, quality: str, ranked: Ranking) -> list[dict[str, Any]]:
    """Return the best setting of each family, the best first, with its p value against the first."""
    rows = [study.table.loc[arm.rows[0]] for arm in ranked.arms]
    names = ["" if pd.isna(row["family"]) else str(row["family"]) for row in rows]
    at = np.array([names.index(name) for name in dict.fromkeys(names)])
    p = [None, *map(float, ranked.adjusted_p(at[1:], np.zeros_like(at[1:])))]
    judged = [None if value is None or study.looks else value for value in p]
    return [
        _of_run(rows[i], quality, ranked.arms[i].quality.mean)
        | {"setting": ranked.arms[i].name, "seeds": ranked.arms[i].quality.n}
        | {"p_holm": value, "tied": None if value is None else value > LEVEL}
        for i, value in zip(at, judged, strict=True)
    ]


def _of_run(row: pd.Series, quality: str, value: float) -> dict[str, Any]:
    family = "" if pd.isna(row["family"]) else str(row["family"])
    return {"family": family, quality: value} | dict(zip(SHOWN, axis_values(row[[*SHOWN]]), strict=True))


def _quality(purpose: Purpose, study: Study, done: Any) -> str | None:
    """Return the column to judge the rows of this task by; None if no row has one."""
    for name in purpose.qualities:
        fair = "bits_per_byte" if name == "loss" and not study.has_one_tokenizer else name
        if fair in done and np.isfinite(numbers(done, fair)).any():
            return fair
    return None


def sentences(advice: Mapping[str, Any]) -> list[str]:
    """Return the study's evidence as sentences."""
    study = advice["study"]
    if study is None:
        return [
            f"No study was given: `lmexp sweep {advice['sweep']}` makes rows, `lmexp advise NAME --for ...` reads them."
        ]
    if study["obstacle"]:
        return [f"{study['name']} compares no families: {study['obstacle']}"]
    if not study["families"]:
        return [
            f"{study['name']} has no finished run of the task {advice['task']}: `lmexp sweep {advice['sweep']}` would."
        ]
    if len(study["families"]) == 1:
        return [f"{study['name']} has only {study['families'][0]['family']} for this, so it compares no families."]
    first, *others = study["families"]
    named, mean = column(study["quality"]).title, "" if study["noise"] is None else "mean "
    said = f"{study['name']}: at the same FLOPs {first['family']} has the best {mean}{named}, of {study['rows']} rows."
    each = "setting" if study["noise"] else "run"
    last = f"Each family by its best {each}: another learning rate or size may turn a small difference."
    if study["noise"] is None or others[0]["tied"] is None:
        return [said, *study["noise_unknown"], last]
    tied, apart = ([one["family"] for one in others if one["tied"] is is_tied] for is_tied in (True, False))
    judged = [f"Within noise of it: {listed(tied)} ({study['test']})."] if tied else []
    judged += [f"Worse by more than seeds explain: {listed(apart)} ({study['test']})."] if apart else []
    return [said, *judged, last]
