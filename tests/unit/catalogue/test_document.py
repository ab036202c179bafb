"""The catalogue document: read exactly, or every problem named with its line and field."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.catalogue.apply import catalogue_digest
from pipeline.catalogue.document import parse_catalogue, read_catalogue
from pipeline.domain.errors import Problems

SCHEMAS = Path(__file__).parents[3] / "schemas"
DEMO = SCHEMAS / "demo" / "catalogue.yaml"

SMALL = """\
version: 1
sellers:
  host: {name: Host B.V., number_prefix: H-, time_zone: Europe/Amsterdam}
meters:
  cores: {event_type: sample, aggregation: time_weighted, value: cpu, unit: core-second, max_gap_seconds: 600}
  hours: {event_type: sample, aggregation: active_hours, unit: hour}
prices:
  cpu: {model: per_unit, product: compute, currency: EUR, unit: core-hour, base_units: 3600, unit_price: 0.10}
  cpu_usd: {model: per_unit, product: compute, currency: USD, unit: core-hour, base_units: 3600, unit_price: 1}
  instance: {model: hourly_capped, product: compute, currency: EUR, unit: hour, base_units: 1, unit_price: 1, cap: 9}
  net:
    model: graduated
    product: network
    currency: EUR
    unit: GB
    base_units: 1000
    tiers:
      - {up_to: 10, unit_price: 0}
      - {unit_price: 0.5}
plans:
  standard:
    items:
      cpu: {meter: cores, price: cpu}
accounts:
  acme:
    name: Acme
    currency: EUR
    time_zone: Europe/Amsterdam
    subscriptions:
      acme-main: {plan: standard, from: 2026-01-01}
ignore: [inventory]
"""


def problems_of(text: str) -> list[str]:
    """The problems of a document, as printed."""
    with pytest.raises(Problems) as caught:
        parse_catalogue(text, "c.yaml")
    return str(caught.value).splitlines()


def schema_of(name: str) -> jsonschema.Draft202012Validator:
    """A validator by a published schema."""
    schema: dict[str, Any] = json.loads((SCHEMAS / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_demo_catalogue_is_sound_and_matches_the_published_schema() -> None:
    """Ten customers, one on a contract; schema and reader agree."""
    catalogue = read_catalogue(DEMO)
    assert len(catalogue.accounts) == 10
    assert {agreed.price for agreed in catalogue.subscriptions["zephyr-bank-main"].contract} == {
        "cpu_zephyr",
        "memory_zephyr",
    }
    validator = schema_of("catalogue.schema.json")
    assert [error.message for error in validator.iter_errors(yaml.load(DEMO.read_text(), yaml.BaseLoader))] == []
    assert not validator.is_valid({"version": "1", "prices": {"x": {"model": "per_unit"}}})


def test_decimals_are_read_from_their_text() -> None:
    """0.10 unquoted is ten hundredths, not the float next to it; 0.1 and 0.10 are one price."""
    price = parse_catalogue(SMALL, "c.yaml").prices["cpu"]
    assert price.parameters == {"unit_price": "0.1"}
    assert price.digest == parse_catalogue(SMALL.replace("0.10", '"0.1"'), "c.yaml").prices["cpu"].digest


def test_layout_and_comments_do_not_change_the_digest() -> None:
    """What the document says is what counts."""
    digest = catalogue_digest(parse_catalogue(SMALL, "c.yaml"))
    assert digest == "2126975c27b35105bfdb24faff0356c8c7dbccc4c1945224d0ddec5d3d06b176"
    assert catalogue_digest(parse_catalogue("# hello\n" + SMALL.replace("0.10", "0.1"), "d.yaml")) == digest
    assert catalogue_digest(parse_catalogue(SMALL.replace("0.10", "0.11"), "c.yaml")) != digest


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("version: 1", "version: 2", "c.yaml:1: version: is not 1"),
        ("unit: hour}", "unit: hour, color: red}", "c.yaml:6: meters.hours.color: is not known here"),
        ("unit: core-second, ", "", "c.yaml:5: meters.cores.unit: is missing"),
        ("  hours: {", "  cores: {", "c.yaml:6: meters.cores: is there twice"),
        ("max_gap_seconds: 600", "slot_seconds: 70", "c.yaml:5: meters.cores.slot_seconds: is 70"),
        (", max_gap_seconds: 600", "", "c.yaml:5: meters.cores.max_gap_seconds: is missing"),
        ("unit: hour}", "unit: hour, value: cpu}", "c.yaml:6: meters.hours.value: has no meaning"),
        ("value: cpu, ", "", "c.yaml:5: meters.cores.value: is missing"),
        ("aggregation: active_hours", "aggregation: median", "c.yaml:6: meters.hours.aggregation: 'median' is not one"),
        ("event_type: sample", "event_type: rackmeter.control.x", "c.yaml:5: meters.cores.event_type: begins with"),
        ("unit_price: 0.10", "unit_price: -0.10", "c.yaml:8: prices.cpu.unit_price: is negative"),
        ("unit_price: 0.10", "unit_price: .1", "c.yaml:8: prices.cpu.unit_price: '.1' is not a decimal number"),
        ("unit_price: 0.10", "unit_price: [1]", "c.yaml:8: prices.cpu.unit_price: is not a decimal"),
        ("base_units: 1000", "base_units: 0", "c.yaml:16: prices.net.base_units: is 0, not above zero"),
        ("model: graduated", "model: tiered", "c.yaml:12: prices.net.model: 'tiered' is not one of"),
        ("currency: EUR, unit: hour", "currency: EUX, unit: hour", "c.yaml:10: prices.instance.currency: currency"),
        (
            "- {unit_price: 0.5}",
            "- {up_to: 20, unit_price: 0.5}",
            "c.yaml:19: prices.net.tiers[1].up_to: ends the last",
        ),
        ("{up_to: 10, unit_price: 0}", "{unit_price: 0}", "c.yaml:18: prices.net.tiers[0].up_to: is missing"),
        ("{up_to: 10, unit_price: 0}", "{up_to: 0, unit_price: 0}", "c.yaml:18: prices.net.tiers[0].up_to: is 0, but"),
        (
            "meter: cores,",
            "meter: coers,",
            "c.yaml:23: plans.standard.items.cpu.meter: 'coers' is not one of the meters",
        ),
        ("price: cpu}", "price: cpv}", "c.yaml:23: plans.standard.items.cpu.price: 'cpv' is not one of the prices"),
        ("price: cpu}", "price: cpu_usd}", "plan: the price cpu_usd is in USD, the account in EUR"),
        (
            "price: cpu}",
            "price: cpu, changes: [{from: 2026-03-01, price: instance}]}",
            "changes[0].price: instance (hourly_capped) bills another way",
        ),
        (
            "price: cpu}",
            "price: cpu, changes: [{from: 2026-03-01, price: cpu}, {from: 2026-02-01, price: cpu}]}",
            "changes[1].from: is not after the change before it",
        ),
        ("price: cpu}", "price: cpu, changes: [{from: 2026-03-01}]}", "changes[0].price: is missing"),
        (
            "time_zone: Europe/Amsterdam\n    sub",
            "time_zone: Europe/Bonn\n    sub",
            "c.yaml:28: accounts.acme.time_zone",
        ),
        ("plan: standard,", "plan: gold,", "subscriptions.acme-main.plan: 'gold' is not one of the plans"),
        ("from: 2026-01-01}", "from: 2026-01-01T00:00}", "acme-main.from: '2026-01-01T00:00' is neither a date"),
        ("from: 2026-01-01}", "from: 2026-01-01T00:07Z}", "15-minute mark"),
        ("from: 2026-01-01}", "from: 2026-02-30}", "'2026-02-30' is neither a date"),
        ("from: 2026-01-01}", "from: 2026-01-01, to: 2025-01-01}", "acme-main.to: is not after from"),
        (
            "from: 2026-01-01}",
            "from: 2026-01-01, contract: {ram: cpu}}",
            "contract.ram: the plan standard has no item ram",
        ),
        (
            "from: 2026-01-01}",
            "from: 2026-01-01, contract: {cpu: cpu_usd}}",
            "contract.cpu: the price cpu_usd is in USD",
        ),
        ("ignore: [inventory]", "ignore: [sample]", "c.yaml:31: ignore[0]: sample is ignored, but the meter"),
        ("  acme:\n", "  ac me:\n", "accounts.ac me: 'ac me' is not a name"),
        ("name: Acme", "name:", "c.yaml:26: accounts.acme.name: is missing"),
        ("name: Acme", "name: {a: b}", "c.yaml:26: accounts.acme.name: is not text"),
    ],
)
def test_each_problem_names_file_line_and_field(before: str, after: str, problem: str) -> None:
    """A catalogue that is wrong in one place says where."""
    assert before in SMALL
    found = problems_of(SMALL.replace(before, after, 1))
    assert any(problem in line for line in found), found
    assert all(line.startswith("c.yaml:") for line in found)


def test_all_problems_are_found_at_once() -> None:
    """One reading shows everything; an entry with a problem is not called unknown as well."""
    text = SMALL.replace("unit_price: 0.10", "unit_price: x").replace("unit: hour}", "unit: hour, a: b}")
    text = text.replace("name: Acme", "nmae: Acme")
    assert [line.split(": ")[1] for line in problems_of(text)] == [
        "meters.hours.a",
        "prices.cpu.unit_price",
        "accounts.acme.name",
        "accounts.acme.nmae",
    ]


@pytest.mark.parametrize(
    "text", ["", "a: [", "- 1", "x", "a: &x 1\nb: *x", "\0", "? {a: b}\n: c", "&a [*a]", "[" * 1200]
)
def test_what_is_no_catalogue_is_refused(text: str) -> None:
    """Whatever the file holds, the answer is a list of problems."""
    assert problems_of(text)


@pytest.mark.parametrize("text", ["version: 1\nx: \0", "version: 1\nx: @y", "version: 1\n- x"])
def test_what_is_no_yaml_is_refused_at_its_line(text: str) -> None:
    """A character that may not stand in YAML, and syntax that is none, have a line."""
    (problem,) = problems_of(text)
    assert problem.startswith("c.yaml:2: document: is not YAML: ")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, and one that is not UTF-8, are said so."""
    with pytest.raises(Problems, match=r"none\.yaml: file: cannot be read: No such file"):
        read_catalogue(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"version: 1\nx: \xe9")
    with pytest.raises(Problems, match=r"latin\.yaml:2: document: is not UTF-8"):
        read_catalogue(tmp_path / "latin.yaml")
