"""Recompute invoices from the raw events and compare; the one way into the proof."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault
from pipeline.proof import facts
from pipeline.proof.books import Books, read_books
from pipeline.proof.charges import Window, recompute, window_of
from pipeline.proof.decisions import check_decisions, check_tallies, read_decisions
from pipeline.proof.events import meter_spans, read_events
from pipeline.proof.evidence import check_files, files_below
from pipeline.proof.facts import Catalogue, Invoice, Line, LogFacts
from pipeline.proof.invoices import check_invoice, check_numbers, check_seals
from pipeline.proof.report import Difference, Findings, InvoiceProof, Report
from pipeline.proof.usage import check_buckets, compute_usage
from pipeline.proof.workspace import Workspace, open_workspace
from pipeline.runtime.postgres import Connection

TOPIC = "usage.events"

_Offsets = tuple[tuple[int, int], ...]


class _Proof:
    """One run of the proof over one snapshot: what was read, and what was found so far."""

    def __init__(self, connection: Connection, archive_dir: Path, topic: str, invoice_ids: Sequence[str]) -> None:
        self.connection = connection
        self.archive_dir = archive_dir
        self.log: LogFacts = facts.read_log(connection, topic)
        self.catalogue: Catalogue = facts.read_catalogue(connection)
        self.invoices: tuple[Invoice, ...] = facts.read_invoices(connection, invoice_ids)
        self.lines: Mapping[str, Sequence[Line]] = facts.read_lines(connection, invoice_ids)
        self.books: Books = read_books(connection, self.invoices)
        self.shared = Findings()
        self.own: dict[str, Findings] = {invoice.invoice_id: Findings() for invoice in self.invoices}
        self.events: dict[str, int] = {}
        self.subjects: dict[str, frozenset[str]] = {}
        unknown = sorted(set(invoice_ids) - self.own.keys())
        if unknown:
            raise ConfigurationFault(f"there is no invoice {', '.join(unknown)}")

    def run(self) -> None:
        """Prove everything, one recomputation for each set of offsets that was cut at."""
        now = tuple(sorted(self.log.aggregated.items()))
        by_offsets: dict[_Offsets, list[Invoice]] = defaultdict(list)
        for invoice in self.invoices:
            by_offsets[tuple(sorted(invoice.offsets.items()))].append(invoice)
        for offsets, invoices in by_offsets.items():
            self._prove_at(dict(offsets), invoices, is_now=offsets == now)
        if now not in by_offsets:
            self._prove_now(dict(now))
        for transaction_id, currency, rest in facts.rows(self.connection, "imbalances"):
            self.shared.add("ledger", f"transaction {transaction_id} is out of balance by {rest:f} {currency}")
        check_numbers(self.connection, self.shared)

    def _prove_at(self, offsets: Mapping[int, int], invoices: Sequence[Invoice], *, is_now: bool) -> None:
        windows = {invoice.invoice_id: self._windows(invoice) for invoice in invoices}
        edges = [edge for listed in windows.values() for window in listed for edge in (window.from_us, window.to_us)]
        with open_workspace() as workspace:
            if not self._recompute_usage(workspace, offsets, min(edges), max(edges)):
                return
            if is_now:
                self._check_present(workspace, min(edges), max(edges))
            by_horizon: dict[int, list[Invoice]] = defaultdict(list)
            for invoice in invoices:
                by_horizon[int(invoice.cut["known_number"])].append(invoice)
            for horizon, known_alike in by_horizon.items():
                self._compare(workspace, horizon, known_alike, windows)

    def _prove_now(self, offsets: Mapping[int, int]) -> None:
        """Later events came since the cuts: buckets and tallies are compared at where aggregate stands now."""
        if any(self.log.archived.get(partition, 0) < offset for partition, offset in offsets.items()):
            self.shared.compared["buckets_not_compared_archive_is_behind"] += 1
            return
        windows = [window for invoice in self.invoices for window in self._windows(invoice)]
        spans = meter_spans(self.catalogue.meters)
        if not windows or not spans:
            return
        with open_workspace() as workspace:
            start, end = min(w.from_us for w in windows), max(w.to_us for w in windows)
            if self._recompute_usage(workspace, offsets, start, end):
                self._check_present(workspace, start, end)

    def _recompute_usage(self, workspace: Workspace, offsets: Mapping[int, int], start_us: int, end_us: int) -> bool:
        files = files_below(self.log.manifest, offsets)
        if not check_files(self.archive_dir, files, offsets, self.shared):
            return False
        spans = meter_spans(self.catalogue.meters)
        paths = [self.archive_dir / file.path for file in files]
        ignored_types, partition_count = self.catalogue.ignored_types, self.log.partition_count
        read_events(workspace, paths, offsets, spans, ignored_types, partition_count, self.shared)
        read_decisions(workspace, self.connection, self.log.topic)
        check_decisions(workspace, self.shared)
        compute_usage(workspace, spans, start_us, end_us)
        return True

    def _check_present(self, workspace: Workspace, start_us: int, end_us: int) -> None:
        check_tallies(workspace, self.log.tallies, self.shared)
        check_buckets(workspace, self.connection, start_us, end_us, self.shared)

    def _compare(
        self,
        workspace: Workspace,
        horizon: int,
        invoices: Sequence[Invoice],
        windows: Mapping[str, Sequence[Window]],
    ) -> None:
        known = self.catalogue.known_at(horizon)
        recomputed = recompute(workspace, known, [w for invoice in invoices for w in windows[invoice.invoice_id]])
        accounts = {row.subscription_id: row.account_id for row in known.subscriptions}
        for invoice in invoices:
            findings = self.own[invoice.invoice_id]
            check_seals(invoice, known, self.log, findings)
            check_invoice(
                invoice, self.lines[invoice.invoice_id], recomputed.of_account(invoice.account_id, accounts),
                self.books, findings,
            )  # fmt: skip
            self.events[invoice.invoice_id] = recomputed.events.get(
                window_of(invoice.account_id, invoice.period_start, invoice.period_end), 0
            )
            self.subjects[invoice.invoice_id] = recomputed.subjects.get(invoice.account_id, frozenset())

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
        everybodys = set().union(*self.subjects.values()) if self.subjects else set()
        ours = self.subjects.get(invoice.invoice_id, frozenset())
        concerned: list[Difference] = [
            difference
            for difference in self.shared.differences
            if difference.subject is None or difference.subject in ours or difference.subject not in everybodys
        ]
        differences = tuple(str(difference) for difference in [*findings.differences, *concerned])
        report = {
            "events": self.events.get(invoice.invoice_id, 0),
            **{name: findings.compared[name] for name in ("lines", "charges", "entries", "seals")},
            "differences": len(differences),
        }
        return InvoiceProof(invoice.invoice_id, not differences, report, differences)


def verify_invoices(
    connection: Connection, archive_dir: Path, invoice_ids: Sequence[str], *, topic: str = TOPIC
) -> Report:
    """
    Prove invoices from the archive, in one snapshot of the database; drafts and issued ones alike.

    Args:
        connection: In autocommit mode, no transaction open.
        archive_dir: The archive folder.
        invoice_ids: Which; without any, only the log, the buckets' evidence and the books are looked at.
        topic: The log's topic.

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
    return proof.report()


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
