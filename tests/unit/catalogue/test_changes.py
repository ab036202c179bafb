"""What a new document may change: versions are added, never edited."""

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


def stored_as(catalogue: Catalogue, bindings: list[Binding] | None = None) -> Stored:
    """The database after applying a catalogue to an empty one."""
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
        (
            "  hours:",
            "  more: {event_type: sample, aggregation: sum, value: x, unit: u}\n  hours:",
            "meters.more: say `from`",
        ),
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
