"""The result of the doctor in the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Line = tuple[str, str]


def print_doctor(result: dict[str, Any], console: Console) -> None:
    """Print the result of `examine` in aligned sections, then the line to remember."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for title, lines in sections(result).items():
        table.add_row(Text(title, style="bold"), "")
        for label, value in lines:
            table.add_row(Text(f"  {label}"), Text(value))
    console.print(table)
    console.print(Text(verdict(result), style="bold"))


def verdict(result: dict[str, Any]) -> str:
    """Return the line to remember: which precision is fastest here, and by how much."""
    measured = {
        name: entry["ratio_to_fp32"]
        for name, entry in result["precisions"].items()
        if entry["ratio_to_fp32"] is not None
    }
    if not measured:
        return "Speed not measured yet: run `lmexp doctor`."
    best = max(measured, key=lambda name: measured[name])  # if equal, the first one, which has more digits
    if measured[best] < 1.1:
        return "Fast here: fp32; no other precision multiplies faster."
    return f"Fast here: {best} ({measured[best]:.1f}x fp32 in matrix products)."


def sections(result: dict[str, Any]) -> dict[str, list[Line]]:
    """Return the result as sections of labels and values, by title."""
    cpu, store = result["cpu"], result["outputs"]
    machine = [
        ("CPU", cpu["name"]),
        ("threads", str(cpu["threads"])),
        ("memory", f"{cpu['memory_gb']:.1f} GB, {cpu['memory_free_gb']:.1f} GB free"),
    ]
    for gpu in result["gpus"]:
        major, minor = gpu["capability"]
        machine.append(("GPU", f"{gpu['name']}, {gpu['memory_gb']:.1f} GB, capability {major}.{minor}"))
    if not result["gpus"]:
        machine.append(("GPU", "Apple MPS" if result["device"]["kind"] == "mps" else "none"))
    if result["driver"]:
        machine.append(("driver", result["driver"]))
    measured = result["measured"]
    if measured:
        speed = f"{measured['memory_gb_per_second']:.1f} GB/s ({measured['memory_method']})"
        machine.append(("memory speed", speed))
    outputs = [
        ("folder", store["path"]),
        ("writable", "yes" if store["writable"] else f"no: {store['reason']}"),
    ]
    if store["free_gb"] is not None:
        outputs.append(("free", f"{store['free_gb']:.1f} GB"))
    extras = [(name, version or "not installed") for name, version in result["extras"].items()]
    extras.append(("W&B login", "yes" if result["wandb_login"] else "no; runs are kept offline"))
    titled = {
        "Machine": machine,
        "Precisions": [(name, _precision(entry)) for name, entry in result["precisions"].items()],
        "Outputs": outputs,
        "Versions": [(name, version or "not installed") for name, version in result["versions"].items()],
        "Extras": extras,
        "Not measured here": [(entry["what"], entry["why"]) for entry in result["not_measured"]],
    }
    return {title: lines for title, lines in titled.items() if lines}


def _precision(entry: dict[str, Any]) -> str:
    """Return a precision in one line: its speed, or why it does not run."""
    if not entry["available"]:
        return f"no: {entry['reason']}"
    words = ["yes"]
    if entry["peak_flops"]:
        words.append(_flops(entry["peak_flops"]))
    if entry["ratio_to_fp32"] and entry["compute"] != "fp32":
        words.append(f"{entry['ratio_to_fp32']:.1f}x fp32")
    if entry["warning"]:
        words.append(entry["warning"])
    return ", ".join(words)


def _flops(flops: float) -> str:
    return f"{flops / 1e12:.2f} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.0f} GFLOP/s"
