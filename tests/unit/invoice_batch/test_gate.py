"""The gate: every fact that must hold a close holds it, and nothing else does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.period import calendar_month
from pipeline.invoice_batch.gate import (
    Expectation,
    GateFacts,
    LostEvents,
    OpenDecisions,
    PartitionStand,
    UnbookedItem,
    reasons_to_hold,
)

JULY = calendar_month(2013, 7, "Europe/Amsterdam")
HEARD = Expectation("vm-1", "cpu", JULY.end, "agent-1", JULY.end, holed=False)
READ = PartitionStand(partition=0, log_end=10, aggregate_next=10, archive_next=10)
OPEN = GateFacts(
    period=JULY, now=JULY.end, close_grace_seconds=0, currency="EUR", expectations=(HEARD,), partitions=(READ,)
)
BOOKED = UnbookedItem("cpu", "", 3, 3, "rated", "")


def test_the_gate_opens_when_everything_is_heard_read_and_booked() -> None:
    """Complete to the period's end, to the instant, is complete."""
    assert reasons_to_hold(OPEN) == ()


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("close_grace", {"now": JULY.end - timedelta(microseconds=1)}),
        ("close_grace", {"close_grace_seconds": 1}),
        ("earlier_period_open", {"earlier_open": (JULY.start - timedelta(days=30),)}),
        ("log_unread", {"partitions": (replace(READ, log_end=11),)}),
        ("log_unread", {"partitions": (replace(READ, aggregate_next=None, archive_next=None),)}),
        ("archive_behind", {"partitions": (replace(READ, archive_next=9),)}),
        ("archive_behind", {"partitions": (replace(READ, archive_next=None),)}),
        ("silent", {"expectations": (replace(HEARD, source=None, complete_until=None),)}),
        ("incomplete", {"expectations": (replace(HEARD, complete_until=None),)}),
        ("incomplete", {"expectations": (replace(HEARD, complete_until=JULY.end - timedelta(seconds=1)),)}),
        ("incomplete", {"expectations": (HEARD, replace(HEARD, source="agent-2", complete_until=None))}),
        ("hole", {"expectations": (replace(HEARD, holed=True),)}),
        ("open_quarantined", {"open_decisions": (OpenDecisions("quarantined", "value_missing", "vm-1", "a", 1),)}),
        ("open_parked", {"open_decisions": (OpenDecisions("parked", "unknown_meter", None, "a", 2),)}),
        ("open_conflict", {"open_decisions": (OpenDecisions("conflict", "identity_seen", "vm-1", "a", 1),)}),
        ("evidence_lost", {"lost_events": (LostEvents("a", 1),)}),
        ("open_duplicate", {"open_decisions": (OpenDecisions("duplicate", "identity_seen", "vm-1", "a", 1),)}),
        ("dirty", {"dirty_subjects": ("vm-1",)}),
        ("dirty", {"dirty_subjects": ("",)}),
        ("dirty", {"dirty_items": 1}),
        ("total_missing", {"unbooked": (replace(BOOKED, total_revision=None, booked_revision=None, outcome=None),)}),
        ("not_booked", {"unbooked": (replace(BOOKED, booked_revision=2),)}),
        ("not_booked", {"unbooked": (replace(BOOKED, booked_revision=None, outcome=None),)}),
        ("no_price", {"unbooked": (replace(BOOKED, outcome="no_price", reason="price_unknown"),)}),
        ("failed", {"unbooked": (replace(BOOKED, outcome="failed", reason="quantity_negative"),)}),
        ("other_currency", {"other_currencies": ("USD",)}),
    ],
)
def test_each_fact_alone_holds_the_close(code: str, changes: dict[str, Any]) -> None:
    """One thing missing is one reason, by its code, with a sentence."""
    reasons = reasons_to_hold(replace(OPEN, **changes))
    assert [reason.code for reason in reasons] == [code]
    assert reasons[0].sentence


def test_every_reason_is_told_at_once() -> None:
    """Whoever looks sees all there is to do."""
    facts = replace(OPEN, now=JULY.start, dirty_items=3, other_currencies=("USD",))
    assert [reason.code for reason in reasons_to_hold(facts)] == ["close_grace", "dirty", "other_currency"]
