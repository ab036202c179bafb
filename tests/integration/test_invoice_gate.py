"""The gate against a real database: each fact is read from the tables the stages write."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.invoice_batch import store
from pipeline.invoice_batch.model import Outcome, Step
from pipeline.invoice_batch.worker import Worker
from tests.integration.invoice_world import (
    JULY,
    NOW,
    World,
    make_world,
)

pytestmark = pytest.mark.real


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


def outcomes(report: object) -> dict[str, Outcome]:
    return {result.account_id: result.outcome for result in report.results}  # type: ignore[attr-defined]


def test_asking_the_gate_changes_nothing(world: World) -> None:
    """A look before the close leaves no state behind."""
    world.admin.execute("DELETE FROM source_completeness WHERE source = 'agent-acme'")
    with closing(world.connect()) as connection:
        worker = Worker(connection, world.ports(), world.documents_dir)
        acme = store.accounts(connection, ["acme"])[0]
        assert [reason.code for reason in worker.reasons_to_hold(acme, JULY, NOW)] == ["incomplete"]
    assert world.value("SELECT count(*) FROM billing_period") == 0


@pytest.mark.parametrize(
    ("code", "tampering"),
    [
        ("silent", "DELETE FROM source_subject WHERE subject = 'vm-acme'"),
        ("incomplete", "UPDATE source_completeness SET complete_until = '2013-07-31Z' WHERE source = 'agent-acme'"),
        ("incomplete", "DELETE FROM source_completeness WHERE source = 'agent-acme'"),
        ("hole", "UPDATE identity_epoch SET counted = '{[1,3),[4,6)}' WHERE source = 'agent-acme'"),
        ("hole", "INSERT INTO identity_epoch VALUES ('agent-acme', '00000000000000bb', 0, '2013-07-01Z', '{[2,3)}')"),
        (
            "dirty",
            "INSERT INTO dirty_mark (subject, time_from, time_to) VALUES ('vm-acme', '2013-07-02Z', '2013-07-03Z')",
        ),
        (
            "dirty",
            (
                "INSERT INTO dirty_mark (subscription_id, time_from, time_to)"
                " VALUES ('acme-main', '2013-07-02Z', '2013-07-03Z')"
            ),
        ),
        (
            "dirty",
            "INSERT INTO dirty_item (billed_item_id) SELECT billed_item_id FROM billed_item WHERE account_id = 'acme'",
        ),
        (
            "not_booked",
            (
                "UPDATE usage_total SET revision = 2 FROM billed_item i WHERE i.account_id = 'acme'"
                " AND usage_total.billed_item_id = i.billed_item_id"
            ),
        ),
        (
            "no_price",
            (
                "UPDATE booked_charge SET outcome = 'no_price' FROM billed_item i WHERE i.account_id = 'acme'"
                " AND booked_charge.billed_item_id = i.billed_item_id"
            ),
        ),
    ],
)
def test_what_is_not_settled_holds_its_account_and_no_other(world: World, code: str, tampering: str) -> None:
    """The gate reads each fact from the tables the stages write, for the account it concerns."""
    world.admin.execute(tampering)
    report = world.run()
    assert outcomes(report) == {"acme": Outcome.HELD, "brick": Outcome.ISSUED}
    assert [reason.code for reason in report.results[0].reasons] == [code]
    assert world.value("SELECT state FROM billing_period WHERE account_id = 'acme'") == "open"


@pytest.mark.parametrize("outcome", ["quarantined", "parked", "conflict", "duplicate"])
@pytest.mark.parametrize(("subject", "source"), [("vm-acme", "x"), (None, "agent-acme")])
def test_undecided_events_hold_the_account_they_concern(
    world: World, outcome: str, subject: str | None, source: str
) -> None:
    """By subject, or by the source where the subject could not be read; settled ones and later ones do not."""
    world.admin.execute(
        "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, source, subject,"
        " log_time, payload) VALUES ('usage.events', 0, 1, 0, %s, 'why', %s, %s, now(), '')",
        (outcome, source, subject),
    )
    report = world.run()
    assert outcomes(report) == {"acme": Outcome.HELD, "brick": Outcome.ISSUED}
    assert [reason.code for reason in report.results[0].reasons] == [f"open_{outcome}"]
    world.admin.execute("UPDATE decision SET settled = true")
    assert outcomes(world.run())["acme"] is Outcome.ISSUED


@pytest.mark.parametrize(
    ("occurred_at", "log_time", "outcome"),
    [
        ("2033-07-10Z", "2013-07-10Z", Outcome.HELD),
        ("2013-07-10Z", "2013-08-10Z", Outcome.HELD),
        ("2033-07-10Z", "2013-08-10Z", Outcome.ISSUED),
    ],
)
def test_a_time_that_was_not_believed_does_not_excuse_an_event(
    world: World, occurred_at: str, log_time: str, outcome: Outcome
) -> None:
    """An event that claims a later time than the log's happened at the log's time at the latest."""
    world.admin.execute(
        "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, source, subject,"
        " occurred_at, log_time, payload)"
        " VALUES ('usage.events', 0, 1, 0, 'quarantined', 'time_future', 'agent-acme', 'vm-acme', %s, %s, '')",
        (occurred_at, log_time),
    )
    assert outcomes(world.run())["acme"] is outcome


def test_a_log_not_read_to_its_end_holds_everybody(world: World) -> None:
    """What is unread may be anybody's; archive and aggregate both must have it."""
    world.log_ends = {0: 11}
    assert [result.reasons[0].code for result in world.run().results] == ["log_unread"] * 2
    world.admin.execute("UPDATE consumer_offset SET offset_next = 11 WHERE stage = 'aggregate'")
    assert [result.reasons[0].code for result in world.run().results] == ["archive_behind"] * 2
    world.log_ends = {0: 11, 1: 0}
    with pytest.raises(ConfigurationFault):
        world.run()


def test_the_gate_is_asked_again_in_the_snapshot_of_the_cut(world: World) -> None:
    """A flush between marking and cutting shuts the gate; the account is open again, not stuck (trap 47)."""

    def flush(step: Step, name: str) -> None:
        if step is Step.CLOSING and name.startswith("acme"):
            world.admin.execute(
                "INSERT INTO dirty_mark (subject, time_from, time_to) VALUES ('vm-acme', '2013-07-02Z', '2013-07-03Z')"
            )

    assert outcomes(world.run(listener=flush))["acme"] is Outcome.HELD
    assert world.value("SELECT state FROM billing_period WHERE account_id = 'acme'") == "open"
    world.admin.execute("DELETE FROM dirty_mark")
    assert outcomes(world.run())["acme"] is Outcome.ISSUED


def test_a_server_that_moved_is_expected_of_each_owner_for_its_time(world: World) -> None:
    """Who had it until the 15th waits until the 15th; who has it since waits to the end."""
    world.admin.execute(
        "INSERT INTO assignment (known_number, subject, subscription_id, valid_from, said_by)"
        " VALUES (9, 'vm-acme', 'brick-main', '2013-07-15Z', 'test')"
    )
    world.admin.execute("UPDATE source_completeness SET complete_until = '2013-07-20Z' WHERE source = 'agent-acme'")
    report = world.run()
    assert outcomes(report) == {"acme": Outcome.ISSUED, "brick": Outcome.HELD}
    assert [(reason.code, reason.subject) for reason in report.results[1].reasons] == [("incomplete", "vm-acme")]
