"""Sealed forecasts: predictions of a run's loss that were written before the run existed, a JSON file each.

They lie in the folder `forecasts` of a sweep. A file is written once and never replaced. Its last key, `seal`, is the
SHA-256 of all its other keys, so a later change is noticed. A seal is no signature: a person who changes a file and
its seal leaves no trace in it. To show others that a forecast came first, publish its seal, or commit the file.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmexp.files import hash_text, is_leftover, read_json, write_new
from lmexp.runs.origin import utc

FOLDER = "forecasts"
"""The folder of a sweep's forecasts, in the sweep's own folder."""
MAX_FILES = 10_000
"""Files of one folder that are read."""

Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    """Numbers of a forecast are finite. Keys that a later version adds are ignored."""

    model_config = ConfigDict(allow_inf_nan=False, frozen=True)


class Interval(_Part):
    """A predicted loss and the ends of its 95 % interval for a single run."""

    value: Positive
    low: Positive
    high: Positive


class SealedLaw(_Part):
    """The law that predicts, with its fitted constants."""

    name: str
    formula: str
    theta: dict[str, float]
    """The law's parameters, followed by those of precisions, optimizers or repetition."""
    effective: tuple[Positive, ...]
    """What the forecast's own size and tokens count for in the law; see LawFit.effective."""
    residual: Annotated[float, Field(ge=0)]
    """Standard deviation of ln(predicted/measured) over the fitted points: the noise of a single run."""
    delta: Positive | None
    """Where Huber's loss turned linear; null for least squares."""


class SealedPoint(_Part):
    """A row that the law was fitted to."""

    run_id: str
    params: Positive
    tokens: Positive
    flops: Positive
    loss: Positive
    record_sha256: str | None
    """SHA-256 of the run's record.json; null for a milestone of a run that had none yet."""


class Forecast(_Part):
    """A forecast, as its file holds it."""

    schema_version: Literal[1] = 1
    sweep: str
    date: Annotated[float, Field(gt=0, lt=1e11)]
    """When it was written, in seconds since the epoch, by the clock of the outputs' disk."""
    date_utc: str
    """The same for people."""
    run: dict[str, Positive]
    """`params`, `tokens`, `flops`, perhaps `unique_tokens`; those of the best run for the FLOPs if `at` is flops."""
    at: Literal["flops", "run"]
    """Whether a budget was given, or a size with its tokens."""
    same_size: dict[str, Annotated[float, Field(ge=1)]]
    """A run is of this size if each of these is within this factor of the forecast's."""
    conditions: dict[str, str | int | float | bool]
    """What a run must have in common with the fitted ones, by column or key of the config."""
    columns: dict[str, str]
    """The columns of the record that hold `params`, `tokens`, `flops` and `loss`; `6ND` for FLOPs from the others."""
    loss: Interval
    wider: Annotated[float, Field(ge=1)] = 1.0
    """How many times as wide the interval is as without the law's lack of fit; 1 in files of older versions."""
    beyond: Positive
    """FLOPs of the run as a multiple of the largest fitted run's."""
    law: SealedLaw
    laws: tuple[str, ...]
    """The laws that were fitted; the one that predicted held-out runs best is `law`."""
    fit: dict[str, str | int | float | bool | None]
    """The options of the fit."""
    n_units: int
    """Independent units among the points."""
    points: tuple[SealedPoint, ...]
    points_sha256: str
    """As in fit.json; see Points.sha256."""
    code: str
    """The version of the code; see origin.code_version."""

    @model_validator(mode="after")
    def _has_all_quantities(self) -> Self:
        if not {"params", "tokens", "flops", *self.same_size} <= set(self.run) or not self.same_size:
            raise ValueError("the run lacks a quantity")
        if set(self.columns) != {"params", "tokens", "flops", "loss"}:
            raise ValueError("columns are of params, tokens, flops and loss")
        return self


@dataclass(frozen=True)
class ForecastFile:
    """A file in a folder of forecasts, as it was read."""

    path: Path
    forecast: Forecast | None
    """None if the file cannot be read."""
    problem: str | None = None
    """Why the file does not count: it cannot be read, or it was changed after it was sealed."""

    @property
    def name(self) -> str:
        """The file's sweep and name, for messages."""
        return f"{self.path.parent.parent.name}/{self.path.name}"


def seal_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of everything in a forecast's file but its seal, whatever the order of keys and the spaces."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return hash_text(json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False))


def write_forecast(folder: Path, forecast: Forecast) -> ForecastFile:
    """Seal a forecast of the sweep in `folder`, and return its file. Raises OSError if it cannot be written.

    The name of the file holds the seal, so another forecast never has it, and the same one is written once.
    """
    content = forecast.model_dump(mode="json")
    seal = seal_of(content)
    path = _place(folder, forecast, seal)
    path.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):  # another process wrote the same forecast in the same second
        write_new(path, json.dumps(content | {"seal": seal}, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    return ForecastFile(path, forecast)


def add_forecast(folder: Path, content: bytes) -> bool:
    """Put a sealed forecast of another machine beside the sweep in `folder`; return False if it is there already.

    Raises ValueError unless it is a forecast whose seal is right.
    """
    try:
        known = json.loads(content)
        forecast = Forecast.model_validate(known)
        is_sealed = known["seal"] == seal_of(known)
    except (ValidationError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no forecast") from error
    if not is_sealed:
        raise ValueError("it was changed after it was sealed")
    path = _place(folder, forecast, known["seal"])
    path.parent.mkdir(exist_ok=True)
    try:
        write_new(path, content.decode())
    except FileExistsError:
        return False
    return True


def _place(folder: Path, forecast: Forecast, seal: str) -> Path:
    """Return where a forecast of the sweep in `folder` lies."""
    stamp = utc(forecast.date).partition("+")[0].replace("-", "").replace(":", "")
    return folder / FOLDER / f"{stamp}Z-{seal[:12]}.json"


def read_forecasts(folder: Path) -> Iterator[ForecastFile]:
    """Yield the forecasts of the sweep in `folder`, the oldest first; those that were changed have a `problem`."""
    files = sorted(file for file in (folder / FOLDER).glob("*.json") if not is_leftover(file.name))
    for file in files[:MAX_FILES]:
        yield _read(file)


def _read(file: Path) -> ForecastFile:
    try:
        content = read_json(file)
        seal = content["seal"]
        broken = "it was changed after it was sealed" if seal != seal_of(content) else None
        return ForecastFile(file, Forecast.model_validate(content), broken)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return ForecastFile(file, None, f"it is no forecast: {where}: {error.errors()[0]['msg']}")
    except OSError as error:
        return ForecastFile(file, None, f"it cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return ForecastFile(file, None, "it cannot be read as a forecast")
