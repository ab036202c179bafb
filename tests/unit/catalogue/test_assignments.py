"""Who owns what when; what an item is charged by when; how the demo deals its servers."""

import itertools
import json
from datetime import UTC, datetime

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalogue.assignments import effective, effective_bindings, parse_assignments
from pipeline.catalogue.bindings import flatten
from pipeline.catalogue.document import parse_catalogue
from pipeline.catalogue.model import Assignment, Binding, Subscription
from pipeline.domain.errors import Problems
from pipeline.domain.period import calendar_month
from pipeline.local.dealing import deal
from tests.unit.catalogue.test_document import SCHEMAS, SMALL

ZONES = {"a": "Europe/Amsterdam", "b": "UTC"}
SUBSCRIPTIONS = {
    name: Subscription(name, "acme", "standard", datetime(2026, 5, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), ())
    for name in ZONES
}
GOOD = """\
version: 1
servers:
  web-01.example:
    - {subscription: a, from: 2026-06-01, to: 2026-06-15T12:00+02:00}
    - {subscription: b, from: 2026-06-15T10:00Z}
  db: [{from: 2026-07-01}]
"""


def day(number: int, hour: int = 0) -> datetime:
    """A day of June 2026."""
    return datetime(2026, 6, number, hour, tzinfo=UTC)


def test_the_highest_known_number_covering_an_instant_owns_it() -> None:
    """A later word wins for the time it covers, and only for that."""
    rows = [
        Assignment(1, "s", "a", day(1), None),
        Assignment(2, "s", "b", day(10), day(20)),
        Assignment(3, "other", "c", day(1), None),
        Assignment(4, "s", None, day(25), None),
    ]
    assert effective(rows, "s") == [(day(1), day(10), "a"), (day(10), day(20), "b"), (day(20), day(25), "a")]
    assert effective(reversed(rows), "s") == effective(rows, "s")


def test_two_moves_at_once_leave_one_owner() -> None:
    """Moved from A to B and then, from the same time, to C: B never had it."""
    rows = [
        Assignment(1, "s", "a", day(1), None),
        Assignment(2, "s", "b", day(10), None),
        Assignment(3, "s", "c", day(10), None),
    ]
    assert effective(rows, "s") == [(day(1), day(10), "a"), (day(10), None, "c")]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 28), st.one_of(st.none(), st.integers(1, 20))),
        max_size=8,
    )
)
def test_owners_are_those_of_each_day_by_itself(drawn: list[tuple[str | None, int, int | None]]) -> None:
    """Flattened intervals are ascending, disjoint, and agree with asking for each day."""
    rows = [
        Assignment(number, "s", owner, day(start), None if length is None else day(min(29, start + length)))
        for number, (owner, start, length) in enumerate(drawn)
    ]
    found = effective(rows, "s")
    for at in (day(number) for number in range(1, 31)):
        covering = [one for one in rows if one.valid_from <= at and (one.valid_to is None or at < one.valid_to)]
        owner = covering[-1].subscription_id if covering else None
        owners = [one[2] for one in found if one[0] <= at and (one[1] is None or at < one[1])]
        assert owners == ([] if owner is None else [owner])
    assert all(one[1] is not None and one[1] <= following[0] for one, following in itertools.pairwise(found))


def test_the_latest_effective_binding_holds_and_later_words_replace_it() -> None:
    """At an instant the latest `effective_from` holds; of one `effective_from` the highest known number."""
    rows = [
        Binding(1, "s", "cpu", "m", 1, day(1)),
        Binding(2, "s", "cpu", "m", 2, day(10)),
        Binding(3, "s", "cpu", "m", 3, day(10)),
        Binding(4, "s", "cpu", "m", 1, day(5)),
        Binding(4, "s", "ram", "m", 9, day(5)),
    ]
    assert effective_bindings(rows, "s", "cpu") == [(day(1), day(10), "m", 1), (day(10), None, "m", 3)]
    assert effective_bindings(rows, "s", "disk") == []


def test_a_contract_price_stands_over_the_plans_changes() -> None:
    """The plan's price and its change apply until the contract begins; dates are local midnights."""
    text = SMALL.replace(
        "price: cpu}",
        "price: cpu, changes: [{from: 2025-06-01, price: cpu_b}, {from: 2026-03-01, price: cpu_c}, "
        "{from: 2026-09-01, price: cpu_b}]}",
    )
    cpu = next(line for line in SMALL.splitlines() if line.startswith("  cpu:"))
    copies = "\n".join(cpu.replace("  cpu:", f"  cpu_{letter}:") for letter in "bcd")
    text = text.replace(cpu, f"{cpu}\n{copies}").replace(
        "from: 2026-01-01}", "from: 2026-01-01, contract: {cpu: {price: cpu_d, from: 2026-06-01}}}"
    )
    catalogue = parse_catalogue(text, "c.yaml")
    found = flatten(catalogue, catalogue.subscriptions["acme-main"])
    assert [(one.price, one.effective_from) for one in found] == [
        ("cpu_b", datetime(2025, 12, 31, 23, tzinfo=UTC)),
        ("cpu_c", datetime(2026, 2, 28, 23, tzinfo=UTC)),
        ("cpu_d", datetime(2026, 5, 31, 22, tzinfo=UTC)),
    ]


def test_assignments_are_read_in_the_zone_of_their_account() -> None:
    """A date is midnight where the customer is; the schema agrees with the reader."""
    assert parse_assignments(GOOD, "s.yaml", ZONES, SUBSCRIPTIONS) == [
        Assignment(0, "web-01.example", "a", datetime(2026, 5, 31, 22, tzinfo=UTC), day(15, 10)),
        Assignment(0, "web-01.example", "b", day(15, 10), None),
        Assignment(0, "db", None, datetime(2026, 7, 1, tzinfo=UTC), None),
    ]
    schema = json.loads((SCHEMAS / "assignments.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.load(GOOD, yaml.BaseLoader), schema)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("subscription: b", "subscription: x", "s.yaml:5: servers.web-01.example[1].subscription: 'x' is not a sub"),
        ("T10:00Z", "T10:07Z", "s.yaml:5: servers.web-01.example[1].from: '2026-06-15T10:07Z' is neither"),
        ("to: 2026-06-15T12:00+02:00", "to: 2026-06-01", "s.yaml:4: servers.web-01.example[0].to: is not after from"),
        ("{from: 2026-07-01}", "", "s.yaml:6: servers.db: has no assignments"),
        ("from: 2026-07-01", "form: 2026-07-01", "s.yaml:6: servers.db[0].form: is not known here"),
        ("from: 2026-06-01", "from: 2026-04-30", "s.yaml:4: servers.web-01.example[0].from: a is not running then"),
        ("2026-06-15T10:00Z", "2027-01-01", "s.yaml:5: servers.web-01.example[1].from: b is not running then"),
        ("version: 1", "", "version: is missing"),
    ],
)
def test_a_bad_assignment_names_file_line_and_field(before: str, after: str, problem: str) -> None:
    """Nothing is assigned by a file with a problem in it."""
    with pytest.raises(Problems) as caught:
        parse_assignments(GOOD.replace(before, after, 1), "s.yaml", ZONES, SUBSCRIPTIONS)
    assert problem in str(caught.value)


def test_all_problems_of_assignments_are_found_at_once() -> None:
    """No problem of one field, assignment or server hides that of another."""
    text = """\
version: 2
server: {}
servers:
  "bad\\nname": [{from: 2026-06-01}]
  web:
    - {subscription: x, from: tomorrow, to: never, at: 1}
    - {subscription: a, from: 2026-04-01, to: 2026-03-01}
    - {subscription: a b, to: 2026-06-01}
    - nothing
  db: []
  log: {from: 2026-06-01}
"""
    with pytest.raises(Problems) as caught:
        parse_assignments(text, "s.yaml", ZONES, SUBSCRIPTIONS)
    assert [(one.line, one.field) for one in caught.value.problems] == [
        (1, "version"),
        (2, "server"),
        (4, "servers.bad\nname"),
        (6, "servers.web[0].at"),
        (6, "servers.web[0].from"),
        (6, "servers.web[0].subscription"),
        (6, "servers.web[0].to"),
        (7, "servers.web[1].from"),
        (7, "servers.web[1].to"),
        (8, "servers.web[2].from"),
        (8, "servers.web[2].subscription"),
        (9, "servers.web[3]"),
        (9, "servers.web[3].from"),
        (10, "servers.db"),
        (11, "servers.log"),
    ]
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)


def test_servers_are_dealt_round_and_one_moves_in_mid_month() -> None:
    """Sorted names go round the customers; the eighth moves to the next one on the 15th at local noon."""
    july = calendar_month(2013, 7, "Europe/Amsterdam")
    rows = deal([f"vm-{number:02d}" for number in reversed(range(12))], ["a", "b", "c"], july)
    assert len(rows) == 13
    assert [row.subscription_id for row in rows if row.valid_from == july.start] == list("abcabcabcabc")
    assert effective(rows, "vm-00") == [(july.start, None, "a")]
    moved = [row for row in rows if row.subject == "vm-07"]
    assert [(row.subscription_id, row.valid_from) for row in moved] == [
        ("b", july.start),
        ("c", datetime(2013, 7, 15, 10, tzinfo=UTC)),
    ]
