"""Options that several verbs share, and how a verb takes many options as one dataclass."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from lmexp.launch.policy import Policy
    from lmexp.runs.manifest import LookRule

LAST = ("output_dir", "config_dir", "trust", "as_json", "debug")
"""Options that every help text lists last, in this order."""
OUTPUTS = Path("outputs")
"""The default of --output-dir."""

SweepName = Annotated[str, typer.Argument(help="A sweep's name (`lmexp list sweeps`), or the path of its file.")]
StartedSweep = Annotated[str, typer.Argument(help="The name of a sweep that has been started.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN | hf:NAME",
        help="A finished run (its directory or a part of its name) or a pretrained model (`hf:` and a folder or name).",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDES", help="Hydra overrides, such as `model=gpt_nano optim.lr=1e-3`."),
]
OutputDir = Annotated[
    Path,
    typer.Option(
        "--output-dir", envvar="LMEXP_OUTPUTS", help="Folder of all runs [default: outputs].", show_default=False
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir",
        help="Folder with your own conf/ and sweeps/ [default: the current folder, if it has one of them].",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="EXPRESSION", help="Keep only the rows that match, as in \"family == 'gpt' and n_layers >= 4\"."
    ),
]
AllRuns = Annotated[
    bool,
    typer.Option(
        "--all", help="Also include runs in the sweep's folder that the last `lmexp sweep` no longer contained."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when the input is wrong.")]


def _trust(context: typer.Context, names: list[str] | None) -> list[str] | None:
    """Allow code of these names until the command ends."""
    if names:
        from lmexp.config.trust import trusting

        context.with_resource(trusting(names))
    return names


Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="NAME",
        callback=_trust,
        help="Allow code of this module or package, which a run or a sweep file from elsewhere names. Can be repeated.",
    ),
]


@dataclass(frozen=True)
class Common:
    """Options of almost every verb."""

    output_dir: OutputDir = OUTPUTS
    as_json: AsJson = False
    debug: Debug = False


@dataclass(frozen=True)
class CommonWithCode(Common):
    """Options of verbs that use the code that a run names."""

    trust: Trust = None


@dataclass(frozen=True)
class CommonWithConfigs(CommonWithCode):
    """Options of verbs that also read configs."""

    config_dir: ConfigDir = None


@dataclass(frozen=True)
class PolicyOptions:
    """What happens when a run fails, and what all runs together may spend."""

    on_failure: Annotated[
        str,
        typer.Option(
            help="What to do when a run fails. `continue`: run the others. `stop`: start no further run. "
            "`retry:N`: also start a run that raised an error again, up to N times."
        ),
    ] = "continue"
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop a run that takes longer than this: 90s, 15m or 2h.")
    ] = None
    max_hours: Annotated[
        float | None, typer.Option(min=0, help="Start no run if all runs together would then exceed this many hours.")
    ] = None
    max_dollars: Annotated[
        float | None, typer.Option(min=0, help="Start no run if all runs together would then exceed this many dollars.")
    ] = None
    max_flops: Annotated[
        float | None, typer.Option(min=0, help="Start no run if all runs together would then exceed this many FLOPs.")
    ] = None
    stop_if: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help='Stop a run as soon as this is true, as in "predicted_loss > 4" or "share > 0.2 and loss > 5".',
        ),
    ] = None

    def parse(self) -> "Policy":
        """Return the policy. Raises UserError for an option that cannot be read."""
        from lmexp.launch.policy import Policy, parse_duration, parse_on_failure

        stop, retries = parse_on_failure(self.on_failure)
        seconds = None if self.timeout is None else parse_duration(self.timeout)
        rule = None
        if self.stop_if is not None:
            from lmexp.study.stop_if import StopIf

            rule = StopIf(self.stop_if)
        return Policy(stop, retries, seconds, self.max_hours, self.max_dollars, self.max_flops, rule)


@dataclass(frozen=True)
class SeedOptions:
    """How many seeds an arm gets, if results decide it."""

    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="auto", help="auto: add seeds to the arms that may be the best, until --difference is settled."
        ),
    ] = None
    difference: Annotated[
        float | None,
        typer.Option(help="With --seeds auto: the smallest difference that matters, in the unit of the quality."),
    ] = None
    cap: Annotated[int | None, typer.Option(help="With --seeds auto: the most seeds of an arm [default: 10].")] = None
    quality: Annotated[
        str | None, typer.Option(help="With --seeds auto: the column that arms are compared by [default: loss].")
    ] = None

    def parse(self) -> "LookRule | None":
        """Return the rule, or None. Raises UserError for options that are wrong or do not go together."""
        from lmexp.study.seeds import look_rule

        return look_rule(self.seeds, self.difference, self.cap, self.quality)


def flat(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose parameters that are dataclasses are replaced by their fields, for typer to see as options."""
    parameters = list(inspect.signature(verb, eval_str=True).parameters.values())
    groups: dict[str, Any] = {one.name: one.annotation for one in parameters if is_dataclass(one.annotation)}
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters if one.name not in groups]
    options += [option for group in groups.values() for option in _fields(group)]
    options.sort(key=lambda option: LAST.index(option.name) if option.name in LAST else -1)

    @wraps(verb)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        verb(**values)

    call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    call.__annotations__ = {option.name: option.annotation for option in options}
    return call


def _fields(group: Any) -> Iterator[inspect.Parameter]:
    """Yield the fields of a dataclass as parameters."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = field.default_factory() if callable(field.default_factory) else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )
