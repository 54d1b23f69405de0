"""What a sweep will cost, before it runs: counted from configs, and timed if its shapes were probed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lmexp.config.checks import device_share, may_be_compiled, world_size
from lmexp.config.compose import Values
from lmexp.config.schema import RunConfig
from lmexp.config.sweeps import SearchSpec
from lmexp.cost.device import Device, devices_used
from lmexp.cost.elsewhere import AssumedSpeed, fit
from lmexp.cost.energy import JOULES_PER_KWH
from lmexp.cost.flops import count_run
from lmexp.cost.horizon import Horizon
from lmexp.cost.memory import estimate_memory, fitting_micro_batches
from lmexp.runs.probes import Probe
from lmexp.runs.record import Row

PLAN_COLUMNS = {
    "n_params": "params",
    "lr_by_rule": "lr\nby rule",
    "flops_per_token": "FLOPs\n/token",
    "tokens": "tokens",
    "steps": "steps",
    "train_flops": "FLOPs",
    "peak_memory_gb": "memory",
    "train_seconds": "seconds",
    "energy_kwh": "kWh",
    "dollars": "dollars",
}
"""The columns of a plan that a terminal shows, with their headings; columns without any value are left out."""
PLAN_COLUMNS_ELSEWHERE = {key: title for key, title in PLAN_COLUMNS.items() if key != "train_seconds"} | {
    "peak_memory_gb": "memory\n/device",
    "fits": "fits",
    "gpus": "GPUs",
    "train_hours": "time\nassumed",
    "energy_kwh": "kWh\nassumed",
    "dollars": "dollars\nassumed",
}
"""The columns of a plan for hardware that is not here."""
GIVE_WAY = (
    "flops_per_token",
    "steps",
    "tokens",
    "energy_kwh",
    "peak_memory_gb",
    "train_flops",
    "dollars",
    "lr_by_rule",
)
"""The order in which columns are dropped from a table that is too wide."""
MEMORY_SOURCES = {"formula": "formula", "counted": "estimated"}
"""Where a model's memory comes from, by where its FLOPs come from: without a formula, its activations are a guess."""
ASSUMED = "assumed"
"""The source of seconds, and of what follows from them, that rest on an assumed MFU."""
TOTALS = ("tokens", "train_flops", "train_seconds", "energy_kwh", "dollars")


@dataclass(frozen=True)
class CostedRun:
    """What a plan needs to know about a run."""

    values: Values
    config: RunConfig
    horizon: Horizon
    device: Device
    probe: Probe | AssumedSpeed | None = None


def plan(cells: Iterable[CostedRun]) -> list[Row]:
    """Return one row per run: its swept values, then its costs; a GB is 1e9 bytes.

    Seconds, energy and dollars cover the training steps only: starting, evaluation and checkpoints come on top. Unknown
    values are null. If a run has milestones, its steps, tokens and FLOPs include the cool-downs to them.
    """
    rows = []
    for cell in cells:
        config = cell.config
        count, memory = (
            count_run(config),
            estimate_memory(config, cell.device.kind, _micro_batch(cell)),
        )
        steps = _steps(cell)
        tokens = None if steps is None else steps * config.batch.tokens
        flops = cell.horizon.spent_flops  # known unless the budget is time or money
        if flops is None and tokens is not None:
            flops = float(tokens) * count.flops_per_token
        seconds = _seconds(cell)
        figures: Row = {
            "n_params": count.n_params,
            "lr_by_rule": config.optim.peak_lr if config.optim.lr_rule else None,
            "flops_per_token": count.flops_per_token,
            **count.conventions(),
            "tokens": tokens,
            "steps": steps,
            "train_flops": flops,
            **_milestones(cell),
            "weights_gb": memory.weights / 1e9,
            "gradients_gb": memory.gradients / 1e9,
            "optimizer_gb": memory.optimizer / 1e9,
            "peak_memory_gb": memory.peak / 1e9,
            "memory_source": MEMORY_SOURCES[config.model.flops_source],
            "may_be_compiled": may_be_compiled(
                config, cell.device.kind
            ),  # the memory is that of eager mode; torch.compile may need less
            "train_seconds": seconds,
            **_energy(cell, steps, seconds),
            "dollars": _dollars(cell, seconds),
        }
        if isinstance(cell.probe, AssumedSpeed):
            hours = None if seconds is None else seconds / 3600
            figures |= {"train_hours": hours, "time_source": ASSUMED, **_fit(cell)}
        name = {"model": config.model.name, "precision": config.precision.name} if not cell.values else {}
        rows.append(name | dict(cell.values) | figures)
    return rows


def totals(rows: Sequence[Row]) -> Row:
    """Return the sums over all runs; a sum is null if the value of any run is unknown."""
    sums: Row = {}
    for key in TOTALS:
        parts = [row[key] for row in rows]
        sums[key] = None if None in parts else sum(parts)
    return sums


def search_totals(rows: Sequence[Row], search: SearchSpec) -> Row:
    """Return an upper bound for a search: every trial costs as much as the most expensive corner, none is pruned."""
    most = {key: [row[key] for row in rows] for key in TOTALS}
    return {key: None if None in parts else search.trials * max(parts) for key, parts in most.items()}


def _micro_batch(cell: CostedRun) -> int | None:
    """Return the micro-batch that `auto` would choose on an idle device; None if the config sets one."""
    if cell.config.batch.micro != "auto":
        return None
    kind, processes = cell.device.kind, world_size(cell.config) if cell.device.kind == "cpu" else 1
    room = cell.device.memory_gb * 1e9 * device_share(cell.config, kind) / processes
    return fitting_micro_batches(cell.config, kind, room)[0]


def _fit(cell: CostedRun) -> Row:
    """Return whether the run fits on its devices, on how many it would, and what must be changed for that."""
    fitting = fit(cell.config, cell.config.hardware.memory_gb or cell.device.memory_gb)
    return {
        "devices": world_size(cell.config),
        "fits": fitting.fits,
        "devices_needed": fitting.devices,
        "fits_with": list(fitting.overrides),
    }


def _steps(cell: CostedRun) -> int | None:
    if cell.horizon.spent_steps is not None:
        return cell.horizon.spent_steps
    if cell.probe is None or cell.horizon.seconds is None:
        return None
    return cell.probe.steps_in(cell.horizon.seconds)


def _milestones(cell: CostedRun) -> Row:
    """Return the tokens of each row that the run yields, in order, if it has milestones."""
    milestones = [milestone.steps * cell.config.batch.tokens for milestone in cell.horizon.milestones]
    return {"milestones": milestones} if milestones else {}


def _seconds(cell: CostedRun) -> float | None:
    if cell.horizon.seconds is not None:
        return cell.horizon.seconds
    if cell.probe is None or cell.horizon.spent_steps is None:
        return None
    return cell.probe.seconds(cell.horizon.spent_steps)


def _energy(cell: CostedRun, steps: int | None, seconds: float | None) -> Row:
    """Return kWh and their source: the probe's energy counter, or the rated power of the devices."""
    probe, watts = cell.probe, cell.config.hardware.watts
    joules, source = None, None
    if probe is not None and probe.joules_per_step is not None and steps is not None:
        joules, source = probe.joules_per_step * steps, probe.energy_source
    elif watts is not None and seconds is not None:
        is_assumed = isinstance(probe, AssumedSpeed)
        joules, source = watts * _devices(cell) * seconds, ASSUMED if is_assumed else "estimated"
    return {"energy_kwh": None if joules is None else joules / JOULES_PER_KWH, "energy_source": source}


def _dollars(cell: CostedRun, seconds: float | None) -> float | None:
    price = cell.config.hardware.dollars_per_hour
    return None if price is None or seconds is None else price * _devices(cell) * seconds / 3600


def _devices(cell: CostedRun) -> float:
    kind = cell.device.kind
    return devices_used(kind, world_size(cell.config)) * device_share(cell.config, kind)
