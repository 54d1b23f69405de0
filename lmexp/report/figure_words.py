"""What one sees in a paper's figure, as sentences that are computed from what is drawn."""

from collections.abc import Iterator

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.papers.drawing import Drawing, Fit, Published, Series
from lmexp.units import plain_number

UNCHECKED = "*"
"""Marks a published number that nobody has compared with the paper itself."""


def label_of(published: Published) -> str:
    """Return a curve's name in the legend, marked if nobody has compared its numbers with the paper."""
    return published.curve.label + ("" if published.curve.checked else UNCHECKED)


def sentences_of(drawing: Drawing) -> list[str]:
    """Return the author's sentence, then what the points are, how they run, and how far they are from each curve."""
    own = [drawing.figure.caption] if drawing.figure.caption else []
    marked = any(not one.curve.checked for one in drawing.published)
    return [
        *own,
        _points(drawing),
        *(sentence for published in drawing.published for sentence in _against(drawing, published)),
        *_fits(drawing),
        *([f"{UNCHECKED} a published curve that nobody has compared with the paper itself."] if marked else []),
    ]


def _points(drawing: Drawing) -> str:
    """Return how many points there are, what each is the mean of, and where the lowest and the highest are."""
    seeds, n = np.concatenate([one.seeds for one in drawing.series]), len(drawing.our_x)
    most, least = int(seeds.max()), int(seeds.min())
    what = (
        "the mean of " + (f"{most} seeds" if most == least else f"{least} to {most} seeds")
        if most > 1
        else f"one {drawing.unit}"
    )
    what += ", with a bar from the lowest seed to the highest" if most > 1 else ""
    first = f"Each of the {n} points is {what}." if n > 1 else f"The only point is {what}."
    y, x = _name(drawing.figure.y, drawing.figure.y_title), _name(drawing.figure.x, drawing.figure.x_title)
    low, high = int(drawing.our_y.argmin()), int(drawing.our_y.argmax())
    ends = (
        f"The lowest {y} is {plain_number(drawing.our_y[low])}, at {x} = {drawing.x.text(drawing.our_x[low])}; "
        f"the highest is {plain_number(drawing.our_y[high])}, at {x} = {drawing.x.text(drawing.our_x[high])}."
    )
    by = f" Colours and shapes tell {drawing.figure.by} apart." if drawing.figure.by else ""
    return f"{first}{by} {ends}"


def _name(expression: str, title: str | None) -> str:
    """Return what stands for an axis in a sentence: its expression, or its title if a function is called there."""
    return f"value of “{title}”" if title and "(" in expression else expression


def _against(drawing: Drawing, published: Published) -> Iterator[str]:
    """Yield how far our points are from a curve, or where the curve is if the figure does not show it."""
    label = f"“{label_of(published)}”"
    if published.curve.slope is not None:
        slope = f"a slope of {published.curve.slope:g} alone"
        yield f"The red line {label} is {slope}, drawn through the middle of our points."
        return
    known = np.isfinite(published.at_ours)
    if not known.any() and not published.is_inside:
        yield f"{label} lies outside of this figure{_where(published)}."
        return
    if not known.any():
        yield f"{label} has no value at the x of our points."
        return
    outside = "" if published.is_inside else ", which lies outside of this figure"
    off = _distance(drawing.our_y[known], published.at_ours[known])
    several = int(known.sum())
    which = "Our points lie"
    if several < len(known):
        which = "Our point there lies" if several == 1 else f"The {several} points that the curve reaches lie"
    yield f"{which} {off} {label}{outside}."


def _where(published: Published) -> str:
    """Return the ends of a curve that is given by its points."""
    if not published.curve.points:
        return ""
    x, y = np.array(published.curve.points, dtype=float).T
    ends = [f"{plain_number(part.min())} to {plain_number(part.max())}" for part in (x, y)]
    return f": its x is {ends[0]}, its y {ends[1]}"


def _distance(ours: Floats, theirs: Floats) -> str:
    """Return how far some values are from others, in percent if all are positive: `1.2 to 13 % above`."""
    relative = (ours > 0).all() and (theirs > 0).all()
    off = 100 * (ours / theirs - 1) if relative else ours - theirs
    unit = " %" if relative else ""

    def text(number: float) -> str:
        return f"{number:,.0f}{unit}" if number >= 100 else f"{number:.2g}{unit}"

    low, high = float(off.min()), float(off.max())
    if low >= 0 or high <= 0:
        near, far = sorted((abs(low), abs(high)))
        side = "above" if low >= 0 and high > 0 else "below"
        span = f"{text(near).removesuffix(unit)} to {text(far)}" if text(near) != text(far) else text(far)
        return f"{span} {side}"
    return f"between {text(-low)} below and {text(high)} above"


def _fits(drawing: Drawing) -> Iterator[str]:
    """Yield what each fitted line or parabola says."""
    if not drawing.fits:
        return
    if drawing.figure.fit == "line":
        word = "exponent" if drawing.x.is_log and drawing.y.is_log else "slope"
        for fit in drawing.fits:
            yield f"The line fitted to {_of(fit, drawing.series)} has the {word} {_slope(fit)}."
        return
    for fit in drawing.fits:
        where = (
            "no lowest point between our points"
            if fit.lowest is None
            else f"its lowest point at {drawing.figure.x} = {plain_number(fit.lowest)}"
        )
        yield f"The parabola fitted to {_of(fit, drawing.series)} has {where}."


def _of(fit: Fit, series: tuple[Series, ...]) -> str:
    return "our points" if len(series) == 1 else f"the points of {fit.series}"


def _slope(fit: Fit) -> str:
    assert fit.slope is not None
    value, low, high = fit.slope
    return f"{value:.3g}" + (f", 95 % interval {low:.3g} to {high:.3g}" if np.isfinite(high - low) else "")
