"""A wrong sum is seen, whatever is wrong with it."""

from collections import Counter

import pytest

from bench.check import quantity_differences, tally_differences
from bench.events import Truth

WANTED = {("cpu", "vm-1"): 5, ("cpu", "vm-2"): 0}
ROWS = [("cpu", "vm-1", "5"), ("cpu", "vm-2", "0")]
TALLY = {"messages": 3, "received": 4, "counted": 2, "duplicate": 1, "quarantined": 1} | dict.fromkeys(
    ("parked", "ignored", "control"), 0
)


def _truth() -> Truth:
    return Truth(outcomes=Counter({"counted": 2, "duplicate": 1, "quarantined": 1}))


def test_what_is_right_has_no_difference() -> None:
    """The truth itself passes."""
    assert quantity_differences("slots", ROWS, WANTED) == []
    assert tally_differences(TALLY, _truth(), 3) == []


@pytest.mark.parametrize(
    "rows",
    [
        [("cpu", "vm-1", "6"), ROWS[1]],
        [("cpu", "vm-1", "5.5"), ROWS[1]],
        [ROWS[1]],
        [*ROWS, ("cpu", "vm-3", "0")],
        [("memory", "vm-1", "5"), ROWS[1]],
    ],
    ids=["another", "fraction", "missing", "surplus", "another meter"],
)
def test_every_wrong_quantity_is_a_difference(rows: list[tuple[str, str, str]]) -> None:
    """A changed, missing or surplus sum is named."""
    assert quantity_differences("slots", rows, WANTED) != []


@pytest.mark.parametrize("name", TALLY)
def test_every_wrong_count_is_a_difference(name: str) -> None:
    """One more of anything is named."""
    assert tally_differences(TALLY | {name: TALLY[name] + 1}, _truth(), 3) != []


def test_many_differences_are_counted() -> None:
    """A wrong run says a few lines and how many more there are."""
    wanted = {("cpu", f"vm-{number}"): 1 for number in range(100)}

    assert quantity_differences("slots", [], wanted)[-1] == "and 95 more of slots"
