"""Sealed forecasts: predictions of a run's loss that were written before the run existed, a JSON file each.

They lie in the folder `forecasts` of a sweep. A file is written once and never replaced. Its last key, `seal`, is the
SHA-256 of all its other keys, so a later change is noticed. A seal is no signature: a person who changes a file and
its seal leaves no trace in it. To show others that a forecast came first, publish its seal, or commit the file.
"""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmexp.errors import UserError
from lmexp.files import hash_text, is_leftover, read_text, write_new
from lmexp.runs.links import check_sweep_links
from lmexp.runs.origin import utc

FOLDER = "forecasts"
"""The folder of a sweep's forecasts, in the sweep's own folder."""
MAX_FILES = 10_000
"""Files of one folder that are read."""

MAX_PLACE = 100
"""Characters of the name of a wrong key that a message has."""


def _in_range(value: float) -> float:
    if not 1e-100 < value < 1e100:
        raise ValueError("the number is too small or too large")
    return value


Positive = Annotated[float, AfterValidator(_in_range)]
"""A number above 0 whose products and ratios are numbers above 0 too."""
Text = Annotated[str, Field(max_length=500)]
LongText = Annotated[str, Field(max_length=20_000)]


class _Part(BaseModel):
    """Numbers of a forecast are finite. Keys that a later version adds are ignored."""

    model_config = ConfigDict(allow_inf_nan=False, frozen=True)


class Interval(_Part):
    """A predicted loss and the ends of its 95 % interval for a single run."""

    value: Positive
    low: Positive
    high: Positive

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("the prediction is outside its interval")
        return self


class SealedLaw(_Part):
    """The law that predicts, with its fitted constants."""

    name: Text
    formula: LongText
    theta: dict[Text, float]
    """The law's parameters, followed by those of precisions, optimizers or repetition."""
    effective: tuple[Positive, ...]
    """What the forecast's own size and tokens count for in the law; see LawFit.effective."""
    residual: Annotated[float, Field(ge=0)]
    """Standard deviation of ln(predicted/measured) over the fitted points: the noise of a single run."""
    delta: Positive | None
    """Where Huber's loss turned linear; null for least squares."""


class SealedPoint(_Part):
    """A row that the law was fitted to."""

    run_id: Text
    params: Positive
    tokens: Positive
    flops: Positive
    loss: Positive
    record_sha256: Text | None
    """SHA-256 of the run's record.json; null for a milestone of a run that had none yet."""


class Forecast(_Part):
    """A forecast, as its file holds it."""

    schema_version: Literal[1] = 1
    sweep: Text
    date: Annotated[float, Field(gt=0, lt=1e11)]
    """When it was written, in seconds since the epoch, by the clock of the outputs' disk."""
    date_utc: Text
    """The same for people."""
    run: dict[Text, Positive]
    """`params`, `tokens`, `flops`, perhaps `unique_tokens`; those of the best run for the FLOPs if `at` is flops."""
    at: Literal["flops", "run"]
    """Whether a budget was given, or a size with its tokens."""
    same_size: dict[Text, Annotated[float, Field(ge=1)]]
    """A run is of this size if each of these is within this factor of the forecast's."""
    conditions: dict[Text, LongText | int | float | bool]
    """What a run must have in common with the fitted ones, by column or key of the config."""
    columns: dict[Text, Text]
    """The columns of the record that hold `params`, `tokens`, `flops` and `loss`; `6ND` for FLOPs from the others."""
    loss: Interval
    wider: Annotated[float, Field(ge=1)] = 1.0
    """How many times as wide the interval is as without the law's lack of fit; 1 in files of older versions."""
    beyond: Positive
    """FLOPs of the run as a multiple of the largest fitted run's."""
    law: SealedLaw
    laws: tuple[Text, ...]
    """The laws that were fitted; the one that predicted held-out runs best is `law`."""
    fit: dict[Text, LongText | int | float | bool | None]
    """The options of the fit."""
    n_units: int
    """Independent units among the points."""
    points: tuple[SealedPoint, ...]
    points_sha256: Text
    """As in fit.json; see Points.sha256."""
    code: Text
    """The version of the code; see origin.code_version."""

    @model_validator(mode="after")
    def _has_all_quantities(self) -> Self:
        if not {"params", "tokens", "flops", *self.same_size} <= set(self.run) or not self.same_size:
            raise ValueError("the run lacks a quantity")
        if set(self.columns) != {"params", "tokens", "flops", "loss"}:
            raise ValueError("columns are of params, tokens, flops and loss")
        if self.date_utc != utc(self.date):
            raise ValueError("date and date_utc are two dates")
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


def problem_of(error: ValidationError) -> str:
    """Return the first thing that is wrong with a forecast, in a few words."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:MAX_PLACE]
    return f"{where}{': ' if where else ''}{first['msg'].removeprefix('Value error, ')[:MAX_PLACE]}"


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
    with suppress(FileExistsError):  # another process wrote the same forecast in the same second
        write_new(path, json.dumps(content | {"seal": seal}, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    return ForecastFile(path, forecast)


def add_forecast(folder: Path, content: bytes) -> bool:
    """Put a sealed forecast of another machine beside the sweep in `folder`; return False if it is there already.

    Raises ValueError unless it is a forecast whose seal is right.
    """
    try:
        text = content.decode()
        known = _parsed(text)
        forecast = Forecast.model_validate(known)
        is_sealed = known["seal"] == seal_of(known)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no forecast") from error
    if not is_sealed:
        raise ValueError("it was changed after it was sealed")
    path = _place(folder, forecast, known["seal"])
    try:
        write_new(path, text)
    except FileExistsError:
        return False
    return True


def _place(folder: Path, forecast: Forecast, seal: str) -> Path:
    """Return where a forecast of the sweep in `folder` lies, in a folder that exists then.

    Raises UserError if that folder leads out of the outputs, or is a file.
    """
    check_sweep_links(folder)
    if (folder / FOLDER).is_file():
        raise UserError(f"{folder / FOLDER} is a file, and the forecasts need a folder of this name; rename the file")
    (folder / FOLDER).mkdir(exist_ok=True)
    stamp = utc(forecast.date).partition("+")[0].replace("-", "").replace(":", "")
    return folder / FOLDER / f"{stamp}Z-{seal[:12]}.json"


def read_forecasts(folder: Path) -> list[ForecastFile]:
    """Return the forecasts of the sweep in `folder`; those that were changed have a `problem`.

    The oldest come first, those of one call by their FLOPs, and files that cannot be read last.
    """
    paths = sorted(file for file in (folder / FOLDER).glob("*.json") if not is_leftover(file.name))
    return sorted((_read(path) for path in paths[:MAX_FILES]), key=_order)


def _order(file: ForecastFile) -> tuple[float, float]:
    return (file.forecast.date, file.forecast.run["flops"]) if file.forecast else (math.inf, math.inf)


def _parsed(text: str) -> Any:
    """Parse JSON without a key that occurs twice, because readers differ in which of the two counts.

    Raises ValueError or RecursionError.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known = dict(pairs)
        if len(known) < len(pairs):
            raise ValueError("a key occurs twice")
        return known

    return json.loads(text, object_pairs_hook=unique)


def _read(file: Path) -> ForecastFile:
    try:
        content = _parsed(read_text(file))
        seal = content["seal"]
        broken = "it was changed after it was sealed" if seal != seal_of(content) else None
        return ForecastFile(file, Forecast.model_validate(content), broken)
    except ValidationError as error:
        return ForecastFile(file, None, f"it is no forecast: {problem_of(error)}")
    except OSError as error:
        return ForecastFile(file, None, f"it cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return ForecastFile(file, None, "it cannot be read as a forecast")
