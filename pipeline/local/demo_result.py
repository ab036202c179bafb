"""What a demo run came to, and the summary page that shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pipeline.domain.decimals import plain
from pipeline.domain.money import format_minor
from pipeline.ingest.replay import ReplayReport
from pipeline.invoice_batch.documents.render import BalanceRow, InvoiceRow, SummaryFacts
from pipeline.invoice_batch.model import RunReport
from pipeline.local.runs import SUMMARY_FILE

OUTCOMES = ("counted", "duplicate", "conflict", "quarantined", "parked", "ignored", "control")
TALLY = ("received", *OUTCOMES)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """
    What came of it.

    month: YYYY-MM that was closed.
    received_before: Events received before this replay; more than 0 when it is not the folder's first.
    tally: Events received, and by what was decided about them, since the folder was made.
    changes: What a replay of a trace that was replayed before has changed; it must change nothing.
    """

    folder: Path
    documents: Path
    month: str
    broker: str
    replayed: ReplayReport
    received_before: int
    tally: Mapping[str, int]
    run: RunReport
    trial_balance: Sequence[tuple[str, str, Decimal]]
    proof_lines: int
    compared: Mapping[str, int]
    line_counts: Mapping[str, int]
    proof_differences: Sequence[str]
    seconds: float
    changes: Sequence[str] = ()

    @property
    def summary(self) -> Path:
        """Where the summary page is."""
        return self.documents / SUMMARY_FILE

    @property
    def lost(self) -> int:
        """How many of the events sent now were not received."""
        received_now = self.tally.get("received", 0) - self.received_before
        return max(0, self.replayed.events_sent - received_now)

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Each count with its name: what was sent now, then everything received since the folder was made."""
        return [
            ("sent now", self.replayed.events_sent),
            ("received in all", self.tally.get("received", 0)),
            *((name, self.tally.get(name, 0)) for name in OUTCOMES),
        ]

    @property
    def problems(self) -> list[str]:
        """Everything that is not as it must be."""
        found = [*self.proof_differences, *self.changes]
        if self.lost:
            found.append(f"{self.lost} events were sent and not received")
        if any(balance for _, balance in self.balance_by_currency()):
            found.append("the trial balance is not zero")
        if self.run.exit_code:
            found.append("an account is held or not proven")
        return found

    def balance_by_currency(self) -> list[tuple[str, Decimal]]:
        """Sum the trial balance by currency."""
        sums: dict[str, Decimal] = {}
        for _, currency, balance in self.trial_balance:
            sums[currency] = sums.get(currency, Decimal(0)) + balance
        return sorted(sums.items())


def summary_facts(result: DemoResult) -> SummaryFacts:
    """Give what the summary page shows of a run."""
    month = result.month
    invoices = [
        InvoiceRow(
            number=one.number,
            account=one.account_id,
            period=one.month,
            lines=result.line_counts.get(one.invoice_id, 0),
            total=f"{format_minor(one.total.minor, one.total.currency)} {one.total.currency}" if one.total else "",
            state=str(one.outcome),
            html_link=f"{one.month}/{one.number}.html" if one.number else "",
            json_link=f"{one.month}/{one.number}.json" if one.number else "",
        )
        for one in result.run.results
    ]
    return SummaryFacts(
        title="Rackmeter demo",
        period=month,
        counts=result.counts,
        invoices=invoices,
        trial_balance=[BalanceRow(name, currency, plain(balance)) for name, currency, balance in result.trial_balance],
        balance_sums={currency: plain(balance) for currency, balance in result.balance_by_currency()},
        proof_ok=not result.proof_differences,
        proof_sentence=f"{result.proof_lines} invoice lines recomputed from the archive.",
        proof_facts=[(name.replace("_", " "), str(count)) for name, count in sorted(result.compared.items())],
        held=[f"{one.account_id}: {reason.sentence}" for one in result.run.results for reason in one.reasons],
        links=[("invoices of the month, CSV", f"{month}/invoices.csv"), ("their lines, CSV", f"{month}/lines.csv")],
    )
