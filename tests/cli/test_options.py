"""Options that are fields of a dataclass: typer sees each of them, and the verb gets them as one value."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from lmexp.cli.app import app
from lmexp.cli.options import LAST, Common, PolicyOptions, flat
from lmexp.launch.policy import Policy


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="How wide.")] = 3
    depth: int = 5


def test_the_fields_of_a_dataclass_are_options_and_arrive_as_one_value():
    seen: list[Any] = []

    def verb(size: Size, common: Common, name: Annotated[str, typer.Argument()] = "a") -> None:
        seen.append((size, common.as_json, name))

    runner, small = CliRunner(), typer.Typer()
    small.command()(flat(verb))
    result = runner.invoke(small, ["b", "--depth", "7", "--json"])
    assert result.exit_code == 0, result.output
    assert seen == [(Size(3, 7), True, "b")]


def test_common_options_come_last_in_every_verb():
    for command in app.registered_commands:
        assert command.callback is not None
        names = list(inspect.signature(command.callback).parameters)
        common = [name for name in LAST if name in names]
        assert common and names[-len(common) :] == common, command.name


def test_policy_options_are_read_together():
    options = PolicyOptions(on_failure="retry:2", timeout="15m", max_dollars=3.0)
    assert options.parse() == Policy(retries=2, timeout=900.0, max_dollars=3.0)
