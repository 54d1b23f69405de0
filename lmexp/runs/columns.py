"""The columns of a record, each described once: its meaning, its title and unit, its number format, its good direction.

The names are a contract: they are the same in record.json, table.csv, table.parquet, W&B and DataFrames. To add a
column, let a producer put its value into the record and describe it here. Everything else (tables in the terminal and
on the page, findings, number formats, the docstring of `lmexp.load`) follows; `make columns` rewrites docs/columns.md.

A format is `.4f`, `,.2f` or `.3g` (three significant digits) as in Python and in d3, or `.3s`, three digits and an SI
prefix as in d3, so that the terminal, the charts and the page's script print the same digits.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

SI = ".3s"
"""Three significant digits and an SI prefix: 1.23M."""


@dataclass(frozen=True)
class Column:
    """One column, as the record holds it and as people read it."""

    name: str
    """Its name in files. In a family of columns, `<...>` stands for the part that varies."""
    meaning: str
    """What its values are, for somebody who meets the column for the first time."""
    title: str = ""
    """Its name in a sentence, as in `training time` [default: the name]."""
    unit: str = ""
    """The unit, as it is written after a number: `s`."""
    short: str = ""
    """The narrowest clear heading, unit included [default: the name]."""
    format: str = ""
    """How its numbers are written [default: decimals that suit the column's typical value]."""
    better: Literal["lower", "higher"] | None = None
    """Which direction is good; None where neither is, or where nobody knows."""
    role: Literal["quality", "cost"] | None = None
    """Whether it says how good a model is, or what the model costs."""
    is_text: bool = False
    """Whether it holds text or true and false instead of numbers."""
    is_device_bound: bool = False
    """Whether another device, or a second run on the same one, changes its value."""
    terminal_rank: int | None = None
    """Its rank in the terminal's table, 1 the highest: in a narrow window the lowest ranks are hidden first. A column
    without a rank is shown on request only."""
    leads_page: bool = False
    """Whether it is among the first columns of the page's table, if it was measured."""
    in_tooltip: bool = False
    """Whether the tooltip of a run shows it."""

    def __post_init__(self) -> None:
        """Let the name stand in for a title and a heading that are not given."""
        object.__setattr__(self, "title", self.title or self.name)
        object.__setattr__(self, "short", self.short or self.name)

    @property
    def heading(self) -> str:
        """The title with its unit, for axes and wide tables."""
        return f"{self.title} ({self.unit})" if self.unit and self.unit not in self.title else self.title


SECTIONS: dict[str, tuple[Column, ...]] = {
    "identity": (
        Column("run_id", "hash of everything in the config that determines the result", is_text=True),
        Column("sweep", "sweep that ran it first", is_text=True),
        Column("slug", "swept values in words", title="run", short="run", is_text=True),
        Column("model", "name of the model config", is_text=True),
        Column("family", "model family, such as gpt or llama", is_text=True),
        Column("task", "training task, such as causal_lm", is_text=True),
        Column("precision", "precision preset, such as bf16", is_text=True),
        Column("seed", "seed of the initial weights and of the order of the data"),
        Column(
            "unit",
            "independent unit: the run's id; several rows (milestones) of one training run share it",
            is_text=True,
        ),
    ),
    "size": (
        Column("n_params", "parameters", "parameters", short="params", format=SI, better="lower", role="cost"),
        Column(
            "n_params_active", "parameters that one token uses", "active parameters", short="active params", format=SI
        ),
        Column(
            "n_params_embedding",
            "parameters of the embeddings; an output head that shares their weights counts here",
            "embedding parameters",
            short="embedding",
            format=SI,
        ),
        Column(
            "n_params_matmul",
            "parameters that multiply each token, the output head included",
            "matmul parameters",
            short="matmul params",
            format=SI,
        ),
        Column(
            "n_params_kaplan",
            "parameters outside embeddings and head, as Kaplan et al. 2020 count them: flops_per_token_kaplan / 6",
            "parameters, Kaplan",
            short="params, Kaplan",
            format=SI,
        ),
        Column("n_layers", "layers", "layers", short="layers"),
        Column("d_model", "width of the residual stream", "width"),
        Column("n_heads", "attention heads of a layer", "heads", short="heads"),
        Column("context", "longest sequence", unit="tokens"),
        Column("vocab_size", "rows of the token embedding"),
    ),
    "quality": (
        Column(
            "loss",
            "validation loss per target: per token, or per label or tag",
            unit="nats",
            format=".4f",
            better="lower",
            role="quality",
            terminal_rank=1,
            in_tooltip=True,
        ),
        *(
            Column(
                f"loss_quarter_{number}",
                f"validation loss of the targets in the {ordinal} quarter of the context, by their position in the "
                "window; null for tasks other than causal_lm. If all windows are full and the context is a multiple "
                "of 4, the mean of the four is the loss",
                f"loss in the {ordinal} quarter",
                "nats",
                f"loss q{number}",
                ".4f",
                better="lower",
            )
            for number, ordinal in enumerate(("first", "second", "third", "last"), start=1)
        ),
        Column(
            "loss_floor",
            "lowest expected loss that any model can reach on this text with the run's context; null unless the text "
            "is drawn from a known process (data=markov)",
            "floor of the loss",
            "nats",
            "floor",
            ".4f",
        ),
        Column(
            "perplexity",
            "exp(loss); null for labels and tags",
            short="ppl",
            format=",.2f",
            better="lower",
            role="quality",
            terminal_rank=8,
            in_tooltip=True,
        ),
        Column(
            "word_perplexity",
            "exp of the loss per word: the summed loss of the validation text over its words, which white space "
            "separates, as in lm-eval; null for tasks other than causal_lm",
            "word perplexity",
            short="word ppl",
            format=",.2f",
            better="lower",
            role="quality",
        ),
        Column("validation_words", "words of the validation text, by which word_perplexity divides"),
        Column(
            "bits_per_byte",
            "validation loss in bits per UTF-8 byte of the text; comparable between tokenizers that lose no text",
            "bits per byte",
            short="bits/byte",
            format=".4f",
            better="lower",
            role="quality",
            terminal_rank=6,
            in_tooltip=True,
        ),
        Column(
            "accuracy",
            "share of the validation targets that are predicted exactly, 0 to 1",
            unit="share right",
            format=".4f",
            better="higher",
            role="quality",
            in_tooltip=True,
        ),
        Column(
            "majority_accuracy",
            "share of the validation texts that have the commonest label of the training split, 0 to 1: the accuracy "
            "of always guessing it; null for tasks other than classify",
            "accuracy of the commonest label",
            "share right",
            "majority",
            ".4f",
        ),
        Column(
            "bag_of_words_accuracy",
            "accuracy of multinomial naive Bayes over the counts of words, fitted to the training split "
            "or to its first 50 million characters, 0 to 1; it does not see the order of words; null for tasks other "
            "than classify",
            "accuracy of a bag of words",
            "share right",
            "bag of words",
            ".4f",
        ),
        Column(
            "text_lost",
            "share of the bytes of the validation text (for pairs, of its targets) that decoding the tokens does not "
            "give back, 0 to 1",
            "lost text",
            "share of bytes",
            "text lost",
            ".4f",
            better="lower",
        ),
        Column(
            "unknown_tokens",
            "share of the tokens of that text that stand for something unknown, 0 to 1",
            "unknown tokens",
            "share of tokens",
            "unknown",
            ".4f",
            better="lower",
        ),
        Column(
            "validation_seen",
            "share of the validation documents or examples that the training split holds too, 0 to 1",
            "seen in training",
            "share of examples",
            "val. seen",
            ".4f",
            better="lower",
        ),
        Column(
            "test_seen",
            "share of the test documents or examples that another split holds too, 0 to 1; null without a test split",
            "test split in other splits",
            "share of examples",
            "test seen",
            ".4f",
            better="lower",
        ),
        Column(
            "canary_tokens",
            "tokens of the training split that belong to planted canaries (data.canaries), document tokens included; "
            "null without canaries",
            "tokens of canaries",
            "tokens",
            "canary tokens",
            SI,
        ),
        Column(
            "texts_cut",
            "texts, sources and targets of all splits that data.truncate cut to the context; long sentences of a "
            "validation or test split of tags are read in windows instead",
            "texts that were cut",
            "texts",
            "texts cut",
            better="lower",
        ),
        Column(
            "targets_cut",
            "share of the validation targets that data.truncate cut off, so that the loss does not count them, 0 to 1",
            "targets that were cut off",
            "share of targets",
            "targets cut",
            ".4f",
            better="lower",
        ),
    ),
    "work": (
        Column(
            "tokens",
            "tokens that the run was trained on, repeated ones included",
            "training tokens",
            "tokens",
            short="tokens",
            format=SI,
            better="lower",
            role="cost",
            in_tooltip=True,
        ),
        Column("epochs", "passes over the training split"),
        Column("flops_per_token", "training FLOPs per token", "FLOPs per token", "FLOPs", "FLOPs/token", SI),
        Column(
            "flops_per_token_6n",
            "the same by another convention: 6 for every parameter that a token uses",
            "FLOPs per token, 6N",
            "FLOPs",
            "6N",
            SI,
        ),
        Column(
            "flops_per_token_kaplan",
            "the same by another convention: 6 for every parameter outside embeddings and head",
            "FLOPs per token, Kaplan",
            "FLOPs",
            "Kaplan",
            SI,
        ),
        Column(
            "flops_per_token_causal",
            "the same by another convention: only half of the attention scores count",
            "FLOPs per token, causal",
            "FLOPs",
            "causal",
            SI,
        ),
        Column(
            "flops_per_token_hardware",
            "the same by another convention: what the run executes, with fused attention, and with the layers that "
            "activation checkpointing computes again",
            "FLOPs per token, hardware",
            "FLOPs",
            "hardware",
            SI,
        ),
        Column(
            "flops_per_token_recompute",
            "the same by another convention: what fused attention executes, with every layer's forward pass done twice",
            "FLOPs per token, recomputing",
            "FLOPs",
            "recomputing",
            SI,
        ),
        Column(
            "flops_source",
            "where flops_per_token comes from: `formula`, or `counted`, by torch if the family has no formula",
            is_text=True,
        ),
        Column(
            "train_flops",
            "training FLOPs of the whole run: flops_per_token times tokens",
            "training compute",
            "FLOPs",
            "FLOPs",
            SI,
            better="lower",
            role="cost",
            terminal_rank=4,
            leads_page=True,
            in_tooltip=True,
        ),
        Column(
            "train_flops_kaplan",
            "training FLOPs of the whole run as Kaplan et al. 2020 count them: flops_per_token_kaplan times tokens",
            "training compute, Kaplan",
            "FLOPs",
            "FLOPs, Kaplan",
            SI,
        ),
        Column(
            "spent_flops",
            "training FLOPs that this row added to those of the earlier rows of its run: with milestones, rows share "
            "the steps of a trunk, and train_flops is what each row would have cost as a separate run",
            "compute spent",
            "FLOPs",
            "spent",
            SI,
        ),
        Column("steps", "optimizer steps"),
        Column(
            "skipped_steps",
            "how many of the optimizer steps fp16's loss scaling skipped because a gradient overflowed; skipped steps "
            "changed no weight; null without loss scaling",
            "skipped steps",
            "steps",
            "skipped",
            better="lower",
        ),
        Column(
            "best_tokens",
            "with evaluation.patience, the training tokens after which the final weights were reached; what was "
            "trained after them counts in the costs",
            "tokens of the final weights",
            "tokens",
            "best tokens",
            SI,
        ),
        Column("batch_tokens", "tokens per optimizer step, over all devices", "batch", "tokens", "batch", SI),
        Column("micro_batch", "sequences per forward pass and device"),
        Column("peak_lr", "peak learning rate", "peak learning rate", short="peak lr", format=".3g"),
        Column(
            "lr_rule",
            "published rule that gave the peak learning rate; null if the rate was set as a number",
            is_text=True,
        ),
    ),
    "privacy": (
        Column(
            "epsilon",
            "epsilon that the steps of the run have spent, for adding or removing one training sequence, an upper "
            "bound; null without differential privacy",
            "epsilon spent",
            short="epsilon spent",
            format=".3g",
            better="lower",
            in_tooltip=True,
            terminal_rank=2,
        ),
        Column("delta", "probability that the guarantee of epsilon does not hold", format=".3g"),
        Column(
            "noise_multiplier",
            "standard deviation of the noise that each step adds to the sum of gradients, as a multiple of "
            "gradient_clip",
            "noise multiplier",
            short="noise",
            format=".3g",
        ),
        Column(
            "gradient_clip",
            "norm to which the gradient of each training sequence is clipped",
            "clip of a sequence's gradient",
            short="clip",
            format=".3g",
        ),
        Column("privacy_accountant", "name of Opacus's accountant that computed epsilon", is_text=True),
        Column(
            "privacy_samples",
            "number of training sequences; a private step draws each of them with the probability batch_tokens / "
            "(context x privacy_samples)",
            "private sequences",
            "sequences",
            "sequences",
            SI,
        ),
        Column(
            "sampled_tokens",
            "tokens of the sequences that the steps of a private run have drawn; `tokens`, budgets and FLOPs count the "
            "expected number instead",
            "tokens drawn",
            "tokens",
            "drawn",
            SI,
        ),
    ),
    "speed": (
        Column(
            "tokens_per_second",
            "training throughput: median over windows of steps after the warm-up",
            "throughput",
            "tokens/s",
            "tokens/s",
            SI,
            better="higher",
            is_device_bound=True,
            terminal_rank=5,
            leads_page=True,
            in_tooltip=True,
        ),
        Column(
            "step_ms_p50",
            "time of an optimizer step: median",
            "step time, median",
            "ms",
            "ms/step",
            better="lower",
            is_device_bound=True,
        ),
        Column(
            "step_ms_p95",
            "time of an optimizer step: 95th percentile",
            "step time, 95th percentile",
            "ms",
            "ms p95",
            better="lower",
            is_device_bound=True,
        ),
        Column(
            "mfu",
            "model FLOPs utilisation: training FLOP/s as a share of the peak of all devices",
            "MFU",
            "share of peak",
            "MFU",
            ".3f",
            better="higher",
            is_device_bound=True,
        ),
        Column(
            "mfu_causal",
            "MFU that counts only the half of the attention scores that a causal mask leaves, because only that half "
            "must be computed",
            "MFU, causal",
            "share of peak",
            "MFU causal",
            ".3f",
            better="higher",
            is_device_bound=True,
        ),
        Column(
            "hfu",
            "hardware FLOPs utilisation: flops_per_token_hardware per second as a share of the peak of all devices",
            "HFU",
            "share of peak",
            "HFU",
            ".3f",
            better="higher",
            is_device_bound=True,
        ),
        Column(
            "peak_flops",
            "dense peak of one device in the number format that the run multiplies in",
            "peak",
            "FLOP/s",
            "peak FLOP/s",
            SI,
        ),
        Column(
            "peak_source",
            "where the peak comes from: a datasheet, or `measured`, the fastest of square matmuls",
            is_text=True,
        ),
        Column(
            "data_wait_fraction",
            "share of the training time in which the device waited for a micro-batch, 0 to 1; while a GPU still "
            "works on the previous micro-batch, it does not wait",
            "data wait",
            "share of time",
            "data wait",
            ".3f",
            better="lower",
            is_device_bound=True,
        ),
        Column(
            "compile_seconds", "time in torch.compile; null if nothing was compiled", "compile time", "s", "compile s"
        ),
        Column(
            "train_seconds",
            "time of the training steps, warm-up included, validation and checkpoints excluded",
            "training time",
            "s",
            "train s",
            better="lower",
            role="cost",
            is_device_bound=True,
            terminal_rank=3,
            leads_page=True,
            in_tooltip=True,
        ),
        Column(
            "wall_seconds",
            "time from the worker's start to the end of training; earlier attempts count up to their last checkpoint",
            "wall time",
            "s",
            "wall s",
            better="lower",
            role="cost",
            is_device_bound=True,
        ),
    ),
    "memory": (
        Column(
            "peak_memory_gb",
            "most memory that training needed at once (1e9 bytes a GB): allocated on a GPU, process growth on a CPU",
            "peak memory",
            "GB",
            "GB",
            better="lower",
            role="cost",
            terminal_rank=7,
            leads_page=True,
            in_tooltip=True,
        ),
        Column(
            "reserved_memory_gb",
            "memory that was held: by the allocator on a GPU, growth of the process over the whole run on a CPU",
            "reserved memory",
            "GB",
            "reserved GB",
            better="lower",
        ),
        Column("weights_gb", "memory of the weights", "weights", "GB", "weights GB", better="lower", role="cost"),
    ),
    "price": (
        Column(
            "energy_kwh",
            "energy of all devices over wall_seconds",
            "energy",
            "kWh",
            "kWh",
            better="lower",
            role="cost",
            is_device_bound=True,
            leads_page=True,
        ),
        Column(
            "energy_source",
            "where the energy comes from: a counter, `nvml` or `rapl`, or `estimated`, rated power times time",
            is_text=True,
        ),
        Column(
            "kwh_per_million_tokens",
            "energy for a million training tokens",
            "energy per million tokens",
            "kWh",
            "kWh/1M tokens",
            better="lower",
            is_device_bound=True,
        ),
        Column(
            "dollars",
            "price of all devices over wall_seconds",
            "price",
            "dollars",
            "dollars",
            better="lower",
            role="cost",
            is_device_bound=True,
            leads_page=True,
            in_tooltip=True,
        ),
        Column(
            "dollars_per_million_tokens",
            "price of a million training tokens",
            "price per million tokens",
            "dollars",
            "dollars/1M tokens",
            better="lower",
            is_device_bound=True,
        ),
        Column(
            "dollars_per_hour",
            "hourly price of one device, as the config says",
            "price of a device per hour",
            "dollars",
            "dollars/h",
        ),
    ),
    "conditions": (
        Column("dtype_weights", "data type of the live parameters", is_text=True),
        Column("dtype_compute", "data type of the operands of the matmuls in a forward pass", is_text=True),
        Column("dtype_grads", "data type of the live gradients", is_text=True),
        Column("dtype_optimizer", "data type of the live optimizer state", is_text=True),
        Column(
            "exclusive",
            "whether the run had its devices to itself: no other run of lmexp used them and, on a GPU with NVML, no "
            "other program; if false, its speeds are too low",
            is_text=True,
        ),
        Column(
            "cpu_wait_fraction",
            "on a CPU, the share of the time in which a thread of the run waited for a core that other programs used; "
            "above 0.1, the run's speeds are too low (Linux)",
        ),
        Column("threads", "CPU threads of each process of the run"),
        Column("devices", "devices per node"),
        Column(
            "device_share",
            "share of each device that the launcher gives the run, 0 to 1; the run counts the same share of the "
            "device's energy and price",
        ),
        Column("world_size", "processes that trained the run together"),
        Column("device_name", "name of the device", is_text=True),
    ),
    "origin": (
        Column("git_sha", "commit of lmexp, if it ran from a git checkout", is_text=True),
        Column("git_dirty", "whether that checkout had uncommitted changes", is_text=True),
        Column("code_versions", "code from outside lmexp that the run used, as target@hash", is_text=True),
        Column(
            "trained_by",
            "hash of lmexp's source and the packages that trained the run; several, one after another, if a run was "
            "resumed after a change of the code",
            is_text=True,
        ),
        Column("packages", "versions of the packages that can change a number, as name==version", is_text=True),
        Column("data_fingerprint", "hash of the tokens for training and validation", is_text=True),
        Column(
            "validation_fingerprint",
            "hash of what is scored, whatever the tokenizer: the texts, their targets or labels, and all labels",
            is_text=True,
        ),
        Column(
            "test_fingerprint",
            "the same hash of the test split, on which score/<task>-test/<metric> are measured; null without one",
            is_text=True,
        ),
        Column("tokenizer_fingerprint", "hash of the tokenizer", is_text=True),
        Column(
            "weights_sha256",
            "SHA-256 of the final weights, checkpoints/final/model.safetensors; null in the rows of earlier milestones",
            is_text=True,
        ),
        Column("host", "name of the machine", is_text=True),
        Column("started", "start of the run, in UTC", is_text=True),
        Column("finished", "end of the run, in UTC", is_text=True),
        Column("schema_version", "version of the record's format"),
    ),
}
"""Every column of a record, in its order, by subject."""

PRIVACY = "privacy"
"""The name of the scores of canaries: what a model has memorised of them."""
MEMBERSHIP = "membership"
"""The name of the scores of membership attacks."""
FAMILIES = {
    "score/privacy/exposure_": Column(
        "score/privacy/exposure_<...>",
        "mean exposure of the canaries that were planted this many times (data.canaries): log2(1,024) minus log2 of a "
        "canary's rank by probability, among itself and 1,023 random texts; at most 10, and 1.44 on average for a text "
        "that the model has never seen",
        "exposure of canaries planted <...> times",
        "bits",
        "exposure <...>",
        ".2f",
        better="lower",
    ),
    "score/privacy/extracted_": Column(
        "score/privacy/extracted_<...>",
        "share of the canaries planted this many times that greedy decoding completes, given the first half of their "
        "tokens, 0 to 1",
        "canaries planted <...> times that were extracted",
        "share of canaries",
        "extracted <...>",
        ".2f",
        better="lower",
    ),
    "score/membership/auc_": Column(
        "score/membership/auc_<...>",
        "area under the ROC curve of a membership attack (loss, min_k, zlib or reference; evaluation.membership, "
        "`lmexp eval --membership`): the probability that it ranks a random training document above a random "
        "validation document of the same length; random guesses give 0.5, which is expected after about one epoch",
        "AUC of the membership attack <...>",
        "area",
        "AUC <...>",
        ".3f",
        better="lower",
    ),
    "score/membership/tpr_": Column(
        "score/membership/tpr_<...>",
        "share of the training documents that a membership attack finds, with the threshold at which it is wrong about "
        "at most 1 % of the validation documents; random guesses give 0.01",
        "true positives at 1 % false ones of the membership attack <...>",
        "share of members",
        "TPR <...>",
        ".3f",
        better="lower",
    ),
    "score/": Column("score/<task>/<metric>", "score of a task, in the units of its metric", unit="score"),
    "flops/": Column("flops/<part>", "training FLOPs per token of one part of the model", unit="FLOPs", format=SI),
    "pii/": Column(
        "pii/<kind>", "how often data.clean.pii found this kind of personal data in the texts of all splits"
    ),
}
"""Columns that tasks, models and measurements of privacy add, by the prefix of their names; they come last in a record.
A longer prefix stands before a shorter one that it begins with, because the first match counts."""

COLUMNS = {column.name: column for columns in SECTIONS.values() for column in columns}
QUALITIES = tuple(column.name for column in COLUMNS.values() if column.role == "quality")
"""Columns that say how good a model is. Every evaluation during training writes them into the curve."""
LOSS_BY_QUARTER = tuple(name for name in COLUMNS if name.startswith("loss_quarter_"))
"""The validation loss by quarter of the context, in order."""
PER_TOKEN = frozenset({"loss", "perplexity", "accuracy", *LOSS_BY_QUARTER})
"""Qualities that are means over tokens if the task predicts text, and over labels if not."""
ON_TEST = "-test"
"""Follows the name of the task in the name of scores on the test split."""
ELSEWHERE = "-on-"
"""Stands in the name of scores between the task and the hash of the data, if these are not the run's own."""
PER_TEXT = frozenset({"bits_per_byte", "word_perplexity"})
"""Qualities that are divided by a measure of the text, whatever its tokens."""
MAX_LOST_DIFFERENCE = 1e-4
"""Qualities per text compare between tokenizers whose `text_lost` differs by at most this."""
COSTS = tuple(column.name for column in COLUMNS.values() if column.role == "cost")
"""Columns that say what a model costs."""
DEVICE_BOUND = frozenset(column.name for column in COLUMNS.values() if column.is_device_bound)
"""Columns whose values do not compare between devices."""

_HIGHER_METRICS = {"acc", "f1", "bleu", "chrf", "throughput"}
_LOWER_METRICS = {"ppl", "wer", "cer", "ter", "error", "brier", "ece", "mse", "mae"}
"""Common names of metrics that are no columns of a record, in scores and in tables that a user brings."""


def column(name: str) -> Column:
    """Return the description of a column; an axis, or a column of a table that a user brings, has its name alone."""
    if name in COLUMNS:
        return COLUMNS[name]
    for prefix, family in FAMILIES.items():
        if family.title != family.name and name.startswith(prefix):
            own = {key: getattr(family, key).replace("<...>", name.removeprefix(prefix)) for key in ("title", "short")}
            return replace(family, name=name, **own)
    if name.startswith("score/"):
        title = name.removeprefix("score/").replace("/", " ")
        return Column(name, FAMILIES["score/"].meaning, title, short=title, better=_direction_of_score(name))
    if name.startswith("flops/"):
        part = name.removeprefix("flops/").replace("_", " ")
        return Column(name, FAMILIES["flops/"].meaning, f"FLOPs per token, {part}", "FLOPs", part, SI)
    if name.startswith("pii/"):
        return Column(name, FAMILIES["pii/"].meaning, f"personal data: {name.removeprefix('pii/')}")
    if name == "budget.flops":
        return Column(
            name, "training FLOPs that a run may spend", "training budget", "FLOPs", format=SI, better="lower"
        )
    if name in _HIGHER_METRICS or name.startswith(("f1_", "rouge")):
        return Column(name, "", better="higher")
    return Column(name, "", better="lower" if name in _LOWER_METRICS else None)


def higher_is_better(name: str) -> bool:
    """Return whether more of a column is good; where nobody knows, less is."""
    return column(name).better == "higher"


def _direction_of_score(name: str) -> Literal["lower", "higher"]:
    """Return which direction of a score is good: more, except for losses, errors and milliseconds."""
    metric = name.rsplit("/", 1)[-1]
    known = COLUMNS[metric].better if metric in COLUMNS else None
    is_lower = known == "lower" or metric in _LOWER_METRICS or re.search(r"_ms(_|$)", metric)
    return "lower" if is_lower else "higher"
