"""How tables are laid out in the terminal: small tables of text, and wide ones that are made to fit.

Where not all columns of a wide table fit, the least important ones are hidden, and the caption names them. Names from
configs are printed as they are: rich never reads them as markup.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from lmexp.report.texts import NULL
from lmexp.units import printable

CUT = "…"
"""What stands for the part of a name that is left out."""
GAP = 2
"""Characters between two columns: one from the box, the rest is padding."""


def small_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], right: Collection[str] = ()) -> Table:
    """Return a table of text; null is shown as a dash, long text is wrapped, headings in `right` align right."""
    import pandas as pd  # here, because a plan has no such table, and takes a second less without pandas

    table = empty_table()
    for heading in headings:
        table.add_column(Text(heading), justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(NULL if value is None or pd.isna(value) else printable(str(value))) for value in row))
    return table


def empty_table(gap: int = GAP, **options: Any) -> Table:
    """Return a table without columns, in the style of all tables: a rule below the headings and nothing else."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), **options)


def fitted_table(
    texts: Mapping[str, list[str]],
    headings: Mapping[str, str],
    right: Collection[str],
    hide_first: Sequence[str],
    notes: Sequence[str],
    width: int,
    styles: Sequence[str] = (),
) -> Table:
    """Return columns of text as a table of at most `width` characters, with notes in its caption.

    Args:
        texts: the cells of each column, by its name.
        right: the columns that align right, and never wrap.
        hide_first: the columns that may be hidden if the table is too wide, in this order; the caption names them.
        notes: sentences below the table.
        styles: rich's style of each row; none means plain.
    """
    gap = GAP
    if sum(column_widths(headings, texts).values()) + gap * len(texts) > width:
        # Before a column is hidden, headings take two lines and the gaps shrink.
        gap, headings = 1, {name: _in_two_lines(headings[name]) for name in texts}
    hidden = columns_to_hide(column_widths(headings, texts), gap, hide_first, width)
    lines = [*notes[:1], *([f"Not shown at this width: {', '.join(hidden)}."] if hidden else []), *notes[1:]]
    caption = Text("\n".join(map(printable, lines)), style="dim")
    table = empty_table(gap, caption=caption, caption_justify="left")
    shown = {name: cells for name, cells in texts.items() if name not in hidden}
    for name in shown:
        at = name in right
        table.add_column(Text(headings[name]), justify="right" if at else "left", overflow="fold", no_wrap=at)
    rows = list(zip(*shown.values(), strict=True))
    for cells, style in zip(rows, styles or [""] * len(rows), strict=True):
        table.add_row(*map(Text, cells), style=style)
    return table


def room_for(
    name: str,
    texts: Mapping[str, list[str]],
    headings: Mapping[str, str],
    hide_first: Sequence[str],
    enough: int,
    width: int,
) -> int:
    """Return the characters that one column may take in a fitted table of `width` characters.

    Other columns are hidden, in the order of `hide_first`, until it can have `enough` of them, or all that it needs.
    """
    in_two_lines = {heading: _in_two_lines(headings[heading]) for heading in headings}
    widths = column_widths(in_two_lines, texts)
    others = {other: characters for other, characters in widths.items() if other != name}
    hidden = columns_to_hide(others, 1, hide_first, width - min(enough, widths[name]) - 1)
    left = width - 1 - sum(characters + 1 for other, characters in others.items() if other not in hidden)
    return max(left, cell_len(headings[name]))


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most `width` characters: of a longer one, a part is left out, where most names stay distinct.

    All names are cut at the same place. If their differences lie far from both ends, the beginning that all of them
    share is left out first.
    """
    if all(cell_len(name) <= width for name in names):
        return list(names)
    shared = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))
    best: list[str] = []
    for without_start in (0, shared):
        whole = [f"{CUT}{name[without_start:]}" if without_start else name for name in names]
        # The middle first: of two places where as many names stay distinct, the earlier one in this order is taken.
        for head in sorted(range(width), key=lambda head: abs(head - width // 2)):
            cut = [_cut(name, head, width) for name in whole]
            if not best or len(set(cut)) > len(set(best)):
                best = cut
            if len(set(best)) == len(set(names)):
                return best
    return best


def _cut(name: str, head: int, width: int) -> str:
    """Return a name of at most `width` characters: at most `head` from its beginning, the others from its end."""
    if cell_len(name) <= width:
        return name
    start, end = set_cell_size(name, head), len(name)
    while cell_len(f"{start}{CUT}{name[end - 1 :]}") <= width:
        end -= 1
    return f"{start}{CUT}{name[end:]}"


def column_widths(headings: Mapping[str, str], texts: Mapping[str, list[str]]) -> dict[str, int]:
    """Return the characters that each column takes; headings and cells may have several lines."""
    return {
        name: max(cell_len(line) for text in [headings[name], *cells] for line in text.split("\n"))
        for name, cells in texts.items()
    }


def columns_to_hide(widths: Mapping[str, int], gap: int, order: Sequence[str], width: int) -> list[str]:
    """Return the columns to hide, taken in `order`, so that the others fit into `width` characters."""
    total = sum(characters + gap for characters in widths.values())
    hidden: list[str] = []
    for name in order:
        if total <= width:
            break
        if name in widths:
            hidden.append(name)
            total -= widths[name] + gap
    return hidden


def _in_two_lines(heading: str) -> str:
    """Break a long heading at the word boundary nearest to its middle: `n_layers`, `bits/byte`, `train s`."""
    breaks = [i + (heading[i] == "_") for i in range(1, len(heading) - 1) if heading[i] in "_/ "]
    if len(heading) < 7 or not breaks:
        return heading
    at = min(breaks, key=lambda i: abs(i - len(heading) / 2))
    return f"{heading[:at]}\n{heading[at:].strip()}"
