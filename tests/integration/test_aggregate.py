"""The aggregate stage on a real database: once, whole, fenced, and the same whatever dies when."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from pipeline.aggregate.model import MeterRule
from pipeline.bootstrap import catalogue_view
from pipeline.domain.slots import from_us
from pipeline.runtime.postgres import FAR_FUTURE, Connection, connect
from tests.integration.aggregate_world import (
    LogInMemory,
    Reader,
    a_little_of_everything,
    aggregate,
    drain,
    new_worker,
    owner_of,
    rows_of,
    set_up,
    tally,
)
from tests.unit.aggregate.sending import (
    BASE_US,
    EPOCH,
    IGNORED,
    LOG_US,
    READINGS,
    SAMPLE,
    SOURCE,
    batch,
    event,
    second,
    source_at,
)

pytestmark = pytest.mark.real

JULY = datetime(2013, 7, 1, tzinfo=UTC)
BUCKETS = """
SELECT m.meter, s.source, extract(epoch FROM b.slot_start - '2013-07-01Z')::int, b.quantity
FROM usage_bucket b JOIN series s USING (series_id) JOIN meter_version m USING (meter_version_id)
WHERE m.meter = %s ORDER BY 1, 2, 3
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The application's connection to a database that knows a log of one partition and four meters."""
    with owner_of(database_url) as owner:
        set_up(owner, 1)
    with closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def test_a_flush_keeps_everything(connection: Connection) -> None:
    """Samples, slots, days, decisions, identities, completeness, marks and the next offset are written together."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    reader = Reader(log, worker, [0])
    drain(worker)

    assert rows_of(connection, "SELECT offset_next, flush_number, log_time_max FROM consumer_offset") == [
        (6, 1, from_us(LOG_US))
    ]
    assert tally(connection) == {
        "received": 10, "counted": 5, "duplicate": 1, "quarantined": 1, "parked": 1, "ignored": 1, "control": 1
    }  # fmt: skip
    decisions = "SELECT log_offset, index_in_message, outcome, reason, settled, payload IS NOT NULL FROM decision"
    assert sorted(rows_of(connection, decisions)) == [
        (0, 0, "quarantined", "value_negative", True, True),
        (2, 0, "duplicate", "identity_seen", False, False),
        (3, 0, "ignored", "ignore_rule", False, False),
        (4, 0, "control", "retired.v1", False, False),
        (5, 0, "parked", "unknown_meter", False, True),
    ]
    identities = "SELECT counted::text, quarantined::text, parked::text FROM identity_epoch"
    assert rows_of(connection, identities) == [("{[1,8)}", "{}", "{[8,9)}")]
    assert rows_of(connection, "SELECT complete_until, number FROM source_completeness") == [(FAR_FUTURE, 7)]
    assert rows_of(connection, "SELECT * FROM source_complete") == [(SOURCE, "", FAR_FUTURE, True)]
    assert rows_of(connection, "SELECT count(*) FROM usage_sample") == [(5,)]
    assert rows_of(connection, "SELECT m.meter, d.day::text, d.quantity FROM usage_day d JOIN series USING (series_id)"
                   " JOIN meter_version m USING (meter_version_id) ORDER BY 1") == [
        ("calls", "2013-07-01", Decimal(15)), ("cpu", "2013-07-01", Decimal(4 * 301 + 600)),
        ("reads", "2013-07-01", Decimal(0)),
    ]  # fmt: skip
    assert len(rows_of(connection, BUCKETS, "hours")) == 5
    assert {row[0] for row in rows_of(connection, "SELECT meter FROM dirty_mark")} == {"cpu", "reads", "calls", "hours"}
    assert reader.hints == [{0: 6}]


def test_a_quarantined_event_is_mended_in_a_later_flush(connection: Connection) -> None:
    """Trap 1: remembered over a restart as quarantined, not as seen; mended it counts, and its decision is settled."""
    log = LogInMemory()
    log.append(SOURCE, event(1, data={**READINGS, "cpu": -1}))
    aggregate(connection, log)
    assert rows_of(connection, "SELECT settled FROM decision") == [(False,)]
    log.append(SOURCE, event(1))
    aggregate(connection, log)
    log.append(SOURCE, event(1))
    aggregate(connection, log)
    assert tally(connection) == {"received": 3, "counted": 1, "quarantined": 1, "duplicate": 1}
    assert sorted(rows_of(connection, "SELECT outcome, settled FROM decision")) == [
        ("duplicate", False),
        ("quarantined", True),
    ]


def test_a_decision_elsewhere_is_settled_too(database_url: str) -> None:
    """Trap 5: misrouted first and counted at home, or the other way about: the parked copy needs no attention."""
    with owner_of(database_url) as owner:
        set_up(owner, 2)
    with closing(connect(database_url, application_name="tests")) as connection:
        log = LogInMemory(2)
        for nth, order in enumerate(((0, 1), (1, 0))):
            source = source_at(1, 2, nth)
            for partition in order:
                log.append(source, event(1, source=source), partition=partition)
                aggregate(connection, log)
        assert rows_of(connection, "SELECT partition, reason, settled FROM decision") == [(0, "misrouted", True)] * 2


def test_parked_events_count_once_their_meter_is_known(connection: Connection, database_url: str) -> None:
    """A catalogue that was applied while the worker runs is in force at its next flush."""
    log = LogInMemory()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    log.append(SOURCE, event(1, kind="test.other.v1"))
    drain(worker)
    with owner_of(database_url) as owner:
        owner.execute(
            "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
            " effective_from, known_number) VALUES ('other', 1, 'test.other.v1', 'sum', 'calls', 'x', 300,"
            " '1970-01-01Z', 2)"
        )
        owner.execute("UPDATE known_number SET last = 2")
    log.append(SOURCE, event(1, kind="test.other.v1"))
    drain(worker)
    assert tally(connection) == {"received": 2, "parked": 1, "counted": 1}
    assert rows_of(connection, BUCKETS, "other") == [("other", "", 0, Decimal(3))]


def test_the_running_log_time_outlives_the_worker(connection: Connection) -> None:
    """Trap 6: after a restart an old message is judged by the newest log time there was, as without the restart."""
    log = LogInMemory()
    log.append(SOURCE, event(1), at_us=LOG_US)
    aggregate(connection, log)
    log.append(SOURCE, event(2, at_us=LOG_US), at_us=BASE_US)
    aggregate(connection, log)
    assert tally(connection) == {"received": 2, "counted": 2}


def test_a_late_sample_reaches_into_the_next_month(connection: Connection) -> None:
    """Trap 16: at 23:58 it changes August's first increase; the slots of both months are right and both are marked."""
    end = datetime(2013, 8, 1, tzinfo=UTC)
    at = [int((end + timedelta(seconds=seconds)).timestamp()) * 10**6 for seconds in (-3600, 3600, -120)]
    log = LogInMemory()
    for number, (at_us, reads) in enumerate(zip(at, (10, 30, 25), strict=True), start=1):
        log.append(SOURCE, event(number, at_us=at_us, data={**READINGS, "reads": reads}), at_us=at[1])
        connection.execute("DELETE FROM dirty_mark")
        aggregate(connection, log)
    reads_of = "SELECT slot_start, quantity FROM usage_bucket JOIN series USING (series_id) WHERE meter_version_id = 2"
    assert dict(rows_of(connection, reads_of)) == {
        end - timedelta(minutes=5): Decimal(15),
        end + timedelta(hours=1): Decimal(5),
    }
    ((time_from, time_to),) = rows_of(connection, "SELECT time_from, time_to FROM dirty_mark WHERE meter = 'reads'")
    assert time_from < end < end + timedelta(hours=1) < time_to


def test_an_hour_is_dirty_from_its_start(connection: Connection) -> None:
    """An hour belongs to who held its start, so a sample's mark reaches back to any start its hour may have."""
    log = LogInMemory()
    log.append(SOURCE, event(1, at_us=second(7200 + 3599)))
    aggregate(connection, log)
    ((time_from, time_to),) = rows_of(connection, "SELECT time_from, time_to FROM dirty_mark WHERE meter = 'hours'")
    assert time_from <= JULY + timedelta(seconds=7200)
    assert time_to >= JULY + timedelta(seconds=7200 + 3600)


def test_two_sources_of_one_server_are_kept_apart(connection: Connection) -> None:
    """Trap 20: counters of two sources do not interleave into resets; order-free sums come together."""
    log = LogInMemory()
    for number in range(1, 6):
        for name, offset in (("urn:one", 0), ("urn:two", 10**9)):
            reads = offset + 7 * number
            data = {**READINGS, "reads": reads}
            log.append(name, event(number, source=name, at_us=second(60 * number), data=data))
    aggregate(connection, log, messages_each=1)
    assert rows_of(connection, BUCKETS, "reads") == [
        ("reads", "urn:one", 0, Decimal(21)), ("reads", "urn:one", 300, Decimal(7)),
        ("reads", "urn:two", 0, Decimal(21)), ("reads", "urn:two", 300, Decimal(7)),
    ]  # fmt: skip
    assert rows_of(connection, BUCKETS, "calls") == [
        ("calls", "", 0, Decimal(24)), ("calls", "", 300, Decimal(6)),
    ]  # fmt: skip


def test_quantities_are_exact_to_the_last_digit(connection: Connection) -> None:
    """Law 6: the largest values, over two flushes, in sums, gauges and counters; numeric holds all of it."""
    largest = "999999999999999999.999999999"
    log = LogInMemory()
    for number in (1, 2):
        at_us = second(number) + number
        log.append(SOURCE, event(number, at_us=at_us, data={"cpu": largest, "reads": largest, "calls": largest}))
        aggregate(connection, log)
    log.append(SOURCE, event(3, at_us=second(3), data={"cpu": 0, "reads": "0.000000001", "calls": 0}))
    aggregate(connection, log)
    assert rows_of(connection, BUCKETS, "calls") == [("calls", "", 0, Decimal("1999999999999999999.999999998"))]
    assert rows_of(connection, BUCKETS, "reads") == [("reads", SOURCE, 0, Decimal("0.000000001"))]
    held_us = second(3) - (second(1) + 1)
    ((_, _, _, quantity), *_) = rows_of(connection, BUCKETS, "cpu")
    assert quantity == Decimal(f"{(10**27 - 1) * held_us}E-15")


def test_a_sum_of_many_is_exact_within_one_flush(connection: Connection) -> None:
    """Law 6: what is added up in memory reaches the database with all its 31 digits, in slots and in days."""
    text = "999999999999999999.999999999"
    largest = {"cpu": text, "reads": text, "calls": text}
    log = LogInMemory()
    for first in range(1, 10_000, 99):
        log.append(SOURCE, batch(*(event(number, data=largest) for number in range(first, first + 99))))
    aggregate(connection, log, messages_each=1000)
    expected = Decimal(f"{9_999 * (10**27 - 1)}E-9")
    assert rows_of(connection, BUCKETS, "calls") == [("calls", "", 0, expected)]
    days = "SELECT d.quantity FROM usage_day d JOIN series USING (series_id) WHERE meter_version_id = 3"
    assert rows_of(connection, days) == [(expected,)]


def test_two_workers_add_to_one_slot_and_lose_nothing(database_url: str) -> None:
    """Sources of two partitions speak of the same servers: their sums meet in the database, in any order of rows."""
    flushes, events_each, servers = 12, 8, 5
    with owner_of(database_url) as owner:
        set_up(owner, 2)
    log = LogInMemory(2)
    dice = random.Random(7)
    for partition in (0, 1):
        source = source_at(partition, 2)
        numbers = iter(range(1, flushes * events_each + 1))
        for _ in range(flushes):
            subjects = [f"vm-{dice.randrange(servers)}" for _ in range(events_each)]
            log.append(
                source,
                batch(
                    *(
                        event(next(numbers), source=source, subject=subject, at_us=second(dice.randrange(6) * 43_200))
                        for subject in subjects
                    )
                ),
                at_us=LOG_US * 2,
            )
    failures: list[BaseException] = []
    together = threading.Barrier(2)

    def work(partition: int) -> None:
        try:
            with closing(connect(database_url, application_name=f"tests-{partition}")) as connection:
                worker = new_worker(connection, flush_events=1)
                Reader(log, worker, [partition], messages_each=1)
                together.wait()
                drain(worker)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(partition,)) for partition in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    expected = Decimal(2 * flushes * events_each * 3)
    with owner_of(database_url) as owner:
        assert rows_of(owner, "SELECT sum(quantity) FROM usage_bucket JOIN series USING (series_id)"
                       " WHERE meter_version_id = 3") == [(expected,)]  # fmt: skip
        assert rows_of(owner, "SELECT sum(quantity) FROM usage_day JOIN series USING (series_id)"
                       " WHERE meter_version_id = 3") == [(expected,)]  # fmt: skip
        assert rows_of(owner, "SELECT max(quantity) FROM usage_bucket JOIN series USING (series_id)"
                       " WHERE meter_version_id = 4") == [(Decimal(1),)]  # fmt: skip
        assert rows_of(owner, "SELECT sum(counted), sum(received) FROM partition_tally") == [(192, 192)]


def test_the_view_gives_versions_by_time(connection: Connection, database_url: str) -> None:
    """Trap 21: each version holds until the next begins, also where that reads another type; and what is ignored."""
    with owner_of(database_url) as owner:
        owner.execute(
            "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
            " effective_from, known_number) VALUES"
            " ('calls', 2, %(t)s, 'sum', 'requests', 'call', 900, '2013-07-02Z', 2),"
            " ('calls', 3, 'test.other.v1', 'sum', 'requests', 'call', 900, '2013-07-03Z', 2)",
            {"t": SAMPLE},
        )
        owner.execute("UPDATE known_number SET last = 2")
    view = catalogue_view(connection)
    assert (view.catalogue_number, view.ignored_types) == (2, frozenset({IGNORED}))
    day = 86_400 * 10**6
    first = MeterRule(3, "calls", "sum", "calls", 300 * 10**6, 0, 0, BASE_US + day)
    second_ = replace(
        first,
        meter_version_id=5,
        value_field="requests",
        slot_us=900 * 10**6,
        from_us=BASE_US + day,
        to_us=BASE_US + 2 * day,
    )
    assert [rule for rule in view.meters[SAMPLE] if rule.meter == "calls"] == [first, second_]
    assert view.meters["test.other.v1"] == [
        replace(second_, meter_version_id=6, from_us=BASE_US + 2 * day, to_us=2**62)
    ]
    cpu = next(rule for rule in view.meters[SAMPLE] if rule.meter == "cpu")
    assert (cpu.gap_us, cpu.is_ordered) == (600 * 10**6, True)


def test_a_hole_holds_a_source(connection: Connection) -> None:
    """A number that is missing before what a source said of itself is seen as a hole until it comes or is dropped."""
    control = "rackmeter.control.complete_until.v1"
    log = LogInMemory()
    log.append(SOURCE, event(1))
    log.append(SOURCE, event(4, kind=control, subject=None, data={"until": "2013-07-01T00:00:00Z"}))
    aggregate(connection, log)
    assert rows_of(connection, "SELECT * FROM source_complete") == [(SOURCE, "", JULY, False)]
    log.append(SOURCE, event(2, data={**READINGS, "cpu": -1}))
    log.append(SOURCE, event(5, kind="rackmeter.control.dropped.v1", subject=None, data={"first": 3, "last": 3}))
    aggregate(connection, log)
    assert rows_of(connection, "SELECT * FROM source_complete") == [(SOURCE, "", JULY, True)]
    assert rows_of(connection, "SELECT epoch, dropped::text FROM identity_epoch") == [(EPOCH, "{[3,4)}")]
