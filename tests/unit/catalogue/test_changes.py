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


def refused(stored: Stored, wanted: Catalogue) -> list[str]:
    """The refusals, as printed."""
    return [str(problem) for problem in refusals(stored, wanted)]


@pytest.mark.parametrize(
    ("before", "after", "refusal"),
    [
        ("unit_price: 0.10", "unit_price: 0.11", "c:8: prices.cpu.unit_price: was 0.1 and stays so: a price never"),
        ("base_units: 1000\n", "base_units: 1024\n", "c:17: prices.net.base_units: was 1000 and stays so: a price"),
        ("{unit_price: 0.5}", "{unit_price: 0.6}", "c:20: prices.net.tiers[1].unit_price: was 0.5 and stays so"),
        ("- {up_to: 10, unit_price: 0}\n      ", "", "c:18: prices.net.tiers: was a list of 2 and stays so"),
        (
            "max_gap_seconds: 600",
            "max_gap_seconds: 300",
            "c:5: meters.cores.max_gap_seconds: was 600 and stays so: a meter never changes",
        ),
        ("unit: hour}", "unit: hour, from: 2026-01-01}", "c:6: meters.hours.from: was not there and stays so"),
        (
            "plan: standard, from: 2026-01-01",
            "plan: standard, from: 2026-02-01",
            "c:31: accounts.acme.subscriptions.acme-main.from: was 2026-01-01T00:00+01:00 and stays so",
        ),
        ("      acme-main:", "      acme-other:", "c:30: accounts.acme.subscriptions.acme-main: is missing"),
        ("  acme:\n", "  acme2:\n", "c:25: accounts.acme: is missing"),
        ("  acme:\n", "  acme2:\n", "c:31: accounts.acme2.subscriptions.acme-main: belongs to the account acme and"),
        (
            "time_zone: Europe/Amsterdam\n",
            "time_zone: Europe/Paris\n",
            "c:29: accounts.acme.time_zone: was Europe/Amsterdam",
        ),
        ("number_prefix: H-", "number_prefix: G-", "c:3: sellers.host.number_prefix: was H- and stays so"),
        ("ignore: [inventory]", "", "c:1: ignore: inventory was ignored before"),
        ("ignore: [inventory]", "ignore: [other]", "c:32: ignore: inventory was ignored before"),
        ("      cpu: {", "      cores: {", "c:23: plans.standard.items.cpu: is missing; it is charged already"),
        (
            "      cpu: {",
            "      ram: {meter: cores, price: cpu}\n      cpu: {",
            "c:24: plans.standard.items.ram.from: is missing; say when this new item begins",
        ),
    ],
)
def test_what_never_changes_is_refused_at_its_place_with_a_way_out(before: str, after: str, refusal: str) -> None:
    """Prices, meters, spans and owners of what was used stay; the message says where, and what to do instead."""
    stored = stored_as(parse_catalogue(TWO, "c"))
    assert before in TWO
    found = refused(stored, parse_catalogue(TWO.replace(before, after, 1), "c"))
    assert any(line.startswith(refusal) for line in found), found


def test_all_refusals_come_at_once() -> None:
    """A document that would change everything is told everything, each at its line and once."""
    other = "      acme-two: {plan: standard, from: 2026-01-01}\n"
    before = TWO.replace("ignore:", f"{other}ignore:")
    after = before
    for was, now in (
        ("number_prefix: H-", "number_prefix: G-"),
        ("value: cpu,", "value: gpu,"),
        ("EUR, unit: hour, base_units: 1,", "EUR, unit: hour, base_units: 2,"),
        ("unit_price: 0.5", "unit_price: 0.6"),
        ("      cpu: {meter: cores, price: cpu}", "      ram: {meter: cores, price: cpu}"),
        ("acme-main: {plan: standard, from: 2026-01-01}", "acme-main: {plan: standard, from: 2026-01-02}"),
        ("ignore: [inventory]", "ignore: []"),
    ):
        assert was in after
        after = after.replace(was, now, 1)
    found = refusals(stored_as(parse_catalogue(before, "c")), parse_catalogue(after, "c"))
    assert [(problem.line, problem.field) for problem in sorted(found)] == [
        (3, "sellers.host.number_prefix"),
        (5, "meters.cores.value"),
        (11, "prices.instance.base_units"),
        (20, "prices.net.tiers[1].unit_price"),
        (23, "plans.standard.items.cpu"),
        (24, "plans.standard.items.ram.from"),
        (31, "accounts.acme.subscriptions.acme-main.from"),
        (33, "ignore"),
    ]


def test_a_refusal_of_one_subscription_does_not_hide_another_of_a_similar_name() -> None:
    """What is wrong with acme-main2 is told whether or not acme-main is in order."""
    stored = stored_as(parse_catalogue(TWO.replace("acme-main:", "acme-main2:"), "c"))
    stored = replace(stored, subscriptions={**stored.subscriptions, **parse_catalogue(TWO, "c").subscriptions})
    wanted = parse_catalogue(
        TWO.replace("price: cpu}", "price: cpu, from: 2026-05-01}").replace("acme-main:", "acme-main2:"), "c"
    )
    assert [problem.field for problem in refusals(stored, wanted)] == [
        "accounts.acme.subscriptions.acme-main",
        "plans.standard.items.cpu.from",
    ]


def test_a_missing_subscription_does_not_hide_what_is_wrong_with_its_plan() -> None:
    """Once the subscription is back, nothing else comes up."""
    wanted = parse_catalogue(TWO.replace("acme-main:", "other:").replace("      cpu: {", "      gpu: {"), "c")
    assert [problem.field for problem in refusals(stored_as(parse_catalogue(TWO, "c")), wanted)] == [
        "accounts.acme.subscriptions.acme-main",
        "plans.standard.items.cpu",
        "plans.standard.items.gpu.from",
    ]


def test_what_follows_from_a_missing_account_or_another_model_is_not_told_as_well() -> None:
    """An account that is missing takes its subscriptions with it, a model that changes its parameters."""
    stored = stored_as(parse_catalogue(TWO, "c"))
    accounts = TWO[TWO.index("  acme:") : TWO.index("ignore:")]
    assert [problem.field for problem in refusals(stored, parse_catalogue(TWO.replace(accounts, ""), "c"))] == [
        "accounts.acme"
    ]
    wanted = parse_catalogue(TWO.replace("{model: hourly_capped,", "{model: per_unit,").replace(", cap: 9", ""), "c")
    assert [problem.field for problem in refusals(stored, wanted)] == ["prices.instance.model"]


def test_another_time_zone_is_told_once_and_not_as_another_start() -> None:
    """The dates of a refused zone are not refused as well; a start in the other turn of the clock is."""
    stored = stored_as(parse_catalogue(TWO, "c"))
    (problem,) = refusals(stored, parse_catalogue(TWO.replace("Amsterdam\n    sub", "London\n    sub"), "c"))
    assert problem.field == "accounts.acme.time_zone"
    first, second = (
        parse_catalogue(TWO.replace("from: 2026-01-01}", f"from: '2026-10-25T02:00+0{hours}:00'}}"), "c")
        for hours in (2, 1)
    )
    assert {one.field for one in refusals(stored_as(first), second)} == {
        "accounts.acme.subscriptions.acme-main.from",
    }


def test_a_prefix_of_a_seller_that_is_no_longer_written_is_taken() -> None:
    """Sellers stay stored, and two with one prefix would give one number twice."""
    stored = stored_as(parse_catalogue(TWO, "c"))
    gone = replace(stored.sellers["host"], seller="gone", number_prefix="G-")
    stored = replace(stored, sellers={**stored.sellers, "gone": gone})
    more = "  more: {name: More B.V., number_prefix: G-, time_zone: UTC}\nmeters:"
    text = TWO.replace("meters:", more, 1).replace("    name: Acme", "    name: Acme\n    seller: host")
    (refusal,) = refused(stored, parse_catalogue(text, "c"))
    assert refusal.startswith("c:4: sellers.more.number_prefix: 'G-' is the prefix of the seller gone already")


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
    ("counted", "begins", "expected"),
    [
        ("sample", None, [(6, "meters.more.from")]),
        ("sample", "2026-06-10T12:00Z", [(6, "meters.more.from")]),
        ("sample", "2026-06-10T12:15Z", []),
        ("other", None, []),
    ],
)
def test_a_meter_over_counted_events_begins_after_the_last_of_them(
    counted: str, begins: str | None, expected: list[tuple[int, str]]
) -> None:
    """The past is not counted anew; a meter over a type nothing was counted of may begin whenever it likes."""
    stored = stored_as(parse_catalogue(TWO, "c"), counted_until={counted: datetime(2026, 6, 10, 12, tzinfo=UTC)})
    dated = f", from: '{begins}'" if begins else ""
    more = f"  more: {{event_type: sample, aggregation: sum, value: x, unit: u{dated}}}\n  hours:"
    found = refusals(stored, parse_catalogue(TWO.replace("  hours:", more), "c"))
    assert [(problem.line, problem.field) for problem in found] == expected
    assert all("begins in the future" in one.message and "rebuild" in one.message for one in found)


def with_ram(at: str | None, price: str = "cpu") -> Catalogue:
    """The document with a second item, from a date on or from the start."""
    dated = f", from: {at}" if at else ""
    return parse_catalogue(
        TWO.replace("      cpu: {", f"      ram: {{meter: cores, price: {price}{dated}}}\n      cpu: {{"), "c"
    )


def test_an_items_beginning_is_never_moved_later() -> None:
    """What was charged from a date on stays so; the message says since when, and what to do. Earlier is possible."""
    stored = stored_as(with_ram("2026-03-01"))
    (refusal,) = refused(stored, with_ram("2026-05-01"))
    assert refusal.startswith(
        "c:24: plans.standard.items.ram.from: acme-main is charged for it from 2026-03-01T00:00+01:00 on"
    )
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
