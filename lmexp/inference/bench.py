"""What it costs to use a model: its speed and memory for each batch size and prompt length, in each precision.

    target (a finished run, or a config) -> for each precision: load, convert, score -> for each shape: measure

Rows are flat, in the units that their names say; null means not measured. Each precision starts from the trained
weights, and only one is in memory at a time.

In its trained precision, a model is used with weights of the type that training multiplied in: after training in bf16
with float32 weights, it has bf16 weights here, because only the optimizer needed the float32 copy. The loss is that of
these weights, and can differ from the record's in the third digit.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn

from lmexp.config import paths
from lmexp.config.checks import check_config, micro_batch
from lmexp.config.code import load_target
from lmexp.config.compose import Composer, allow_code
from lmexp.config.models.base import CountedSection
from lmexp.config.outside import warn_of_changes
from lmexp.config.overrides import parse_overrides
from lmexp.config.schema import RunConfig
from lmexp.config.scoring import INTEGERS
from lmexp.config.tasks.base import LabelTaskSection
from lmexp.cost.contention import MAX_WAIT_FRACTION, CpuWait, busy_warning
from lmexp.cost.device import Device, cores, detect, is_out_of_memory, unsupported_precision
from lmexp.cost.exclusive import lock_devices
from lmexp.cost.flops import count_model
from lmexp.cost.measure import measured
from lmexp.cost.peaks import key_of, memory_bandwidth, memory_method, read_peaks
from lmexp.data.feeds import Feed
from lmexp.data.loading import ValidationBatches
from lmexp.data.open_feed import open_feed
from lmexp.data.prepare import prepare
from lmexp.errors import UserError, nearest
from lmexp.files import write_json
from lmexp.inference.measure import BatchShape, read_bytes_per_step, speed_columns, time_generation, weights_bytes
from lmexp.inference.quantise import FLOATS, convert, stored_as
from lmexp.messages import Say
from lmexp.models.base import Decoder
from lmexp.models.build import build_model
from lmexp.models.replay import CannotCompile, compile_step, has_fixed_steps
from lmexp.runs.directory import STORES, RunDir
from lmexp.runs.find import find_run
from lmexp.runs.links import check_links
from lmexp.runs.record import Row
from lmexp.runs.scores import add_scores, check_scores
from lmexp.tasks.base import Task
from lmexp.train.checkpoint import load_final
from lmexp.train.products import products

FILE = "bench.json"
"""The file in the run directory that keeps the document."""
SPEEDS = ("time_to_first_token_ms", "decode_ms_p50", "decode_ms_p95", "decode_tokens_per_second")
"""The columns that join the record of a run, as score/bench-<precision>-b<batch>-p<prompt>/<metric>, so that a report
can show quality against latency. <precision>-compiled is with a compiled step."""


@dataclass(frozen=True)
class BenchTarget:
    """The model to measure: that of a finished run or, if `run` is None, one with random weights."""

    name: str
    config: RunConfig
    run: RunDir | None

    @property
    def compute(self) -> str:
        """The precision that the model is used in, one of FLOATS: the trained one, or bf16 if that was fp8."""
        trained = self.config.precision.compute
        return "bf16" if trained == "fp8" else trained

    def load(self) -> nn.Module:
        """Return the model in float32 on the CPU. Raises UserError for damaged files."""
        model = build_model(self.config.model, self.config.seed) if self.run is None else load_final(self.run).model
        return model.eval()


@dataclass(frozen=True)
class Grid:
    """The measurements to make: each of `shapes` in each of `precisions`."""

    precisions: list[str]
    """Names from FLOATS and INTEGERS; if empty, the trained precision and both integer ones are measured."""
    shapes: list[BatchShape]
    compiled: bool = False
    """Whether torch.compile compiles the step that reads one token."""


def parse_grid(precisions: list[str], batches: list[str], prompts: list[str], new: int, compiled: bool = False) -> Grid:
    """Read the options; each value is a word, or several with commas. Raises UserError for the first wrong one."""
    known = [*FLOATS, *INTEGERS]
    names = _words(precisions)
    for name in names:
        if name not in known:
            raise UserError(f"--precision {name}: expected some of {', '.join(known)}.{nearest(name, known)}")
    if new < 2:
        raise UserError(f"--new {new}: at least 2, because the first new token comes from the prefill")
    sizes = [(batch, prompt) for batch in _counts("--batch", batches) for prompt in _counts("--prompt", prompts)]
    return Grid(names, [BatchShape(batch, prompt, new) for batch, prompt in sizes], compiled)


def find_target(words: list[str], outputs: Path, config_dir: Path | None, say: Say) -> BenchTarget:
    """Return the finished run that `words` name, or the model that they describe as overrides. Raises UserError."""
    is_run = len(words) == 1 and ("=" not in words[0] or Path(words[0]).is_dir())
    allow_code([] if is_run else words, config_dir)
    if is_run:
        run = find_run(words[0], outputs, is_finished=True)
        config = load_final(run).config
        warn_of_changes(config, words[0], say)
        return BenchTarget(run.name, config, run)
    for override in parse_overrides(words):
        if override.is_sweep_override() or override.key_or_group.split(".")[0] in ("hydra", "run", "sweep"):
            raise UserError(f"{override.input_line}: bench measures one model, or one run by its name")
    config = Composer(paths.search_roots(config_dir), words=words).config({})
    check_config(config)
    # The text is only needed if the config does not say the size of the tokenizer.
    known = getattr(config.tokenizer, "vocab_size", None)
    size = config.model.vocab_size or (known if isinstance(known, int) else None)
    size = size or prepare(config, outputs / STORES, say).vocab_size
    model = config.model.model_copy(update={"vocab_size": size})
    if isinstance(model, CountedSection):
        model = measured(model)
    return BenchTarget(model.name, config.model_copy(update={"model": model}), None)


def bench(target: BenchTarget, grid: Grid, outputs: Path, say: Say) -> Row:
    """Measure a target and return the document: `rows`, what was `skipped`, and `notes`.

    A finished run keeps it as bench.json. Its speeds join the record's scores unless another run was on the device, or
    other programs kept it waiting for the cores of a CPU.
    Raises UserError if nothing can be measured.
    """
    if target.run is not None:
        check_scores(target.run)
    if isinstance(target.config.task, LabelTaskSection):
        raise UserError(
            f"bench measures how a model continues a text, and task={target.config.task.name} predicts labels"
        )
    if target.config.model.reads != "left_to_right":
        raise _continues_no_text(target.config)
    if grid.compiled and not has_fixed_steps(load_target(target.config.model.module, "model")):
        raise UserError(
            f"--compile: no compiled step for family {target.config.model.family}: lmexp compiles those of gpt and "
            "llama, and of models whose class sets has_fixed_steps"
        )
    device = _device(target)
    shapes, skipped = _shapes_that_fit(grid.shapes, target.config.model.context)
    precisions, unsupported = _precisions_that_run(grid.precisions, target, device)
    skipped += unsupported
    _check_memory(target.config, device)
    if device.kind == "cpu" and (warning := busy_warning(torch.get_num_threads(), 1, cores(), "OMP_NUM_THREADS")):
        say(warning)
    # The lock is on the device: a training run that comes to it meanwhile also learns that it is not alone.
    exclusive = lock_devices(device.kind)
    wait = CpuWait()
    notes: list[str] = []
    rows: list[Row] = []
    try:
        peak, source = _bandwidth(outputs, device)
        validation = _validation(target, outputs, notes, say)
        for precision in precisions:
            say(f"{target.name}: {precision}")
            measured, failed = _measure(target, precision, shapes, grid.compiled, validation, device, peak)
            rows += measured
            skipped += failed
    finally:
        is_alone = exclusive.release()
        wait_fraction = wait.fraction() if device.kind == "cpu" else None
    if not rows:
        raise UserError(f"{target.name}: nothing was measured: {skipped[0]['reason']}")
    circumstances = {
        "device_name": device.name,
        "threads": torch.get_num_threads(),
        "exclusive": is_alone,
        "cpu_wait_fraction": wait_fraction,
        "memory_peak_gb_per_second": peak,
        "memory_peak_source": source,
    }
    document: Row = {
        "subject": target.name,
        "trained_precision": target.compute,
        "rows": [row | circumstances for row in rows],
        "skipped": skipped,
        "notes": notes,
    }
    if target.run is not None:
        check_links(target.run.path)
        write_json(target.run.path / FILE, document)
        # In the table, speeds beside other work would look like the model's own.
        if is_alone and (wait_fraction or 0.0) <= MAX_WAIT_FRACTION:
            _add_speeds(target.run, rows, circumstances)
    return document


def _continues_no_text(config: RunConfig, why: str = "") -> UserError:
    return UserError(
        f"bench measures how a model continues a text, and family {config.model.family} cannot do that{why}"
    )


def _add_speeds(run: RunDir, rows: list[Row], circumstances: Row) -> None:
    """Add the speeds of each precision and shape to the scores of a run."""
    for row in rows:
        how = row["precision"] if row["compile_seconds"] is None else f"{row['precision']}-compiled"
        name = f"bench-{how}-b{row['batch']}-p{row['prompt']}"
        speeds = {metric: row[metric] for metric in SPEEDS if row[metric] is not None}
        add_scores(run, name, speeds, {"about": circumstances})


def _measure(
    target: BenchTarget,
    precision: str,
    shapes: list[BatchShape],
    compiled: bool,
    validation: Feed | None,
    device: Device,
    peak: float | None,
) -> tuple[list[Row], list[Row]]:
    """Return the rows of one precision, and the shapes that did not fit into the memory of the device."""
    config, compute = target.config, target.compute
    computes_in = compute if precision in INTEGERS else precision
    place = torch.device(device.kind)
    rows: list[Row] = []
    failed: list[Row] = []
    with products(computes_in):
        model = target.load()
        if not isinstance(model, Decoder):
            raise _continues_no_text(config, ": it has no method new_cache")
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
                rows.append(known | about | _row(model, config, shape, compiled, place, peak))
            except CannotCompile as error:
                failed.append({"precision": precision} | about | {"reason": str(error)})
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failed.append({"precision": precision} | about | {"reason": "out of memory"})
    return rows, failed


def _row(
    model: nn.Module, config: RunConfig, shape: BatchShape, compiled: bool, device: torch.device, peak: float | None
) -> Row:
    """Measure one shape. On a CPU no allocator reports a peak, so peak_memory_gb is null there."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    assert config.model.vocab_size is not None, "the vocabulary of a target is resolved"
    step = compile_step(model) if compiled else None
    timing = time_generation(model, shape, config.model.vocab_size, device, compiled=step)
    speed = speed_columns(timing, shape)
    read_gb = read_bytes_per_step(model, shape, timing.kv_cache_bytes) / 1e9
    return {
        **speed,
        "compile_seconds": timing.compile_seconds,
        "kv_cache_gb": timing.kv_cache_bytes / 1e9,
        "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if on_cuda else None,
        "read_gb_per_step": read_gb,
        "bandwidth_use": read_gb / median(timing.steps) / peak if peak else None,
    }


def _loss(model: nn.Module, config: RunConfig, feed: Feed, device: torch.device) -> float | None:
    """Return the validation loss in nats per token, as the task computes it; None if it is not finite."""
    task: Task = load_target(config.task.target, "task")(model, config).to(device)
    batches = ValidationBatches(feed, micro_batch(config))
    loss = task.evaluate(batches, feed.text_bytes).loss
    return loss if math.isfinite(loss) else None


def _validation(target: BenchTarget, outputs: Path, notes: list[str], say: Say) -> Feed | None:
    """Return the validation data of a run; None, with a note that says why, if there are none."""
    if target.run is None:
        notes.append("The weights are random, so there is no loss.")
        return None
    try:
        return open_feed(target.config, prepare(target.config, outputs / STORES, say))
    except UserError as problem:
        notes.append(f"No loss, because the text is missing: {problem}")
        return None


def _device(target: BenchTarget) -> Device:
    """Return the configured device; for a run that trained on a GPU, the best device of this machine."""
    accelerator = target.config.trainer.accelerator
    return detect(accelerator if target.run is None or accelerator == "cpu" else "auto")


def _bandwidth(outputs: Path, device: Device) -> tuple[float | None, str | None]:
    """Return the peak memory speed of the device in GB/s, and its source: the doctor's file, or a measurement now."""
    known = read_peaks(outputs, key_of(device, torch.get_num_threads()))
    method = memory_method(device.kind)  # earlier versions had another one for GPUs, which gave too low a speed
    if known.get("memory_gb_per_second") and known.get("memory_method", method) == method:
        return known["memory_gb_per_second"], "doctor"
    try:
        return memory_bandwidth(device), "measured now"
    except RuntimeError:  # not enough memory for the test
        return None, None


def _shapes_that_fit(shapes: list[BatchShape], context: int) -> tuple[list[BatchShape], list[Row]]:
    """Return the shapes that fit into the context, and the others as skipped rows. Raises UserError if none fits."""
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


def _precisions_that_run(chosen: list[str], target: BenchTarget, device: Device) -> tuple[list[str], list[Row]]:
    """Return the precisions that run on the device, and the others as skipped rows.

    Raises UserError if one of `chosen` does not run; if it is empty, all precisions are tried.
    """
    wanted = chosen or [target.compute, *INTEGERS]
    running, skipped = [], []
    for name in wanted:
        if reason := _unsupported(name, target, device):
            if chosen:
                raise UserError(f"--precision {name}: {reason}")
            skipped.append({"precision": name, "batch": None, "prompt": None, "new": None, "reason": reason})
        else:
            running.append(name)
    return running, skipped


def _unsupported(name: str, target: BenchTarget, device: Device) -> str | None:
    """Return why a precision cannot be used on a device, or None; the limits of training in fp16 do not apply here."""
    compute = target.compute if name in INTEGERS else name
    if compute == "fp16" or (name in INTEGERS and compute == "tf32"):
        return None
    return unsupported_precision(target.config.precision.model_copy(update={"compute": compute}), device)


def _check_memory(config: RunConfig, device: Device) -> None:
    needed = count_model(config.model).n_params * 4 / 1e9
    if device.memory_gb and needed > device.memory_gb:
        raise UserError(
            f"{config.model.name} needs {needed:,.0f} GB for its weights in float32; "
            f"{device.name} has {device.memory_gb:,.0f} GB"
        )


def _words(options: list[str]) -> list[str]:
    """Return the values of an option, each once, in order: `--batch 1,4 --batch 8` is 1, 4, 8."""
    return list(dict.fromkeys(word.strip() for option in options for word in option.split(",")))


def _counts(name: str, options: list[str]) -> Iterable[int]:
    for word in _words(options):
        if not word.isdecimal() or int(word) < 1:
            raise UserError(f"{name} {word}: expected whole numbers of at least 1, as in {name} 1,4")
    return [int(word) for word in _words(options)]
