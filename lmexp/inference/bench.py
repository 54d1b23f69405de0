"""What using a model costs: every batch size and prompt length in every precision, beside the loss of each.

    subject (a finished run, or a config) -> for each precision: load, convert, score -> for each shape: measure

Rows are flat and in the units of their names; null is what was not measured. Each precision starts from the
weights anew, and only one is in memory at a time.

A float precision casts the weights to what the run multiplied in: a model trained in bf16 with float32
weights is used with bf16 weights, for the float32 copy served the optimizer. Its loss here is that of the
model so cast, and may differ from the record's in the third digit.
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from hydra.utils import get_class
from torch import nn

from lmexp.config import paths
from lmexp.config.checks import check_config, micro_batch
from lmexp.config.compose import Composer, parse_overrides
from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device, detect, is_out_of_memory, unsupported_precision
from lmexp.cost.exclusive import Exclusive
from lmexp.cost.flops import count_model
from lmexp.cost.peaks import key_of, memory_bandwidth, read_peaks
from lmexp.data.feeds import Feed, open_feed
from lmexp.data.loading import ValidationBatches
from lmexp.data.prepare import prepare
from lmexp.errors import UserError, nearest
from lmexp.files import write_json
from lmexp.inference.measure import Shape, read_bytes_per_step, speed_columns, time_generation, weights_bytes
from lmexp.inference.quantise import FLOATS, INTEGERS, convert, stored_as
from lmexp.models.base import Decoder
from lmexp.models.build import build_model
from lmexp.runs.directory import STORES, RunDir
from lmexp.runs.find import find_run
from lmexp.runs.record import Row
from lmexp.runs.scores import add_scores
from lmexp.tasks.base import Task
from lmexp.train.checkpoint import load_final

Say = Callable[[str], None]
FILE = "bench.json"
"""The document, in a run's directory."""
KEPT = ("time_to_first_token_ms", "decode_ms_p50", "decode_ms_p95", "decode_tokens_per_second")
"""What joins a run's record, as score/bench-<precision>-b<batch>-p<prompt>/<metric>: quality against latency is then a
frontier like any other."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a finished run, or, where `run` is None, a model with fresh weights."""

    name: str
    config: RunConfig
    run: RunDir | None

    @property
    def compute(self) -> str:
        """What the model is used in, one of FLOATS: what it was trained in; fp8 is for training, bf16 goes with it."""
        trained = self.config.precision.compute
        return "bf16" if trained == "fp8" else trained

    def load(self) -> nn.Module:
        """Return the model as it was trained, in float32 on the CPU. Raises UserError for damaged files."""
        model = build_model(self.config.model, self.config.seed) if self.run is None else load_final(self.run).model
        return model.eval()


@dataclass(frozen=True)
class Grid:
    """What is asked for; each of `shapes` is measured in each precision."""

    precisions: list[str]
    """Of FLOATS and INTEGERS; none means the trained one and both integer ones."""
    shapes: list[Shape]


def parse_grid(precisions: list[str], batches: list[str], prompts: list[str], new: int) -> Grid:
    """Read options, each a word or several with commas between. Raises UserError for the first wrong one."""
    known = [*FLOATS, *INTEGERS]
    names = _words(precisions)
    for name in names:
        if name not in known:
            raise UserError(f"--precision {name}: expected some of {', '.join(known)}.{nearest(name, known)}")
    if new < 2:
        raise UserError(f"--new {new}: at least 2, for the first new token is the prefill's")
    sizes = [(batch, prompt) for batch in _counts("--batch", batches) for prompt in _counts("--prompt", prompts)]
    return Grid(names, [Shape(batch, prompt, new) for batch, prompt in sizes])


def find_subject(words: list[str], outputs: Path, config_dir: Path | None, say: Say) -> Subject:
    """Return what `words` name: one finished run, or overrides that describe a model. Raises UserError."""
    if len(words) == 1 and ("=" not in words[0] or Path(words[0]).is_dir()):
        run = find_run(words[0], outputs)
        return Subject(run.name, load_final(run).config, run)
    for override in parse_overrides(words):
        if override.is_sweep_override() or override.key_or_group.split(".")[0] in ("hydra", "run", "sweep"):
            raise UserError(f"{override.input_line}: bench measures one model, or one run by its name")
    config = Composer(paths.search_roots(config_dir), words=words).config({})
    check_config(config)
    # Only a tokenizer whose size the config does not name needs the text.
    size = config.model.vocab_size or getattr(config.tokenizer, "vocab_size", None)
    size = size or prepare(config, outputs / STORES, say).vocab_size
    model = config.model.model_copy(update={"vocab_size": size})
    return Subject(model.name, config.model_copy(update={"model": model}), None)


def bench(subject: Subject, grid: Grid, outputs: Path, say: Say) -> Row:
    """Measure a subject and return the document: `rows`, what was `skipped`, and `notes`.

    A finished run keeps it as bench.json; what it measured with the device to itself joins the record's scores.
    Raises UserError when nothing of what is asked can be measured.
    """
    config = subject.config
    device = _device(subject)
    shapes, skipped = _that_fit(grid.shapes, config.model.context)
    precisions, lacking = _that_run(grid.precisions, subject, device)
    skipped += lacking
    _check_memory(config, device)
    # Of the device, not of lmexp: a training run that is on it meanwhile is told too.
    exclusive = Exclusive(os.environ.get("CUDA_VISIBLE_DEVICES", "0") if device.kind == "cuda" else "cpu")
    notes: list[str] = []
    rows: list[Row] = []
    try:
        peak, source = _bandwidth(outputs, device)
        validation = _validation(subject, outputs, notes, say)
        for precision in precisions:
            say(f"{subject.name}: {precision}")
            measured, failed = _measure(subject, precision, shapes, validation, device, peak)
            rows += measured
            skipped += failed
    finally:
        alone = exclusive.release()
    about = {
        "device_name": device.name,
        "threads": torch.get_num_threads(),
        "exclusive": alone,
        "memory_peak_gb_per_second": peak,
        "memory_peak_source": source,
    }
    document: Row = {
        "subject": subject.name,
        "trained_precision": subject.compute,
        "rows": [row | about for row in rows],
        "skipped": skipped,
        "notes": notes,
    }
    if not rows:
        raise UserError(f"{subject.name}: nothing was measured: {skipped[0]['reason']}")
    if subject.run is not None:
        write_json(subject.run.path / FILE, document)
        if alone:  # speeds beside another run would stand in the table as if they were the model's own
            for row in rows:
                name = f"bench-{row['precision']}-b{row['batch']}-p{row['prompt']}"
                kept = {metric: row[metric] for metric in KEPT if row[metric] is not None}
                add_scores(subject.run, name, kept, {"about": about})
    return document


def _measure(
    subject: Subject,
    precision: str,
    shapes: list[Shape],
    validation: Feed | None,
    device: Device,
    peak: float | None,
) -> tuple[list[Row], list[Row]]:
    """Return the rows of one precision, and the shapes that the device had no memory for."""
    config, compute = subject.config, subject.compute
    computes_in = compute if precision in INTEGERS else precision
    place = torch.device(device.kind)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if computes_in == "tf32" else "highest")
    rows: list[Row] = []
    failed: list[Row] = []
    try:
        model = subject.load()
        if not isinstance(model, Decoder):
            raise UserError(f"bench measures how a text is continued, which family {config.model.family} does not do")
        convert(model.to(place), precision, compute)
        known = {
            "precision": precision,
            "dtype_weights": stored_as(precision, compute),
            "dtype_compute": "tf32" if computes_in == "tf32" else stored_as(computes_in, compute),
            "loss": None if validation is None else _loss(model, config, validation, place),
            "weights_gb": weights_bytes(model) / 1e9,
        }
        for shape in shapes:
            about = {"batch": shape.batch, "prompt": shape.prompt, "new": shape.new}
            try:
                rows.append(known | about | _row(model, config, shape, place, peak))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failed.append({"precision": precision} | about | {"reason": "out of memory"})
    finally:
        torch.set_float32_matmul_precision(before)
    return rows, failed


def _row(model: nn.Module, config: RunConfig, shape: Shape, device: torch.device, peak: float | None) -> Row:
    """Measure one shape. On a CPU there is no allocator to ask for a peak: weights and cache stand by themselves."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    assert config.model.vocab_size is not None, "a subject's vocabulary is resolved"
    timing = time_generation(model, shape, config.model.vocab_size, device)
    speed = speed_columns(timing, shape)
    read_gb = read_bytes_per_step(model, shape, timing.kv_cache_bytes) / 1e9
    return {
        **speed,
        "kv_cache_gb": timing.kv_cache_bytes / 1e9,
        "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if on_cuda else None,
        "read_gb_per_step": read_gb,
        "bandwidth_use": read_gb / median(timing.steps) / peak if peak else None,
    }


def _loss(model: nn.Module, config: RunConfig, feed: Feed, device: torch.device) -> float | None:
    """Return the validation loss in nats per token, by the task's own scoring; None where it is no number."""
    task: Task = get_class(config.task.target)(model, config).to(device)
    batches = ValidationBatches(feed, micro_batch(config))
    loss = task.evaluate(batches, feed.text_bytes).loss
    return loss if math.isfinite(loss) else None


def _validation(subject: Subject, outputs: Path, notes: list[str], say: Say) -> Feed | None:
    """Return the text that a run was validated on, or None, with a note that says why there is none."""
    if subject.run is None:
        notes.append("The weights are random, so there is no loss.")
        return None
    try:
        return open_feed(subject.config, prepare(subject.config, outputs / STORES, say))
    except UserError as problem:
        notes.append(f"No loss, for the text is not there: {problem}")
        return None


def _device(subject: Subject) -> Device:
    """Return the device to measure on: the config's; for a run from elsewhere, what this machine has."""
    asked = subject.config.trainer.accelerator
    return detect(asked if subject.run is None or asked == "cpu" else "auto")


def _bandwidth(outputs: Path, device: Device) -> tuple[float | None, str | None]:
    """Return the device's memory peak in GB/s and where it is from: the doctor's file, or measured now."""
    known = read_peaks(outputs, key_of(device, torch.get_num_threads())).get("memory_gb_per_second")
    if known:
        return known, "doctor"
    try:
        return memory_bandwidth(device), "measured now"
    except RuntimeError:  # no memory for it
        return None, None


def _that_fit(shapes: list[Shape], context: int) -> tuple[list[Shape], list[Row]]:
    """Tell the shapes that fit into the context from those that do not. Raises UserError when none does."""
    fitting = [shape for shape in shapes if shape.prompt + shape.new <= context]
    if not fitting:
        least = min(shape.prompt for shape in shapes)
        raise UserError(
            f"no prompt fits: the shortest, {least} tokens, and --new {shapes[0].new} "
            f"are more than the model's context of {context}"
        )
    reason = f"more than the context of {context}"
    return fitting, [
        {"precision": None, "batch": shape.batch, "prompt": shape.prompt, "new": shape.new, "reason": reason}
        for shape in shapes
        if shape not in fitting
    ]


def _that_run(asked: list[str], subject: Subject, device: Device) -> tuple[list[str], list[Row]]:
    """Tell the precisions that run here from those that do not. Raises UserError for one that was asked for."""
    wanted = asked or [subject.compute, *INTEGERS]
    running, skipped = [], []
    for name in wanted:
        if reason := _unsupported(name, subject, device):
            if asked:
                raise UserError(f"--precision {name}: {reason}")
            skipped.append({"precision": name, "batch": None, "prompt": None, "new": None, "reason": reason})
        else:
            running.append(name)
    return running, skipped


def _unsupported(name: str, subject: Subject, device: Device) -> str | None:
    """Return why a precision cannot be used on a device; what is said of training in fp16 does not hold here."""
    compute = subject.compute if name in INTEGERS else name
    if compute == "fp16" or (name in INTEGERS and compute == "tf32"):
        return None
    return unsupported_precision(subject.config.precision.model_copy(update={"compute": compute}), device)


def _check_memory(config: RunConfig, device: Device) -> None:
    needed = count_model(config.model).n_params * 4 / 1e9
    if device.memory_gb and needed > device.memory_gb:
        raise UserError(
            f"{config.model.name} needs {needed:,.0f} GB for its weights in float32; "
            f"{device.name} has {device.memory_gb:,.0f} GB"
        )


def _words(options: list[str]) -> list[str]:
    """Return what options name, in order, once each: `--batch 1,4 --batch 8` is 1, 4, 8."""
    return list(dict.fromkeys(word.strip() for option in options for word in option.split(",")))


def _counts(name: str, options: list[str]) -> Iterable[int]:
    for word in _words(options):
        if not word.isdecimal() or int(word) < 1:
            raise UserError(f"{name} {word}: expected whole numbers from 1 on, as in {name} 1,4")
    return [int(word) for word in _words(options)]
