"""The catalogue and the assignments in the real database."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

from pipeline.aggregate.store import hold_catalogue
from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import parse_catalogue, read_catalogue
from pipeline.catalogue.model import Assignment
from pipeline.catalogue.servers import assign, list_owners, move, retire
from pipeline.catalogue.store import (
    load_accounts,
    load_assignments,
    load_bindings,
    load_ignore_rules,
    load_meters,
    load_prices,
    load_subscriptions,
    subscription_zones,
)
from pipeline.domain.errors import ConfigurationFault, Problems
from pipeline.runtime.postgres import Connection, connect
from tests.unit.catalogue.test_document import DEMO, SMALL

pytestmark = pytest.mark.real


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """As a stage has it: the application role."""
    with contextlib.closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def day(number: int) -> datetime:
    """A day of June 2026."""
    return datetime(2026, 6, number, tzinfo=UTC)


def marks(connection: Connection) -> list[tuple[object, ...]]:
    """The dirty marks so far."""
    return connection.execute(
        "SELECT subject, subscription_id, time_from, nullif(time_to, 'infinity') FROM dirty_mark ORDER BY mark_number"
    ).fetchall()


def test_the_demo_is_applied_once_however_often(connection: Connection) -> None:
    """What was applied reads back as it was written, and a second apply changes nothing."""
    catalogue = read_catalogue(DEMO)
    first = apply(connection, catalogue)
    assert first.is_changed
    assert first.known_number == 1
    again = apply(connection, catalogue)
    assert (again.is_changed, again.known_number, again.changes) == (False, 1, ())
    assert {meter.meter for meter in load_meters(connection)} == set(catalogue.meters)
    stored = load_prices(connection)
    assert {price.price: price.digest for price in stored.values()} == {
        name: price.digest for name, price in catalogue.prices.items()
    }
    some = next(iter(stored))
    assert load_prices(connection, [some, 10**6]) == {some: stored[some]}
    assert load_accounts(connection) == catalogue.accounts
    assert load_subscriptions(connection).keys() == catalogue.subscriptions.keys()
    assert load_ignore_rules(connection) == list(catalogue.ignored_types)
    assert subscription_zones(connection)["zephyr-bank-main"] == "Europe/Paris"
    assert marks(connection) == []


def test_a_changed_price_is_refused_and_changes_nothing(connection: Connection) -> None:
    """A refused document leaves no version, no number, no binding."""
    apply(connection, parse_catalogue(SMALL, "c"))
    changed = SMALL.replace("0.10", "0.11").replace("name: Acme", "name: Acme 2").replace("unit: hour}", "unit: h}")
    with pytest.raises(Problems) as caught:
        apply(connection, parse_catalogue(changed, "c"))
    assert [str(problem).split(" was ")[0] for problem in caught.value.problems] == [
        "c:6: meters.hours.unit:",
        "c:8: prices.cpu.unit_price:",
    ]
    assert connection.execute("SELECT last FROM known_number").fetchone() == (1,)
    assert load_accounts(connection)["acme"].name == "Acme"


def test_a_dated_price_change_marks_what_it_touches(connection: Connection) -> None:
    """A plan's change gives new bindings and a dirty mark from its date on; a new end of a subscription too."""
    apply(connection, parse_catalogue(SMALL, "c"))
    cpu = next(line for line in SMALL.splitlines() if line.startswith("  cpu:"))
    text = SMALL.replace(cpu, cpu + "\n" + cpu.replace("cpu:", "cpu_b:").replace("0.10", "0.2"))
    text = text.replace("price: cpu}", "price: cpu, changes: [{from: 2026-06-16, price: cpu_b}]}")
    apply(connection, parse_catalogue(text, "c"))
    at = datetime(2026, 6, 15, 22, tzinfo=UTC)
    assert [row.effective_from for row in load_bindings(connection)["acme-main"]][-1] == at
    assert len(load_bindings(connection, ["acme-main"], known_number_max=1)["acme-main"]) == 1
    assert marks(connection) == [(None, "acme-main", at, None)]
    apply(connection, parse_catalogue(text.replace("from: 2026-01-01}", "from: 2026-01-01, to: 2027-01-01}"), "c"))
    assert marks(connection)[1:] == [(None, "acme-main", datetime(2026, 12, 31, 23, tzinfo=UTC), None)]


def ending(at: str | None) -> str:
    """The small document with an end of its subscription."""
    return SMALL.replace("from: 2026-01-01}", f"from: 2026-01-01, to: {at}}}" if at else "from: 2026-01-01}")


def test_each_word_about_an_end_is_a_row_and_marks_what_lies_between(connection: Connection) -> None:
    """Earlier, later or no end any more: the earlier words stay, and everything between two ends is marked."""
    for at in (None, "2026-07-01T00:00Z", "2026-06-10T00:00Z", "2026-06-20T00:00Z", None):
        apply(connection, parse_catalogue(ending(at and f"'{at}'"), "c"))
    july = datetime(2026, 7, 1, tzinfo=UTC)
    said = connection.execute("SELECT known_number, ends_at FROM subscription_end ORDER BY known_number").fetchall()
    assert said == [(2, july), (3, day(10)), (4, day(20)), (5, None)]
    assert load_subscriptions(connection)["acme-main"].ends_at is None
    assert marks(connection) == [
        (None, "acme-main", july, None),
        (None, "acme-main", day(10), july),
        (None, "acme-main", day(10), day(20)),
        (None, "acme-main", day(20), None),
    ]


def test_an_end_that_is_known_from_the_start_marks_nothing(connection: Connection) -> None:
    """A new subscription has no servers yet; saying its end again adds no row."""
    apply(connection, parse_catalogue(ending("2026-07-01"), "c"))
    apply(connection, parse_catalogue(ending("2026-07-01").replace("name: Acme", "name: Acme 2"), "c"))
    assert load_subscriptions(connection)["acme-main"].ends_at == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert connection.execute("SELECT count(*) FROM subscription_end").fetchone() == (1,)
    assert marks(connection) == []


def test_a_new_meter_does_not_reach_into_what_was_counted(connection: Connection) -> None:
    """What was counted is read with the document's own transaction; a refused meter leaves nothing."""
    apply(connection, parse_catalogue(SMALL, "c"))
    connection.execute("INSERT INTO source_subject VALUES ('s', 'vm', 'sample', '2026-06-01Z', '2026-06-10T12:00Z')")
    meter = "  more: {event_type: sample, aggregation: sum, value: x, unit: u, from: 2026-06-10}\n  hours:"
    with pytest.raises(ConfigurationFault, match=r"c:6: meters\.more\.from: .* begins in the future"):
        apply(connection, parse_catalogue(SMALL.replace("  hours:", meter), "c"))
    assert "more" not in {one.meter for one in load_meters(connection)}
    apply(connection, parse_catalogue(SMALL.replace("  hours:", meter.replace("06-10", "06-11")), "c"))
    assert "more" in {one.meter for one in load_meters(connection)}


def test_a_new_meter_calls_for_what_waited(connection: Connection) -> None:
    """Parked events of the type that a document begins to meter or to ignore are decided about again, and no others."""
    apply(connection, parse_catalogue(SMALL, "c"))
    connection.execute(
        "INSERT INTO log (topic, log_id, kafka_topic_id, partition_count)"
        " VALUES ('usage.events', gen_random_uuid(), '', 1)"
    )
    for offset, (kind, reason, settled) in enumerate(
        [
            ("gpu.v1", "unknown_meter", False),
            ("gpu.v1", "unknown_meter", True),
            ("gpu.v1", "too_sparse", False),
            ("fan.v1", "unknown_meter", False),
            ("other.v1", "unknown_meter", False),
        ]
    ):
        connection.execute(
            "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, event_type,"
            " log_time, payload, settled) VALUES ('usage.events', 0, %s, 0, 'parked', %s, %s, now(), 'x', %s)",
            (offset, reason, kind, settled),
        )
    more = SMALL.replace("meters:\n", "meters:\n  gpu: {event_type: gpu.v1, aggregation: active_hours, unit: hour}\n")
    more = more.replace("ignore: [", "ignore: [fan.v1, ")
    assert "2 parked events are decided about again" in apply(connection, parse_catalogue(more, "c")).changes
    queued = connection.execute("SELECT log_offset, said_by FROM decision_queue ORDER BY log_offset").fetchall()
    assert queued == [(0, "catalogue"), (3, "catalogue")]


def test_a_new_meter_waits_for_events_that_are_being_counted(connection: Connection, database_url: str) -> None:
    """An event counted while the document is applied is seen by it: the document waits for the flush."""
    apply(connection, parse_catalogue(SMALL, "c"))
    meter = "  more: {event_type: sample, aggregation: sum, value: x, unit: u, from: 2026-06-09}\n  hours:"
    wanted = parse_catalogue(SMALL.replace("  hours:", meter), "c")
    with contextlib.closing(connect(database_url, application_name="tests")) as other, ThreadPoolExecutor() as threads:
        with other.transaction():
            hold_catalogue(other, 1)
            other.execute("INSERT INTO source_subject VALUES ('s', 'vm', 'sample', '2026-06-01Z', '2026-06-10Z')")
            applying = threads.submit(apply, connection, wanted)
            until_waiting(other, connection)
        with pytest.raises(ConfigurationFault, match="begins in the future"):
            applying.result(timeout=30)


def until_waiting(watcher: Connection, watched: Connection) -> None:
    """Wait until a connection waits for a lock."""
    deadline = time.monotonic() + 20
    while True:
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)"
        if watcher.execute(waiting, (watched.info.backend_pid,)).fetchone() == (True,):
            return
        if time.monotonic() > deadline:
            pytest.fail("nobody waited")
        time.sleep(0.02)


def test_a_move_that_races_a_retire_does_not_give_the_server_back(connection: Connection, database_url: str) -> None:
    """The end a move reaches to is read under the lock of the known number."""
    text = SMALL.replace("      acme-main:", "      acme-two: {plan: standard, from: 2026-01-01}\n      acme-main:")
    apply(connection, parse_catalogue(text, "c"))
    assign(connection, [Assignment(0, "web", "acme-main", day(1), None)], "test")
    with contextlib.closing(connect(database_url, application_name="tests")) as other, ThreadPoolExecutor() as threads:
        with connection.transaction():
            retire(connection, "web", day(20), "test")
            moving = threads.submit(move, other, "web", "acme-two", day(15), "test")
            until_waiting(connection, other)
        moved = moving.result(timeout=30)
    assert [(one.valid_from, one.valid_to) for one in moved] == [(day(15), day(20))]
    assert list_owners(connection) == {"web": [(day(1), day(15), "acme-main"), (day(15), day(20), "acme-two")]}


def test_servers_are_assigned_moved_and_retired(connection: Connection) -> None:
    """Each word gets a number and a mark; a word that changes nothing gets neither."""
    text = SMALL.replace("ignore:", "ignore:").replace(
        "      acme-main:", "      acme-two: {plan: standard, from: 2026-01-01}\n      acme-main:"
    )
    apply(connection, parse_catalogue(text, "c"))
    wanted = [Assignment(0, "web", "acme-main", day(1), None)]
    assert [one.known_number for one in assign(connection, wanted, "test")] == [2]
    assert assign(connection, wanted, "test") == []
    assert [one.known_number for one in move(connection, "web", "acme-two", day(15), "test")] == [3]
    retire(connection, "web", day(20), "test")
    assert list_owners(connection) == {"web": [(day(1), day(15), "acme-main"), (day(15), day(20), "acme-two")]}
    assert list_owners(connection, known_number_max=2) == {"web": [(day(1), None, "acme-main")]}
    assert marks(connection) == [
        ("web", None, day(1), None),
        ("web", None, day(15), None),
        ("web", None, day(20), None),
    ]
    assert [one.known_number for one in load_assignments(connection, ["web", "none"])["web"]] == [2, 3, 4]
    with pytest.raises(ConfigurationFault, match="nobody has web"):
        move(connection, "web", "acme-main", day(25), "test")


def test_bad_assignments_are_refused_together_and_none_is_stored(connection: Connection) -> None:
    """All reasons at once; nothing of the batch is written."""
    apply(connection, parse_catalogue(SMALL, "c"))
    wanted = [
        Assignment(0, "good", "acme-main", day(1), None),
        Assignment(0, "unknown", "nobody", day(1), None),
        Assignment(0, "early", "acme-main", datetime(2025, 1, 1, tzinfo=UTC), None),
        Assignment(0, "edge", "acme-main", datetime(2026, 6, 1, 0, 7, tzinfo=UTC), None),
        Assignment(0, "span", "acme-main", day(2), day(1)),
    ]
    with pytest.raises(ConfigurationFault) as caught:
        assign(connection, wanted, "test")
    assert len(str(caught.value).splitlines()) == 4
    assert load_assignments(connection) == {}


def test_a_lower_known_number_is_never_seen_later(connection: Connection, database_url: str) -> None:
    """An assignment waits for the one that took its number before; a reader never sees number 3 without number 2."""
    apply(connection, parse_catalogue(SMALL, "c"))
    with contextlib.closing(connect(database_url, application_name="tests")) as other:
        other.execute("SET lock_timeout = '200ms'")
        with connection.transaction():
            assign(connection, [Assignment(0, "one", "acme-main", day(1), None)], "test")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                assign(other, [Assignment(0, "two", "acme-main", day(1), None)], "test")
        assert [one.known_number for one in assign(other, [Assignment(0, "two", "acme-main", day(1), None)], "t")] == [
            3
        ]
