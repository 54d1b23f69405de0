"""A gate: the speedup that an arm must have, as a file, so that CI can ask for it.

min_speedup: 1.05      # the whole interval must lie above it
cost: flops            # flops, seconds, dollars, kwh, tokens or a cost's column [default: flops]
scales: overall        # overall, each, or a list of scales as the table names them [default: overall]
confidence: 0.95       # of the interval [default: 0.95]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from lmexp.analysis.effects.noise import POWER
from lmexp.analysis.versus.versus import CONFIDENCE, OVERALL, CostVersus, Speedup, Versus, cost_column
from lmexp.config.base import Section, fault_of
from lmexp.config.yaml_files import line_of, read_yaml, shown
from lmexp.errors import UserError, nearest
from lmexp.units import counted

EACH = "each"
Verdict = Literal["pass", "fail", "undecided"]


class Gate(Section):
    """What a speedup must be."""

    min_speedup: Annotated[float, Field(gt=0, lt=1e6)]
    cost: str = "flops"
    scales: str | list[str] = OVERALL
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = CONFIDENCE

    @field_validator("cost")
    @classmethod
    def _known(cls, cost: str) -> str:
        try:
            cost_column(cost)
        except UserError as error:
            raise ValueError(str(error)) from None
        return cost

    @field_validator("scales")
    @classmethod
    def _listed(cls, scales: str | list[str]) -> str | list[str]:
        if not scales:
            raise ValueError("name one scale at least, overall or each")
        return scales


@dataclass(frozen=True)
class Check:
    """The gate's verdict on one arm in one scale."""

    arm: str
    scale: str
    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class Judgement:
    """The gate's verdict on all arms."""

    gate: Gate
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """`pass` if all checks pass, `fail` if one fails, otherwise `undecided`."""
        verdicts = [check.verdict for check in self.checks]
        return "fail" if "fail" in verdicts else "undecided" if "undecided" in verdicts else "pass"

    @property
    def document(self) -> dict[str, Any]:
        """The same for other programs."""
        checks = [
            {"arm": one.arm, "scale": one.scale, "verdict": one.verdict, "sentence": one.sentence}
            for one in self.checks
        ]
        return {"verdict": self.verdict, **self.gate.model_dump(), "checks": checks}


def read_gate(file: Path) -> Gate:
    """Return the gate of a file. Raises UserError, with the file, the line and the key, for one that is wrong."""
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{shown(file)}: a gate has the keys {', '.join(Gate.model_fields)}")
    for key in content:
        if key not in Gate.model_fields:
            hint = nearest(str(key), Gate.model_fields)
            raise UserError(
                f"{shown(file)}:{line_of(file, [str(key)])}: '{key}' is not a key of a gate.{hint} "
                f"Its keys are {', '.join(Gate.model_fields)}"
            )
    if "min_speedup" not in content:
        raise UserError(f"{shown(file)}: min_speedup is missing; for example min_speedup: 1.05")
    try:
        return Gate(**content)
    except ValidationError as error:
        fault = error.errors()[0]
        key = str(fault["loc"][0])
        raise UserError(f"{shown(file)}:{line_of(file, [key])}: {key}: {fault_of(fault)}") from None


def judge(gate: Gate, result: Versus) -> Judgement:
    """Judge every arm of a comparison. Raises UserError if it lacks the gate's cost or one of its scales."""
    checks = []
    for arm in result.arms:
        named = [one for name, one in arm.costs.items() if cost_column(gate.cost) == one.cost or name == gate.cost]
        if not named:
            reason = arm.left_out.get(gate.cost, "it was not compared")
            raise UserError(f"the gate is about {gate.cost}, which {arm.arm} lacks: {reason}")
        for speedup in _scales(gate, named[0]):
            verdict, sentence = _judged(gate, speedup, named[0])
            checks.append(Check(arm.arm, speedup.scale, verdict, sentence))
    return Judgement(gate, tuple(checks))


def _scales(gate: Gate, one: CostVersus) -> Iterator[Speedup]:
    """Yield the speedups that the gate is about."""
    if gate.scales == EACH:
        yield from one.scales
        return
    by_name = {speedup.scale: speedup for speedup in (one.overall, *one.scales)}
    for name in [gate.scales] if isinstance(gate.scales, str) else gate.scales:
        if name not in by_name:
            known = "; ".join(by_name)
            raise UserError(
                f"the gate's scale '{name}' is not among the runs.{nearest(name, by_name)} There are: {known}"
            )
        yield by_name[name]


def _judged(gate: Gate, one: Speedup, of: CostVersus) -> tuple[Verdict, str]:
    """Return a verdict with its reason."""
    wanted = f"{gate.min_speedup:g}"
    if one.value is None or one.low is None or one.high is None:
        return "undecided", one.why or "There is no interval."
    interval = f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})"
    if one is of.overall and of.unknown:
        cells = counted(of.unknown, "cell", "has")
        return (
            "undecided",
            f"{interval}, but {cells} no speedup and could change it; the table says what would help.",
        )
    if of.is_slowed:
        return "undecided", f"{interval}, but other work slowed the device down: measure {gate.cost} again without it."
    if one.low > gate.min_speedup:
        return "pass", f"{interval} is above {wanted}."
    if one.high < gate.min_speedup:
        return "fail", f"{interval} is below {wanted}."
    pairs = one.pairs_to_show(gate.min_speedup)
    more = (
        f" About {pairs:,} pairs of runs would decide in {POWER:.0%} of all cases; there are {one.n}." if pairs else ""
    )
    return "undecided", f"{interval} does not lie on one side of {wanted}.{more}"
