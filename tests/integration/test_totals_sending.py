"""Totals reach the topic whatever is lost, and are sent again until they are booked, but never into a backlog."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.domain.errors import TransientFault
from pipeline.totals import store
from pipeline.totals.worker import LAG_MESSAGES_MAX
from tests.integration.totals_world import JULY, World, make_world

pytestmark = pytest.mark.real

SWEEP_SECONDS = 60.0
AT = JULY + timedelta(days=1)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """One item with a total that was computed and not sent yet."""
    with make_world(database_url) as made:
        made.give("vm", "a", datetime(2013, 1, 1, tzinfo=UTC))
        made.use("vm", AT, 5)
        made.worker().expand()
        made.worker().compute(0.0)
        yield made


def book(world: World, revision: int, *, generation: int = 1, outcome: str = "rated") -> None:
    """Say that the item is booked at a revision."""
    world.owner.execute(
        "INSERT INTO booked_charge (billed_item_id, generation, revision, outcome, quantity, amounts, breakdown)"
        " SELECT billed_item_id, %s, %s, %s, 0, '[]', '[]' FROM billed_item ON CONFLICT (billed_item_id) DO UPDATE"
        " SET generation = excluded.generation, revision = excluded.revision, outcome = excluded.outcome",
        (generation, revision, outcome),
    )


def wait(world: World, seconds: float) -> None:
    """Let time pass, as the totals see it."""
    world.owner.execute("UPDATE usage_total SET sent_at = sent_at - %s", (timedelta(seconds=seconds),))


def test_what_was_computed_is_sent_once(world: World) -> None:
    """After the commit it is sent; when that is noted it is not sent again before its time."""
    one = world.worker(sweep_seconds=SWEEP_SECONDS)
    assert (one.send(), one.send(), one.sweep()) == (1, 0, 0)
    assert len(world.topic.taken()) == 1


def test_a_crash_between_commit_and_send_loses_nothing(world: World) -> None:
    """Whoever comes next sends what was committed and never sent."""
    with world.other() as other:
        assert world.worker(other).send() == 1
    assert [total.revision for total in world.topic.taken()] == [1]


def test_what_the_broker_did_not_take_is_not_noted(world: World) -> None:
    """A refused message leaves the total unsent, and the next try sends it."""
    world.topic.is_down = True
    with pytest.raises(TransientFault):
        world.worker().send()
    assert world.topic.taken() == []
    world.topic.is_down = False
    assert world.worker().send() == 1
    assert [total.revision for total in world.topic.taken()] == [1]


def test_a_newer_revision_is_sent_although_the_older_one_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision computed while its predecessor was being sent is not taken for sent."""
    real = store.record_sent

    def overtake(*arguments: object) -> None:
        monkeypatch.setattr(store, "record_sent", real)
        with world.other() as other:
            world.use("vm", AT, 7)
            world.worker(other).expand()
            world.worker(other).compute(0.0)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "record_sent", overtake)
    assert (world.worker().send(), world.worker().send()) == (1, 1)
    assert [total.revision for total in world.topic.taken()] == [1, 2]


def test_the_sweep_backs_off_twofold_and_is_bounded(world: World) -> None:
    """Trap 37: each time after twice the wait, 64 times the first at most, and for ever until it is booked."""
    one = world.worker(sweep_seconds=SWEEP_SECONDS)
    one.send()
    waits = []
    for _ in range(10):
        times = 1
        wait(world, SWEEP_SECONDS * 0.9)
        assert one.sweep() == 0
        wait(world, SWEEP_SECONDS * 0.2)
        while one.sweep() == 0:
            wait(world, SWEEP_SECONDS)
            times += 1
        waits.append(times)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64, 64, 64]
    assert {total.revision for total in world.topic.taken()} == {1}


def test_the_sweep_adds_nothing_to_a_backlog(world: World) -> None:
    """Trap 37: while the stages behind lag it waits, and it goes on when they have caught up."""
    one = world.worker(sweep_seconds=SWEEP_SECONDS)
    one.send()
    wait(world, 10 * SWEEP_SECONDS)
    world.lag = LAG_MESSAGES_MAX + 1
    assert one.sweep() == 0
    world.lag = LAG_MESSAGES_MAX
    assert one.sweep() == 1


@pytest.mark.parametrize(("generation", "revision", "outcome", "sent"), [
    (1, 1, "rated", 0), (1, 2, "rated", 0), (2, 1, "rated", 1), (1, 0, "rated", 1), (1, 1, "failed", 1),
    (1, 1, "no_price", 1),
])  # fmt: skip
def test_only_what_is_not_booked_is_sent_again(
    world: World, generation: int, revision: int, outcome: str, sent: int
) -> None:
    """Booked and rated at its revision in its generation, an item is done; anything else is tried again."""
    one = world.worker(sweep_seconds=SWEEP_SECONDS)
    one.send()
    book(world, revision, generation=generation, outcome=outcome)
    wait(world, 2 * SWEEP_SECONDS)
    assert one.sweep() == sent


def test_a_new_revision_waits_from_the_beginning(world: World) -> None:
    """The back-off is the revision's: a changed total is sent at once and swept after the first wait."""
    one = world.worker(sweep_seconds=SWEEP_SECONDS)
    one.send()
    for _ in range(5):
        wait(world, 100 * SWEEP_SECONDS)
        one.sweep()
    world.use("vm", AT, 1)
    one.drain()
    wait(world, 1.1 * SWEEP_SECONDS)
    assert one.sweep() == 1


def test_an_item_is_computed_at_its_pace_unless_asked(world: World) -> None:
    """Trap 12: marks gather until the pace is over, also if the last time nothing changed; a close does not wait."""
    paced = world.worker(pace_seconds=3600.0)
    world.use("vm", AT, 7)
    paced.step()
    assert (world.quantity("a"), world.count("dirty_item")) == (5, 1)
    world.owner.execute("UPDATE usage_total SET computed_at = now() - interval '2 hours'")
    paced.step()
    assert (world.quantity("a"), world.count("dirty_item")) == (12, 0)
    world.owner.execute("UPDATE usage_total SET computed_at = now() - interval '2 hours'")
    world.use("vm", AT, 0)
    paced.step()
    world.use("vm", AT, 1)
    paced.step()
    assert world.quantity("a") == 12
    paced.drain()
    assert world.quantity("a") == 13


def test_open_work_is_counted(world: World) -> None:
    """The gauges show marks and items no total has taken up, and totals that are not booked."""
    world.use("vm", AT, 7)
    assert store.count_open(world.connection) == (1, 1)
    world.worker().expand()
    assert store.count_open(world.connection) == (1, 1)
    world.settle()
    book(world, 2)
    assert store.count_open(world.connection) == (0, 0)
