"""Small tables in the terminal: status, lists, a token store."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from lmexp.report.terminal import small_table
from lmexp.runs.record import Row


def print_status(rows: Sequence[Row], console: Console) -> None:
    """Print what the runs of a sweep are doing, and how many are in each state."""
    console.print(
        small_table(
            ("run", "state", "done", "train loss", "reason"),
            [
                (
                    row["run"],
                    row["state"],
                    "" if row["share"] is None else f"{row['share']:.0%}",
                    "" if row["train_loss"] is None else f"{row['train_loss']:.4f}",
                    row["reason"] or "",
                )
                for row in rows
            ],
        )
    )
    states = [row["state"] for row in rows]
    console.print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    if "running" not in states and set(states) & {"queued", "failed", "cancelled"}:
        console.print("Nothing runs now; the same sweep command goes on from here.")


def print_list(found: Mapping[str, str], console: Console) -> None:
    """Print names, each with its line."""
    width = max((len(name) for name in found), default=0)
    for name, line in found.items():
        console.print(Text(f"{name:<{width}}  {line}"), soft_wrap=True)


def print_store(found: Mapping[str, Any], console: Console) -> None:
    """Print what a token store holds."""
    console.print(
        small_table(
            ("split", "documents", "tokens", "bytes"),
            [
                (split, *(f"{found[split][key]:,}" for key in ("documents", "tokens", "bytes")))
                for split in ("train", "validation")
            ],
        )
    )
    console.print(Text(f"vocabulary {found['vocab_size']:,}\n{found['path']}"), soft_wrap=True)
