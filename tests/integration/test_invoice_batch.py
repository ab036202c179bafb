"""Closing periods against a real database: once, resumable, gap-free, and only what is proven."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from pipeline.contracts.charge import Amount, Charge
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.keys import digest, invoice_id
from pipeline.invoice_batch import store
from pipeline.invoice_batch.model import Outcome, ProofResult, Step
from pipeline.ledger_sink.posting import Result, book_charges
from pipeline.payments.attempts import request_payments
from pipeline.payments.gateway import Attempt, GatewayOutcome
from pipeline.payments.manual import is_creditor_reference
from pipeline.runtime.postgres import Connection
from tests.integration.invoice_world import (
    ACCOUNTS,
    AUGUST,
    JULY,
    JUNE,
    World,
    make_world,
    no_proof,
    passing_proof,
)

pytestmark = pytest.mark.real


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


class Killed(Exception):
    """Stands for the process dying at this point."""


def outcomes(report: object) -> dict[str, Outcome]:
    return {result.account_id: result.outcome for result in report.results}  # type: ignore[attr-defined]


def test_a_close_issues_what_is_owed_and_balances(world: World) -> None:
    """Receivable is the rounded total, unbilled is emptied exactly, rounding takes the rest."""
    report = world.run()
    assert report.exit_code == 0
    assert [(result.outcome, result.number, str(result.total)) for result in report.results] == [
        (Outcome.ISSUED, "RM-2013-0001", "12.35 EUR"),
        (Outcome.ISSUED, "RM-2013-0002", "12.35 EUR"),
    ]
    assert world.books() == {
        "receivable:acme:EUR": Decimal("12.35"),
        "receivable:brick:EUR": Decimal("12.35"),
        "revenue:compute:EUR": Decimal("-24.691357802468"),
        "rounding:EUR": Decimal("-0.008642197532"),
    }
    for stored, sealed in world.all("SELECT document, document_digest FROM invoice"):
        assert digest(stored) == sealed
    attempts = world.all("SELECT state, amount_minor, reference, idempotency_key, invoice_id FROM payment_attempt")
    assert [(state, minor, is_creditor_reference(ref)) for state, minor, ref, _, _ in attempts] == [
        ("requested", 1235, True)
    ] * 2
    assert all(key == f"{invoice}:1" for *_, key, invoice in attempts)


def test_the_cut_names_all_it_was_made_from(world: World) -> None:
    """Offsets, horizon, revisions and the digests a proof compares stand in the cut."""
    world.run()
    cut = world.value("SELECT cut FROM invoice WHERE account_id = 'acme'")
    item = world.value("SELECT billed_item_id FROM billed_item WHERE account_id = 'acme'")
    assert (cut["offsets"], cut["known_number"], cut["generation"]) == ({"0": 10}, 3, 1)
    assert cut["revisions"] == {str(item): 1}
    assert [len(cut[f"{name}_digest"]) for name in ("catalogue", "assignment", "manifest")] == [64, 64, 64]


def test_closing_again_changes_nothing(world: World) -> None:
    """A second run says so, and leaves books and documents as they are."""
    world.run()
    before = (world.books(), world.documents(), world.all("SELECT * FROM payment_attempt"))
    report = world.run()
    assert [(result.outcome, result.number, str(result.total)) for result in report.results] == [
        (Outcome.ALREADY_ISSUED, "RM-2013-0001", "12.35 EUR"),
        (Outcome.ALREADY_ISSUED, "RM-2013-0002", "12.35 EUR"),
    ]
    assert (world.books(), world.documents(), world.all("SELECT * FROM payment_attempt")) == before


@pytest.mark.parametrize("step", [step for step in Step if step not in (Step.WITHDRAWN, Step.OWES_NOTHING)])
def test_a_kill_after_any_step_ends_as_if_nothing_happened(world: World, tmp_path: Path, step: Step) -> None:
    """The next run goes on from what was committed; numbers, books and documents come out the same."""
    killed_at: list[Step] = []

    def die(at: Step, name: str) -> None:
        if at is step:
            killed_at.append(at)
            raise Killed

    with pytest.raises(Killed):
        world.run(listener=die)
    report = world.run()
    assert killed_at == [step]
    assert report.exit_code == 0
    assert [result.number for result in report.results] == ["RM-2013-0001", "RM-2013-0002"]
    assert world.books()["receivable:acme:EUR"] == Decimal("12.35")
    assert world.value("SELECT count(*) FROM payment_attempt WHERE state = 'requested'") == 2
    assert len(world.documents()) == 6


def test_documents_do_not_depend_on_when_or_how_often_they_were_made(world: World, tmp_path: Path) -> None:
    """A lost folder comes back byte for byte."""
    world.run()
    first = world.documents()
    world.documents_dir = tmp_path / "again"
    world.run()
    assert world.documents() == first


def test_two_closers_at_once_issue_one_invoice_an_account(world: World) -> None:
    """Both go through every step at the same time; the second finds what the first did."""
    start = threading.Barrier(2)
    errors: list[BaseException] = []

    def close() -> None:
        start.wait()
        try:
            world.run()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert world.all("SELECT account_id, number FROM invoice ORDER BY 1") == [
        ("acme", "RM-2013-0001"),
        ("brick", "RM-2013-0002"),
    ]
    assert world.value("SELECT number_next FROM number_series") == 3
    assert world.value("SELECT count(*) FROM ledger_transaction WHERE kind = 'invoice'") == 2
    assert world.value("SELECT count(*) FROM payment_attempt") == 2


def test_a_posting_under_way_at_the_cut_lands_on_exactly_one_invoice(world: World) -> None:
    """The closer waits for the sink's transaction, and its snapshot then has the posting (trap 26)."""
    holder = psycopg.connect(world.database_url)
    with closing(holder):
        holder.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended('account:acme', 0))")
        closer = threading.Thread(target=world.run)
        closer.start()
        while not world.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            pass
        holder.execute(
            "WITH t AS (INSERT INTO ledger_transaction (key, kind, billed_item_id, revision)"
            " SELECT 'usage:late', 'usage', billed_item_id, 1 FROM billed_item WHERE account_id = 'acme'"
            " RETURNING ledger_transaction_id) INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id,"
            " amount, currency, account_id, period_start) SELECT ledger_transaction_id, ledger_account_id,"
            " CASE kind WHEN 'unbilled' THEN 1 ELSE -1 END, 'EUR', 'acme', %s FROM t, ledger_account"
            " WHERE name IN ('unbilled:acme:EUR', 'revenue:compute:EUR')",
            (JULY.start,),
        )
        holder.commit()
        closer.join()
    assert world.value("SELECT total_minor FROM invoice WHERE account_id = 'acme'") == 1335
    assert "unbilled:acme:EUR" not in world.books()


def test_a_charge_that_comes_while_closing_is_deferred_and_then_billed_next(world: World) -> None:
    """The sink leaves a closing account alone; afterwards the charge is booked and lands on the next invoice."""

    def die(step: Step, name: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        world.run(listener=die)
    item = world.value("SELECT billed_item_id FROM billed_item WHERE account_id = 'acme'")
    amount = Amount(product="compute", currency="EUR", amount="13.345678901234")
    charge = Charge(item, 2, "rated", "", "3600", (amount,), (), ())
    with closing(world.connect()) as connection:
        assert book_charges(connection, 1, [charge]) == {Result.DEFERRED: 1}
        assert outcomes(world.run())["acme"] is Outcome.ISSUED
        world.admin.execute("UPDATE usage_total SET revision = 2 WHERE billed_item_id = %s", (item,))
        assert book_charges(connection, 1, [charge]) == {Result.BOOKED: 1}
    assert world.run("2013-08").results[0].number == "RM-2013-0003"
    assert world.all("SELECT total_minor FROM invoice WHERE account_id = 'acme' ORDER BY number") == [(1235,), (100,)]


def test_late_usage_goes_on_the_next_invoice_as_its_own_line(world: World) -> None:
    """June closed; more of June is charged; July's invoice takes it as a correction and June's stays as it is."""
    world.charge("acme", JUNE, "5")
    world.run("2013-06")
    june = world.value("SELECT document_digest FROM invoice WHERE period_start = %s", JUNE.start)
    world.charge("acme", JUNE, "0.5")
    world.run("2013-07")
    lines = world.all(
        "SELECT service_period_start, amount_exact, description FROM invoice_line JOIN invoice USING (invoice_id)"
        " WHERE account_id = 'acme' AND period_start = %s ORDER BY line_number",
        JULY.start,
    )
    assert lines == [
        (JULY.start, Decimal("12.345678901234"), "cpu"),
        (JUNE.start, Decimal("0.5"), "cpu: correction for June 2013"),
    ]
    document = world.value("SELECT document FROM invoice WHERE account_id = 'acme' AND period_start = %s", JULY.start)
    assert (document["lines"][1]["charged_before"], document["lines"][1]["charged_now"]) == ("5", "5.5")
    assert world.value("SELECT document_digest FROM invoice WHERE period_start = %s", JUNE.start) == june
    assert "unbilled:acme:EUR" not in world.books()


def test_the_usage_of_a_later_period_is_not_taken(world: World) -> None:
    """July's usage never stands on June's invoice (trap 48)."""
    report = world.run("2013-06")
    assert set(outcomes(report).values()) == {Outcome.NOTHING_TO_BILL}
    assert world.value("SELECT count(*) FROM invoice") == 0
    assert world.value("SELECT count(*) FROM billing_period WHERE state = 'closed'") == 2


def test_missed_months_are_caught_up_in_order(world: World) -> None:
    """One run closes June, July and August, each once, each numbered before the next."""
    world.charge("brick", JUNE, "1")
    world.charge("acme", AUGUST, "2")
    report = world.run("2013-08", catch_up=True)
    assert [(r.account_id, r.month, r.outcome.value, r.number) for r in report.results] == [
        ("acme", "2013-06", "nothing_to_bill", ""),
        ("acme", "2013-07", "issued", "RM-2013-0002"),
        ("acme", "2013-08", "issued", "RM-2013-0004"),
        ("brick", "2013-06", "issued", "RM-2013-0001"),
        ("brick", "2013-07", "issued", "RM-2013-0003"),
        ("brick", "2013-08", "nothing_to_bill", ""),
    ]


def test_an_older_month_left_open_holds_the_later_one(world: World) -> None:
    """Periods of an account close in order."""
    world.charge("acme", JUNE, "1")
    report = world.run("2013-07")
    assert outcomes(report) == {"acme": Outcome.HELD, "brick": Outcome.ISSUED}
    assert [reason.code for reason in report.results[0].reasons] == ["earlier_period_open"]


def test_a_failed_proof_takes_no_number_and_nobody_with_it(world: World) -> None:
    """Numbers stay without a gap, the draft is withdrawn, the exit code says so; proven later it is issued."""

    def doubtful(connection: Connection, ids: Sequence[str]) -> Mapping[str, ProofResult]:
        bad = invoice_id("acme", JULY.start)
        return {**passing_proof(connection, ids), bad: ProofResult(ok=False, report={}, differences=["line 1"])}

    world.prove = doubtful
    report = world.run()
    assert report.exit_code == 1
    assert outcomes(report) == {"acme": Outcome.PROOF_FAILED, "brick": Outcome.ISSUED}
    assert report.results[0].differences == ("line 1",)
    assert report.results[1].number == "RM-2013-0001"
    assert str(report.results[0].total) == "12.35 EUR"
    assert world.all("SELECT account_id FROM invoice") == [("brick",)]
    world.prove = passing_proof
    assert [result.number for result in world.run().results] == ["RM-2013-0002", "RM-2013-0001"]


def test_a_proof_that_says_nothing_of_a_draft_does_not_prove_it(world: World) -> None:
    """Silence is not consent."""
    world.prove = no_proof
    assert set(outcomes(world.run()).values()) == {Outcome.PROOF_FAILED}


def test_the_database_refuses_to_change_what_is_issued(world: World) -> None:
    """Neither the invoice nor its lines, not even by us; and nothing is issued unproven."""
    world.run()
    with closing(world.connect()) as connection:
        for statement in (
            "UPDATE invoice SET total_minor = 0",
            "UPDATE invoice_line SET amount_minor = 0",
            "DELETE FROM invoice_line",
            "DELETE FROM invoice_entry",
            "DELETE FROM invoice",
            "INSERT INTO invoice_line SELECT (jsonb_populate_record(l, '{\"line_number\": 2}')).* FROM invoice_line l",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement)
    with pytest.raises(psycopg.errors.RestrictViolation):
        world.admin.execute("UPDATE invoice SET total_minor = 0")


def test_an_unproven_draft_cannot_be_issued(world: World) -> None:
    """The database refuses, whoever asks."""

    def die(step: Step, name: str) -> None:
        if step is Step.CUT:
            raise Killed

    with pytest.raises(Killed):
        world.run(listener=die)
    with pytest.raises(psycopg.errors.CheckViolation):
        world.admin.execute(
            "UPDATE invoice SET state = 'issued', number = 'X', issued_on = now(), due_on = now(), document = '{}',"
            " document_digest = ''"
        )


def test_an_unknown_account_is_named(world: World) -> None:
    """A typing error is not an empty run."""
    with closing(world.connect()) as connection, pytest.raises(ConfigurationFault, match="nobody"):
        store.accounts(connection, ["nobody"])


class Flaky:
    """A gateway that answers nothing definite the first time."""

    name = "manual"
    tells_later = False

    def __init__(self) -> None:
        self.keys: list[str] = []

    def request(self, attempt: Attempt) -> GatewayOutcome:
        self.keys.append(attempt.idempotency_key)
        return GatewayOutcome("unknown", detail="timed out")

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        return GatewayOutcome("succeeded", "tx-1") if self.keys else None


def test_an_unknown_outcome_is_looked_up_and_never_asked_under_another_key(world: World) -> None:
    """Two captures of one invoice cannot happen (trap 61)."""
    world.run()
    ids = [row[0] for row in world.all("SELECT invoice_id FROM invoice WHERE account_id = %s", ACCOUNTS[0])]
    world.admin.execute("UPDATE payment_attempt SET state = 'intended'")
    gateway = Flaky()
    with closing(world.connect()) as connection:
        request_payments(connection, {"manual": gateway}, ids)
        assert world.value("SELECT state FROM payment_attempt WHERE invoice_id = %s", ids[0]) == "unknown"
        request_payments(connection, {"manual": gateway}, ids)
    assert gateway.keys == [f"{ids[0]}:1"]
    assert world.value("SELECT reference FROM payment_attempt WHERE invoice_id = %s", ids[0]) == "tx-1"
    settled: datetime = world.value("SELECT settled_at FROM payment_attempt WHERE invoice_id = %s", ids[0])
    assert settled is not None


def test_an_account_that_pays_by_an_unknown_gateway_is_named(world: World) -> None:
    """The intent stays for the run that knows the gateway, and everybody else is asked."""
    world.admin.execute("UPDATE billing_account SET payment_gateway = 'cheque' WHERE account_id = 'acme'")
    with pytest.raises(ConfigurationFault, match="'cheque'"):
        world.run()
    assert world.all("SELECT gateway, state FROM payment_attempt ORDER BY gateway") == [
        ("cheque", "intended"), ("manual", "requested"),
    ]  # fmt: skip
    world.admin.execute("UPDATE payment_attempt SET state = 'intended'")
    ids = [row[0] for row in world.all("SELECT invoice_id FROM invoice")]
    with closing(world.connect()) as connection, pytest.raises(ConfigurationFault, match="by 'manual'"):
        request_payments(connection, {}, ids)
    assert world.value("SELECT count(*) FROM payment_attempt WHERE state = 'intended'") == 2
