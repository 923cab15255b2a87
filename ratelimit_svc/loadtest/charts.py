"""Two charts as SVG, by hand: they need no library, no script and no network, and follow the page's colours.

Colours are classes, `s1` to `s5`, that the page gives a meaning to; every mark has a title that shows its number.
"""

from collections.abc import Sequence
from html import escape
from math import log10
from typing import NamedTuple

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 10, 26
_INNER_W, _INNER_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


class Series(NamedTuple):
    """One line."""

    name: str
    color: str
    points: Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """One bar of a histogram."""

    until: str
    """What is written below it."""
    title: str
    height: float
    color: str


def lines(series: Sequence[Series], *, unit: str) -> str:
    """Draw numbers over time, each series a line, from zero up; times in seconds."""
    end = max((x for one in series for x, _ in one.points), default=0) or 1
    top = nice(max((y for one in series for _, y in one.points), default=0))
    step = nice(end / 8)
    drawn = [
        _grid(top),
        *(_tick(LEFT + _INNER_W * at * step / end, f"{at * step:g} s") for at in range(int(end / step) + 1)),
    ]
    for one in series:
        at = [(LEFT + _INNER_W * x / end, _y(y, top)) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        drawn.append(f'<polyline class="line {one.color}" points="{path}"/>')
        drawn += [
            f'<circle class="{one.color}" cx="{x:.1f}" cy="{y:.1f}" r="2.5">'
            f"<title>{escape(one.name)}: {value:,.0f} {escape(unit)} at {second:.3g} s</title></circle>"
            for (x, y), (second, value) in zip(at, one.points, strict=True)
        ]
    return _svg(drawn)


def bars(found: Sequence[Bar], *, every: int) -> str:
    """Draw a histogram, with a label below every so many bars."""
    top = nice(max((bar.height for bar in found), default=0))
    width = _INNER_W / max(len(found), 1)
    drawn = [_grid(top)]
    for number, bar in enumerate(found):
        x, y = LEFT + number * width, _y(bar.height, top)
        drawn.append(
            f'<rect class="{bar.color}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}"'
            f' height="{TOP + _INNER_H - y:.1f}"><title>{escape(bar.title)}</title></rect>'
        )
        if number % every == every - 1:
            drawn.append(_tick(x + width, bar.until))
    return _svg(drawn)


def nice(most: float) -> float:
    """Return the next round number: where an axis may end, and a fourth of it is still short."""
    if most <= 0:
        return 1
    power = 10.0 ** int(log10(most) if most >= 1 else log10(most) - 1)
    return next(step * power for step in (1, 2, 2.5, 4, 5, 6, 8, 10) if step * power >= most)


def _y(value: float, top: float) -> float:
    return TOP + _INNER_H * (1 - value / top)


def _grid(top: float) -> str:
    marks = []
    for part in range(5):
        y = _y(top * part / 4, top)
        marks.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * part / 4:,.6g}</text>'
        )
    return "".join(marks)


def _tick(x: float, text: str) -> str:
    anchor = "end" if x > WIDTH - 40 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(drawn: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'
