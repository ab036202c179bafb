"""Files of the archive cover their partition without a gap, one log day each."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.rules import DAY_US, Record, is_archive_file, log_day, plan_files

records_of_a_partition = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4 * DAY_US)), min_size=1, max_size=40
).map(
    lambda steps: [
        Record(sum(gap for gap, _ in steps[: index + 1]) + index, at_us, None, b"x")
        for index, (_, at_us) in enumerate(steps)
    ]
)


@given(records_of_a_partition)
def test_ranges_join_without_a_gap(records: list[Record]) -> None:
    """Whatever days the records have, file ranges cover [stored offset, last offset + 1) and keep every record."""
    plans = list(plan_files("usage.events", "log", 3, 0, records))
    edges = [(plan.offset_first, plan.offset_next) for plan in plans]
    assert [first for first, _ in edges] == [0, *(after for _, after in edges[:-1])]
    assert edges[-1][1] == records[-1].log_offset + 1
    assert [record for plan in plans for record in plan.records] == records
    assert all(log_day(record.log_time_us) == plan.log_day for plan in plans for record in plan.records)


def test_out_of_order_is_refused() -> None:
    """A record below the stored offset would be evidence twice."""
    with pytest.raises(ValueError, match="out of order"):
        list(plan_files("usage.events", "log", 0, 5, [Record(4, 0, None, b"x")]))


def test_names_say_what_they_hold() -> None:
    """A file's name carries topic, log, partition, day and range; a temporary name is still ours to sweep."""
    (plan,) = plan_files("usage.events", "a-log", 2, 7, [Record(9, DAY_US, b"k", None)])
    path = plan.path("00112233445566ff")
    assert plan.log_day == datetime.date(1970, 1, 2)
    assert path.as_posix() == (
        "usage.events/a-log/00002/1970-01-02/00000000000000000007-00000000000000000010-00112233445566ff.parquet"
    )
    assert is_archive_file(path.name)
    assert is_archive_file(path.name + ".tmp")
    assert not is_archive_file("notes.parquet")
