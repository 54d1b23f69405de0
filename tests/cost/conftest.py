"""NVML without a GPU."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import pytest
import torch

from tests.cost.recording import Frame, Play, Recording


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play the frames of devices, of which torch sees those with these UUIDs, in this order."""

    def start(devices: Mapping[str, Sequence[Frame]], visible: Iterable[str]) -> Recording:
        recording, uuids = Recording(devices), list(visible)
        monkeypatch.setitem(sys.modules, "pynvml", recording)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index].split("-", 1)[1])
        )
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return recording

    return start
