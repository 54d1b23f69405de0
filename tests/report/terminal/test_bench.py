"""What bench prints fits its width and says what was found."""

from typing import Any

import pytest
from rich.console import Console

from lmexp.report.terminal.bench import finding, print_bench

SPEED = {"fp32": 1000.0, "int8": 1500.0, "int4": 500.0}
LOSS = {"fp32": 2.0, "int8": 2.00211, "int4": 2.1}
GB = {"fp32": 0.4, "int8": 0.1, "int4": 0.12}


def document(*precisions: str, **changes: Any) -> dict[str, Any]:
    rows = [
        {
            "precision": precision,
            "batch": batch,
            "prompt": 1024,
            "loss": LOSS[precision],
            "time_to_first_token_ms": 12.3456,
            "prefill_tokens_per_second": 12345.6,
            "decode_tokens_per_second": SPEED[precision] * batch,
            "decode_ms_p50": 0.98765,
            "decode_ms_p95": 12.3,
            "decode_ms_p99": None,
            "weights_gb": GB[precision],
            "kv_cache_gb": 0.001,
            "peak_memory_gb": None,
            "bandwidth_use": 0.4567,
            "compile_seconds": None,
            "exclusive": True,
            "cpu_wait_fraction": 0.02,
        }
        | changes
        for precision in precisions
        for batch in (1, 64)
    ]
    return {"trained_precision": "fp32", "rows": rows, "skipped": [], "notes": []}


def printed(found: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_bench(found, console)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_its_width_with_one_line_a_row(width: int):
    lines = printed(document("fp32", "int8", "int4"), width).splitlines()
    rows = [line for line in lines if line.startswith(("fp32", "int8 ", "int4 ")) and "1024" in line]
    assert len(rows) == 6 and max(map(len, rows)) <= width
    assert "46%" in rows[0] and "400MB" in rows[0]


def test_a_column_without_a_number_is_not_shown_and_one_that_has_no_room_is_named():
    text = printed(document("fp32"), 200)
    assert "peak" not in text and "p99" not in text and "Not shown" not in text
    assert "Not shown at this width: p95 ms" in printed(document("fp32"), 72)


def test_the_finding_holds_smaller_precisions_against_the_trained_one():
    assert finding(document("int8", "fp32", "int4")) == (
        "int8 decodes at 1.50x the speed of fp32, with 0.25x its bytes of weights, for +0.0021 loss; "
        "int4 decodes at 0.50x the speed of fp32, with 0.30x its bytes of weights, for +0.1000 loss."
    )
    assert "loss" not in finding(document("fp32", "int8", loss=None))
    assert finding(document("fp32")) == "fp32 decodes up to 64.0k tokens/s, 64 sequences at once."


def test_what_would_mislead_is_said():
    text = printed(document("fp32", "int4", bandwidth_use=1.2, exclusive=False))
    assert "int4 takes one byte for each weight" in text
    assert "Memory speed is above 100%" in text
    assert "Another run or program used this device" in text
    assert "int4 takes" not in printed(document("fp32", "int8"))


def test_what_was_skipped_is_named():
    gap = {"precision": None, "batch": 4, "prompt": 900, "new": 200, "reason": "more than the context of 1024"}
    text = printed(document("fp32") | {"skipped": [gap], "notes": ["No loss, because the text is missing."]})
    assert "Skipped: batch 4 prompt 900 new 200: more than the context of 1024." in text
    assert "No loss, because the text is missing." in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exclusive": False}, "Another run or program used this device"),
        ({"cpu_wait_fraction": 0.3}, "Other programs kept it waiting for the cores of this CPU"),
    ],
)
def test_speeds_beside_other_work_are_marked(changes: dict[str, Any], said: str):
    text = printed(document("fp32", **changes), 200)
    (row, _) = [line for line in text.splitlines() if line.startswith("fp32") and "1024" in line]
    assert said in text and {"~12.3", "~1.00k", "~0.988", "~46%"} <= set(row.split()) and "400MB" in row.split()
    assert "~" not in printed(document("fp32"), 200)
    assert "~" not in printed(document("fp32", cpu_wait_fraction=None), 200)
