"""What a new document may change: versions are added, never edited."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.catalogue.assignments import effective_bindings
from pipeline.catalogue.bindings import flatten
from pipeline.catalogue.changes import Stored, new_bindings, refusals
from pipeline.catalogue.document import parse_catalogue
from pipeline.catalogue.model import Binding, Catalogue
from tests.unit.catalogue.test_document import SMALL

CPU = next(line for line in SMALL.splitlines() if line.startswith("  cpu:"))
TWO = SMALL.replace(CPU, CPU + "\n" + CPU.replace("cpu:", "cpu_b:").replace("0.10", "0.20"))


def changed(at: str, price: str = "cpu_b") -> Catalogue:
    """The document with a dated change of the plan's item."""
    return parse_catalogue(TWO.replace("price: cpu}", f"price: cpu, changes: [{{from: {at}, price: {price}}}]}}"), "c")


def stored_as(
    catalogue: Catalogue, bindings: list[Binding] | None = None, counted_until: Mapping[str, datetime] | None = None
) -> Stored:
    """The database after applying a catalogue to an empty one, and after counting events of some types."""
    prices = {
        name: replace(price, price_version_id=number)
        for number, (name, price) in enumerate(sorted(catalogue.prices.items()), start=1)
    }
    if bindings is None:
        bindings = [
            Binding(1, one.subscription_id, one.item, one.meter, prices[one.price].price_version_id, one.effective_from)
            for subscription in catalogue.subscriptions.values()
            for one in flatten(catalogue, subscription)
        ]
    return Stored(
        catalogue.sellers,
        {name: replace(meter, meter_version_id=7) for name, meter in catalogue.meters.items()},
        prices,
        catalogue.accounts,
        catalogue.subscriptions,
        bindings,
        frozenset(catalogue.ignored_types),
        counted_until or {},
    )


def test_the_same_document_changes_nothing() -> None:
    """Applied twice is applied once."""
    catalogue = parse_catalogue(TWO, "c")
    assert refusals(stored_as(catalogue), catalogue) == []
    assert new_bindings(stored_as(catalogue), catalogue) == []


@pytest.mark.parametrize(
    "dates", [["2026-03-01"], ["2026-03-01", "2026-05-01"], ["2026-05-01", "2026-03-01", "2026-04-01"]]
)
def test_rows_that_are_added_make_the_bindings_say_what_the_document_says(dates: list[str]) -> None:
    """A change that is moved again and again: the rows of all versions together give the last one."""
    before = parse_catalogue(TWO, "c")
    stored = stored_as(before)
    for number, at in enumerate(dates, start=2):
        wanted = changed(at)
        ids = {name: price.price_version_id for name, price in stored.prices.items()}
        rows = [
            Binding(number, one.subscription_id, one.item, one.meter, ids[one.price], one.effective_from)
            for one in new_bindings(stored, wanted)
        ]
        assert rows
        bindings = sorted([*stored.bindings, *rows], key=lambda row: (row.effective_from, row.known_number))
        stored = replace(stored, bindings=bindings)
        expected = flatten(wanted, wanted.subscriptions["acme-main"])
        assert [(span[0], span[3]) for span in effective_bindings(bindings, "acme-main", "cpu")] == [
            (one.effective_from, ids[one.price]) for one in expected
        ]
        assert new_bindings(stored, wanted) == []


@pytest.mark.parametrize(
    ("before", "after", "refusal"),
    [
        ("unit_price: 0.10", "unit_price: 0.11", "prices.cpu: a price never changes"),
        ("max_gap_seconds: 600", "max_gap_seconds: 300", "meters.cores: a meter never changes"),
        ("plan: standard, from: 2026-01-01", "plan: standard, from: 2026-02-01", "starts_at was"),
        ("      acme-main:", "      acme-other:", "acme-main: is missing"),
        ("  acme:\n", "  acme2:\n", "accounts.acme: is missing"),
        ("time_zone: Europe/Amsterdam\n", "time_zone: Europe/Paris\n", "accounts.acme.time_zone: was Europe/Amsterdam"),
        ("number_prefix: H-", "number_prefix: G-", "sellers.host: number_prefix"),
        ("ignore: [inventory]", "", "ignore: inventory was ignored before"),
        ("      cpu: {", "      cores: {", "the plan's item cpu is charged already"),
        ("      cpu: {", "      ram: {meter: cores, price: cpu}\n      cpu: {", "items.ram: say `from`"),
    ],
)
def test_what_never_changes_is_refused_with_a_way_out(before: str, after: str, refusal: str) -> None:
    """Prices, meters, spans and owners of what was used stay; the message says what to do instead."""
    stored = stored_as(parse_catalogue(TWO, "c"))
    assert before in TWO
    found = refusals(stored, parse_catalogue(TWO.replace(before, after, 1), "c"))
    assert any(refusal in line for line in found), found


def test_a_new_item_with_a_date_begins_there() -> None:
    """An item added to a running plan charges from its date on, not the past."""
    stored = stored_as(parse_catalogue(TWO, "c"))
    text = TWO.replace("      cpu: {", "      ram: {meter: cores, price: cpu, from: 2026-06-01}\n      cpu: {")
    wanted = parse_catalogue(text, "c")
    assert refusals(stored, wanted) == []
    assert [(one.item, one.effective_from) for one in new_bindings(stored, wanted)] == [
        ("ram", datetime(2026, 5, 31, 22, tzinfo=UTC))
    ]


@pytest.mark.parametrize(
    ("counted", "begins", "refused"),
    [
        ("sample", None, ["meters.more"]),
        ("sample", "2026-06-10T12:00Z", ["meters.more"]),
        ("sample", "2026-06-10T12:15Z", []),
        ("other", None, []),
    ],
)
def test_a_meter_over_counted_events_begins_after_the_last_of_them(
    counted: str, begins: str | None, refused: list[str]
) -> None:
    """The past is not counted anew; a meter over a type nothing was counted of may begin whenever it likes."""
    stored = stored_as(parse_catalogue(TWO, "c"), counted_until={counted: datetime(2026, 6, 10, 12, tzinfo=UTC)})
    dated = f", from: '{begins}'" if begins else ""
    more = f"  more: {{event_type: sample, aggregation: sum, value: x, unit: u{dated}}}\n  hours:"
    found = refusals(stored, parse_catalogue(TWO.replace("  hours:", more), "c"))
    assert [line.split(":")[0] for line in found] == refused
    assert all("begins in the future" in line and "rebuild" in line for line in found)


def with_ram(at: str | None, price: str = "cpu") -> Catalogue:
    """The document with a second item, from a date on or from the start."""
    dated = f", from: {at}" if at else ""
    return parse_catalogue(
        TWO.replace("      cpu: {", f"      ram: {{meter: cores, price: {price}{dated}}}\n      cpu: {{"), "c"
    )


def test_an_items_beginning_is_never_moved_later() -> None:
    """What was charged from a date on stays so; the message says since when, and what to do. Earlier is possible."""
    stored = stored_as(with_ram("2026-03-01"))
    (refusal,) = refusals(stored, with_ram("2026-05-01"))
    assert refusal.startswith("plans.standard.items.ram: acme-main is charged for it from 2026-03-01T00:00+01:00 on")
    assert "put its `from` back" in refusal
    assert refusals(stored_as(with_ram(None)), with_ram("2026-05-01"))
    assert refusals(stored, with_ram("2026-02-01")) == []
    assert refusals(stored, with_ram("2026-03-01", "cpu_b")) == []
    ended_before = with_ram("2025-05-01")
    assert refusals(stored_as(ended_before), with_ram("2025-12-01")) == []


def with_contract(at: str | None) -> Catalogue:
    """The document with a contract price, from a date on or from the start."""
    agreed = f"{{price: cpu_b, from: {at}}}" if at else "cpu_b"
    return parse_catalogue(TWO.replace("from: 2026-01-01}", f"from: 2026-01-01, contract: {{cpu: {agreed}}}}}"), "c")


@pytest.mark.parametrize("before", [None, "2026-03-01"])
def test_a_contract_price_that_is_moved_later_leaves_the_plans_price_until_then(before: str | None) -> None:
    """The rows that are added give the time in between back to the plan."""
    stored = stored_as(with_contract(before))
    wanted = with_contract("2026-05-01")
    assert refusals(stored, wanted) == []
    ids = {name: price.price_version_id for name, price in stored.prices.items()}
    rows = [
        Binding(2, one.subscription_id, one.item, one.meter, ids[one.price], one.effective_from)
        for one in new_bindings(stored, wanted)
    ]
    spans = effective_bindings([*stored.bindings, *rows], "acme-main", "cpu")
    assert [(span.effective_from, span.price_version_id) for span in spans] == [
        (datetime(2025, 12, 31, 23, tzinfo=UTC), ids["cpu"]),
        (datetime(2026, 4, 30, 22, tzinfo=UTC), ids["cpu_b"]),
    ]
