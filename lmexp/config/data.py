"""Data configs: where text comes from, and how it is cleaned and split."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lmexp.config.base import BY_ORIGIN, OUTSIDE, SHIPPED, Count, OutsideSection, Section, Seed
from lmexp.errors import nearest

Holds = Literal["text", "pairs", "labels", "tags"]
"""What a source holds: documents; pairs of texts; texts with one label each; sentences with a tag for each word."""

Scheme = Literal["iob2", "iob1", "bioes", "bilou", "bmes", "words"]
"""How tags are written; see data/tag_schemes.py."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
"""Training; validation, which is scored while a run trains and by which runs are compared; and test, which is scored
once, at the end."""

PATH_KEYS: dict[str, Split] = {
    "path": "train",
    "target_path": "train",
    "validation_path": "validation",
    "validation_target_path": "validation",
    "test_path": "test",
    "test_target_path": "test",
}
"""The keys that name local files, each with the split that they hold."""


def _as_name(value: Any) -> Any:
    """A column may be called, or be, a number, which YAML and the command line take for one."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ColumnName = Annotated[str, BeforeValidator(_as_name)]


PII_KINDS = ("email", "ip", "phone", "key")
"""Kinds of personal data that lmexp finds itself; see data/pii.py."""


class CleanConfig(Section):
    """What is done to every text before it is split or tokenised, in this order. By default nothing is."""

    unicode: Literal["nfc", "nfkc"] | None = None
    """Unicode normal form (Unicode Standard Annex 15); nfkc also folds what merely looks different."""
    pii: Annotated[list[str], Field(min_length=1)] | None = None
    """Personal data and secrets to find: `email`, `ip`, `phone`, `key`, or entities of presidio such as
    `CREDIT_CARD`."""
    pii_mode: Literal["mask", "remove", "drop"] = "mask"
    """mask: `[EMAIL]` replaces an address; remove: the address is deleted; drop: the whole text is left out."""
    pii_region: str | None = None
    """A country by its two letters, such as `US`: its phone numbers are found without the country code too."""
    pii_model: str | None = None
    """An installed spaCy pipeline, such as `en_core_web_sm`, with which presidio finds names (`PERSON`)."""
    lowercase: bool = False
    stop_words: str | None = None
    """Words to leave out: `english`, `chinese`, or a file with one a line."""
    segment: Literal["jieba"] | None = None
    """What cuts Chinese texts into words, of which stop words are then removed whole; null: they are removed wherever
    their characters occur, also inside other words."""
    stop_words_fingerprint: str | None = None
    """Hash of that file's content, filled in when the config is resolved; stands for its path in identities."""
    min_characters: Count | None = None
    """Shorter documents are left out."""
    max_characters: Count | None = None
    """Longer documents are left out."""
    deduplicate: bool = False
    """Whether of equal documents only the first stays."""

    @model_validator(mode="after")
    def _check_segment(self) -> Self:
        if self.segment is not None and self.stop_words is None:
            raise ValueError(f"segment={self.segment} cuts texts to remove stop words: set stop_words too")
        return self

    @model_validator(mode="after")
    def _check_pii(self) -> Self:
        kinds = self.pii or []
        for kind in kinds:
            if kind not in PII_KINDS and not re.fullmatch("[A-Z][A-Z0-9_]*", kind):
                known = nearest(kind, PII_KINDS)
                raise ValueError(
                    f"pii={kind}: expected {', '.join(PII_KINDS)}, or an entity of presidio such as CREDIT_CARD.{known}"
                )
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"pii={','.join(kinds)}: a kind is named twice")
        if not kinds and self.pii_mode != "mask":
            raise ValueError(f"pii_mode={self.pii_mode} has no effect: set pii too, as in pii=[email,ip,phone,key]")
        if self.pii_region is not None and "phone" not in kinds:
            raise ValueError(f"pii_region={self.pii_region} is for phone numbers: add phone to pii")
        if self.pii_model is not None and set(kinds) <= set(PII_KINDS):
            raise ValueError(f"pii_model={self.pii_model} is for presidio: add one of its entities, such as PERSON")
        return self


CANARY_LETTERS = 24
"""Length of a canary: 26^24 texts are possible, about 2^113."""
MAX_CANARY_TOKENS = CANARY_LETTERS + 1
"""The most tokens that a tokenizer may make of one: one for each letter, and one for a space that it puts in front."""
MAX_COPIES = 1_000_000
"""The most copies of canaries in a text."""


class CanariesConfig(Section):
    """Random texts that are planted into the training split, to measure what a model memorises (data/canaries.py)."""

    count: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Canaries for each entry of `repeats`; 0: none at all."""
    repeats: list[Annotated[int, Field(ge=0, le=MAX_COPIES)]] = [1, 4, 16, 64]
    """How many times each is planted; 0: it is drawn but not planted, as a control."""
    seed: Seed = 0

    @field_validator("repeats")
    @classmethod
    def _in_order(cls, repeats: list[int]) -> list[int]:
        """Sort, and drop duplicates, so that equal runs have equal identities."""
        if not repeats:
            raise ValueError("name at least one number of repeats, as in [1, 4, 16, 64]")
        return sorted(set(repeats))

    @model_validator(mode="after")
    def _check_copies(self) -> Self:
        if self.copies > MAX_COPIES:
            raise ValueError(f"these are {self.copies:,} copies; at most {MAX_COPIES:,} can be planted")
        return self

    @property
    def copies(self) -> int:
        """How many documents are planted."""
        return self.count * sum(self.repeats)


class DataSection(Section):
    """What every source shares: how its documents are split."""

    clean: CleanConfig = CleanConfig()
    canaries: CanariesConfig = CanariesConfig()
    split: Literal["hash", "tail"] = "hash"
    """hash: each document goes to a split by a hash of its text; tail: the last part of the text is for validation, or
    for validation and then test."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of documents (hash) or of characters (tail) for validation, unless the source has a split for that."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of documents (hash) or of characters (tail) for test; 0: no test split, unless the source has one."""
    fingerprint: str | None = None
    """Hash of the source's content, filled in when the config is resolved; stands for the paths in identities."""

    @field_validator("canaries")
    @classmethod
    def _none_is_one(cls, canaries: CanariesConfig) -> CanariesConfig:
        """Ignore the other keys if the count is 0, so that equal runs have equal identities."""
        return canaries if canaries.count else CanariesConfig()

    @model_validator(mode="after")
    def _check_canaries(self) -> Self:
        if self.canaries.count and self.holds != "text":
            raise ValueError(f"canaries are planted into running text, and this source has {self.holds}")
        return self

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.test and "test" in self.own_splits:
            raise ValueError(f"test={self.test:g} has no effect, because the source has a test split of its own")
        if sum(self.shares.values()) >= 1:
            raise ValueError(f"validation={self.validation:g} and test={self.test:g} leave nothing for training")
        return self

    @property
    def holds(self) -> Holds:
        """What the source holds."""
        return "text"

    @property
    def own_splits(self) -> tuple[Split, ...]:
        """The splits that the source holds as such; the others are made from the first, which is train."""
        return ("train",)

    @property
    def shares(self) -> dict[Split, float]:
        """The share of the source's own training split that becomes each other split."""
        made: dict[Split, float] = {"validation": self.validation, "test": self.test}
        return {split: share for split, share in made.items() if share and split not in self.own_splits}

    @property
    def splits(self) -> tuple[Split, ...]:
        """All splits of the store that is made from the source."""
        return tuple(split for split in SPLITS if split in self.own_splits or split in self.shares)


class StdlibData(DataSection):
    """The Python standard library's own source and documentation, found beside the interpreter."""

    source: Literal["stdlib"]


class LocalSection(DataSection):
    """What every source of local files shares."""

    path: str
    """A file, a folder or a glob; relative to the folder the command runs in."""
    validation_path: str | None = None
    """The same, for validation; null: a part of `path` is for validation."""
    test_path: str | None = None
    """The same, for test; null: no test split, or a part of `path`, by the share `test`."""

    @property
    def own_splits(self) -> tuple[Split, ...]:
        """The splits that have a path."""
        return tuple(split for split in SPLITS if self.path_of(split) is not None)

    def path_of(self, split: Split) -> str | None:
        """Return the path of a split; None if it has none of its own."""
        return {"train": self.path, "validation": self.validation_path, "test": self.test_path}[split]


class HubSection(DataSection):
    """What every source on the Hugging Face hub shares."""

    name: str
    """The dataset's name, or a local folder of one."""
    config: str | None = None
    revision: str | None = None
    """Commit, tag or branch; a study that is to be repeated names a commit."""
    subset: str = "train"
    """The dataset's own split that is read for training."""
    validation_subset: str | None = None
    """The dataset's own split for validation; null: a part of `subset` is for validation."""
    test_subset: str | None = None
    """The dataset's own split for test; null: no test split, or a part of `subset`, by the share `test`."""

    @property
    def own_splits(self) -> tuple[Split, ...]:
        """The splits that have a subset."""
        return tuple(split for split in SPLITS if self.subset_of(split) is not None)

    def subset_of(self, split: Split) -> str | None:
        """Return the dataset's own split for one of ours; None if there is none."""
        return {"train": self.subset, "validation": self.validation_subset, "test": self.test_subset}[split]


class FileData(LocalSection):
    """Local files."""

    source: Literal["files"]
    format: Literal["txt", "jsonl", "csv", "parquet"]
    field: ColumnName = "text"
    """The column or key that holds the text (jsonl, csv, parquet)."""
    document: Literal["file", "paragraph", "line"] = "file"
    """What one document is in txt files; a paragraph ends at an empty line."""


class HubData(HubSection):
    """A Hugging Face dataset, by name and revision, or a local folder of one."""

    source: Literal["hub"]
    field: ColumnName = "text"


class ExampleSection(DataSection):
    """What every source of examples shares; `split: tail` keeps the last examples for validation."""

    truncate: bool = False
    """Whether a text that is longer than the model's context is cut, and counted; else it is an error. Tagged sentences
    that validate are read in windows instead, so that every word is scored."""


class TagOptions(ExampleSection):
    """What every source of tagged sentences shares: how their tags are written."""

    scheme: Scheme = "iob2"
    """How spans are written, as data/tag_schemes.py describes; they are read as IOB2. words: there are no spans."""
    repair: Literal["strict", "lenient"] = "strict"
    """How tags that break the scheme are treated. strict: as errors; lenient: read as conlleval does, and counted."""


class ExampleFiles(LocalSection, ExampleSection):
    """Local files of examples."""


class PairData(ExampleFiles):
    """Pairs of a source and a target text: two parallel text files, or two columns of one."""

    source: Literal["pairs"]
    target_path: str | None = None
    """The targets' text file, line by line beside `path`; null: both are columns of `path`."""
    validation_target_path: str | None = None
    test_target_path: str | None = None
    format: Literal["txt", "tsv", "csv", "jsonl", "parquet"] = "tsv"
    source_field: ColumnName = "source"
    """The column or key of the source text; of a tsv without a header, a number from 0."""
    target_field: ColumnName = "target"

    @property
    def holds(self) -> Holds:
        """Pairs."""
        return "pairs"

    def target_path_of(self, split: Split) -> str | None:
        """Return the path of the targets of a split; None if they are not in files of their own."""
        paths = {"train": self.target_path, "validation": self.validation_target_path, "test": self.test_target_path}
        return paths[split]


class LabelData(ExampleFiles):
    """Texts with one label each."""

    source: Literal["labels"]
    format: Literal["tsv", "csv", "jsonl", "parquet"] = "csv"
    field: ColumnName = "text"
    """The column or key of the text; of a tsv without a header, a number from 0."""
    label_field: ColumnName = "label"

    @property
    def holds(self) -> Holds:
        """Labels."""
        return "labels"


class TagData(ExampleFiles, TagOptions):
    """Sentences as a word and its tag a line, with an empty line between sentences, as in CoNLL files."""

    source: Literal["tags"]
    format: Literal["conll", "conllu"] = "conll"
    """conllu: ten columns, separated by tabs; lines of several words that are written as one are left out."""
    word_column: int = 0
    """Counted from 0; -1 is the last."""
    tag_column: int = -1

    @property
    def holds(self) -> Holds:
        """Tags."""
        return "tags"


class HubExamples(HubSection, TagOptions):
    """Examples of a Hugging Face dataset, by name and revision, or of a local folder of one."""

    source: Literal["hub_examples"]
    examples: Literal["pairs", "labels", "tags"]
    """What they are."""
    field: ColumnName = "text"
    """The column of the text, of the source text, or of the list of words; a dot reaches into a mapping, as in
    translation.de."""
    target_field: ColumnName = "label"
    """The column of the label, of the target text, or of the list of tags. Numbers are named by the dataset's own
    features."""

    @model_validator(mode="after")
    def _check_scheme(self) -> Self:
        if self.examples != "tags" and (self.scheme, self.repair) != ("iob2", "strict"):
            raise ValueError(f"scheme and repair are for tags, and these examples are {self.examples}")
        return self

    @property
    def holds(self) -> Holds:
        """What `examples` says."""
        return self.examples


class GeneratedData(ExampleSection):
    """Examples made by a known rule: the best that a model can do is known, and no file is needed."""

    source: Literal["generated"]
    rule: Literal["reverse", "numbers", "dates", "roles", "sentiment"]
    """reverse: a word, and it backwards; numbers: digits, and the number in words; dates: a date as people write it,
    and as ISO 8601 has it (all pairs); roles: sentences with the semantic role of each phrase (tags); sentiment:
    verdicts with negations, and whether they praise (labels)."""
    count: Count = 10_000
    """How many examples."""
    seed: Seed = 0

    @property
    def holds(self) -> Holds:
        """By the rule."""
        if self.rule == "roles":
            return "tags"
        return "labels" if self.rule == "sentiment" else "pairs"


MAX_TRANSITIONS = 1 << 22
"""Limit for a Markov process; each transition takes 16 bytes while a text is drawn."""


class MarkovData(DataSection):
    """Text drawn from a Markov process: the loss that no model can beat is known exactly (data/markov.py)."""

    source: Literal["markov"]
    order: Annotated[int, Field(ge=1, le=8)] = 2
    """How many symbols back the next one depends on."""
    alphabet: Annotated[int, Field(ge=2, le=64)] = 27
    """How many symbols there are; the first 27 are the letters and the space."""
    documents: Count = 10_000
    document_length: Annotated[int, Field(ge=2, le=65_536)] = 1000
    """Mean number of symbols of a document; the lengths are geometric."""
    seed: Seed = 0
    """Another seed gives another process, and so another text and another floor of the loss."""

    @model_validator(mode="after")
    def _check_transitions(self) -> Self:
        transitions = self.alphabet ** (self.order + 1)
        if transitions > MAX_TRANSITIONS:
            raise ValueError(
                f"order={self.order} with alphabet={self.alphabet} is a process of {transitions:,} transitions; at "
                f"most {MAX_TRANSITIONS:,} are possible"
            )
        return self


class OutsideData(ExampleSection, OutsideSection):
    """A source from outside: a function that is called with the other keys and yields documents or examples.

    A document is a text. An example is a pair of texts, a text and its label, or a list of words and a list of tags.
    The source is read more than once, and must yield the same each time.
    """

    examples: Literal["pairs", "labels", "tags"] | None = None
    """What it yields; null: documents."""

    @property
    def source(self) -> str:
        """The function's dotted name."""
        return self.target

    @property
    def holds(self) -> Holds:
        """What `examples` says, or text."""
        return self.examples or "text"


ShippedData = Annotated[
    StdlibData | MarkovData | FileData | HubData | PairData | LabelData | TagData | HubExamples | GeneratedData,
    Field(discriminator="source"),
]
DataConfig = Annotated[Annotated[ShippedData, SHIPPED] | Annotated[OutsideData, OUTSIDE], BY_ORIGIN]
