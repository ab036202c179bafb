"""Whether an account's period may close: pure decision over facts read in one snapshot (policy `hold`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.domain.period import Period
from pipeline.invoice_batch.model import Reason


@dataclass(frozen=True, slots=True)
class Expectation:
    """
    What must have been heard of a server: one row per source that speaks for it, or one with source None.

    complete_until: None where the source never said so behind no hole.
    holed: A number the source used was never seen.
    """

    subject: str
    meter: str
    until: datetime
    source: str | None
    complete_until: datetime | None
    holed: bool


@dataclass(frozen=True, slots=True)
class OpenDecisions:
    """Events of the account's servers that nobody has settled."""

    outcome: str
    reason: str
    subject: str | None
    source: str | None
    count: int


@dataclass(frozen=True, slots=True)
class LostEvents:
    """Events of a source that were counted, and lost with their log before they were archived."""

    source: str
    count: int


@dataclass(frozen=True, slots=True)
class UnbookedItem:
    """A total that the ledger does not have at its revision, or that could not be rated."""

    item: str
    subject: str
    total_revision: int | None
    booked_revision: int | None
    outcome: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class PartitionStand:
    """How far a partition is read; offsets are the next to read. None: the stage has not begun."""

    partition: int
    log_end: int
    aggregate_next: int | None
    archive_next: int | None


@dataclass(frozen=True, slots=True)
class GateFacts:
    """Everything the decision depends on."""

    period: Period
    now: datetime
    close_grace_seconds: int
    currency: str
    expectations: tuple[Expectation, ...] = ()
    open_decisions: tuple[OpenDecisions, ...] = ()
    lost_events: tuple[LostEvents, ...] = ()
    dirty_subjects: tuple[str, ...] = ()
    dirty_items: int = 0
    unbooked: tuple[UnbookedItem, ...] = ()
    partitions: tuple[PartitionStand, ...] = ()
    earlier_open: tuple[datetime, ...] = ()
    other_currencies: tuple[str, ...] = ()


def reasons_to_hold(facts: GateFacts) -> tuple[Reason, ...]:
    """Every reason the period may not close yet; none: the gate is open."""
    return (
        *_early(facts),
        *_unread(facts),
        *_incomplete(facts),
        *_undecided(facts),
        *_unsettled_totals(facts),
    )


def _early(facts: GateFacts) -> Iterator[Reason]:
    opens_at = facts.period.end + timedelta(seconds=facts.close_grace_seconds)
    if facts.now < opens_at:
        yield Reason("close_grace", f"the period may close from {opens_at.isoformat()} on")
    for start in facts.earlier_open:
        yield Reason("earlier_period_open", f"the period that began at {start.isoformat()} is not closed")


def _unread(facts: GateFacts) -> Iterator[Reason]:
    for stand in facts.partitions:
        aggregate_next = stand.aggregate_next or 0
        archive_next = stand.archive_next or 0
        if aggregate_next < stand.log_end:
            behind = stand.log_end - aggregate_next
            yield Reason("log_unread", f"partition {stand.partition}: {behind} records are not aggregated yet")
        if archive_next < aggregate_next:
            behind = aggregate_next - archive_next
            yield Reason("archive_behind", f"partition {stand.partition}: {behind} records are not archived yet")


def _incomplete(facts: GateFacts) -> Iterator[Reason]:
    for expected in facts.expectations:
        subject, meter, until = expected.subject, expected.meter, expected.until.isoformat()
        if expected.source is None:
            yield Reason("silent", f"server {subject} never reported {meter}", subject, meter)
        elif expected.holed:
            yield Reason("hole", f"an event of {expected.source} is missing", subject, meter)
        elif expected.complete_until is None or expected.complete_until < expected.until:
            said = f"only until {expected.complete_until.isoformat()}" if expected.complete_until else "never"
            yield Reason(
                "incomplete", f"{expected.source} must be complete until {until}, and said so {said}", subject, meter
            )


def _undecided(facts: GateFacts) -> Iterator[Reason]:
    for decision in facts.open_decisions:
        sender = f"server {decision.subject}" if decision.subject else f"source {decision.source}"
        noun = "event" if decision.count == 1 else "events"
        yield Reason(
            f"open_{decision.outcome}",
            f"{decision.count} {decision.outcome} {noun} ({decision.reason}) of {sender} wait to be settled",
            decision.subject or "",
        )
    for lost in facts.lost_events:
        noun = "event" if lost.count == 1 else "events"
        yield Reason(
            "evidence_lost",
            f"{lost.count} counted {noun} of {lost.source} were lost with their log before they were archived; "
            "it must send them again",
        )


def _unsettled_totals(facts: GateFacts) -> Iterator[Reason]:
    for subject in facts.dirty_subjects:
        yield Reason("dirty", f"usage or ownership of {subject or 'a subscription'} changed; no total has it", subject)
    if facts.dirty_items:
        yield Reason("dirty", f"{facts.dirty_items} changes wait for the totals stage")
    for item in facts.unbooked:
        name = f"{item.item} of server {item.subject}" if item.subject else item.item
        if item.total_revision is None:
            yield Reason("total_missing", f"{name} has no total yet", item.subject)
        elif item.outcome is not None and item.outcome != "rated":
            yield Reason(item.outcome, f"{name} could not be rated: {item.reason or item.outcome}", item.subject)
        else:
            booked = "nothing" if item.booked_revision is None else f"revision {item.booked_revision}"
            yield Reason("not_booked", f"{name} is at revision {item.total_revision}, {booked} is booked", item.subject)
    for currency in facts.other_currencies:
        yield Reason("other_currency", f"postings in {currency} cannot stand on an invoice in {facts.currency}")
