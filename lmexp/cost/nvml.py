"""NVIDIA's management library (NVML): which GPU a process trains on, the energy used, and other processes.

Devices are known by their UUID. The same index can mean different devices in different processes, because
CUDA_VISIBLE_DEVICES, Slurm and containers all renumber devices.
"""

import os
from contextlib import suppress

MIG = "MIG-"
"""How the name of a slice of a GPU begins (multi-instance GPU)."""


def uuid_of(index: int) -> str:
    """Return the UUID of the GPU that torch numbers `index`, with the prefix `MIG-` if it is known to be a slice.

    Raises AttributeError if torch does not know it (AMD).
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    named = visible[index].strip() if index < len(visible) else ""
    return named if named.startswith(MIG) else str(torch.cuda.get_device_properties(index).uuid)


class Gpu:
    """A GPU of this process, or a slice of one, as NVML shows it."""

    def __init__(self, index: int) -> None:
        """Find the GPU that torch numbers `index`. Raises an error of NVML, or ImportError, if that is not possible."""
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        self.uuid, self._handle = self._find(index)
        self.is_slice = self.uuid.startswith(MIG) or self._is_sliced()
        """Whether it is a part of a GPU, or CUDA shows only a part of it: figures of the whole board do not apply."""

    def joules(self) -> float:
        """Return joules used since the driver was loaded. Raises NVML's error, or RuntimeError, without a counter."""
        if self.is_slice:
            raise RuntimeError(f"{self.uuid} has no energy counter of its own")
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def processes(self) -> set[int]:
        """Return the ids of the processes that compute on it; none if that is unknown.

        In a container, they may be the ids that the host uses.
        """
        if self.is_slice and not self.uuid.startswith(MIG):
            return set()  # NVML would list the processes of all slices
        with suppress(self._nvml.NVMLError):
            return {process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}
        return set()

    def _find(self, index: int) -> tuple[str, object]:
        """Return the UUID and NVML's handle; torch gives a UUID without a prefix, which can be that of a slice."""
        bare = uuid_of(index)
        uuids = [bare] if bare.startswith(MIG) else [f"GPU-{bare}", f"{MIG}{bare}"]
        for uuid in uuids[:-1]:
            with suppress(self._nvml.NVMLError):
                return uuid, self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        return uuids[-1], self._nvml.nvmlDeviceGetHandleByUUID(uuids[-1])

    def _is_sliced(self) -> bool:
        with suppress(self._nvml.NVMLError):  # a GPU that cannot be sliced
            return bool(self._nvml.nvmlDeviceGetMigMode(self._handle)[0])
        return False
