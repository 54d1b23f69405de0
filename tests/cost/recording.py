"""A recording of NVML that is played back in place of the library, as an import of pynvml would find it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Frame:
    """What NVML says of one device at a moment."""

    millijoules: int | None = None
    """The counter of energy; None where the device has none."""
    pids: Sequence[int] = ()
    is_sliced: bool | None = None
    """Whether the GPU is in MIG mode; None where NVML does not know the mode, as with a slice."""


class NVMLError(Exception):
    """The library's own error."""


@dataclass
class Recording:
    """The frames of each device by UUID; `now` is the moment that is played."""

    devices: Mapping[str, Sequence[Frame]]
    now: int = 0
    calls: list[str] = field(default_factory=list)
    NVMLError = NVMLError

    def nvmlInit(self) -> None:
        """Start; it may be called several times."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.devices:
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self.calls.append(f"energy of {handle}")
        if (millijoules := self._frame(handle).millijoules) is None:
            raise NVMLError("Not Supported")
        return millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in self._frame(handle).pids]

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if (mode := self._frame(handle).is_sliced) is None:
            raise NVMLError("Not Supported")
        return [int(mode), int(mode)]

    def _frame(self, handle: str) -> Frame:
        frames = self.devices[handle]
        return frames[min(self.now, len(frames) - 1)]


Play = Callable[..., Recording]
