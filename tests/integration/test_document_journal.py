"""A number is in the journal with its whole document before it takes effect, and goes to nothing else ever after."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.invoice_batch.model import CloseRequest
from pipeline.invoice_batch.worker import Worker
from pipeline.payments.attempts import request_payments
from pipeline.payments.gateway import Attempt, GatewayOutcome
from pipeline.payments.manual import ManualGateway
from pipeline.payments.store import Undecided
from pipeline.proof.outside import check_documents, documents_outside
from pipeline.proof.report import Findings
from pipeline.runtime.journal import Journal
from tests.integration.invoice_world import ISSUED_ON, NOW, World, make_world

pytestmark = pytest.mark.real

STREAM = "documents-host-2013"


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


class _KilledAfter(Journal):
    """Has written, and then the process is gone before the commit."""

    def append(self, stream: str, records: Sequence[Mapping[str, Any]]) -> None:
        super().append(stream, records)
        raise TransientFault("killed here")


def journalled(world: World) -> list[Any]:
    return [line.record for line in world.journal.backwards(STREAM)][::-1]


def issued(world: World) -> list[Any]:
    return world.all(
        "SELECT number, invoice_id, document_digest, issued_on FROM invoice WHERE state = 'issued' ORDER BY number"
    )


def close_later(world: World, day: date) -> None:
    with closing(world.connect()) as connection:
        worker = Worker(connection, world.ports(), world.documents_dir)
        worker.close(CloseRequest("2013-07", NOW, issued_on=day))


def kill_between_journal_and_commit(world: World) -> None:
    kept, world.journal = world.journal, _KilledAfter(world.documents_dir.parent / "journal")
    with pytest.raises(TransientFault):
        world.run()
    world.journal = kept
    assert issued(world) == []


def differences(world: World) -> list[str]:
    findings = Findings()
    with closing(world.connect()) as connection:
        folder = world.documents_dir.parent / "journal"
        check_documents(connection, folder, documents_outside(folder), findings)
    return [difference.text for difference in findings.differences]


def test_every_document_is_in_the_journal(world: World) -> None:
    """Whole, under its number, once; a close that has nothing to do adds nothing."""
    world.run()
    world.run()

    assert [(one["number"], one["invoice_id"], one["digest"]) for one in journalled(world)] == [
        row[:3] for row in issued(world)
    ]
    assert [one["document"] for one in journalled(world)] == [
        row[0] for row in world.all("SELECT document FROM invoice ORDER BY number")
    ]
    assert differences(world) == []


def test_a_number_that_was_journalled_is_given_as_it_was(world: World) -> None:
    """Killed between journal and commit, the next close, on another day and after another address, goes on from it."""
    kill_between_journal_and_commit(world)
    begun = journalled(world)
    assert begun
    assert "is not issued" in differences(world)[0]
    world.admin.execute("UPDATE billing_account SET address = '{Elsewhere 1}', payment_terms_days = 30")
    close_later(world, date(2014, 1, 2))

    assert journalled(world) == begun
    assert [row[:3] for row in issued(world)] == [(one["number"], one["invoice_id"], one["digest"]) for one in begun]
    assert {row[3] for row in issued(world)} == {ISSUED_ON}
    assert differences(world) == []


def test_a_number_that_was_journalled_goes_to_nothing_else(world: World) -> None:
    """Where the invoice says another amount now, as after a restore, no number is given and nothing is issued."""
    kill_between_journal_and_commit(world)
    (account,) = world.all("SELECT account_id FROM invoice WHERE state = 'proven' ORDER BY account_id LIMIT 1")[0]
    world.admin.execute("SET session_replication_role = replica")
    world.admin.execute("UPDATE invoice SET total_minor = total_minor + 1 WHERE account_id = %s", (account,))
    world.admin.execute("RESET session_replication_role")

    with pytest.raises(InvariantViolation, match=r"differs in total, rounding"):
        world.run()
    assert issued(world) == []


def test_an_older_database_gives_no_number(world: World) -> None:
    """The journal has documents of invoices that a restored database has not come to."""
    kill_between_journal_and_commit(world)
    world.admin.execute("SET session_replication_role = replica")
    for table in ("invoice_entry", "invoice_line"):
        world.admin.execute(
            f"DELETE FROM {table} WHERE invoice_id IN (SELECT invoice_id FROM invoice WHERE account_id <> 'acme')"
        )
    world.admin.execute("DELETE FROM invoice WHERE account_id <> 'acme'")
    world.admin.execute("RESET session_replication_role")

    request = CloseRequest("2013-07", NOW, issued_on=ISSUED_ON, account_ids=("acme",))
    with closing(world.connect()) as connection:
        worker = Worker(connection, world.ports(), world.documents_dir)
        with pytest.raises(InvariantViolation, match="no proven invoice for it"):
            worker.close(request)
    assert issued(world) == []


def test_changed_documents_are_found(world: World) -> None:
    """In the database, in the journal, or missing from one of them."""
    world.run()
    first, *rest = issued(world)
    world.admin.execute("SET session_replication_role = replica")
    world.admin.execute("UPDATE invoice SET document_digest = 'other' WHERE number = %s", (first[0],))
    assert differences(world) == [f"invoice {first[0]} is not the journal's {first[0]}"]
    world.admin.execute("UPDATE invoice SET document_digest = %s WHERE number = %s", (first[2], first[0]))

    file = world.documents_dir.parent / "journal" / f"{STREAM}.jsonl"
    whole = file.read_bytes()
    *kept, last = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(kept))
    assert differences(world) == [f"invoice {rest[-1][0]} is issued and not in the journal"]
    file.write_bytes(b"".join([*kept, last.replace(b'"currency":"EUR"', b'"currency":"USD"')]))
    assert differences(world) == [f"the journal's document {rest[-1][0]} is not what its digest says"]


class _Gateway(ManualGateway):
    """Looks, each time it is asked, whether that is in the journal already."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.asked: list[str] = []

    def request(self, attempt: Attempt) -> GatewayOutcome:
        known = {line.record["idempotency_key"]: line.record for line in self.journal.backwards("payments")}
        assert known[attempt.idempotency_key]["amount_minor"] == attempt.amount.minor
        self.asked.append(attempt.idempotency_key)
        return super().request(attempt)


def test_a_payment_is_in_the_journal_before_anybody_is_asked(world: World) -> None:
    """With its key and amount, so that a restored database can find what it has forgotten."""
    gateway = _Gateway(world.journal)

    def write_down(intents: Sequence[Undecided]) -> None:
        world.journal.append("payments", [intent.record for intent in intents])

    ports = replace(
        world.ports(), request_payments=lambda c, ids: request_payments(c, {"manual": gateway}, ids, write_down)
    )
    with closing(world.connect()) as connection:
        Worker(connection, ports, world.documents_dir).close(CloseRequest("2013-07", NOW, issued_on=ISSUED_ON))

    assert sorted(gateway.asked) == sorted(row[0] for row in world.all("SELECT idempotency_key FROM payment_attempt"))
    assert gateway.asked
