"""The hardware table: every figure is dense and sourced, and a device finds the one file that is its own."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.schema import HardwareConfig
from lmexp.cost.device import Device
from lmexp.cost.hardware import fits, hardware_of, known_hardware, peak_of
from lmexp.errors import UserError

SHIPPED = known_hardware()
PARTS = {name: hardware for name, hardware in SHIPPED.items() if hardware.match}
AUTO = HardwareConfig(name="auto")

DRIVER_NAMES = {
    "Tesla V100-PCIE-16GB": "v100_16gb_pcie",
    "Tesla V100-PCIE-32GB": "v100_32gb_pcie",
    "Tesla V100-SXM2-16GB": "v100_16gb_sxm",
    "Tesla V100-SXM2-32GB": "v100_32gb_sxm",
    "Tesla V100S-PCIE-32GB": "v100s_pcie",
    "Tesla T4": "t4",
    "NVIDIA A100-PCIE-40GB": "a100_40gb_pcie",
    "A100-PCIE-40GB": "a100_40gb_pcie",
    "NVIDIA A100 80GB PCIe": "a100_80gb_pcie",
    "NVIDIA A100-SXM4-40GB": "a100_40gb_sxm",
    "A100-SXM4-40GB": "a100_40gb_sxm",
    "NVIDIA A100-SXM4-80GB": "a100_80gb_sxm",
    "A100-SXM-80GB": "a100_80gb_sxm",
    "NVIDIA A10": "a10",
    "NVIDIA A10G": "a10g",
    "NVIDIA A30": "a30",
    "NVIDIA A40": "a40",
    "NVIDIA L4": "l4",
    "NVIDIA L40": "l40",
    "NVIDIA L40S": "l40s",
    "NVIDIA H100 PCIe": "h100_pcie",
    "NVIDIA H100 80GB HBM3": "h100_sxm",
    "NVIDIA H100 NVL": "h100_nvl",
    "NVIDIA H200": "h200_sxm",
    "NVIDIA H200 NVL": "h200_nvl",
    "NVIDIA GH200 480GB": "gh200_96gb",
    "NVIDIA GH200 120GB": "gh200_96gb",
    "NVIDIA GH200 144G HBM3e": "gh200_144gb",
    "NVIDIA B200": "b200",
    "NVIDIA GB200": "gb200",
    "NVIDIA B300 SXM6 AC": "b300",
    "NVIDIA GeForce RTX 3090": "rtx_3090",
    "NVIDIA GeForce RTX 4080": "rtx_4080",
    "NVIDIA GeForce RTX 4090": "rtx_4090",
    "NVIDIA GeForce RTX 5080": "rtx_5080",
    "NVIDIA GeForce RTX 5090": "rtx_5090",
    "NVIDIA RTX A6000": "rtx_a6000",
    "NVIDIA RTX 6000 Ada Generation": "rtx_6000_ada",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx_pro_6000_blackwell",
    "AMD Instinct MI210": "mi210",
    "AMD Instinct MI250X": "mi250x",
    "AMD Instinct MI300A": "mi300a",
    "AMD Instinct MI300X": "mi300x",
    "AMD Instinct MI325X": "mi325x",
    "TPU v4": "tpu_v4",
    "TPU v5 lite": "tpu_v5e",
    "TPU v5": "tpu_v5p",
    "TPU v6 lite": "tpu_v6e",
}
"""As the driver gives them, with the file that each belongs to."""

OTHERS = [
    "NVIDIA A100-SXM4-40GB MIG 3g.20gb",  # a slice of a GPU does not do what the whole does
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "GRID A100-10C",
    "NVIDIA A100-SXM-64GB",
    "NVIDIA H100",
    "NVIDIA H20",
    "NVIDIA H800",
    "NVIDIA A800-SXM4-80GB",
    "NVIDIA A10G-24Q",
    "NVIDIA L4-24Q",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA GeForce RTX 4080 SUPER",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 5090 Laptop GPU",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "NVIDIA GB300",
    "AMD Instinct MI250X/MI250",
    "AMD Instinct MI308X",
    "AMD Radeon RX 7900 XTX",
    "Intel(R) Xeon(R) Platinum 8480+, 8 cores",
    "Apple M3 Max GPU",
    "",
]
"""Devices without a file, most of them with a name like that of a device with one."""

KNOWN_DENSE_BF16 = {
    "h200_sxm": 989e12,
    "h100_sxm": 989e12,
    "h100_pcie": 756e12,
    "h100_nvl": 835e12,
    "a100_40gb_sxm": 312e12,
    "a100_80gb_pcie": 312e12,
    "l40s": 362e12,
    "rtx_4090": 165e12,
    "b200": 2250e12,
}
"""Checked by hand, apart from the files."""


def device(name: str) -> Device:
    return Device("cuda", name, 1, 80.0, (9, 0), native_bf16=True)


def compose(*words: str) -> HardwareConfig:
    return Composer([paths.shipped_root()], words=list(words)).config({}).hardware


def write(root: Path, name: str, content: str) -> list[Path]:
    folder = root / "conf" / "hardware"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(content)
    return [root, paths.shipped_root()]


# the shipped files


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_reads_the_same_here_and_through_hydra_and_is_named_after_itself(name: str):
    assert compose(f"hardware={name}") == SHIPPED[name]
    assert SHIPPED[name].name == name


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_figures_and_says_where_they_are_from(name: str):
    part = PARTS[name]
    assert part.memory_gb and part.bandwidth_gb_per_second and part.peak_flops
    assert part.peak_source and "\n" not in part.peak_source
    assert (part.dollars_per_hour is None) == (part.price_source is None)


@pytest.mark.parametrize("name", PARTS)
def test_peaks_rise_as_numbers_narrow_and_by_no_more_than_hardware_does(name: str):
    peaks = PARTS[name].peak_flops
    ladder = [peaks[compute] for compute in ("fp32", "tf32", "bf16", "fp8") if compute in peaks]
    assert all(wide <= narrow for wide, narrow in pairwise(ladder))
    assert peaks.get("bf16", peaks.get("fp16")) == peaks.get("fp16", peaks.get("bf16"))
    if "tf32" in peaks:  # a sparse figure among dense ones would be four times, or once
        assert peaks["bf16"] / peaks["tf32"] == pytest.approx(2, rel=0.02)
    if "fp8" in peaks:
        assert peaks["fp8"] / peaks["bf16"] == pytest.approx(2, rel=0.02)
    assert min(peaks.values()) > 1e12 and max(peaks.values()) < 1e16


@pytest.mark.parametrize("name", KNOWN_DENSE_BF16)
def test_known_dense_peaks_are_these(name: str):
    assert SHIPPED[name].peak_flops["bf16"] == pytest.approx(KNOWN_DENSE_BF16[name], rel=2e-3)


def test_the_same_silicon_has_the_same_peaks():
    for same in (
        ["h100_sxm", "h200_sxm", "gh200_96gb", "gh200_144gb"],
        ["h100_nvl", "h200_nvl"],
        ["mi300x", "mi325x"],
        ["a100_40gb_pcie", "a100_80gb_pcie", "a100_40gb_sxm", "a100_80gb_sxm"],
    ):
        assert all(SHIPPED[name].peak_flops == SHIPPED[same[0]].peak_flops for name in same)


def test_auto_and_measured_hold_no_figures():
    for name in ("auto", "measured"):
        assert SHIPPED[name] == HardwareConfig(name=name)


# which file a device gets


@pytest.mark.parametrize("driver_name", DRIVER_NAMES)
def test_a_device_fits_its_own_file_and_no_other(driver_name: str):
    for name in (driver_name, driver_name.upper()):
        assert [part for part in PARTS if fits(PARTS[part], device(name))] == [DRIVER_NAMES[driver_name]]
        assert hardware_of(AUTO, device(name)) == SHIPPED[DRIVER_NAMES[driver_name]]


def test_every_part_is_among_the_devices_tried():
    assert set(DRIVER_NAMES.values()) == set(PARTS)


@pytest.mark.parametrize("other", OTHERS)
def test_a_device_without_a_file_gets_none_of_a_like_name(other: str):
    assert not [part for part in PARTS if fits(PARTS[part], device(other))]
    assert hardware_of(AUTO, device(other)) == SHIPPED["measured"]


def test_hardware_without_patterns_fits_any_device():
    assert fits(SHIPPED["measured"], device("anything")) and fits(AUTO, device("anything"))


def test_hardware_named_by_the_user_is_kept_whatever_the_device():
    asked = compose("hardware=h100_nvl", "hardware.watts=310")
    assert hardware_of(asked, device("NVIDIA H200")) == asked
    assert not fits(asked, device("NVIDIA H200"))


def test_a_price_set_beside_auto_keeps_the_peaks_and_drops_the_tables_price_source():
    found = hardware_of(compose("hardware.dollars_per_hour=2.5"), device("NVIDIA H100 80GB HBM3"))
    table = SHIPPED["h100_sxm"]
    assert table.price_source and found.dollars_per_hour == 2.5 and found.price_source == "the config"
    assert found.model_dump(exclude={"dollars_per_hour", "price_source"}) == table.model_dump(
        exclude={"dollars_per_hour", "price_source"}
    )


def test_a_price_of_zero_is_a_price():
    assert hardware_of(compose("hardware.dollars_per_hour=0"), device("Tesla T4")).dollars_per_hour == 0


def test_a_peak_set_beside_auto_prevails_and_is_not_said_to_be_the_datasheets():
    asked = compose("+hardware.peak_flops.bf16=1e15")
    for name in ("NVIDIA H200", "no such device"):
        found = hardware_of(asked, device(name))
        assert peak_of(found, "bf16") == (1e15, "the config")
        assert peak_of(found, "fp8") is None
    sourced = asked.model_copy(update={"peak_source": "our own measurement"})
    assert peak_of(hardware_of(sourced, device("NVIDIA H200")), "bf16") == (1e15, "our own measurement")


def test_a_peak_comes_with_its_source_and_is_absent_where_the_table_has_none():
    h100 = SHIPPED["h100_sxm"]
    assert peak_of(h100, "bf16") == (989.5e12, h100.peak_source)
    assert peak_of(SHIPPED["t4"], "bf16") is None
    assert peak_of(SHIPPED["measured"], "fp32") is None
    assert peak_of(h100, "int3") is None


# the user's own files


def test_a_users_file_works_like_a_shipped_one_and_comes_first(tmp_path: Path):
    roots = write(
        tmp_path, "ours", "defaults: [h100_sxm, _self_]\nname: ours\ndollars_per_hour: 1.5\nprice_source: contract\n"
    )
    asked = Composer(roots, words=["hardware=ours"]).config({}).hardware
    assert known_hardware(roots)["ours"] == asked
    assert asked.peak_flops == SHIPPED["h100_sxm"].peak_flops and asked.dollars_per_hour == 1.5
    assert hardware_of(AUTO, device("NVIDIA H100 80GB HBM3"), roots) == asked
    assert hardware_of(AUTO, device("NVIDIA H100 80GB HBM3")) == SHIPPED["h100_sxm"]
    assert hardware_of(AUTO, device("NVIDIA H200"), roots) == SHIPPED["h200_sxm"]


def test_a_users_file_for_a_new_device_is_found_by_auto(tmp_path: Path):
    roots = write(tmp_path, "arc", 'name: arc\nmatch: ["Intel Arc B5?0"]\npeak_flops: {bf16: 9e13}\n')
    assert hardware_of(AUTO, device("intel ARC b580"), roots).name == "arc"
    assert peak_of(hardware_of(AUTO, device("Intel Arc B580"), roots), "bf16") == (9e13, "the config")


def test_a_part_of_the_peaks_may_be_replaced_in_a_users_file_as_in_hydra(tmp_path: Path):
    roots = write(tmp_path, "mine", "defaults: [l4]\nname: mine\npeak_flops: {bf16: 1e14}\n")
    mine = Composer(roots, words=["hardware=mine"]).config({}).hardware
    assert known_hardware(roots)["mine"] == mine
    assert mine.peak_flops == SHIPPED["l4"].peak_flops | {"bf16": 1e14}


def test_an_edited_file_is_read_anew(tmp_path: Path):
    roots = write(tmp_path, "mine", "watts: 100\n")
    assert known_hardware(roots)["mine"].watts == 100
    write(tmp_path, "mine", "watts: 200\n")
    os.utime(tmp_path / "conf" / "hardware" / "mine.yaml", ns=(1, 1))
    assert known_hardware(roots)["mine"].watts == 200


def test_two_files_of_the_user_for_one_device_are_refused(tmp_path: Path):
    write(tmp_path, "one", 'match: ["NVIDIA H200"]\n')
    roots = write(tmp_path, "two", 'match: ["NVIDIA H*"]\n')
    with pytest.raises(UserError, match="NVIDIA H200 fits hardware=one and hardware=two"):
        hardware_of(AUTO, device("NVIDIA H200"), roots)
    assert hardware_of(AUTO, device("NVIDIA H100 PCIe"), roots).name == "two"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("watts: -5\n", r"wrong\.yaml: watts: Input should be greater than 0"),
        ("peak_flops: {bf61: 1e12}\n", r"wrong\.yaml: peak_flops\.bf61.*'bf16'"),
        ("wats: 5\n", r"wrong\.yaml: wats: Extra inputs are not permitted"),
        ("match: [a\n", r"wrong\.yaml:2: not YAML: "),
        ("- 5\n", r"wrong\.yaml: a hardware file is a mapping"),
        ("defaults: [h100_sx]\n", r"wrong\.yaml: there is no hardware 'h100_sx'\. Did you mean 'h100_sxm'"),
        ("defaults: h100_sxm\n", r"wrong\.yaml: its defaults are a list of names"),
        ("defaults: [{h100_sxm: x}]\n", r"wrong\.yaml: its defaults are a list of names"),
        ("defaults: [wrong]\n", r"wrong\.yaml: its defaults lead back to wrong"),
    ],
)
def test_a_mistake_in_a_users_file_is_one_line_that_names_it(tmp_path: Path, content: str, said: str):
    roots = write(tmp_path, "wrong", content)
    with pytest.raises(UserError, match=said) as caught:
        known_hardware(roots)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hardware.dollars_per_hour=-1"], "hardware.dollars_per_hour=-1: input should be greater than or equal to 0"),
        (["hardware=t4", "hardware.peak_flops.fp16=-1"], "hardware.peak_flops.fp16=-1: input should be greater than 0"),
        (["hardware=t4", "hardware.peak_flops.fp16=true"], "hardware.peak_flops.fp16"),
        (["+hardware.peak_flops.bf61=1e14"], "hardware.peak_flops.bf61"),
        (["hardware.dollars=1"], "hardware.dollars is not a key of the config"),
        (["hardware=h100_sx"], "there is no hardware 'h100_sx'. Did you mean 'h100_sxm'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_that_names_the_key(words: list[str], said: str):
    with pytest.raises(UserError) as caught:
        compose(*words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_table_is_read_without_torch_and_without_hydra():
    code = "import sys, lmexp.cost.hardware as h; h.known_hardware(); print({'torch', 'hydra'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
