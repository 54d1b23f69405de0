"""The doctor tells the truth about this machine, and about what it refuses."""

import json
import re
import sys
import tomllib
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from lmexp.config.paths import shipped_root
from lmexp.config.schema import PrecisionConfig
from lmexp.cost import doctor
from lmexp.cost.device import Device, _may_have_gpu, detect, slow_precision, slow_vocabulary, unsupported_precision
from lmexp.cost.doctor import examine
from lmexp.cost.peaks import key_of, read_peaks
from lmexp.errors import UserError
from lmexp.report.terminal.doctor import print_doctor, sections, verdict

CPU = Device("cpu", "a CPU, 4 cores", 1, 16.0, None, native_bf16=True)
OLD_CPU = Device("cpu", "an old CPU, 4 cores", 1, 16.0, None, native_bf16=False)
MPS = Device("mps", "a Mac GPU", 1, 16.0, None, native_bf16=True)
PASCAL = Device("cuda", "NVIDIA P40", 1, 24.0, (6, 1), native_bf16=False)
TURING = Device("cuda", "NVIDIA T4", 1, 16.0, (7, 5), native_bf16=False)
HOPPER = Device("cuda", "NVIDIA H200", 8, 141.0, (9, 0), native_bf16=True)

PRESETS = {preset.name: preset for preset in doctor._presets()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def result(outputs: Path) -> dict[str, Any]:
    return examine(outputs)


def show(result: dict[str, Any]) -> str:
    page = StringIO()
    print_doctor(result, Console(width=300, file=page))
    return page.getvalue()


# what is measured


def test_the_result_is_plain_json(result: dict[str, Any]) -> None:
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again["precisions"] == result["precisions"]
    assert again["versions"]["torch"] == torch.__version__


def test_every_preset_is_either_measured_or_refused_with_a_reason(result: dict[str, Any]) -> None:
    in_order = ["fp32", "tf32", "bf16", "bf16_true", "fp16", "fp8"]
    assert [name for name in result["precisions"] if name in in_order] == in_order
    assert set(result["precisions"]) == set(PRESETS)
    for name, found in result["precisions"].items():
        assert found["available"] == (found["reason"] is None), name
        assert (found["peak_flops"] is not None) == found["available"], name
        if found["available"]:
            assert found["peak_flops"] > 1e9, name
    fp32, bf16 = result["precisions"]["fp32"], result["precisions"]["bf16"]
    assert fp32["ratio_to_fp32"] == 1
    assert bf16["ratio_to_fp32"] == bf16["peak_flops"] / fp32["peak_flops"]
    assert bf16["peak_flops"] == result["precisions"]["bf16_true"]["peak_flops"]


def test_memory_speed_is_that_of_a_memory(result: dict[str, Any]) -> None:
    assert 0.5 < result["measured"]["memory_gb_per_second"] < 20_000


# what is kept


def test_peaks_are_kept_by_device_and_threads(result: dict[str, Any], outputs: Path) -> None:
    known = read_peaks(outputs, key_of(detect(), torch.get_num_threads()))["peak_flops"]
    assert known["bf16"] == result["precisions"]["bf16"]["peak_flops"]
    assert known["fp32"] == result["precisions"]["fp32"]["peak_flops"]


def test_quick_measures_nothing_and_shows_what_is_kept(
    result: dict[str, Any], outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(device: Device) -> None:
        raise AssertionError("quick measures nothing")

    monkeypatch.setattr(doctor, "_measure", measured)
    assert examine(outputs, quick=True)["precisions"] == result["precisions"]
    nothing = examine(tmp_path, quick=True)
    assert nothing["precisions"]["bf16"]["available"]
    assert nothing["precisions"]["bf16"]["peak_flops"] is None
    assert "not measured" in verdict(nothing)


def test_peaks_of_another_machine_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared outputs folder holds the peaks of several machines."""
    theirs = {"NVIDIA H200": {"peak_flops": {"bf16": 7e14}}}
    (tmp_path / ".doctor.json").write_text(json.dumps(theirs))
    ours = {"peak_flops": {"fp32": 1e11}, "memory_gb_per_second": 1.0, "threads": 1}
    monkeypatch.setattr(doctor, "_measure", lambda device: ours)
    examine(tmp_path)
    assert read_peaks(tmp_path, "NVIDIA H200")["peak_flops"] == {"bf16": 7e14}
    assert read_peaks(tmp_path, key_of(detect(), torch.get_num_threads()))["peak_flops"] == {"fp32": 1e11}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a": 1}', '{"a": {}}'])
def test_a_damaged_file_of_peaks_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / ".doctor.json").write_text(content)
    assert read_peaks(tmp_path, "a") == {}
    assert read_peaks(tmp_path / "nowhere", "a") == {}


# what fails


def test_an_unwritable_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_measure", lambda device: None)
    (tmp_path / "file").write_text("not a folder")
    result = examine(tmp_path / "file" / "outputs")
    assert result["outputs"]["writable"] is False
    assert "NotADirectoryError" in result["outputs"]["reason"]
    assert result["outputs"]["free_gb"] > 0
    assert "no: NotADirectoryError" in show(result)


def test_a_full_device_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(device: Device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(doctor, "_measure", full)
    result = examine(tmp_path)
    assert {"what": "peaks", "why": "OutOfMemoryError: CUDA out of memory"} in result["not_measured"]


def test_a_wandb_login_is_seen_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert examine(tmp_path, quick=True)["wandb_login"] is False
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password thesecretkey\n")
    from_file = examine(tmp_path, quick=True)
    monkeypatch.setenv("WANDB_API_KEY", "thesecretkey")
    (tmp_path / "netrc").unlink()
    from_variable = examine(tmp_path, quick=True)
    assert from_file["wandb_login"] and from_variable["wandb_login"]
    assert "thesecretkey" not in json.dumps([from_file, from_variable]) + show(from_file)


def test_a_machine_without_counters_says_that_energy_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    assert "energy_kwh" in {gap["what"] for gap in doctor._not_measured(CPU)}


# which precisions run


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [
        ("fp16", CPU, "silently train in bf16"),
        ("fp16", MPS, "untested on MPS"),
        ("tf32", CPU, "capability 8.0 or above, and this is a CPU"),
        ("tf32", MPS, "capability 8.0 or above, and this is a Mac"),
        ("tf32", TURING, "NVIDIA T4 has 7.5"),
        ("bf16", TURING, "NVIDIA T4 has 7.5; torch would only emulate it"),
        ("bf16_true", PASCAL, "NVIDIA P40 has 6.1"),
        ("fp8", TURING, "capability 8.9 or above; NVIDIA T4 has 7.5"),
        ("fp8", CPU, "precision.emulate=true studies its quality on any device"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(name: str, device: Device, words: str) -> None:
    assert words in str(unsupported_precision(PRESETS[name], device))


@pytest.mark.parametrize(
    ("device", "names"),
    [
        (CPU, {"fp32", "bf16", "bf16_true"}),
        (OLD_CPU, {"fp32", "bf16", "bf16_true"}),
        (MPS, {"fp32", "bf16", "bf16_true"}),
        (TURING, {"fp32", "fp16"}),
        (HOPPER, {"fp32", "tf32", "bf16", "bf16_true", "fp16", "fp8"}),
    ],
)
def test_the_others_run(device: Device, names: set[str]) -> None:
    assert {name for name in PRESETS if unsupported_precision(PRESETS[name], device) is None} == names


def test_bf16_without_instructions_of_its_own_is_a_warning() -> None:
    assert "slower than fp32" in str(slow_precision(PRESETS["bf16"], OLD_CPU))
    assert "no tensor cores" in str(slow_precision(PRESETS["fp16"], PASCAL))
    assert slow_precision(PRESETS["fp32"], OLD_CPU) is None
    assert slow_precision(PRESETS["bf16"], CPU) is None
    assert slow_precision(PRESETS["fp16"], TURING) is None


def test_a_large_vocabulary_that_is_no_multiple_of_64_is_slow_on_tensor_cores():
    assert "model.vocab_size=50304 is one" in str(slow_vocabulary(50257, PRESETS["bf16"], TURING))
    for vocab, preset, device in ((50304, "bf16", TURING), (50257, "fp32", TURING), (50257, "bf16", CPU)):
        assert slow_vocabulary(vocab, PRESETS[preset], device) is None
    assert slow_vocabulary(257, PRESETS["bf16"], TURING) is None, "bytes: the output layer is a small part of a step"


def test_lightning_does_replace_fp16_on_a_cpu() -> None:
    """The reason why fp16 is refused: when this fails, Lightning has changed and so may we."""
    from pytorch_lightning import Trainer

    plugin = Trainer(accelerator="cpu", precision="16-mixed", logger=False, enable_checkpointing=False).precision_plugin
    assert plugin.precision == "bf16-mixed"


# which device


def test_the_cpu_is_found_with_its_cores() -> None:
    found = detect("cpu")
    assert found.kind == "cpu"
    assert f"{doctor.cores()} core" in found.name
    assert found.memory_gb > 0.5
    assert found.native_bf16 or not torch.cpu._is_avx512_bf16_supported()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_asking_for_a_gpu_where_there_is_none_is_a_users_error(accelerator: str) -> None:
    with pytest.raises(UserError, match=f"trainer.accelerator={accelerator}, but torch finds no such device"):
        detect(accelerator)


@pytest.mark.parametrize(
    ("version", "driver", "may"),
    [
        ("cuda = None; hip = None", True, False),
        ("cuda = '13.0'; hip = None", True, True),
        ("cuda = '13.0'; hip = None", False, False),
        ("cuda = None; hip = '6.4'", False, True),
        (None, False, True),  # a torch without the file: it has to be asked
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may always have a GPU")
def test_torch_is_asked_for_a_gpu_only_if_it_could_use_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str | None, driver: bool, may: bool
) -> None:
    if version is not None:
        (tmp_path / "version.py").write_text(version)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(
        "lmexp.cost.device.find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    )
    monkeypatch.setattr("lmexp.cost.device.ctypes.CDLL", lambda name: None if driver else Path("/nowhere").read_bytes())
    assert _may_have_gpu() is may


def test_an_unknown_accelerator_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'cuda'"):
        detect("cudda")


# how it is shown


def test_the_page_says_what_was_found(result: dict[str, Any]) -> None:
    page = show(result)
    assert list(sections(result))[:3] == ["Machine", "Precisions", "Outputs"]
    assert result["cpu"]["name"] in page
    for found in result["precisions"].values():
        assert found["reason"] is None or found["reason"] in page


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ({"fp32": 1.0, "bf16": 4.13, "bf16_true": 4.13}, "Fast here: bf16 (4.1x fp32"),
        ({"fp32": 1.0, "bf16": 0.4}, "Fast here: fp32"),
        ({"fp32": 1.0, "bf16": None}, "Fast here: fp32"),
    ],
)
def test_the_verdict_names_the_fastest(ratios: dict[str, float | None], words: str) -> None:
    result = {"precisions": {name: {"ratio_to_fp32": ratio} for name, ratio in ratios.items()}}
    assert words in verdict(result)


def test_presets_come_from_the_shipped_configs() -> None:
    assert all(isinstance(preset, PrecisionConfig) for preset in PRESETS.values())
    assert set(PRESETS) == {file.stem for file in (shipped_root() / "conf" / "precision").glob("*.yaml")}


def test_every_optional_package_is_listed():
    file = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(file.read_text())["project"]["optional-dependencies"]
    needed = [need for name, needs in extras.items() if name != "dev" for need in needs if "[" not in need]
    assert {re.split("[<>=]", need)[0] for need in needed} <= set(doctor.EXTRAS.values())
