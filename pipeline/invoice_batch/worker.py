"""Control flow of a close: gate, cut, proof, number, documents, payments; resumable after every step."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from pipeline.domain.errors import TransientFault
from pipeline.domain.keys import digest, invoice_id
from pipeline.domain.money import Money, format_minor
from pipeline.domain.period import Period, calendar_month, months_between, parse_month
from pipeline.invoice_batch import facts, gate, rules, store
from pipeline.invoice_batch.documents.document import build_document
from pipeline.invoice_batch.documents.files import write_documents
from pipeline.invoice_batch.model import (
    Account,
    AccountResult,
    CloseRequest,
    Outcome,
    Ports,
    ProofResult,
    Reason,
    RunReport,
    Step,
)
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection, is_transient

log = logging.getLogger("rackmeter.invoice_batch")

# Bounds how long one seller's series stays locked.
NUMBERS_PER_TRANSACTION = 500

# Later months of the account wait for the one that ended so.
STOPPING = (Outcome.HELD, Outcome.PROOF_FAILED)

Listener = Callable[[Step, str], None]


def _ignore(step: Step, name: str) -> None:
    """Nobody listens."""


class Worker:
    """
    Closes periods. One connection, used by one thread.

    connection: Autocommit, as rackmeter_app.
    documents_dir: Where issued documents and the run's CSV files go.
    close_grace_seconds: How long after a period's end it may close.
    listener: Told of each step that was committed and of what: an account, an invoice or a folder.
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
        for due in by_month(accounts, request):
            # A month of everybody at a time: a later one needs the earlier one issued, and one proof serves them all.
            log_ends = self._ports.log_ends()
            closed = [
                self._close_account(account, period, request.now, log_ends)
                for account, period in due
                if account.account_id not in stopped
            ]
            failed = self._prove([result.invoice_id for result in closed if result.invoice_id])
            self._issue(request)
            closed = [self._with_number(result, failed) for result in closed]
            stopped |= {result.account_id for result in closed if result.outcome in STOPPING}
            results += closed
        for result in results:
            metrics.RECORDS.labels("invoice_batch", result.outcome.value).inc()
        documents = store.documents(self._connection, sorted({result.month for result in results}))
        files = write_documents(documents, self._documents_dir)
        self._tell(Step.DOCUMENTS, str(self._documents_dir))
        self._ports.request_payments(self._connection, [document["invoice_id"] for document in documents])
        self._tell(Step.PAYMENTS, request.month)
        return RunReport(tuple(sorted(results, key=lambda result: (result.account_id, result.month))), tuple(files))

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
    ) -> AccountResult:
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
                    self._cut(account, period)
                self._tell(Step.CUT, name)
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

    def _cut(self, account: Account, period: Period) -> None:
        connection = self._connection
        postings = store.untaken_postings(connection, account.account_id, period)
        if not postings:
            store.set_period_state(connection, account.account_id, period, "closed")
            return
        item_ids = sorted({posting.billed_item_id for posting in postings})
        items = store.item_charges(connection, account.account_id, period, item_ids)
        lines = rules.draft_lines(items, postings, period, account.currency, account.time_zone)
        cut = store.read_cut(connection, self._topic, {item.billed_item_id: item.revision for item in items})
        new_id = invoice_id(account.account_id, period.start)
        store.insert_draft(connection, new_id, account, period, cut, lines, rules.total_minor(lines))
        store.set_period_state(connection, account.account_id, period, "cut")

    def _prove(self, invoice_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        drafts = store.draft_ids(self._connection, invoice_ids)
        if not drafts:
            return {}
        results = self._ports.prove(self._connection, drafts)
        failed: dict[str, tuple[str, ...]] = {}
        for draft in drafts:
            result = results.get(draft, ProofResult(ok=False, report={}, differences=["the proof did not cover it"]))
            with self._connection.transaction():
                store.record_proof(self._connection, draft, result)
            if result.ok:
                self._tell(Step.PROVEN, draft)
            else:
                failed[draft] = tuple(result.differences)
                log.error(
                    "invoice %s is not proven: %s",
                    draft,
                    "; ".join(result.differences),
                    extra={"action": "proof_failed", "invoice": draft},
                )
        return failed

    def _issue(self, request: CloseRequest) -> None:
        # Also what an earlier run proved and did not number: open entries come before new ones.
        for row in store.rows(self._connection, "sellers_to_number"):
            while self._issue_chunk(row["seller"], row["time_zone"], request):
                pass

    def _issue_chunk(self, seller: str, zone_name: str, request: CloseRequest) -> int:
        connection = self._connection
        issued_on = request.issued_on or request.now.astimezone(ZoneInfo(zone_name)).date()
        series = rules.series_of(issued_on)
        with connection.transaction():
            waiting = [
                row["invoice_id"]
                for row in store.rows(connection, "lock_proven", seller=seller, limit=NUMBERS_PER_TRANSACTION)
            ]
            if not waiting:
                return 0
            headers = [store.rows(connection, "invoice_header", invoice_id=waiting_id)[0] for waiting_id in waiting]
            for account_id, currency in sorted({(header["account_id"], header["currency"]) for header in headers}):
                store.execute(connection, "ensure_ledger_accounts", account_id=account_id, currency=currency)
            number_next = store.lock_number(connection, seller, series)
            for offset, header in enumerate(headers):
                number = rules.invoice_number(header["number_prefix"], series, number_next + offset)
                self._issue_one(header, number, issued_on)
            store.execute(
                connection, "advance_series", seller=seller, series=series, number_next=number_next + len(headers)
            )
        for waiting_id in waiting:
            self._tell(Step.ISSUED, waiting_id)
        return len(waiting)

    def _issue_one(self, header: dict[str, Any], number: str, issued_on: date) -> None:
        connection = self._connection
        this_id = header["invoice_id"]
        lines = store.rows(connection, "invoice_lines", invoice_id=this_id)
        due_on = rules.due_date(issued_on, header["payment_terms_days"])
        reference = self._ports.payment_reference(header["payment_gateway"], number)
        document = build_document(header, lines, number, issued_on, due_on, reference)
        taken = {
            (row["ledger_account_id"], row["period_start"]): row["amount"]
            for row in store.rows(connection, "taken_sums", invoice_id=this_id)
        }
        receivable = Decimal(format_minor(header["total_minor"], header["currency"]))
        credited, rounding = rules.ledger_amounts(taken, receivable)
        store.post_invoice(connection, header, receivable, credited, rounding)
        store.issue(connection, this_id, number, issued_on, due_on, document, digest(document))
        period = Period(header["period_start"], header["period_end"])
        store.set_period_state(connection, header["account_id"], period, "closed")

    def _with_number(self, result: AccountResult, failed: dict[str, tuple[str, ...]]) -> AccountResult:
        if not result.invoice_id:
            return result
        row = store.list_invoices(self._connection, [result.invoice_id])[0]
        total = Money(row["total_minor"], row["currency"])
        if row["state"] != "issued":
            return AccountResult(
                result.account_id,
                result.month,
                Outcome.PROOF_FAILED,
                result.invoice_id,
                total=total,
                differences=failed.get(result.invoice_id, ()),
            )
        return AccountResult(result.account_id, result.month, result.outcome, result.invoice_id, row["number"], total)


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
