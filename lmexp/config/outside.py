"""What a config takes from outside lmexp: whether it can be called, and which version of it a run was named for."""

from typing import Any

from lmexp.config.code import check_call, code_version, load_target
from lmexp.config.data import OutsideData
from lmexp.config.optimizers import OtherOptim
from lmexp.config.schedules import OutsideSchedule
from lmexp.config.schema import RunConfig
from lmexp.config.trust import check_settings, check_trusted, is_shipped, names_of_code, targets_in
from lmexp.errors import UserError
from lmexp.messages import Say

NO_RESULT = {"logger", "launcher", "run"}
"""Sections whose code cannot change a result."""


def check_outside(config: RunConfig) -> None:
    """Raise UserError for code from outside that is not trusted, not there, or does not take the keys beside it.

    What models, tasks and metrics take is checked by their own sections, loggers by runs/mirrors/open.py.
    """
    plain = config.model_dump(mode="json", by_alias=True)
    _check_names(plain)
    check_settings(plain)
    if isinstance(config.optim, OtherOptim):
        check_call(config.optim, "optimizer", given=["params"], named=["lr"])
    if isinstance(config.schedule, OutsideSchedule):
        _check_schedule(config.schedule)
    if isinstance(config.data, OutsideData):
        check_call(config.data, "source")
    for section in config.callbacks:
        check_call(section, "callback")


def _check_schedule(schedule: OutsideSchedule) -> None:
    loaded = load_target(schedule.target, "schedule")
    is_class = isinstance(loaded, type)
    check_call(schedule, "schedule", given=[] if is_class else ["share"])
    if is_class and not any("__call__" in vars(base) for base in loaded.__mro__):
        raise UserError(f"the schedule {schedule.target} has no method __call__(share), which returns the multiple")


def with_versions(config: RunConfig) -> RunConfig:
    """Return the config with the version of each `_target_` from outside, as its code is on the disk now."""
    plain = config.model_dump(mode="json", by_alias=True, exclude=NO_RESULT)
    targets = sorted({target for target in targets_in(plain) if not is_shipped(target)})
    return config.model_copy(update={"code": {target: code_version(target) for target in targets}})


def changed_code(config: RunConfig) -> list[str]:
    """Return the targets whose code on the disk is not the version that the run was named for."""
    return [target for target, version in config.code.items() if code_version(target) != version]


def warn_of_changes(config: RunConfig, name: str, say: Say) -> None:
    """Say of each target of a run whose code has changed; `name` is what the user calls the run."""
    for target in changed_code(config):
        say(f"warning: the code of {target} has changed since {name} was trained")


def check_trust(config: RunConfig) -> None:
    """Raise UserError for a config, of whatever origin, that names code which the user does not trust."""
    _check_names(config.model_dump(mode="json", by_alias=True))


def _check_names(plain: dict[str, Any]) -> None:
    for name in names_of_code(plain):
        check_trusted(name)


def check_code(config: RunConfig, *sections: str) -> None:
    """Raise UserError for a run whose code from outside is not trusted, or has changed since the run was named.

    A run whose code has changed would have the result of another run under its name. What only the user may say in
    `sections`, those that are about to be used, is checked too; see trust.SETTINGS.
    """
    plain = config.model_dump(mode="json", by_alias=True)
    _check_names(plain)
    check_settings(plain, *sections)
    if changed := changed_code(config):
        raise UserError(
            f"the code of {', '.join(changed)} has changed since this run was named; run the sweep again, which makes "
            "a new run, or bring the old code back"
        )
