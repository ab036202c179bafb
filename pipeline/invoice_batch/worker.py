"""Control flow of a close: gate, cut, proof, number, documents, payments; resumable after every step."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from pipeline.domain.errors import TransientFault
from pipeline.domain.keys import invoice_id
from pipeline.domain.money import Money
from pipeline.domain.period import Period, calendar_month, months_between, parse_month
from pipeline.invoice_batch import facts, gate, rules, store
from pipeline.invoice_batch.documents.files import has_documents, write_documents
from pipeline.invoice_batch.issuing import issue_proven
from pipeline.invoice_batch.model import (
    Account,
    AccountResult,
    CloseRequest,
    Draft,
    Listener,
    Outcome,
    Ports,
    Reason,
    RunReport,
    Step,
)
from pipeline.invoice_batch.proving import OVERTAKEN, close_without_invoice, prove_drafts
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection, is_transient

log = logging.getLogger("rackmeter.invoice_batch")

# Later months of the account wait for the one that ended so.
STOPPING = (Outcome.HELD, Outcome.PROOF_FAILED)


def _ignore(step: Step, name: str) -> None:
    """Nobody listens."""


class Worker:
    """
    Closes periods. One connection, used by one thread.

    connection: Autocommit, as rackmeter_app.
    documents_dir: Where issued documents and the run's CSV files go.
    close_grace_seconds: How long after a period's end it may close.
    listener: Told of each step right after it was committed, and of what (see `Step`), in the close's own thread: it
        should be quick, for CLOSING and CUT are told under the account's lock. What it raises ends the close, and the
        next one goes on from there.
    """

    def __init__(
        self,
        connection: Connection,
        ports: Ports,
        documents_dir: Path,
        *,
        topic: str = "usage.events",
        close_grace_seconds: int = 0,
        listener: Listener = _ignore,
    ) -> None:
        self._connection = connection
        self._ports = ports
        self._documents_dir = documents_dir
        self._topic = topic
        self._close_grace_seconds = close_grace_seconds
        self._tell = listener

    def close(self, request: CloseRequest) -> RunReport:
        """
        Close what is asked for, as far as the gate lets it, and finish what an earlier run left behind.

        Raises:
            ConfigurationFault: The month, an account or the log is not known.
            TransientFault: The database went away; run it again.
            InvariantViolation: The books do not hold together; nothing was issued for what it names.
        """
        try:
            return self._close(request)
        except psycopg.Error as error:
            if is_transient(error):
                raise TransientFault(f"the close stopped: {str(error).strip()}. Run it again to go on.") from error
            raise

    def _close(self, request: CloseRequest) -> RunReport:
        accounts = store.accounts(self._connection, request.account_ids)
        results: list[AccountResult] = []
        stopped: set[str] = set()
        # What an earlier run proved and did not number is first in line, and its account's next month waits for it.
        numbered = issue_proven(self._connection, self._ports, request, self._tell)
        for due in by_month(accounts, request):
            # A month of everybody at a time: a later one needs the earlier one issued, and one proof serves them all.
            wanted = [(account, period) for account, period in due if account.account_id not in stopped]
            closed = self._close_month(wanted, request.now)
            failed = prove_drafts(
                self._connection, self._ports, [result.invoice_id for result in closed if result.invoice_id], self._tell
            )
            numbered += issue_proven(self._connection, self._ports, request, self._tell)
            closed = [self._with_number(result, failed, numbered) for result in closed]
            stopped |= {result.account_id for result in closed if result.outcome in STOPPING}
            results += closed
        documents = self._documents(results, numbered)
        results += self._issued_besides(documents, results, numbered)
        for result in results:
            metrics.RECORDS.labels("invoice_batch", result.outcome.value).inc()
        files = write_documents(documents, self._documents_dir)
        self._tell(Step.DOCUMENTS, str(self._documents_dir))
        self._ports.request_payments(self._connection, [document["invoice_id"] for document in documents])
        self._tell(Step.PAYMENTS, request.month)
        return RunReport(tuple(sorted(results, key=lambda result: (result.account_id, result.month))), tuple(files))

    def _close_month(self, due: Sequence[tuple[Account, Period]], now: datetime) -> list[AccountResult]:
        log_ends = self._ports.log_ends()
        results = [self._close_account(account, period, now, log_ends) for account, period in due]
        waiting = [one for one, result in zip(due, results, strict=True) if result is None]
        without_invoice = close_without_invoice(self._connection, self._ports, waiting, self._tell)
        return [
            without_invoice[account.account_id] if result is None else result
            for (account, _), result in zip(due, results, strict=True)
        ]

    def _documents(self, results: Sequence[AccountResult], numbered: Sequence[str]) -> list[dict[str, Any]]:
        # Whole months, for their CSV files: of this run, and of what an earlier run issued and did not finish.
        months = {result.month for result in results} | set(store.months_to_finish(self._connection, numbered))
        months |= {
            month
            for month, number in store.issued_without_payment(self._connection)
            if not has_documents(self._documents_dir, month, number)
        }
        return store.documents(self._connection, sorted(months))

    def reasons_to_hold(self, account: Account, period: Period, now: datetime) -> tuple[Reason, ...]:
        """Ask the gate, changing nothing."""
        log_ends = self._ports.log_ends()
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return self._gate(account, period, now, log_ends)

    def _gate(self, account: Account, period: Period, now: datetime, log_ends: Mapping[int, int]) -> tuple[Reason, ...]:
        return gate.reasons_to_hold(
            facts.read_facts(
                self._connection,
                account,
                period,
                topic=self._topic,
                now=now,
                close_grace_seconds=self._close_grace_seconds,
                log_ends=log_ends,
            )
        )

    def _close_account(
        self, account: Account, period: Period, now: datetime, log_ends: Mapping[int, int]
    ) -> AccountResult | None:
        """Bring the account's period as far as its cut; None where the cut found nothing, which is to be proven."""
        connection = self._connection
        month = rules.month_label(period.start, account.time_zone)
        name = f"{account.account_id} {month}"
        with store.account_lock(connection, account.account_id):
            with connection.transaction():
                state = store.period_state(connection, account.account_id, period)
                if state == "open":
                    reasons = self._gate(account, period, now, log_ends)
                    state = "open" if reasons else "closing"
                    store.set_period_state(connection, account.account_id, period, state)
                    if reasons:
                        return self._held(account, month, reasons)
                    # Committed before the cut: the sink defers what it finds closing, also after we are killed.
            self._tell(Step.CLOSING, name)
            if state == "closing":
                with connection.transaction():
                    # The lock is held already, so this snapshot has every posting that was under way.
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    reasons = self._gate(account, period, now, log_ends)
                    if reasons:
                        store.set_period_state(connection, account.account_id, period, "open")
                        return self._held(account, month, reasons)
                    if not self._cut(account, period):
                        # Still closing: the sink keeps off until the proof has said that nothing is owed.
                        return None
                self._tell(Step.CUT, name)
            # Under the lock too, or another run could withdraw the draft between our two looks.
            drafted = store.list_invoices(connection, [invoice_id(account.account_id, period.start)])
        if not drafted:
            return AccountResult(account.account_id, month, Outcome.NOTHING_TO_BILL)
        already = drafted[0]["state"] == "issued"
        outcome = Outcome.ALREADY_ISSUED if already else Outcome.ISSUED
        return AccountResult(account.account_id, month, outcome, drafted[0]["invoice_id"])

    def _held(self, account: Account, month: str, reasons: tuple[Reason, ...]) -> AccountResult:
        codes = sorted({reason.code for reason in reasons})
        log.info(
            "%s %s is held: %s",
            account.account_id,
            month,
            ", ".join(codes),
            extra={"action": "hold", "account": account.account_id, "month": month, "codes": codes},
        )
        return AccountResult(account.account_id, month, Outcome.HELD, reasons=reasons)

    def _cut(self, account: Account, period: Period) -> bool:
        connection = self._connection
        postings = store.untaken_postings(connection, account.account_id, period)
        if not postings:
            return False
        item_ids = sorted({posting.billed_item_id for posting in postings})
        items = store.item_charges(connection, account.account_id, period, item_ids)
        lines = rules.draft_lines(items, postings, period, account.currency, account.time_zone)
        cut = store.read_cut(connection, self._topic, {item.billed_item_id: item.revision for item in items})
        new_id = invoice_id(account.account_id, period.start)
        store.insert_draft(connection, new_id, account, period, cut, lines, rules.total_minor(lines))
        store.set_period_state(connection, account.account_id, period, "cut")
        return True

    def _with_number(
        self,
        result: AccountResult,
        failed: Mapping[str, tuple[Draft, tuple[str, ...]]],
        numbered: Sequence[str],
    ) -> AccountResult:
        this_id = result.invoice_id
        if not this_id:
            return result
        if this_id in failed:
            draft, differences = failed[this_id]
            return AccountResult(
                result.account_id,
                result.month,
                Outcome.PROOF_FAILED,
                this_id,
                total=draft.total,
                differences=differences,
            )
        found = store.list_invoices(self._connection, [this_id])
        if not found or found[0]["state"] != "issued":
            return AccountResult(result.account_id, result.month, Outcome.HELD, reasons=(OVERTAKEN,))
        total = Money(found[0]["total_minor"], found[0]["currency"])
        outcome = Outcome.ISSUED if this_id in numbered else result.outcome
        return AccountResult(result.account_id, result.month, outcome, this_id, found[0]["number"], total)

    def _issued_besides(
        self, documents: Sequence[Mapping[str, Any]], results: Sequence[AccountResult], numbered: Sequence[str]
    ) -> list[AccountResult]:
        """Rows for what the run numbered of months or accounts it was not asked for: an earlier run had proven it."""
        others = sorted(set(numbered) - {result.invoice_id for result in results})
        months = {document["invoice_id"]: document["service_period"]["month"] for document in documents}
        return [
            AccountResult(
                row["account_id"],
                months[row["invoice_id"]],
                Outcome.ISSUED,
                row["invoice_id"],
                row["number"],
                Money(row["total_minor"], row["currency"]),
            )
            for row in store.list_invoices(self._connection, others)
        ]


def by_month(accounts: Sequence[Account], request: CloseRequest) -> list[list[tuple[Account, Period]]]:
    """Who is due in which month the request names: oldest month first, accounts in the order given."""
    months: dict[str, list[tuple[Account, Period]]] = {}
    for account in accounts:
        for period in periods_to_close(account, request):
            months.setdefault(rules.month_label(period.start, account.time_zone), []).append((account, period))
    return [due for _, due in sorted(months.items())]


def periods_to_close(account: Account, request: CloseRequest) -> list[Period]:
    """The account's months the request names, oldest first; none for an account that could never owe anything."""
    last = calendar_month(*parse_month(request.month), account.time_zone)
    if account.first_at is None or account.first_at >= last.end:
        return []
    if not request.catch_up:
        return [last]
    return list(months_between(account.first_at, last.end, account.time_zone))
