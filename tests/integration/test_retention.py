"""Slots are dropped behind a recorded edge, and no bill changes by it."""

import json
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from typer.testing import CliRunner

from pipeline.catalogue.model import Assignment
from pipeline.catalogue.servers import assign
from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault, Fenced
from pipeline.maintenance import retention
from pipeline.maintenance.retention import Hold
from pipeline.runtime.postgres import Connection, connect, constraint_of
from tests.integration import retention_world
from tests.integration.aggregate_world import Reader, aggregate, new_worker, owner_of, rows_of, set_up, tally
from tests.integration.retention_world import DAY, Usage, buckets_from, day, edge_on

pytestmark = pytest.mark.real


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    """The owner of a database with meters and no usage."""
    with owner_of(database_url) as connection:
        set_up(connection, 1)
        yield connection


@pytest.fixture
def stage(owner: Connection, database_url: str) -> Iterator[Connection]:
    """The aggregate stage's connection."""
    connection = connect(database_url, application_name="tests")
    yield connection
    connection.close()


def apply(owner: Connection, number: int) -> retention.Dropped:
    """Drop what lies before a day, of a server nobody has, whatever totals say of it."""
    owner.execute("DELETE FROM dirty_mark")
    return retention.apply(owner, edge_on(number), drop_unassigned=True)


def test_the_last_sample_before_the_edge_is_pinned(owner: Connection, stage: Connection) -> None:
    """What a counter counted over the edge is not lost with the sample before it (trap 15)."""
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(stage, usage.log)
    dropped = apply(owner, 20)
    retention_world.later_days(usage)
    aggregate(stage, usage.log)

    assert (dropped.unit, dropped.samples) == ("rows", 71)
    assert dropped.buckets > 100
    reads = [row for row in buckets_from(owner, day(20)) if row[0] == "reads"]
    assert reads[0][1:] == (day(60), 10)
    assert rows_of(owner, "SELECT count(*) FROM usage_bucket WHERE slot_start < %s", day(20)) == [(0,)]


def test_slots_after_the_edge_are_what_they_are_without_it(owner: Connection, stage: Connection) -> None:
    """Every meter, to the last digit."""
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(stage, usage.log)
    apply(owner, 20)
    retention_world.later_days(usage)
    aggregate(stage, usage.log)
    kept = buckets_from(owner, day(20))
    owner.execute("TRUNCATE usage_bucket, usage_sample, usage_day, consumer_offset, partition_tally, identity_epoch")
    owner.execute("SET session_replication_role = replica")
    owner.execute("DELETE FROM retention_edge")

    assert len(kept) > 8
    assert kept == retention_world.without_retention(stage, day(20))


def test_an_event_behind_the_edge_is_parked(owner: Connection, stage: Connection) -> None:
    """It changes no slot, is kept with its reason, and holds its server's close like everything that is parked (14)."""
    usage = Usage()
    retention_world.first_days(usage)
    retention_world.later_days(usage)
    aggregate(stage, usage.log)
    apply(owner, 20)
    before = buckets_from(owner, day(0))
    usage.late(52 * DAY - 1, heard=62 * DAY)
    usage.late(52 * DAY, heard=62 * DAY)
    aggregate(stage, usage.log)

    decided = rows_of(owner, "SELECT outcome, reason, settled FROM decision")
    assert decided == [("parked", "behind_retention", False)]
    assert tally(owner)["parked"] == 1
    changed = set(buckets_from(owner, day(0))) ^ set(before)
    assert changed
    assert min(row[1] for row in changed) == day(52)


def test_what_was_folded_before_the_edge_was_recorded_is_folded_again(owner: Connection, stage: Connection) -> None:
    """A flush under way does not slip behind an edge it has not seen."""
    usage = Usage()
    usage.sample(0)
    worker = new_worker(stage, flush_events=10**9)
    Reader(usage.log, worker, [0])
    worker.step()
    apply(owner, 20)

    with pytest.raises(Fenced):
        worker.flush()
    assert rows_of(owner, "SELECT count(*) FROM usage_bucket") == [(0,)]


def test_a_change_of_what_was_dropped_is_refused(owner: Connection, stage: Connection) -> None:
    """A server given away backdated behind the edge would make a month's total of what is left of it."""
    owner.execute(ITEM)
    apply(owner, 20)

    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        assign(stage, [Assignment(0, "vm-1", "s1", day(19), None)], "test")
    assert constraint_of(refused.value) == "dirty_mark_retention_ck"
    assert "let it begin there" in str(refused.value)
    assert rows_of(owner, "SELECT count(*) FROM assignment") == [(0,)]
    assert assign(stage, [Assignment(0, "vm-1", "s1", day(20), None)], "test")


def test_dropping_again_drops_nothing_and_the_edge_never_goes_back(owner: Connection, stage: Connection) -> None:
    """Whoever keeps more days from now on keeps them from now on."""
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(stage, usage.log)
    first = apply(owner, 20)
    again, back = apply(owner, 20), apply(owner, 10)

    assert first.samples > 0
    assert (again.buckets, again.samples, again.edge) == (0, 0, first.edge)
    assert back == again
    assert rows_of(owner, "SELECT count(*) FROM retention_edge") == [(1,)]


def test_a_run_that_was_killed_is_finished_by_the_next(
    owner: Connection, stage: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge was recorded, nothing was dropped yet."""
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(stage, usage.log)
    with monkeypatch.context() as killed:
        killed.setattr(retention, "_delete_rows", _die)
        with pytest.raises(KeyboardInterrupt):
            apply(owner, 20)

    assert retention.read_edge(owner) == edge_on(20)
    assert apply(owner, 20).samples == 71


def _die(*_: object) -> retention.Dropped:
    raise KeyboardInterrupt


ITEM: LiteralString = """
INSERT INTO seller (seller, name, number_prefix, time_zone, known_number) VALUES ('host', 'Host', 'RM', 'UTC', 1);
INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)
    VALUES ('acme', 'Acme', 'EUR', 'UTC', 'host', 1);
INSERT INTO subscription (subscription_id, account_id, plan, starts_at, known_number)
    VALUES ('s1', 'acme', 'standard', '2013-01-01Z', 1);
INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)
    VALUES ('acme', 's1', 'cpu', '2013-07-01Z', '2013-08-01Z', '');
INSERT INTO usage_total (billed_item_id, generation, revision, segments) VALUES (1, 1, 2, '[{"quantity": "0.5"}]');
INSERT INTO booked_charge (billed_item_id, generation, revision, outcome, quantity, amounts, breakdown)
    VALUES (1, 1, 2, 'rated', 1, '[]', '[]');
INSERT INTO billing_period (account_id, period_start, period_end, state)
    VALUES ('acme', '2013-07-01Z', '2013-08-01Z', 'closed');
"""
HOLDING: dict[str, tuple[LiteralString, Hold]] = {
    "cut": ("UPDATE billing_period SET state = 'cut'", Hold("period_open", "acme", 1)),
    "never closed": ("DELETE FROM billing_period", Hold("period_open", "acme", 1)),
    "unbooked": ("UPDATE booked_charge SET revision = 1", Hold("total_unbooked", "acme", 1)),
    "unrated": ("UPDATE booked_charge SET outcome = 'no_price', reason = 'x'", Hold("total_unbooked", "acme", 1)),
    "dirty item": ("INSERT INTO dirty_item (billed_item_id) VALUES (1)", Hold("change_open", "acme", 1)),
    "dirty mark": (
        "INSERT INTO dirty_mark (subject, time_from, time_to) VALUES ('vm-1', '2013-07-19Z', '2013-07-22Z')",
        Hold("change_open", "vm-1", 1),
    ),
    "unassigned": (
        """
        INSERT INTO series (meter_version_id, subject, source) VALUES (1, 'vm-9', '');
        INSERT INTO usage_bucket SELECT series_id, '2013-07-02Z', 1 FROM series
        """,
        Hold("unassigned", "vm-9", 1),
    ),
}


@pytest.mark.parametrize("case", HOLDING)
def test_what_is_open_holds_retention(owner: Connection, case: str) -> None:
    """Nothing is dropped, and no edge recorded, while a month before it could still change or is not billed."""
    statement, hold = HOLDING[case]
    owner.execute(ITEM)

    assert retention.plan(owner, edge_on(20)).holds == []
    owner.execute(statement)
    assert retention.plan(owner, edge_on(20)).holds == [hold]
    with pytest.raises(ConfigurationFault, match=hold.about):
        retention.apply(owner, edge_on(20))
    assert retention.read_edge(owner) is None


def test_a_month_without_usage_need_not_be_closed(owner: Connection) -> None:
    """Marks reach an hour back, into a month before a customer's first: its items are worth nothing."""
    owner.execute(ITEM)
    owner.execute("DELETE FROM billing_period")
    owner.execute("""UPDATE usage_total SET segments = '[{"quantity": "0"}]'""")

    assert retention.plan(owner, edge_on(20)).holds == []


def test_a_plan_counts_what_an_apply_drops(owner: Connection, stage: Connection) -> None:
    """And changes nothing itself."""
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(stage, usage.log)
    owner.execute("DELETE FROM dirty_mark")
    planned = retention.plan(owner, edge_on(2), drop_unassigned=True)
    dropped = apply(owner, 2)

    assert (planned.buckets, planned.samples) == (dropped.buckets, dropped.samples)
    assert planned.buckets > 0


def test_the_commands_plan_refuse_and_drop(
    owner: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds is listed with what to do, exit code 1; then it is dropped, and a change of it is refused."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    owner.execute(ITEM)
    owner.execute(HOLDING["unassigned"][0])
    keep = ["--keep-days", "100", "--format", "json"]
    run = CliRunner()
    planned, refused = run.invoke(app, ["retention", "plan", *keep]), run.invoke(app, ["retention", "apply", *keep])
    applied = run.invoke(app, ["retention", "apply", "--drop-unassigned", *keep])
    assigned = run.invoke(app, ["servers", "assign", "vm-1", "s1", "--from", "2013-07-05"])
    listed = run.invoke(app, ["usage", "list"])
    too_few = run.invoke(app, ["retention", "plan", "--keep-days", "30"])

    assert (planned.exit_code, refused.exit_code, applied.exit_code, too_few.exit_code) == (1, 1, 0, 2)
    assert [row["reason"] for row in json.loads(planned.stdout)] == ["unassigned"]
    assert "vm-9" in refused.stderr
    assert (json.loads(applied.stdout)[0]["buckets"], json.loads(applied.stdout)[0]["unit"]) == (1, "rows")
    assert "were dropped" in listed.stderr
    assert isinstance(assigned.exception, ConfigurationFault)
    assert "behind the retention edge" in assigned.exception.detail
