"""What resolving a sweep yields: runs that can start, and what a search needs to make further ones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmexp.config.compose import Values
from lmexp.config.schema import RunConfig
from lmexp.config.sweeps import SearchSpec
from lmexp.cost.device import Device
from lmexp.cost.horizon import Horizon
from lmexp.messages import Say
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import Cell, LookRule, Manifest, SkippedCell


@dataclass(frozen=True)
class PlannedRun:
    """A cell that can run: its values, its resolved config, and its directory."""

    values: Values
    config: RunConfig
    horizon: Horizon
    device: Device
    run: RunDir
    needs: "PlannedRun | None" = None
    """Run of this sweep that must finish first, for its weights; None if none or already finished."""

    @property
    def identity(self) -> str:
        """The hash that identifies the run."""
        assert self.config.run is not None, "a planned run has a name"
        return self.config.run.id


@dataclass(frozen=True)
class Searched:
    """What a search works with: its spec, and how a cell that it proposes becomes a run."""

    spec: SearchSpec
    """Without the keys that the command line fixes."""
    identity: str
    """Hash of what the results depend on: the space, the objectives, and everything that the runs share."""
    corners: list[PlannedRun]
    """The corners of the space that can run, ordered by their work, the least first."""
    resolve: Callable[[Values], PlannedRun]
    """Raises UserError for a cell that cannot run."""
    say: Say


@dataclass(frozen=True)
class Sweep:
    """A sweep, ready to start. A search appends what it proposes to `runs`, `skipped` and `axes` as it goes."""

    name: str
    folder: Path
    question: str | None
    axes: dict[str, list[Any]]
    runs: list[PlannedRun]
    skipped: list[SkippedCell]
    has_manifest: bool = True
    """Whether the folder belongs to one sweep; runs that are started one by one share a folder."""
    warnings: list[str] = field(default_factory=list)
    search: Searched | None = None
    """None if all runs are known from the start."""
    looks: LookRule | None = None
    """How seeds are added as results come in; None if their number is fixed."""
    command: tuple[str, ...] = ()
    """See Manifest."""

    @property
    def examples(self) -> list[PlannedRun]:
        """Runs that stand for the sweep before it starts: all of them, or a search's corners of least and most work."""
        if self.search is None:
            return self.runs
        least, most = self.search.corners[0], self.search.corners[-1]
        return [least, most] if most is not least else [least]

    def manifest(self) -> Manifest:
        """Return what the sweep consists of now, for `status` and `report`."""
        return Manifest(
            name=self.name,
            question=self.question,
            axes=self.axes,
            cells=[
                Cell(run_id=planned.identity, path=self._relative(planned.run.path), values=planned.values)
                for planned in self.runs
            ],
            skipped=self.skipped,
            objectives=list(self.search.spec.objectives) if self.search else [],
            looks=self.looks,
            command=list(self.command),
        )

    def _relative(self, path: Path) -> str:
        """Return a run's path relative to the sweep's folder: a run of another sweep is `../other/...`."""
        return path.name if path.parent == self.folder else f"../{path.parent.name}/{path.name}"
