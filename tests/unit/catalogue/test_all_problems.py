"""All independent problems of a catalogue come in one reading, each at its line."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.catalogue.document import parse_catalogue
from pipeline.domain.errors import Problems
from tests.unit.catalogue.test_document import DEMO

BROKEN = """\
version: one
sellers:
  host:
    name: Host B.V.
    number_prefix: H-
    address: ["Here 1", "", [x]]
    time_zone: Europe/Bonn
  other: {name: Other, number_prefix: H-, time_zone: UTC}
meters:
  cores:
    event_type: sample
    aggregation: median
    slot_seconds: 7
    from: tomorrow
  hours:
    event_type: idle
    aggregation: active_hours
    value: cpu
    unit: hour
    max_gap_seconds: none
prices:
  tiered:
    model: graduated
    product: network traffic
    currency: USD
    unit: GB
    base_units: 0
    tiers:
      - up_to: 100
        unit_price: -1
      - up_to: 50
      - nothing
      - up_to: 20
        unit_price: 1
        colour: red
  flat: {model: per_unit, product: compute, currency: EUX, unit: hour, base_units: 1}
  capped:
    model: hourly_capped
    product: compute
    currency: EUR
    unit: hour
    base_units: 1
    unit_price: .5
    cap: much
  free: {model: free, product: compute, currency: USD, unit: hour, base_units: 1}
plans:
  standard:
    items:
      cpu:
        meter: coers
        price: capped
        from: 2026-13-01
        changes:
          - {from: 2026-05-01, price: tiered}
          - {from: 2026-04-01, meter: none}
          - {from: never, price: flat}
          - {from: 2026-04-15}
      ram: {meter: cores, price: free, changes: [{from: 2026-05-01, price: capped}, {from: 2026-06-01, price: flat}]}
  empty: {items: {}}
  listed: {items: [cpu]}
accounts:
  acme:
    nmae: Acme
    currency: EUR
    time_zone: Europe/Amsterdam
    seller: nobody
    gate_policy: open
    subscriptions:
      acme-main:
        plan: standard
        from: soon
        to: later
        contract:
          disk: capped
          ram: tiered
          cpu:
            price: tiered
            from: sometime
  globex:
    name: Globex
    currency: EUR
    time_zone: UTC
    seller: host
    payment_terms_days: 0
    subscriptions:
      acme-main: {plan: gold, from: 2026-01-01, to: 2025-01-01}
ignore:
  - idle
  - idle
  - ""
"""


def problems_of(text: str) -> list[tuple[int, str]]:
    """Line and field of each problem, in the order of the file."""
    with pytest.raises(Problems) as caught:
        parse_catalogue(text, "c.yaml")
    assert {problem.file for problem in caught.value.problems} == {"c.yaml"}
    return [(problem.line, problem.field) for problem in caught.value.problems]


def test_a_catalogue_broken_everywhere_is_told_everything_at_once() -> None:
    """Entries with problems of their own are still held against those that name them."""
    item, main = "plans.standard.items.cpu", "accounts.acme.subscriptions.acme-main"
    assert problems_of(BROKEN) == [
        (1, "version"),
        (6, "sellers.host.address[1]"),
        (6, "sellers.host.address[2]"),
        (7, "sellers.host.time_zone"),
        (8, "sellers.other.number_prefix"),
        (10, "meters.cores.unit"),
        (12, "meters.cores.aggregation"),
        (13, "meters.cores.slot_seconds"),
        (14, "meters.cores.from"),
        (18, "meters.hours.value"),
        (20, "meters.hours.max_gap_seconds"),
        (20, "meters.hours.max_gap_seconds"),
        (24, "prices.tiered.product"),
        (27, "prices.tiered.base_units"),
        (30, "prices.tiered.tiers[0].unit_price"),
        (31, "prices.tiered.tiers[1].unit_price"),
        (31, "prices.tiered.tiers[1].up_to"),
        (32, "prices.tiered.tiers[2]"),
        (33, "prices.tiered.tiers[3].up_to"),
        (33, "prices.tiered.tiers[3].up_to"),
        (35, "prices.tiered.tiers[3].colour"),
        (36, "prices.flat.currency"),
        (36, "prices.flat.unit_price"),
        (43, "prices.capped.unit_price"),
        (44, "prices.capped.cap"),
        (45, "prices.free.model"),
        (50, f"{item}.meter"),
        (52, f"{item}.from"),
        (54, f"{item}.changes[0].price"),
        (55, f"{item}.changes[1].from"),
        (55, f"{item}.changes[1].meter"),
        (56, f"{item}.changes[2].from"),
        (56, f"{item}.changes[2].price"),
        (57, f"{item}.changes[3].price"),
        (58, "plans.standard.items.ram.changes[1].price"),
        (59, "plans.empty.items"),
        (60, "plans.listed.items"),
        (62, "accounts.acme.name"),
        (63, "accounts.acme.nmae"),
        (66, "accounts.acme.seller"),
        (67, "accounts.acme.gate_policy"),
        (70, f"{main}.plan"),
        (71, f"{main}.from"),
        (72, f"{main}.to"),
        (74, f"{main}.contract.disk"),
        (75, f"{main}.contract.ram"),
        (75, f"{main}.contract.ram"),
        (77, f"{main}.contract.cpu.price"),
        (77, f"{main}.contract.cpu.price"),
        (78, f"{main}.contract.cpu.from"),
        (84, "accounts.globex.payment_terms_days"),
        (86, "accounts.globex.subscriptions.acme-main"),
        (86, "accounts.globex.subscriptions.acme-main.plan"),
        (86, "accounts.globex.subscriptions.acme-main.to"),
        (88, "ignore[0]"),
        (89, "ignore[1]"),
        (89, "ignore[1]"),
        (90, "ignore[2]"),
    ]


def test_what_only_follows_from_a_problem_is_left_out() -> None:
    """Names of a section that cannot be read are not called unknown; a currency that is none differs from none."""
    text = DEMO.read_text().replace("\nprices:\n", "\nprices: [x]\nprizes:\n", 1)
    assert [field for _, field in problems_of(text)] == ["prices", "prizes"]
    text = DEMO.read_text().replace("currency: EUR\n    time_zone", "currency: EURO\n    time_zone", 1)
    assert [field for _, field in problems_of(text)] == ["accounts.aurora-games.currency"]


PLANTERS = [
    (r"^version: 1$", "version: @3", "version"),
    (r"time_zone: Europe/Amsterdam\n\n# F", "time_zone: @Nowhere\n\n# F", "sellers.rackmeter-hosting.time_zone"),
    (r'"1016 EA Amsterdam"', '@""', "sellers.rackmeter-hosting.address[1]"),
    (r"unit: core-second$", "unit: core-second\n    color: @red", "meters.cpu_core_seconds.color"),
    (r"value: memory_provisioned_kb", "value: @[a]", "meters.memory_kib_seconds.value"),
    (r"(disk_read_kb_s\n.*\n    slot_seconds:) 900", r"\1 @7", "meters.disk_read_kb.slot_seconds"),
    (r"aggregation: active_hours", "aggregation: @hours", "meters.server_hours.aggregation"),
    (r"base_units: 3600, unit_price: 0.0060", "base_units: @0, unit_price: 0.0060", "prices.cpu_standard.base_units"),
    (r"unit_price: 0.0060", "unit_price: @-1", "prices.cpu_standard.unit_price"),
    (r"unit_price: 0.0035", "price: @1, unit_price: 0.0035", "prices.memory_standard.price"),
    (r"currency: EUR(, unit: GB, )", r"currency: @EURO\1", "prices.disk_standard.currency"),
    (r"\{up_to: 1000, ", "{up_to: @10, ", "prices.network_standard.tiers[1].up_to"),
    (r"\{unit_price: 0.0080\}", "{up_to: @2000, unit_price: 0.0080}", "prices.network_standard.tiers[2].up_to"),
    (r"cap: 15.90", "cap: @x", "prices.instance_hourly.cap"),
    (r"\{unit_price: 0.0041\}", "@{}", "prices.cpu_volume.tiers[2].unit_price"),
    (
        r"cpu: \{meter: cpu_core_seconds, price: cpu_s",
        r"cpu: {meter: @x, price: cpu_s",
        "plans.standard.items.cpu.meter",
    ),
    (r"(disk-read: .*) disk_standard\}", r"\1 @none}", "plans.standard.items.disk-read.price"),
    (
        r"price: instance_hourly\}",
        "price: instance_hourly, changes: [{from: 2013-07-01, price: @cpu_standard}]}",
        "plans.hourly.items.instance.changes[0].price",
    ),
    (
        r"memory_volume\}",
        "memory_volume, changes: [{from: 2013-07-01, price: cpu_zephyr}, {from: @2013-01-01, price: cpu_zephyr}]}",
        "plans.volume.items.memory.changes[1].from",
    ),
    (r"name: Aurora Games B.V.", "name: @", "accounts.aurora-games.name"),
    (
        r"(Eindhoven.*\n    currency:) EUR((?:.*\n){3}.*) hourly",
        r"\1 USD\2 @hourly",
        "accounts.brabant-logistics.subscriptions.brabant-logistics-main.plan",
    ),
    (
        r"time_zone: Europe/Paris(\n    sub.*\n      cart)",
        r"time_zone: @X\1",
        "accounts.cartographie-du-nord.time_zone",
    ),
    (r"(Hamburg(?:.*\n){4})", r"\1    seller: @nobody\n", "accounts.deichwerk.seller"),
    (
        r"(elbe-analytics-main: .* from:) ",
        r"\1 @x",
        "accounts.elbe-analytics.subscriptions.elbe-analytics-main.from",
    ),
    (
        r"(elbe-analytics-main: \{plan:) standard",
        r"\1 @gold",
        "accounts.elbe-analytics.subscriptions.elbe-analytics-main.plan",
    ),
    (
        r"(fjord-media-main: \{plan: hourly, from: 1970-01-02)",
        r"\1, to: @1969-01-01",
        "accounts.fjord-media.subscriptions.fjord-media-main.to",
    ),
    (r"\n( *glasvezel-oost-main:.*)", r"\n\1\n@\1", "accounts.glasvezel-oost.subscriptions.glasvezel-oost-main"),
    (r"payment_terms_days: 45", "payment_terms_days: @4.5", "accounts.zephyr-bank.payment_terms_days"),
    (r"cpu: cpu_zephyr", "gpu: @cpu_zephyr", "accounts.zephyr-bank.subscriptions.zephyr-bank-main.contract.gpu"),
    (
        r"memory: memory_zephyr",
        "memory: @instance_hourly",
        "accounts.zephyr-bank.subscriptions.zephyr-bank-main.contract.memory",
    ),
    (r"- rackmeter.host.inventory.v1", "- @rackmeter.host.sample.v1", "ignore[0]"),
]
"""Faults of the demo's catalogue: what is there, what is written instead, @ where the fault stands, and its field."""


def plant(numbers: Iterable[int]) -> tuple[str, list[tuple[int, str]]]:
    """The demo's catalogue with some faults, and where they are."""
    text = DEMO.read_text()
    assert "@" not in text
    for number in numbers:
        pattern, replacement, _ = PLANTERS[number]
        text, count = re.subn(pattern, replacement.replace("@", f"@{number}@"), text, count=1, flags=re.MULTILINE)
        assert count == 1, pattern
    places = [
        (line_number, PLANTERS[int(number)][2])
        for line_number, line in enumerate(text.splitlines(), start=1)
        for number in re.findall("@([0-9]+)@", line)
    ]
    return re.sub("@[0-9]+@", "", text), sorted(places)


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, len(PLANTERS) - 1), min_size=1))
@example(set(range(len(PLANTERS))))
def test_of_the_faults_that_are_planted_each_is_named_and_nothing_else(numbers: set[int]) -> None:
    """Faults do not hide each other, whichever and however many there are, and bring no others with them."""
    text, places = plant(sorted(numbers))
    # Each price in another currency than the account's is a problem of the plan's field.
    assert sorted(set(problems_of(text))) == places
