"""Totals on a real database: always what the buckets and assignments say now, whatever raced and moved before."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline.totals import store
from tests.integration.totals_world import AUGUST, JULY, World, make_world, once

pytestmark = pytest.mark.real

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Three subscriptions in UTC; server vm is a's since January."""
    with make_world(database_url) as made:
        made.give("vm", "a", datetime(2013, 1, 1, tzinfo=UTC))
        yield made


def before_calling(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, action: Callable[[], None]) -> None:
    """Have something happen just before a function's first call."""
    real, act = getattr(module, name), once(action)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        act()
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, wrapped)


def test_a_total_is_the_usage_of_who_has_the_server(world: World) -> None:
    """The whole of the period at the item's price, sent at once with its revision and currency."""
    world.use("vm", JULY + DAY, 5)
    world.use("vm", JULY + 30 * DAY + 23 * HOUR, 7)
    world.use("vm", AUGUST, 11)
    world.use("nobody", JULY + DAY, 1000)
    world.settle()
    assert (world.quantity("a"), world.quantity("a", start=AUGUST)) == (12, 11)
    sent = {total.period_start: total for total in world.topic.taken()}
    july = sent["2013-07-01T00:00:00Z"]
    assert (july.revision, july.currency, july.item, july.subject) == (1, "EUR", "cpu", "")
    assert [(part.price_version_id, part.start, part.end, part.quantity) for part in july.segments] == [
        (1, "2013-07-01T00:00:00Z", "2013-08-01T00:00:00Z", "12")
    ]
    assert world.count("dirty_mark") == world.count("dirty_item") == 0


def test_the_revision_rises_only_with_the_value(world: World) -> None:
    """Trap 12: however often a flush says "dirty", an equal total keeps its revision and is not sent again."""
    world.use("vm", JULY, 5)
    world.settle()
    world.topic.taken()
    for _ in range(3):
        world.use("vm", JULY, 0)
        world.settle()
    assert (world.revision("a"), world.topic.taken()) == (1, [])
    world.use("vm", JULY, 1)
    world.settle()
    assert world.revision("a") == 2
    assert [(total.revision, total.segments[0].quantity) for total in world.topic.taken()] == [(2, "6")]


def test_the_revision_rises_with_the_price(world: World) -> None:
    """Trap 23: another price from mid-month makes a second segment; the sum stays, the revision does not."""
    world.use("vm", JULY + DAY, 5)
    world.use("vm", JULY + 20 * DAY, 7)
    world.settle()
    at = JULY + 10 * DAY
    world.bind("a", "cpu", "cpu", "cpu-b", at)
    world.settle()
    revision, segments = world.totals()["a", "cpu", "", JULY]
    assert revision == 2
    assert [(part["price_version_id"], part["from"], part["to"], part["quantity"]) for part in segments] == [
        (1, "2013-07-01T00:00:00Z", "2013-07-11T00:00:00Z", "5"),
        (2, "2013-07-11T00:00:00Z", "2013-08-01T00:00:00Z", "7"),
    ]
    world.bind("a", "cpu", "calls", "cpu-b", at)
    world.use("vm", JULY + 20 * DAY, 3, "calls")
    world.settle()
    assert [part["quantity"] for part in world.totals()["a", "cpu", "", JULY][1]] == ["5", "3"]


def test_a_moved_server_leaves_its_old_owner(world: World) -> None:
    """Trap 11: a backdated move takes the usage from the one total and gives it to the other, to the slot."""
    at = JULY + 10 * DAY + 15 * timedelta(minutes=1)
    world.use("vm", at - timedelta(minutes=5), 5)
    world.use("vm", at, 7)
    world.settle()
    world.give("vm", "b", at)
    world.settle()
    assert (world.quantity("a"), world.quantity("b")) == (5, 7)
    assert (world.revision("a"), world.revision("b")) == (2, 1)


def test_a_vanished_item_goes_to_nothing(world: World) -> None:
    """Trap 18: a server that was never a's after all leaves an empty total with a higher revision, and it is sent."""
    world.use("vm", JULY + DAY, 5)
    world.settle()
    world.topic.taken()
    world.give("vm", None, datetime(2013, 1, 1, tzinfo=UTC))
    world.settle()
    assert world.totals()["a", "cpu", "", JULY] == (2, [])
    assert [(total.revision, total.segments) for total in world.topic.taken()] == [(2, ())]


def test_two_moves_at_once(world: World) -> None:
    """Trap 51: moved to b and to c before anybody computed: only the last owner has it, whoever had it before."""
    world.use("vm", JULY + DAY, 5)
    world.settle()
    world.give("vm", "b", JULY)
    world.settle()
    world.give("vm", "a", JULY)
    world.give("vm", "c", JULY)
    world.settle()
    assert {name: world.totals()[name, "cpu", "", JULY][1] for name in ("a", "b")} == {"a": [], "b": []}
    assert world.quantity("c") == 5


def test_usage_that_comes_with_a_move_is_the_new_owners(world: World) -> None:
    """Trap 51: the flush's mark names no owner, so a move that commits before it is expanded takes the usage along."""
    world.use("vm", JULY + DAY, 5)
    world.give("vm", "b", JULY)
    world.settle()
    assert world.quantity("b") == 5
    assert world.totals()["a", "cpu", "", JULY][1] == []


def test_a_move_while_marks_are_expanded_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 51: a move that commits between the reads of an expansion leaves its own mark for the next one."""
    world.use("vm", JULY + DAY, 5)

    def move() -> None:
        with world.other() as other:
            World(world.database_url, world.owner, other).give("vm", "b", JULY)

    before_calling(monkeypatch, store, "mark_items", move)
    world.settle()
    assert world.quantity("b") == 5
    assert world.totals()["a", "cpu", "", JULY][1] == []


def test_one_mark_of_two_items_is_not_lost_with_the_first(world: World) -> None:
    """Trap 52: a mark is expanded to all its items before any is computed; half of them done leaves the others due."""
    world.give("vm", "b", JULY + 10 * DAY)
    for day in (1, 20):
        world.use("vm", JULY + day * DAY, day, marked=False)
    world.settle()
    world.owner.execute(
        "INSERT INTO dirty_mark (subject, meter, time_from, time_to) VALUES ('vm', 'cpu', %s, %s)", (JULY, AUGUST)
    )
    one = world.worker()
    assert one.expand() == 1
    assert (world.count("dirty_mark"), world.count("dirty_item")) == (0, 2)
    world.owner.execute("DELETE FROM dirty_item WHERE mark_number = (SELECT min(mark_number) FROM dirty_item)")
    assert one.compute(0.0) == 1


def test_marks_committed_after_the_snapshot_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 13: usage that commits while a total is computed is not in it, and its mark is not deleted."""
    world.use("vm", JULY + DAY, 5)
    one = world.worker()
    one.expand()

    def flush() -> None:
        world.use("vm", JULY + DAY, 7)
        with world.other() as other:
            world.worker(other).expand()

    before_calling(monkeypatch, store, "read_totals", flush)
    one.compute(0.0)
    assert (world.quantity("a"), world.count("dirty_item")) == (5, 1)
    world.settle()
    assert (world.quantity("a"), world.revision("a")) == (12, 2)


def test_marks_committed_while_others_are_expanded_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 13: only the marks that were read are deleted."""
    world.use("vm", JULY + DAY, 5)
    before_calling(monkeypatch, store, "delete_marks", lambda: world.use("vm", AUGUST, 7))
    world.worker().expand()
    assert world.count("dirty_mark") == 1


@pytest.mark.parametrize("is_new", [True, False])
def test_a_slow_worker_does_not_overwrite_a_newer_value(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    """Trap 53: of two workers at one item the one with the older snapshot is refused and tries again."""
    if not is_new:
        world.use("vm", JULY + DAY, 1)
        world.settle()
    world.use("vm", JULY + DAY, 5)
    slow = world.worker()
    slow.expand()
    attempts = []

    def overtake() -> None:
        world.use("vm", JULY + DAY, 7)
        with world.other() as other:
            fast = world.worker(other)
            fast.expand()
            attempts.append(fast.compute(0.0))

    before_calling(monkeypatch, store, "write_totals", overtake)
    slow.compute(0.0)
    assert attempts == [1]
    expected = 12 if is_new else 13
    assert world.quantity("a") == expected
    world.settle()
    assert (world.quantity("a"), world.revision("a")) == (expected, 1 if is_new else 2)


def test_a_computation_is_one_snapshot(world: World) -> None:
    """Trap 53: without REPEATABLE READ a lost race would not be noticed at all."""
    levels = []
    real = store.read_generation

    def look(connection: psycopg.Connection[Any]) -> int:
        row = connection.execute("SHOW transaction_isolation").fetchone()
        levels.append(row and row[0])
        return real(connection)

    world.use("vm", JULY + DAY, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "read_generation", look)
        world.settle()
    assert levels == ["repeatable read"]


def test_an_ended_subscription_goes_to_nothing_behind_its_end(world: World) -> None:
    """Trap 18: an end that moves back cuts its month and empties the months after; taken back, they are whole."""
    for at in (JULY + DAY, JULY + 20 * DAY, AUGUST + DAY):
        world.use("vm", at, 5)
    world.settle()
    end = JULY + 10 * DAY
    world.end("a", end)
    world.settle()
    revision, segments = world.totals()["a", "cpu", "", JULY]
    assert (revision, [(part["to"], part["quantity"]) for part in segments]) == (2, [("2013-07-11T00:00:00Z", "5")])
    assert world.totals()["a", "cpu", "", AUGUST] == (2, [])
    world.end("a", None, end)
    world.settle()
    assert (world.quantity("a"), world.quantity("a", start=AUGUST)) == (10, 5)


def test_an_ended_subscription_gets_no_new_items(world: World) -> None:
    """A server nobody took away sends on after its subscription ended: nothing is billed, no item made."""
    world.end("a", JULY + 10 * DAY)
    world.use("vm", AUGUST + DAY, 5)
    world.settle()
    assert world.totals() == {}


def test_servers_are_billed_one_by_one_where_the_price_says_so(world: World) -> None:
    """Each server of the subscription is an item of its own, only of the meter's own usage."""
    world.give("other", "a", JULY)
    world.bind("a", "server", "hours", "server")
    for subject in ("vm", "other"):
        world.use(subject, JULY + DAY, 1, "hours")
        world.use(subject, JULY + DAY, 100)
    world.use("other", JULY + 2 * DAY, 1, "hours")
    world.settle()
    assert world.quantity("a") == 200
    assert {key[2]: world.quantity("a", "server", key[2]) for key in world.totals() if key[1] == "server"} == {
        "vm": 1,
        "other": 2,
    }


def test_a_price_of_the_other_kind_bills_other_items(world: World) -> None:
    """From per subscription to per server in mid-month: either item has its part of the month and no more."""
    world.bind("a", "server", "hours", "hour")
    world.bind("a", "server", "hours", "server", JULY + 10 * DAY)
    for day in (1, 20):
        world.use("vm", JULY + day * DAY, 1, "hours")
    world.settle()
    assert (world.quantity("a", "server"), world.quantity("a", "server", "vm")) == (1, 1)
    world.bind("a", "server", "hours", "hour", JULY + 10 * DAY)
    world.settle()
    assert world.quantity("a", "server") == 2
    assert world.totals()["a", "server", "vm", JULY] == (2, [])


def test_usage_far_behind_the_last_sample_is_found(world: World) -> None:
    """A gauge may hold for days: the month it holds into has its item although no sample lies there."""
    with world.other() as other, other.transaction():
        world.use_many(other, [("vm", JULY + 30 * DAY, 3)])
        world.use_many(other, [("vm", AUGUST + 5 * DAY, 4)])
        other.execute("UPDATE source_subject SET last_at = %s", (JULY + 30 * DAY,))
    world.owner.execute(
        "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
        " gap_seconds_max, effective_from, known_number) VALUES ('cpu', 2, 'slow', 'time_weighted', 'v', 'x', 900,"
        " 864000, '2013-07-01Z', 2)"
    )
    world.settle()
    assert (world.quantity("a"), world.quantity("a", start=AUGUST)) == (3, 4)


def test_a_mark_without_usage_is_done_with(world: World) -> None:
    """A move of a server that never reported leaves no item and no mark; later usage leaves marks of its own."""
    world.give("vm", "b", JULY)
    world.settle()
    assert (world.totals(), world.count("dirty_mark")) == ({}, 0)
    world.use("vm", JULY + DAY, 5)
    world.settle()
    assert world.quantity("b") == 5


def test_a_new_generation_begins_anew(world: World) -> None:
    """Trap 38: after a restore every computed total is of the new generation at revision 1, equal value or not."""
    world.use("vm", JULY + DAY, 5)
    world.settle()
    world.use("vm", JULY + DAY, 5)
    world.settle()
    world.topic.taken()
    world.owner.execute("UPDATE installation SET generation = 2")
    world.use("vm", JULY + DAY, 0)
    world.settle()
    assert world.owner.execute("SELECT generation, revision FROM usage_total").fetchall() == [(2, 1)]
    assert [total.revision for total in world.topic.taken()] == [1]
