"""Totals: a counter of a host rises until the machine boots, whatever comes and goes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agent.totals import Totals, load_totals


def test_a_total_goes_on_where_a_device_went() -> None:
    """What a device counted stays in the total when it goes, and it goes on when it comes back."""
    totals = Totals("b1")
    assert totals.advance("rx", {"eth0": 100, "eth1": 50}, restarts=True) == 150
    assert totals.advance("rx", {"eth0": 110}, restarts=True) == 160
    assert totals.advance("rx", {"eth0": 110, "eth1": 55}, restarts=True) == 165


def test_a_counter_that_begins_anew_counts_whole() -> None:
    """A device that was reset adds what it has since; processor time that falls adds nothing."""
    totals = Totals("b1")
    totals.advance("rx", {"eth0": 100}, restarts=True)
    assert totals.advance("rx", {"eth0": 30}, restarts=True) == 130
    totals.advance("cpu", {"user": 100}, restarts=False)
    assert totals.advance("cpu", {"user": 99}, restarts=False) == 100
    assert totals.advance("cpu", {"user": 101}, restarts=False) == 102


def test_a_member_that_joins_brings_no_past() -> None:
    """An old process that comes into a group counts from then on, a new one from its start, one that left no more."""
    totals = Totals("b1")
    assert totals.advance("g", {"1": 500}, restarts=False, forget=True, joined={"1"}) == 0
    assert totals.advance("g", {"1": 510, "2": 7}, restarts=False, forget=True) == 17
    assert totals.advance("g", {"2": 8}, restarts=False, forget=True) == 18


def test_totals_survive_the_process_and_not_the_boot(tmp_path: Path) -> None:
    """After a restart of the agent totals go on; after one of the machine they begin anew with the kernel's."""
    path = tmp_path / "totals.json"
    totals = load_totals(path, "b1")
    totals.advance("rx", {"eth0": 100}, restarts=True)
    totals.read_us = 5
    totals.store(path)
    again = load_totals(path, "b1")
    assert (again.read_us, again.advance("rx", {"eth0": 101}, restarts=True)) == (5, 101)
    assert load_totals(path, "b2").advance("rx", {"eth0": 7}, restarts=True) == 7


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version":1,"boot_id":"b1","totals":3}'])
def test_totals_that_cannot_be_read_are_refused(tmp_path: Path, content: str) -> None:
    """A broken file stops the agent instead of letting its counters fall."""
    path = tmp_path / "totals.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own error is one
        load_totals(path, "b1")


@given(readings=st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2**63))), restarts=st.booleans())
def test_a_total_never_falls(readings: list[dict[str, int]], *, restarts: bool) -> None:
    """Whatever the kernel says, a fall would be taken for a reset and be billed whole."""
    totals = Totals("b1")
    values = [totals.advance("t", reading, restarts=restarts) for reading in readings]
    assert values == sorted(values)
