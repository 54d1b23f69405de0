"""What became of a run's data, code, packages and weights, in the terminal."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"differs": "bold red", "not checked": "bold yellow", "same": "green"}
HASH_SHOWN = 12
"""Digits that are shown of a hash or a commit."""


def print_provenance(checks: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the checks of resolve/provenance.py by subject, then the line to remember."""
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for subject, group in groupby(checks, lambda check: check["subject"]):
        table.add_row(Text(subject, style="bold"), "", "")
        for check in group:
            result = Text(check["result"], style=STYLES.get(check["result"], ""))
            table.add_row(Text(f"  {check['what']}"), result, Text(_values(check)))
    console.print(table)
    console.print(Text(verdict(checks), style="bold"))


def verdict(checks: Sequence[dict[str, Any]]) -> str:
    """Return the line to remember: what differs, and what could not be checked."""
    differs, unknown = (
        [check["what"] for check in checks if check["result"] == result] for result in ("differs", "not checked")
    )
    missing = f"Could not be checked: {', '.join(unknown)}."
    if differs:
        return f"Differs from the record: {', '.join(differs)}." + (f" {missing}" if unknown else "")
    return (
        f"{missing} The rest is the same as in the record." if unknown else "Everything is the same as in the record."
    )


def _values(check: dict[str, Any]) -> str:
    """Return what is recorded and what is here, with hashes cut, and the reason."""
    recorded, here = (_short(check[side]) for side in ("recorded", "here"))
    if check["result"] == "same" or (recorded and recorded == here):
        words = [recorded or ""]
    elif check["result"] == "not checked":
        words = [f"recorded {recorded}"] if recorded else []
    else:
        words = [f"recorded {recorded or 'nothing'}", f"here {here or 'nothing'}"]
    return "; ".join([*words, *([check["reason"]] if check["reason"] else [])])


def _short(value: str | None) -> str | None:
    """Return a value with its hash cut."""
    return value and re.sub(rf"\b([0-9a-f]{{{HASH_SHOWN}}})[0-9a-f]{{28,52}}\b", r"\1", value)
