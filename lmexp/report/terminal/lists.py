"""What there is, in the terminal: the choices of a kind, and what a token store holds."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from lmexp.config.data import SPLITS
from lmexp.report.terminal.layout import small_table


def print_list(choices: Mapping[str, str], console: Console) -> None:
    """Print names, each with its description."""
    width = max((len(name) for name in choices), default=0)
    for name, line in choices.items():
        console.print(Text(f"{name:<{width}}  {line}"), soft_wrap=True)


def print_store(store: Mapping[str, Any], console: Console) -> None:
    """Print what a token store holds."""
    console.print(
        small_table(
            ("split", "documents", "tokens", "bytes"),
            [
                (split, *(f"{store[split][key]:,}" for key in ("documents", "tokens", "bytes")))
                for split in SPLITS
                if split in store
            ],
        )
    )
    if planted := store.get("canaries"):
        console.print(f"canaries in train: {planted['documents']:,} documents, {planted['tokens']:,} tokens")
    found = ", ".join(f"{count:,} {kind}" for kind, count in store.get("pii", {}).items())
    pii = f"personal data found by data.clean.pii: {found}\n" if found else ""
    console.print(Text(f"{pii}vocabulary {store['vocab_size']:,}\n{store['path']}"), soft_wrap=True)
