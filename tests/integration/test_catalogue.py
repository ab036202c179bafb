"""The catalogue and the assignments in the real database."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import parse_catalogue, read_catalogue
from pipeline.catalogue.model import Assignment
from pipeline.catalogue.servers import assign, list_owners, move, retire
from pipeline.catalogue.store import (
    load_accounts,
    load_assignments,
    load_bindings,
    load_ignore_rules,
    load_meters,
    load_prices,
    load_subscriptions,
    subscription_zones,
)
from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection, connect
from tests.unit.catalogue.test_document import DEMO, SMALL

pytestmark = pytest.mark.real


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """As a stage has it: the application role."""
    with contextlib.closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def day(number: int) -> datetime:
    """A day of June 2026."""
    return datetime(2026, 6, number, tzinfo=UTC)


def marks(connection: Connection) -> list[tuple[object, ...]]:
    """The dirty marks so far."""
    return connection.execute(
        "SELECT subject, subscription_id, time_from, nullif(time_to, 'infinity') FROM dirty_mark ORDER BY mark_number"
    ).fetchall()


def test_the_demo_is_applied_once_however_often(connection: Connection) -> None:
    """What was applied reads back as it was written, and a second apply changes nothing."""
    catalogue = read_catalogue(DEMO)
    first = apply(connection, catalogue)
    assert first.is_changed
    assert first.known_number == 1
    again = apply(connection, catalogue)
    assert (again.is_changed, again.known_number, again.changes) == (False, 1, ())
    assert {meter.meter for meter in load_meters(connection)} == set(catalogue.meters)
    stored = load_prices(connection)
    assert {price.price: price.digest for price in stored.values()} == {
        name: price.digest for name, price in catalogue.prices.items()
    }
    some = next(iter(stored))
    assert load_prices(connection, [some, 10**6]) == {some: stored[some]}
    assert load_accounts(connection) == catalogue.accounts
    assert load_subscriptions(connection).keys() == catalogue.subscriptions.keys()
    assert load_ignore_rules(connection) == list(catalogue.ignored_types)
    assert subscription_zones(connection)["zephyr-bank-main"] == "Europe/Paris"
    assert marks(connection) == []


def test_a_changed_price_is_refused_and_changes_nothing(connection: Connection) -> None:
    """A refused document leaves no version, no number, no binding."""
    apply(connection, parse_catalogue(SMALL, "c"))
    with pytest.raises(ConfigurationFault, match=r"prices\.cpu: a price never changes"):
        apply(connection, parse_catalogue(SMALL.replace("0.10", "0.11").replace("name: Acme", "name: Acme 2"), "c"))
    assert connection.execute("SELECT last FROM known_number").fetchone() == (1,)
    assert load_accounts(connection)["acme"].name == "Acme"


def test_a_dated_price_change_marks_what_it_touches(connection: Connection) -> None:
    """A plan's change gives new bindings and a dirty mark from its date on; a new end of a subscription too."""
    apply(connection, parse_catalogue(SMALL, "c"))
    cpu = next(line for line in SMALL.splitlines() if line.startswith("  cpu:"))
    text = SMALL.replace(cpu, cpu + "\n" + cpu.replace("cpu:", "cpu_b:").replace("0.10", "0.2"))
    text = text.replace("price: cpu}", "price: cpu, changes: [{from: 2026-06-16, price: cpu_b}]}")
    apply(connection, parse_catalogue(text, "c"))
    at = datetime(2026, 6, 15, 22, tzinfo=UTC)
    assert [row.effective_from for row in load_bindings(connection)["acme-main"]][-1] == at
    assert len(load_bindings(connection, ["acme-main"], known_number_max=1)["acme-main"]) == 1
    assert marks(connection) == [(None, "acme-main", at, None)]
    apply(connection, parse_catalogue(text.replace("from: 2026-01-01}", "from: 2026-01-01, to: 2027-01-01}"), "c"))
    assert marks(connection)[1:] == [(None, "acme-main", datetime(2026, 12, 31, 23, tzinfo=UTC), None)]


def test_servers_are_assigned_moved_and_retired(connection: Connection) -> None:
    """Each word gets a number and a mark; a word that changes nothing gets neither."""
    text = SMALL.replace("ignore:", "ignore:").replace(
        "      acme-main:", "      acme-two: {plan: standard, from: 2026-01-01}\n      acme-main:"
    )
    apply(connection, parse_catalogue(text, "c"))
    wanted = [Assignment(0, "web", "acme-main", day(1), None)]
    assert [one.known_number for one in assign(connection, wanted, "test")] == [2]
    assert assign(connection, wanted, "test") == []
    assert [one.known_number for one in move(connection, "web", "acme-two", day(15), "test")] == [3]
    retire(connection, "web", day(20), "test")
    assert list_owners(connection) == {"web": [(day(1), day(15), "acme-main"), (day(15), day(20), "acme-two")]}
    assert list_owners(connection, known_number_max=2) == {"web": [(day(1), None, "acme-main")]}
    assert marks(connection) == [
        ("web", None, day(1), None),
        ("web", None, day(15), None),
        ("web", None, day(20), None),
    ]
    assert [one.known_number for one in load_assignments(connection, ["web", "none"])["web"]] == [2, 3, 4]
    with pytest.raises(ConfigurationFault, match="nobody has web"):
        move(connection, "web", "acme-main", day(25), "test")


def test_bad_assignments_are_refused_together_and_none_is_stored(connection: Connection) -> None:
    """All reasons at once; nothing of the batch is written."""
    apply(connection, parse_catalogue(SMALL, "c"))
    wanted = [
        Assignment(0, "good", "acme-main", day(1), None),
        Assignment(0, "unknown", "nobody", day(1), None),
        Assignment(0, "early", "acme-main", datetime(2025, 1, 1, tzinfo=UTC), None),
        Assignment(0, "edge", "acme-main", datetime(2026, 6, 1, 0, 7, tzinfo=UTC), None),
        Assignment(0, "span", "acme-main", day(2), day(1)),
    ]
    with pytest.raises(ConfigurationFault) as caught:
        assign(connection, wanted, "test")
    assert len(str(caught.value).splitlines()) == 4
    assert load_assignments(connection) == {}


def test_a_lower_known_number_is_never_seen_later(connection: Connection, database_url: str) -> None:
    """An assignment waits for the one that took its number before; a reader never sees number 3 without number 2."""
    apply(connection, parse_catalogue(SMALL, "c"))
    with contextlib.closing(connect(database_url, application_name="tests")) as other:
        other.execute("SET lock_timeout = '200ms'")
        with connection.transaction():
            assign(connection, [Assignment(0, "one", "acme-main", day(1), None)], "test")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                assign(other, [Assignment(0, "two", "acme-main", day(1), None)], "test")
        assert [one.known_number for one in assign(other, [Assignment(0, "two", "acme-main", day(1), None)], "t")] == [
            3
        ]
