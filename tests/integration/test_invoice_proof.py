"""What a failed proof does to a close: the draft goes, the month stays open, and nothing is left half done."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.domain.keys import invoice_id
from pipeline.domain.period import Period
from pipeline.invoice_batch.model import Outcome, ProofResult, Step
from pipeline.runtime.postgres import Connection
from tests.integration.invoice_world import (
    AUGUST,
    JULY,
    JUNE,
    World,
    make_world,
    no_proof,
    nothing_owed,
    passing_proof,
)

pytestmark = pytest.mark.real

STATES = "SELECT state FROM billing_period WHERE account_id = %s AND period_start = %s"


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


class Killed(Exception):
    """Stands for the process dying at this point."""


class Dying:
    """Listens, and dies when a step was committed for a name that begins so."""

    def __init__(self, step: Step, name: str = "") -> None:
        self._step, self._name = step, name

    def __call__(self, step: Step, name: str) -> None:
        if step is self._step and name.startswith(self._name):
            raise Killed


def outcomes(report: object) -> dict[str, Outcome]:
    return {result.account_id: result.outcome for result in report.results}  # type: ignore[attr-defined]


def fails_for_acme(connection: Connection, ids: Sequence[str]) -> Mapping[str, ProofResult]:
    bad = ProofResult(ok=False, report={}, differences=["line 1 differs", "so does line 2"])
    acme = {invoice_id("acme", period.start) for period in (JUNE, JULY, AUGUST)}
    return {this: bad if this in acme else one for this, one in passing_proof(connection, ids).items()}


def test_a_failed_proof_withdraws_the_draft_and_the_next_close_cuts_anew(world: World) -> None:
    """A catalogue that changed between cut and proof costs one run, not the account's months for ever."""
    world.prove = fails_for_acme
    world.run()
    assert world.value(STATES, "acme", JULY.start) == "open"
    for table in ("invoice", "invoice_line", "invoice_entry"):
        assert world.value(f"SELECT count(*) FROM {table}") == 1, table
    failures = world.all(
        "SELECT invoice_id, account_id, period_start, differences, cut ->> 'known_number' FROM proof_failure"
    )
    assert failures == [(invoice_id("acme", JULY.start), "acme", JULY.start, ["line 1 differs", "so does line 2"], "3")]
    world.admin.execute("UPDATE known_number SET last = 4")
    world.charge("acme", JULY, "1")
    world.prove = passing_proof
    report = world.run()
    assert outcomes(report) == {"acme": Outcome.ISSUED, "brick": Outcome.ALREADY_ISSUED}
    assert world.all("SELECT cut ->> 'known_number', total_minor FROM invoice WHERE account_id = 'acme'") == [
        ("4", 1335)
    ]
    assert "unbilled:acme:EUR" not in world.books()


def test_the_sink_books_and_later_months_wait_while_a_month_is_not_proven(world: World) -> None:
    """The period is open again: charges are taken, August is held by July and by nothing else."""
    world.charge("acme", AUGUST, "2")
    world.prove = fails_for_acme
    report = world.run("2013-08", catch_up=True)
    mine = [(result.month, result.outcome) for result in report.results if result.account_id == "acme"]
    assert mine == [("2013-06", Outcome.NOTHING_TO_BILL), ("2013-07", Outcome.PROOF_FAILED)]
    held = world.run("2013-08").results[0]
    assert (held.outcome, [reason.code for reason in held.reasons]) == (Outcome.HELD, ["earlier_period_open"])
    world.prove = passing_proof
    assert world.run("2013-08", catch_up=True).exit_code == 0


@pytest.mark.parametrize("step", [Step.CUT, Step.WITHDRAWN])
def test_a_kill_around_a_failed_proof_leaves_nothing_in_the_way(world: World, step: Step) -> None:
    """Before the withdrawal the draft is proven again; after it the next run cuts anew."""
    world.prove = fails_for_acme
    with pytest.raises(Killed):
        world.run(listener=Dying(step))
    world.prove = passing_proof
    report = world.run()
    assert report.exit_code == 0
    assert [str(result.total) for result in report.results] == ["12.35 EUR"] * 2
    assert world.value("SELECT count(*) FROM proof_failure") == (1 if step is Step.WITHDRAWN else 0)


def test_a_verdict_counts_for_the_draft_that_was_proven_only(world: World) -> None:
    """Another close withdrew it and cut anew meanwhile: neither verdict of ours touches the new draft."""
    rounds: list[str] = []

    def while_another_closes(connection: Connection, ids: Sequence[str]) -> Mapping[str, ProofResult]:
        world.prove = no_proof
        world.run()
        world.prove = passing_proof
        with pytest.raises(Killed):
            world.run(listener=Dying(Step.CUT, "brick"))
        rounds.append("done")
        return fails_for_acme(connection, ids)

    world.prove = while_another_closes
    report = world.run()
    assert rounds == ["done"]
    assert outcomes(report) == {"acme": Outcome.PROOF_FAILED, "brick": Outcome.HELD}
    assert [reason.code for reason in report.results[1].reasons] == ["overtaken"]
    assert world.all("SELECT account_id, state FROM invoice ORDER BY 1") == [("acme", "draft"), ("brick", "draft")]
    assert world.run().exit_code == 0


def june_is_owed(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
    bad = ProofResult(
        ok=False, report={}, differences=["vm-acme used 3600 core-seconds of cpu, and nothing is charged"]
    )
    return {**nothing_owed(connection, periods), "acme": bad}


def test_nobody_owes_nothing_without_a_proof(world: World) -> None:
    """Usage that was never charged is found before the month is closed; the month stays open, and says why."""
    asked: list[tuple[str, Period]] = []

    def listen(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
        states = {world.value(STATES, account, period.start) for account, period in periods}
        assert states == {"closing"}
        assert connection.info.transaction_status == 0
        asked.extend(periods)
        return june_is_owed(connection, periods)

    world.prove_nothing_owed = listen
    report = world.run("2013-06")
    assert asked == [("acme", JUNE), ("brick", JUNE)]
    assert outcomes(report) == {"acme": Outcome.PROOF_FAILED, "brick": Outcome.NOTHING_TO_BILL}
    assert report.exit_code == 1
    assert "3600" in report.results[0].differences[0]
    assert [world.value(STATES, account, JUNE.start) for account in ("acme", "brick")] == ["open", "closed"]
    assert world.all("SELECT account_id, period_start, cut FROM proof_failure") == [("acme", JUNE.start, None)]
    world.charge("acme", JUNE, "3")
    world.run("2013-06")
    assert world.all("SELECT account_id, total_minor FROM invoice") == [("acme", 300)]
    assert len(asked) == 2


def test_a_proof_that_does_not_say_that_nothing_is_owed_does_not_prove_it(world: World) -> None:
    """Silence is not consent."""
    world.prove_nothing_owed = lambda _connection, _periods: {}
    assert set(outcomes(world.run("2013-06")).values()) == {Outcome.PROOF_FAILED}
    assert world.value("SELECT count(*) FROM billing_period WHERE state <> 'open'") == 0


@pytest.mark.parametrize("step", [Step.CLOSING, Step.OWES_NOTHING])
def test_a_kill_before_or_after_a_month_closes_without_an_invoice(world: World, step: Step) -> None:
    """It is asked and proven again, or closed already."""
    with pytest.raises(Killed):
        world.run("2013-06", listener=Dying(step, "brick"))
    report = world.run("2013-06")
    assert set(outcomes(report).values()) == {Outcome.NOTHING_TO_BILL}
    assert world.value("SELECT count(*) FROM billing_period WHERE state = 'closed'") == 2


def test_a_kill_while_it_is_proven_that_nothing_is_owed(world: World) -> None:
    """The account is still marked as closing; the next run goes on from there."""

    def die(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
        raise Killed

    world.prove_nothing_owed = die
    with pytest.raises(Killed):
        world.run("2013-06")
    assert world.value(STATES, "acme", JUNE.start) == "closing"
    world.prove_nothing_owed = nothing_owed
    assert world.run("2013-06").exit_code == 0
    assert world.value(STATES, "acme", JUNE.start) == "closed"


def test_a_verdict_of_nothing_owed_does_not_close_over_what_was_booked_since(world: World) -> None:
    """Another close put the month back and marked it again while we were proving: look before closing."""

    def meanwhile(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
        world.charge("acme", JUNE, "3")
        return nothing_owed(connection, periods)

    world.prove_nothing_owed = meanwhile
    report = world.run("2013-06")
    assert outcomes(report) == {"acme": Outcome.HELD, "brick": Outcome.NOTHING_TO_BILL}
    assert [reason.code for reason in report.results[0].reasons] == ["overtaken"]
    world.run("2013-06")
    assert world.all("SELECT account_id, total_minor FROM invoice") == [("acme", 300)]


def test_two_closers_at_once_close_what_owes_nothing(world: World) -> None:
    """The second finds it closed."""
    together = threading.Barrier(2, timeout=20)

    def both(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
        together.wait()
        return nothing_owed(connection, periods)

    world.prove_nothing_owed = both
    reports: list[object] = []
    threads = [threading.Thread(target=lambda: reports.append(world.run("2013-06"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [set(outcomes(report).values()) for report in reports] == [{Outcome.NOTHING_TO_BILL}] * 2


@pytest.mark.parametrize("step", [Step.PROVEN, Step.ISSUED, Step.DOCUMENTS])
def test_the_next_months_close_finishes_what_was_proven_before(world: World, step: Step) -> None:
    """July is numbered, written and asked for, whole; August of the same accounts does not wait for another run."""
    world.charge("acme", AUGUST, "2")
    with pytest.raises(Killed):
        world.run("2013-07", listener=Dying(step, "" if step is Step.DOCUMENTS else invoice_id("brick", JULY.start)))
    report = world.run("2013-08")
    assert [(result.account_id, result.month, result.outcome, result.number) for result in report.results] == [
        *([("acme", "2013-07", Outcome.ISSUED, "RM-2013-0001")] if step is Step.PROVEN else []),
        ("acme", "2013-08", Outcome.ISSUED, "RM-2013-0003"),
        *([("brick", "2013-07", Outcome.ISSUED, "RM-2013-0002")] if step is Step.PROVEN else []),
        ("brick", "2013-08", Outcome.NOTHING_TO_BILL, ""),
    ]
    assert world.all("SELECT state FROM payment_attempt") == [("requested",)] * 3
    assert [name for name in world.documents() if name.startswith("2013-07/")] == [
        "2013-07/RM-2013-0001.html",
        "2013-07/RM-2013-0001.json",
        "2013-07/RM-2013-0002.html",
        "2013-07/RM-2013-0002.json",
        "2013-07/invoices.csv",
        "2013-07/lines.csv",
    ]
    assert world.documents()["2013-07/invoices.csv"].count(b"\n") == 3


def test_an_intent_that_was_never_answered_is_asked_about_by_the_next_months_close(world: World) -> None:
    """A kill between intent and outcome does not leave July's money unasked for."""
    world.run("2013-07")
    world.admin.execute("UPDATE payment_attempt SET state = 'intended'")
    world.run("2013-08")
    assert world.all("SELECT state FROM payment_attempt") == [("requested",)] * 2


def test_an_invoice_of_nothing_gets_its_documents_from_the_next_months_close_too(world: World) -> None:
    """No payment attempt tells that its files are missing; the folder does."""
    world.charge("acme", JULY, "-12.345678901234")
    world.charge("acme", JULY, "0.001")
    with pytest.raises(Killed):
        world.run("2013-07", listener=Dying(Step.ISSUED, invoice_id("brick", JULY.start)))
    assert world.value("SELECT total_minor FROM invoice WHERE account_id = 'acme'") == 0
    world.admin.execute(
        "INSERT INTO payment_attempt SELECT invoice_id, 1, 'manual', 'k', 1235, 'EUR', 'requested' FROM invoice"
        " WHERE account_id = 'brick'"
    )
    world.run("2013-08")
    assert "2013-07/RM-2013-0001.html" in world.documents()
    assert world.books()["rounding:EUR"] < Decimal(1)
