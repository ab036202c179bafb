"""Drawings as whole numbers, for a template to write as SVG: bars of days, and boxes with arrows."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

BARS_HEIGHT = 1000
BAR_WIDTH = 10
BAR_STEP = 12

Side = Literal["right", "down", "left", "up"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its place and size in the drawing, and what it says."""

    x: int
    y: int
    height: int
    label: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars side by side in a drawing of `width` x BARS_HEIGHT; `highest` is what a bar of full height stands for."""

    bars: Sequence[Bar]
    width: int
    highest: Decimal


def bar_chart(values: Sequence[tuple[str, Decimal]]) -> BarChart:
    """Draw (label, quantity) from zero; a quantity that is not zero is at least seen."""
    highest = max((quantity for _, quantity in values), default=Decimal(0))
    bars = []
    for index, (label, quantity) in enumerate(values):
        height = int(quantity * BARS_HEIGHT / highest) if highest > 0 and quantity > 0 else 0
        height = max(height, 4) if quantity > 0 else 0
        bars.append(Bar(index * BAR_STEP, BARS_HEIGHT - height, height, label, quantity))
    return BarChart(bars, max(1, len(values)) * BAR_STEP - (BAR_STEP - BAR_WIDTH), highest)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a box is in a drawing."""

    x: int
    y: int
    width: int
    height: int

    def edge(self, side: Side) -> tuple[int, int]:
        """The middle of one of its sides."""
        return {
            "right": (self.x + self.width, self.y + self.height // 2),
            "left": (self.x, self.y + self.height // 2),
            "down": (self.x + self.width // 2, self.y + self.height),
            "up": (self.x + self.width // 2, self.y),
        }[side]


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing of boxes: its size, where each box is, and arrows as paths."""

    name: str
    width: int
    height: int
    places: Mapping[str, Place]
    arrows: Sequence[str]


_BOX_WIDTH, _BOX_HEIGHT = 158, 96
_MAIN = ("events", "aggregate", "totals", "rate", "ledger_sink", "invoices")


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """A path with at most one corner, that ends short of the box it leads to."""
    (x1, y1), (x2, y2) = start, end
    if x1 != x2 and y1 != y2:
        return f"M{x1} {y1} H{x2} V{y2 + (6 if y1 > y2 else -6)}"
    if y1 == y2:
        return f"M{x1} {y1} H{x2 + (-6 if x2 > x1 else 6)}"
    return f"M{x1} {y1} V{y2 + (-6 if y2 > y1 else 6)}"


def wide_layout() -> Layout:
    """The way of an event from left to right, the archive and the proof below."""
    places = {
        name: Place(4 + index * (_BOX_WIDTH + 36), 4, _BOX_WIDTH, _BOX_HEIGHT) for index, name in enumerate(_MAIN)
    }
    for name, above in (("archive", "aggregate"), ("proof", "invoices")):
        places[name] = Place(places[above].x, 150, _BOX_WIDTH, _BOX_HEIGHT)
    arrows = [_arrow(places[a].edge("right"), places[b].edge("left")) for a, b in itertools.pairwise(_MAIN)]
    down_x, down_y = places["events"].edge("down")
    left_x, left_y = places["archive"].edge("left")
    arrows.append(f"M{down_x} {down_y} V{left_y} H{left_x - 6}")
    arrows.append(_arrow(places["archive"].edge("right"), places["proof"].edge("left")))
    arrows.append(_arrow(places["proof"].edge("up"), places["invoices"].edge("down")))
    last = places["invoices"]
    return Layout("wide", last.x + last.width + 4, 150 + _BOX_HEIGHT + 4, places, arrows)


def tall_layout() -> Layout:
    """The same from top to bottom, for a phone."""
    step = _BOX_HEIGHT + 30
    places = {name: Place(4, 4 + index * step, 166, _BOX_HEIGHT) for index, name in enumerate(_MAIN)}
    places["archive"] = Place(192, places["aggregate"].y, 164, _BOX_HEIGHT)
    places["proof"] = Place(192, places["invoices"].y, 164, _BOX_HEIGHT)
    arrows = [_arrow(places[a].edge("down"), places[b].edge("up")) for a, b in itertools.pairwise(_MAIN)]
    arrows.append(_arrow(places["events"].edge("right"), places["archive"].edge("up")))
    arrows.append(_arrow(places["archive"].edge("down"), places["proof"].edge("up")))
    arrows.append(_arrow(places["proof"].edge("left"), places["invoices"].edge("right")))
    return Layout("tall", 360, places["invoices"].y + _BOX_HEIGHT + 4, places, arrows)
