"""Recompute invoices from the raw events and compare; the one way into the proof."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault
from pipeline.proof import facts
from pipeline.proof.booked import check_booked_now, check_natures
from pipeline.proof.books import Books, read_books
from pipeline.proof.charges import Recomputed, Window, recompute, window_of
from pipeline.proof.decisions import check_decisions, check_tallies, read_decisions
from pipeline.proof.events import fields_of, meter_spans, read_events
from pipeline.proof.evidence import check_files, files_below
from pipeline.proof.facts import Catalogue, Invoice, Line, LogFacts
from pipeline.proof.invoices import check_invoice, check_numbers, check_seals
from pipeline.proof.outside import check_journalled
from pipeline.proof.report import Difference, Findings, InvoiceProof, Report
from pipeline.proof.stored_usage import check_days, check_samples
from pipeline.proof.usage import check_buckets, compute_usage
from pipeline.proof.workspace import Workspace, open_workspace
from pipeline.runtime.postgres import Connection

TOPIC = "usage.events"

_Offsets = tuple[tuple[int, int], ...]

#: What is recomputed once: how far the log is read, and by which meters and ignore rules.
_Reading = tuple[_Offsets, int]


class _Proof:
    """One run of the proof over one snapshot: what was read, and what was found so far."""

    def __init__(self, connection: Connection, archive_dir: Path, topic: str, invoice_ids: Sequence[str]) -> None:
        self.connection = connection
        self.archive_dir = archive_dir
        self.log: LogFacts = facts.read_log(connection, topic)
        self.catalogue: Catalogue = facts.read_catalogue(connection)
        self.invoices: tuple[Invoice, ...] = facts.read_invoices(connection, invoice_ids)
        self.lines: Mapping[str, Sequence[Line]] = facts.read_lines(connection, invoice_ids)
        self.books: Books = read_books(connection, self.invoices, self.lines)
        self.shared = Findings()
        self.own: dict[str, Findings] = {invoice.invoice_id: Findings() for invoice in self.invoices}
        self.events: dict[str, int] = {}
        self.subjects: dict[str, frozenset[str]] = {}
        self.read_fields: Sequence[str] = ()
        # What the open workspace gave last: a cut that nothing came after needs no second recomputation.
        self.at_present: tuple[Catalogue, list[Window], Recomputed] | None = None
        unknown = sorted(set(invoice_ids) - self.own.keys())
        if unknown:
            raise ConfigurationFault(f"there is no invoice {', '.join(unknown)}")

    def run(self) -> None:
        """Prove everything, one recomputation for each way of reading the log that was cut at."""
        now = self._reading(self.log.offsets_now(), self.log.known_number)
        readings: dict[_Reading, list[Invoice]] = defaultdict(list)
        for invoice in self.invoices:
            readings[self._reading(self.log.offsets_of(invoice), int(invoice.cut["known_number"]))].append(invoice)
        for reading, invoices in readings.items():
            self._prove_at(reading, invoices, is_now=reading == now)
        if now not in readings:
            self._prove_now(now)
        check_natures(self.connection, self.shared)
        check_numbers(self.connection, self.shared)

    def _reading(self, offsets: Mapping[int, int], horizon: int) -> _Reading:
        return tuple(sorted(offsets.items())), self.catalogue.reading_number(horizon)

    def _prove_at(self, reading: _Reading, invoices: Sequence[Invoice], *, is_now: bool) -> None:
        self.at_present = None
        # What stands now is compared for every invoice, also where the others were cut elsewhere.
        looked_at = self.invoices if is_now else invoices
        windows = {invoice.invoice_id: self._windows(invoice) for invoice in looked_at}
        edges = [edge for listed in windows.values() for window in listed for edge in (window.from_us, window.to_us)]
        with open_workspace() as workspace:
            if not self._recompute_usage(workspace, reading, min(edges), max(edges)):
                return
            if is_now:
                self._check_present(workspace, min(edges), max(edges))
            by_horizon: dict[int, list[Invoice]] = defaultdict(list)
            for invoice in invoices:
                by_horizon[int(invoice.cut["known_number"])].append(invoice)
            for horizon, known_alike in by_horizon.items():
                self._compare(workspace, horizon, known_alike, windows)
            if is_now:
                self._check_booked_now(workspace)

    def _prove_now(self, reading: _Reading) -> None:
        """Later events came since the cuts: what stands now is compared at where aggregate stands now."""
        self.at_present = None
        if any(self.log.archived.get(partition, 0) < offset for partition, offset in reading[0]):
            self.shared.compared["buckets_not_compared_archive_is_behind"] += 1
            return
        windows = [window for invoice in self.invoices for window in self._windows(invoice)]
        spans = meter_spans(self.catalogue.meters)
        if not windows or not spans:
            return
        with open_workspace() as workspace:
            start, end = min(w.from_us for w in windows), max(w.to_us for w in windows)
            if self._recompute_usage(workspace, reading, start, end):
                self._check_present(workspace, start, end)
                self._check_booked_now(workspace)

    def _recompute_usage(self, workspace: Workspace, reading: _Reading, start_us: int, end_us: int) -> bool:
        offsets, known = dict(reading[0]), self.catalogue.known_at(reading[1])
        files = files_below(self.log.manifest, offsets)
        if not check_files(self.archive_dir, files, self.log.began, offsets, self.shared):
            return False
        spans = meter_spans(known.meters)
        paths: dict[int, list[Path]] = defaultdict(list)
        for file in files:
            paths[file.log_number].append(self.archive_dir / file.path)
        read_events(workspace, paths, offsets, spans, known.ignored_types, self.log.partition_count, self.shared)
        read_decisions(workspace, self.connection, self.log)
        check_decisions(workspace, self.connection, self.shared)
        compute_usage(workspace, spans, start_us, end_us)
        self.read_fields = fields_of(spans)
        return True

    def _check_present(self, workspace: Workspace, start_us: int, end_us: int) -> None:
        check_tallies(workspace, self.log, self.shared)
        check_buckets(workspace, self.connection, start_us, end_us, self.shared)
        check_days(workspace, self.connection, start_us, end_us, self.shared)
        check_samples(workspace, self.connection, self.read_fields, start_us, end_us, self.shared)

    def _check_booked_now(self, workspace: Workspace) -> None:
        known = self.catalogue.known_at(self.log.known_number)
        windows = sorted({window for invoice in self.invoices for window in self._windows(invoice)})
        if self.at_present is not None and self.at_present[:2] == (known, windows):
            recomputed = self.at_present[2]
        else:
            recomputed = recompute(workspace, known, windows)
        accounts = {row.subscription_id: row.account_id for row in known.subscriptions}
        for invoice in self.invoices:
            check_booked_now(
                invoice,
                recomputed.of_account(invoice.account_id, accounts),
                self.books,
                [window.from_us for window in self._windows(invoice)],
                self.own[invoice.invoice_id],
            )

    def _compare(
        self,
        workspace: Workspace,
        horizon: int,
        invoices: Sequence[Invoice],
        windows: Mapping[str, Sequence[Window]],
    ) -> None:
        known = self.catalogue.known_at(horizon)
        asked = sorted({window for invoice in invoices for window in windows[invoice.invoice_id]})
        recomputed = recompute(workspace, known, asked)
        self.at_present = (known, asked, recomputed)
        accounts = {row.subscription_id: row.account_id for row in known.subscriptions}
        for invoice in invoices:
            findings = self.own[invoice.invoice_id]
            check_seals(invoice, known, self.log, findings)
            check_invoice(
                invoice, self.lines[invoice.invoice_id], known, recomputed.of_account(invoice.account_id, accounts),
                self.books, findings,
            )  # fmt: skip
            self.events[invoice.invoice_id] = recomputed.events.get(
                window_of(invoice.account_id, invoice.period_start, invoice.period_end), 0
            )
            self.subjects[invoice.invoice_id] = recomputed.subjects.get(invoice.account_id, frozenset())

    def owed(self, windows: Sequence[Window]) -> dict[str, tuple[str, ...]]:
        """Give what accounts owe for periods as everything stands now, and whatever else is not in order."""
        found: dict[str, list[str]] = {window.account_id: [] for window in windows}
        known = self.catalogue.known_at(self.log.known_number)
        accounts = {row.subscription_id: row.account_id for row in known.subscriptions}
        with open_workspace() as workspace:
            start, end = min(window.from_us for window in windows), max(window.to_us for window in windows)
            reading = self._reading(self.log.offsets_now(), self.log.known_number)
            if self._recompute_usage(workspace, reading, start, end):
                self._check_present(workspace, start, end)
                for key, cost in recompute(workspace, known, windows).costs.items():
                    owed = ", ".join(f"{amount} for {product}" for product, amount in cost.amounts.items() if amount)
                    if owed:
                        found[accounts[key.subscription_id]].append(f"{key.subscription_id} {key.item}: {owed} is owed")
        for difference in self.shared.differences:
            for account_id in self._concerned_accounts(difference, known, accounts, list(found)):
                found[account_id].append(str(difference))
        return {account_id: tuple(sentences) for account_id, sentences in found.items()}

    def _concerned_accounts(
        self, difference: Difference, known: Catalogue, accounts: Mapping[str, str], asked: Sequence[str]
    ) -> list[str]:
        """Give the accounts a difference is about: who ever had its server, or all of them."""
        holders = {
            accounts[row.subscription_id]
            for row in known.assignments
            if row.subject == difference.subject and row.subscription_id is not None and row.subscription_id in accounts
        }
        return [account_id for account_id in asked if not holders or account_id in holders]

    def _windows(self, invoice: Invoice) -> list[Window]:
        """Give the periods an invoice speaks of: its own, and those of its corrections."""
        spans = {(invoice.period_start, invoice.period_end)} | {
            (line.service_period_start, line.service_period_end) for line in self.lines[invoice.invoice_id]
        }
        return [window_of(invoice.account_id, start, end) for start, end in sorted(spans)]

    def report(self) -> Report:
        """Give the verdicts. A difference about a server is its customer's; one about nobody's, everybody's."""
        invoices = {invoice.invoice_id: self._invoice_proof(invoice) for invoice in self.invoices}
        compared = Counter(self.shared.compared)
        differences = list(self.shared.differences)
        for findings in self.own.values():
            compared.update(findings.compared)
            differences += findings.differences
        return Report(dict(sorted(compared.items())), tuple(map(str, differences)), invoices)

    def _invoice_proof(self, invoice: Invoice) -> InvoiceProof:
        findings = self.own[invoice.invoice_id]
        # Also of accounts whose invoices are not looked at now: their differences are not this one's.
        somebodys = {row.subject for row in self.catalogue.assignments if row.subscription_id is not None}
        ours = self.subjects.get(invoice.invoice_id, frozenset())
        concerned: list[Difference] = [
            difference
            for difference in self.shared.differences
            if difference.subject is None or difference.subject in ours or difference.subject not in somebodys
        ]
        differences = tuple(str(difference) for difference in [*findings.differences, *concerned])
        report = {
            "events": self.events.get(invoice.invoice_id, 0),
            **{name: findings.compared[name] for name in ("lines", "charges", "entries", "seals")},
            "differences": len(differences),
        }
        return InvoiceProof(invoice.invoice_id, not differences, report, differences)


def verify_invoices(
    connection: Connection,
    archive_dir: Path,
    invoice_ids: Sequence[str],
    *,
    topic: str = TOPIC,
    journal_dir: Path | None = None,
) -> Report:
    """
    Prove invoices from the archive, in one snapshot of the database; drafts and issued ones alike.

    Args:
        connection: In autocommit mode, no transaction open.
        archive_dir: The archive folder.
        invoice_ids: Which; without any, only the log, the buckets' evidence and the books are looked at.
        topic: The log's topic.
        journal_dir: The journal's folder, to compare issued documents with; None: they are not compared with it.

    Returns:
        What was compared and every difference; `ok` where there is none.

    Raises:
        ConfigurationFault: There is no such invoice, or nothing was ever read.
        InvariantViolation: A price model or currency the proof has no statement of.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        proof = _Proof(connection, archive_dir, topic, invoice_ids)
        proof.run()
        if journal_dir is not None:
            check_journalled(proof.invoices, journal_dir, proof.shared, proof.own)
    return proof.report()


def owed_without_invoice(
    connection: Connection, archive_dir: Path, periods: Sequence[tuple[str, datetime, datetime]], *, topic: str = TOPIC
) -> dict[str, tuple[str, ...]]:
    """
    Look whether accounts that get no invoice for a period owe nothing for it indeed.

    Args:
        connection: In autocommit mode, no transaction open.
        archive_dir: The archive folder.
        periods: Account, start and end of the period; one of each account.
        topic: The log's topic.

    Returns:
        By account, what is owed or not in order; nothing for those that owe nothing.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return (
            _Proof(connection, archive_dir, topic, ()).owed([window_of(*period) for period in periods])
            if periods
            else {}
        )


def select_invoices(
    connection: Connection, *, invoice: str | None = None, month: tuple[int, int] | None = None
) -> list[str]:
    """
    Give the ids of the invoices meant: one by number or id, those of a local month (year, month), or all.

    Raises:
        ConfigurationFault: There is no such invoice.
    """
    label = None if month is None else f"{month[0]:04d}-{month[1]:02d}"
    found = [row[0] for row in facts.rows(connection, "invoice_ids", {"invoice": invoice, "month": label})]
    if invoice is not None and not found:
        raise ConfigurationFault(f"there is no invoice {invoice}; `rackmeter invoices list` shows those there are")
    return found
