"""Which items a change touches, and what an item is the sum of."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.catalogue.assignments import FOREVER
from pipeline.catalogue.model import Assignment, Binding
from pipeline.domain.period import Period, calendar_month
from pipeline.totals.model import BilledItem, ItemKey, Mark, PriceSegment, SegmentTotal, Stretch, SubscriptionSpan
from pipeline.totals.rules import (
    canonical_segments,
    items_touched,
    owned_at_all,
    price_segments,
    rfc3339,
    stretches,
    with_quantities,
)

ZONE = "Asia/Kolkata"
MONTHS = [calendar_month(2013, month, ZONE) for month in (6, 7, 8)]
JULY = MONTHS[1]
ALL = Period(MONTHS[0].start, MONTHS[-1].end)
SUBJECTS, SUBSCRIPTIONS = ("vm-1", "vm-2"), ("a", "b")
METERS, ITEMS = ("cpu", "disk"), ("x", "y")
PER_SUBJECT = frozenset({3})
PRICES = (1, 2, 3)

Assignments = Mapping[str, Sequence[Assignment]]
Bindings = Mapping[str, Sequence[Binding]]
Spans = Mapping[str, SubscriptionSpan]
State = tuple[list[PriceSegment], list[Stretch]]


def span(subscription: str, ends_at: datetime = FOREVER) -> SubscriptionSpan:
    return SubscriptionSpan(subscription, subscription, ZONE, MONTHS[0].start, ends_at)


SPANS = {name: span(name) for name in SUBSCRIPTIONS}


def by_subject(rows: Iterable[Assignment]) -> Assignments:
    listed = list(rows)
    return {name: [row for row in listed if row.subject == name] for name in SUBJECTS}


def by_subscription(rows: Iterable[Binding]) -> Bindings:
    listed = list(rows)
    return {name: [row for row in listed if row.subscription_id == name] for name in SUBSCRIPTIONS}


def billed(assignments: Assignments, bindings: Bindings, spans: Spans) -> dict[ItemKey, State]:
    """All that the amount of each possible item depends on, but for usage; items that come to nothing left out."""
    found: dict[ItemKey, State] = {}
    for subscription in SUBSCRIPTIONS:
        for item in ITEMS:
            for period in MONTHS:
                for subject in ("", *SUBJECTS):
                    key = ItemKey(subscription, item, period.start, subject)
                    one = BilledItem(1, subscription, subscription, item, period, subject)
                    if not owned_at_all(one, assignments, spans[subscription]):
                        continue
                    segments = price_segments(one, bindings[subscription], spans[subscription], PER_SUBJECT)
                    if segments:
                        found[key] = (segments, stretches(one, segments, assignments))
    return found


def touched(mark: Mark, assignments: Assignments, bindings: Bindings, spans: Spans = SPANS) -> set[ItemKey]:
    return set(
        items_touched(
            [mark],
            assignments=assignments,
            bindings=bindings,
            subscriptions=spans,
            per_subject_prices=PER_SUBJECT,
            usage_span=ALL,
        )
    )


def changed(before: dict[ItemKey, State], after: dict[ItemKey, State]) -> set[ItemKey]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


times = st.integers(0, 92 * 4 - 2).map(lambda steps: ALL.start + timedelta(hours=6 * steps))
lengths = st.one_of(st.none(), st.integers(1, 200).map(lambda steps: timedelta(hours=6 * steps)))


@st.composite
def assignments_rows(draw: st.DrawFn) -> Assignment:
    start, length = draw(times), draw(lengths)
    owner = draw(st.sampled_from((*SUBSCRIPTIONS, None)))
    return Assignment(0, draw(st.sampled_from(SUBJECTS)), owner, start, None if length is None else start + length)


@st.composite
def bindings_rows(draw: st.DrawFn) -> Binding:
    return Binding(
        0,
        draw(st.sampled_from(SUBSCRIPTIONS)),
        draw(st.sampled_from(ITEMS)),
        draw(st.sampled_from(METERS)),
        draw(st.sampled_from(PRICES)),
        draw(times),
    )


def known_assignments(rows: Sequence[Assignment]) -> list[Assignment]:
    return [Assignment(number, *_without_number(row)) for number, row in enumerate(rows, start=1)]


def known_bindings(rows: Sequence[Binding]) -> list[Binding]:
    return [
        Binding(number, row.subscription_id, row.item, row.meter, row.price_version_id, row.effective_from)
        for number, row in enumerate(rows, start=1)
    ]


def _without_number(row: Assignment) -> tuple[str, str | None, datetime, datetime | None]:
    return row.subject, row.subscription_id, row.valid_from, row.valid_to


histories = st.tuples(
    st.lists(assignments_rows(), min_size=1, max_size=6).map(known_assignments),
    st.lists(bindings_rows(), min_size=1, max_size=6).map(known_bindings),
)


@settings(deadline=None)
@given(histories)
def test_an_assignment_touches_every_item_it_changes(given_: tuple[list[Assignment], list[Binding]]) -> None:
    """Traps 11, 18, 51: whoever had the server before and whoever has it now, for any history of moves."""
    rows, bindings = given_[0], by_subscription(given_[1])
    newest = rows[-1]
    before = billed(by_subject(rows[:-1]), bindings, SPANS)
    after = billed(by_subject(rows), bindings, SPANS)
    mark = Mark(1, newest.subject, None, None, newest.valid_from, newest.valid_to or FOREVER)
    assert changed(before, after) <= touched(mark, by_subject(rows), bindings)


@settings(deadline=None)
@given(histories)
def test_a_price_touches_every_item_it_changes(given_: tuple[list[Assignment], list[Binding]]) -> None:
    """Trap 23: another price cuts the month, so it changes items of servers that were gone before it began, too."""
    assignments, rows = by_subject(given_[0]), given_[1]
    newest = rows[-1]
    before = billed(assignments, by_subscription(rows[:-1]), SPANS)
    after = billed(assignments, by_subscription(rows), SPANS)
    mark = Mark(1, None, None, newest.subscription_id, newest.effective_from, FOREVER)
    assert changed(before, after) <= touched(mark, assignments, by_subscription(rows))


@settings(deadline=None)
@given(histories, st.one_of(st.none(), times), st.one_of(st.none(), times))
def test_an_end_touches_every_item_it_changes(
    given_: tuple[list[Assignment], list[Binding]], end_before: datetime | None, end: datetime | None
) -> None:
    """Trap 18: an end said, moved or taken back; the mark reaches from the earlier end to the later one."""
    assignments, bindings = by_subject(given_[0]), by_subscription(given_[1])
    early, late = sorted((end_before or FOREVER, end or FOREVER))
    if early == late or early <= ALL.start:
        return
    spans = [{**SPANS, "a": span("a", at or FOREVER)} for at in (end_before, end)]
    before, after = (billed(assignments, bindings, one) for one in spans)
    mark = Mark(1, None, None, "a", early, late)
    assert changed(before, after) <= touched(mark, assignments, bindings, spans[1])


@settings(deadline=None)
@given(histories, st.sampled_from(SUBJECTS), st.sampled_from(METERS), times)
@example(([], []), "vm-1", "cpu", JULY.start)
def test_usage_touches_every_item_it_is_in(
    given_: tuple[list[Assignment], list[Binding]], subject: str, meter: str, at: datetime
) -> None:
    """A slot's mark finds the items whose stretches hold the slot, and nobody's who never had the server then."""
    assignments, bindings = by_subject(given_[0]), by_subscription(given_[1])
    mark = Mark(1, subject, meter, None, at, at + timedelta(minutes=15))
    found = touched(mark, assignments, bindings)
    for key, state in billed(assignments, bindings, SPANS).items():
        _, parts = state
        if any(
            part.subject == subject and part.meter == meter and part.time_from <= at < part.time_to for part in parts
        ):
            assert key in found
    assert {key.period_start for key in found} <= {period.start for period in MONTHS if period.contains(at)}
    assert {key.subscription_id for key in found} <= {
        row.subscription_id
        for row in assignments[subject]
        if row.valid_from < at + timedelta(minutes=15) and (row.valid_to or FOREVER) > at
    }


@settings(deadline=None)
@given(histories, times)
def test_no_instant_is_billed_twice(given_: tuple[list[Assignment], list[Binding]], at: datetime) -> None:
    """At any instant one server's usage of a meter is in one segment of one item of one subscription at most."""
    found: dict[tuple[str, str, str], set[tuple[ItemKey, int]]] = {}
    for key, state in billed(by_subject(given_[0]), by_subscription(given_[1]), SPANS).items():
        _, parts = state
        for part in parts:
            if part.time_from <= at < part.time_to:
                found.setdefault((part.subject, key.item, part.meter), set()).add((key, part.segment))
    assert all(len(one) == 1 for one in found.values())


def test_without_usage_nothing_is_touched() -> None:
    """Before the first event there is nothing to bill; what comes later leaves marks of its own."""
    mark = Mark(1, "vm-1", None, None, JULY.start, FOREVER)
    rows = by_subject([Assignment(1, "vm-1", "a", JULY.start, None)])
    bindings = by_subscription([Binding(1, "a", "x", "cpu", 1, ALL.start)])
    found = items_touched(
        [mark],
        assignments=rows,
        bindings=bindings,
        subscriptions=SPANS,
        per_subject_prices=PER_SUBJECT,
        usage_span=None,
    )
    assert found == {}


def test_a_change_for_ever_is_cut_to_the_usage_there_is() -> None:
    """A mark without an end makes no items for years to come."""
    mark = Mark(1, "vm-1", None, None, ALL.start, FOREVER)
    rows = by_subject([Assignment(1, "vm-1", "a", ALL.start, None)])
    bindings = by_subscription([Binding(1, "a", "x", "cpu", 1, ALL.start)])
    found = items_touched(
        [mark],
        assignments=rows,
        bindings=bindings,
        subscriptions=SPANS,
        per_subject_prices=PER_SUBJECT,
        usage_span=Period(JULY.start, JULY.start + timedelta(days=1)),
    )
    assert found == {ItemKey("a", "x", JULY.start, ""): JULY}


def test_a_price_known_ahead_touches_the_month_it_cuts() -> None:
    """Applied on the 12th for the 16th: the server that left on the 10th has its month cut at the 16th all the same."""
    tenth, sixteenth = JULY.start + timedelta(days=9), JULY.start + timedelta(days=15)
    rows = by_subject([Assignment(1, "vm-1", "a", ALL.start, tenth)])
    bindings = by_subscription([Binding(1, "a", "x", "cpu", 3, ALL.start), Binding(2, "a", "x", "cpu", 2, sixteenth)])
    found = items_touched(
        [Mark(1, None, None, "a", sixteenth, FOREVER)],
        assignments=rows,
        bindings=bindings,
        subscriptions=SPANS,
        per_subject_prices=PER_SUBJECT,
        usage_span=Period(ALL.start, tenth + timedelta(days=2)),
    )
    assert ItemKey("a", "x", JULY.start, "vm-1") in found


def test_an_end_touches_the_month_it_cuts() -> None:
    """Said on the 12th for the 16th: the month of a server that left on the 10th ends on the 16th all the same."""
    tenth, sixteenth = JULY.start + timedelta(days=9), JULY.start + timedelta(days=15)
    rows = by_subject([Assignment(1, "vm-1", "a", ALL.start, tenth)])
    bindings = by_subscription([Binding(1, "a", "x", "cpu", 3, ALL.start)])
    mark = Mark(1, None, None, "a", sixteenth, FOREVER)
    assert ItemKey("a", "x", JULY.start, "vm-1") in touched(mark, rows, bindings, {**SPANS, "a": span("a", sixteenth)})


def test_segments_follow_meter_price_and_the_subscriptions_run() -> None:
    """A month is cut where price or meter change and where the subscription begins or ends."""
    fifth, tenth, end = (JULY.start + timedelta(days=days) for days in (4, 9, 19))
    rows = [
        Binding(1, "a", "x", "cpu", 1, ALL.start),
        Binding(2, "a", "x", "disk", 1, tenth),
        Binding(3, "a", "y", "disk", 2, tenth),
    ]
    running = SubscriptionSpan("a", "a", ZONE, fifth, end)
    item = BilledItem(1, "a", "a", "x", JULY, "")
    assert price_segments(item, rows, running, PER_SUBJECT) == [
        PriceSegment(1, "cpu", Period(fifth, tenth)),
        PriceSegment(1, "disk", Period(tenth, end)),
    ]
    gone = SubscriptionSpan("a", "a", ZONE, fifth, JULY.start + timedelta(days=4, seconds=1))
    assert price_segments(BilledItem(1, "a", "a", "x", MONTHS[2], ""), rows, gone, PER_SUBJECT) == []


def test_a_segment_without_usage_is_zero() -> None:
    """Every segment is said with its quantity, so that its cap is prorated even where nothing was used."""
    segments = [PriceSegment(1, "cpu", JULY), PriceSegment(2, "cpu", MONTHS[2])]
    assert with_quantities(segments, {1: Decimal("0.50")}) == [
        SegmentTotal(1, JULY, Decimal(0)),
        SegmentTotal(2, MONTHS[2], Decimal("0.50")),
    ]


@pytest.mark.parametrize(
    ("quantity", "text"),
    [("1E+3", "1000"), ("0.500", "0.5"), ("0E-9", "0"), ("123456789012345678901234567890.123456789012345", None)],
)
def test_quantities_are_said_plainly(quantity: str, text: str | None) -> None:
    """One value has one text, exact at any size; else equal totals would look changed."""
    (said,) = canonical_segments([SegmentTotal(7, JULY, Decimal(quantity))])
    assert said == {
        "price_version_id": 7,
        "from": "2013-06-30T18:30:00Z",
        "to": "2013-07-31T18:30:00Z",
        "quantity": text or quantity,
    }


def test_times_are_said_in_utc() -> None:
    """RFC 3339 with Z, whatever zone the value is in."""
    assert rfc3339(datetime(2013, 7, 1, tzinfo=UTC).astimezone()) == "2013-07-01T00:00:00Z"
