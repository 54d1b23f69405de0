"""Which mirror a config names: it is checked before the run, and opened at its start."""

import importlib.util
import re
from collections.abc import Callable, Sequence

from lmexp.config.code import call_target, check_call
from lmexp.config.schema import LoggerConfig, OutsideLogger, RunConfig
from lmexp.errors import UserError, reason_of
from lmexp.messages import Say
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Copy, File, Mirror, describe, files_of, named, print_line
from lmexp.runs.mirrors.mlflow import NOTE, MLflowCopy, add_mlflow_page, end_lost_mlflow_runs
from lmexp.runs.mirrors.tensorboard import TensorBoardCopy
from lmexp.runs.mirrors.trackio import TrackioCopy
from lmexp.runs.mirrors.wandb import WandbCopy, add_wandb_page

TITLES = {"wandb": "W&B", "tensorboard": "TensorBoard", "mlflow": "MLflow", "trackio": "trackio"}
KEEP_FILES = ("none", "wandb", "mlflow")
"""Loggers that may have `artifacts`. With `none`, a later `lmexp sync --logger` uses them."""
HAS_PASSWORD = re.compile(r"//[^/\s]*:(?!\d*/).*@")
"""In an address, as in http://me:secret@host; nothing but digits between a colon and a slash is a port."""


def check_logger(logger: LoggerConfig | OutsideLogger) -> None:
    """Raise UserError for a mirror that cannot be opened; call it before any run starts.

    It needs a package that is not installed (W&B comes with lmexp), its address holds a password, or it is a class from
    outside that is not trusted, is not there, or does not take the keys beside it.
    """
    if isinstance(logger, OutsideLogger):
        check_call(logger, "logger", given=["config", "run"])
        return
    if logger.uri and HAS_PASSWORD.search(logger.uri):
        raise UserError(
            "logger.uri holds a password, which would stand in the config.yaml of every run: leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if logger.artifacts and logger.name not in KEEP_FILES:
        raise UserError(f"logger.artifacts is for W&B and MLflow; logger={logger.name} takes no files")
    if logger.name in ("tensorboard", "mlflow", "trackio") and not importlib.util.find_spec(logger.name):
        raise UserError(f"logger={logger.name} needs the package {logger.name}: pip install 'lmexp[{logger.name}]'")


def has_mirror(logger: LoggerConfig | OutsideLogger) -> bool:
    """Whether a run with this logger is copied anywhere."""
    if isinstance(logger, OutsideLogger):
        return True
    return logger.name != "none" and not (logger.name == "wandb" and logger.mode == "disabled")


def open_mirror(config: RunConfig, run: RunDir, say: Say = print_line, is_live: bool = True) -> Mirror:
    """Open the mirror that the config names, and give it the curve so far. Never raises an Exception.

    A run that resumes drops the points after its checkpoint first (`RunDir.keep_curve_up_to`).
    `say` receives one line when the mirror stops or has to stay offline. `is_live` says whether this process trains
    the run, so that a tool may sample the machine.
    """
    logger = config.logger
    if not has_mirror(logger):
        return Mirror(logger.name)
    kinds: dict[str, Callable[[RunConfig, RunDir], Copy]] = {
        "wandb": lambda config, run: WandbCopy(config, run, say, is_live),
        "tensorboard": TensorBoardCopy,
        "mlflow": MLflowCopy,
        "trackio": lambda config, run: TrackioCopy(config, run, is_live),
    }

    def copy_so_far() -> Copy:
        copy: Copy
        if isinstance(logger, OutsideLogger):
            copy = call_target(logger, "logger", config, run)
        else:
            copy = kinds[logger.name](config, run)
        for point in run.read_curve():
            copy.log(named(point))
        return copy

    return Mirror(TITLES.get(logger.name, logger.name), copy_so_far, say, lambda: files_of(config, run))


def end_lost_copies(runs: Sequence[tuple[RunConfig, RunDir]], say: Say = print_line) -> None:
    """Tell the tool of a sweep that `runs` have ended, also those whose process was killed. Never raises an Exception.

    Only MLflow needs that: its page shows such a run, and the sweep above it, as running for ever.
    """
    folders = {run.path.parent: (config, run) for config, run in runs if (run.path / NOTE).is_file()}
    for config, run in folders.values():
        if isinstance(config.logger, LoggerConfig) and config.logger.name == "mlflow":
            try:
                end_lost_mlflow_runs(config, run)
            except Exception as error:
                say(f"MLflow still shows runs that were killed as running: {reason_of(error)}")


def add_page(config: RunConfig, run: RunDir, page: File) -> str:
    """Add the report page of a sweep to the tool that the config of one of its runs names; return where it is.

    Raises what the tool raises.
    """
    logger = config.logger
    assert isinstance(logger, LoggerConfig) and logger.name in ("wandb", "mlflow"), "see check_logger"
    folder = run.path.parent.resolve()
    if logger.name == "wandb":
        return add_wandb_page(logger, folder, page)
    return add_mlflow_page(logger, folder, describe(config, run), page)
