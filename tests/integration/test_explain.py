"""Every amount can be followed down to its events, and every counted event forward to its line."""

import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from pipeline.domain.errors import ConfigurationFault
from tests.integration.books_world import closed_world, data, run
from tests.integration.proof_world import World, messages, samples, source_of

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def world(server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closed_world(server_url, migrated_template, tmp_path_factory.mktemp("explained")) as built:
        yield built


def rows(world: World, query: str) -> list[Any]:
    with world.admin() as admin:
        return admin.execute(query).fetchall()


def of(nodes: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [node for node in nodes if node["what"] == what]


def total(nodes: list[dict[str, Any]], member: str) -> Fraction:
    return sum((Fraction(node[member]) for node in nodes), Fraction(0))


def test_every_line_is_the_sum_of_what_is_below_it(world: World) -> None:
    """Postings add up to the line's exact amount; days to their segment; segments of all meters and both zones."""
    lines = rows(
        world,
        "SELECT number, line_number, amount_exact, item FROM invoice_line JOIN invoice USING (invoice_id)",
    )
    assert {item for *_, item in lines} == {"cores", "memory", "sent", "requests", "instance"}
    for number, line, amount_exact, _ in lines:
        nodes = data(world, "explain", number, "--line", str(line))
        assert data(world, "explain", f"{number}:{line}") == nodes
        assert [node["what"] for node in nodes[:3]] == ["invoice", "line", "posting"]
        assert total(of(nodes, "posting"), "amount") == Fraction(amount_exact)
        assert f"exact {amount_exact:f}" in nodes[1]["detail"]
        assert [node["detail"] for node in of(nodes, "segment") if node["detail"]] == []
        assert (
            total(of(nodes, "day"), "quantity")
            == total(of(nodes, "segment"), "quantity")
            == Fraction(nodes[1]["quantity"])
        )
        assert of(nodes, "step")


def test_days_are_the_sum_of_their_slots_and_events_stand_behind_them(world: World) -> None:
    """Slots of a day add up to it; the events of the archive are named with their place in the log."""
    (number, line) = rows(
        world,
        "SELECT number, line_number FROM invoice_line JOIN invoice USING (invoice_id) WHERE item = 'requests'"
        " AND account_id = 'acme'",
    )[0]
    name = f"{number}:{line}"
    (day,) = [
        node for node in of(data(world, "explain", name, "--server", "vm-1"), "day") if node["name"] == "2013-07-01"
    ]
    nodes = data(world, "explain", name, "--server", "vm-1", "--day", "2013-07-01", "--events")
    assert total(of(nodes, "slot"), "quantity") == Fraction(day["quantity"])
    counted = [node for node in of(nodes, "event") if node["detail"].startswith("counted; partition ")]
    said = [json.loads(node["detail"].rpartition("; ")[2])["requests"] for node in counted]
    assert sum(map(Fraction, map(str, said))) == Fraction(day["quantity"])
    assert {node["detail"].partition(" ")[0] for node in of(nodes, "event")} == {"counted;", "duplicate"}
    with pytest.raises(ConfigurationFault, match="no line 99"):
        run(world, "explain", number, "--line", "99")
    assert run(world, "explain", number, "--events").exit_code == 2


def test_a_posting_is_explained_by_number_and_key(world: World) -> None:
    """Its entries, its prices and the usage of its item; an invoice's posting leads to the invoice."""
    usage, invoice = (
        rows(world, f"SELECT min(key), min(ledger_transaction_id) FROM ledger_transaction WHERE kind = '{kind}'")[0]
        for kind in ("usage", "invoice")
    )
    nodes = data(world, "explain", usage[0])
    assert {node["what"] for node in nodes} >= {
        "posting",
        "entry",
        "price",
        "step",
        "total",
        "segment",
        "server",
        "day",
    }
    assert "taken by RM-2013-000" in "".join(node["detail"] for node in of(nodes, "entry"))
    assert [node["level"] for node in of(data(world, "explain", str(invoice[1])), "invoice")] == [1]
    whole = data(world, "explain", "RM-2013-0001")
    assert of(whole, "day") == []
    assert len(of(whole, "line")) == len(of(whole, "total"))
    assert "name a line" in run(world, "explain", "RM-2013-0001").stderr
    with pytest.raises(ConfigurationFault, match="no posting 'nothing'"):
        run(world, "explain", "nothing")


def test_usage_that_came_later_is_said(world: World) -> None:
    """A segment that its slots do not add up to any more is marked, and not passed off as proof."""
    earliest = "(SELECT min(slot_start) FROM usage_bucket)"
    change = f"UPDATE usage_bucket SET quantity = quantity {{}} 1 WHERE slot_start = {earliest}"
    with world.admin() as admin:
        admin.execute(change.format("+"))
        try:
            details = [node["detail"] for node in of(data(world, "explain", "RM-2013-0001:1"), "segment")]
        finally:
            admin.execute(change.format("-"))
    assert "usage has changed since" in details


def test_an_event_leads_to_its_lines(world: World) -> None:
    """Each time it was sent, each slot, and the lines of everybody it was charged to."""
    first = next(iter(samples("vm-1", 0)))
    nodes = data(world, "trace", str(first["id"]), "--source", source_of("vm-1"))
    assert nodes[0]["detail"].startswith("counted; partition ")
    assert {node["name"] for node in of(nodes, "slot")} == {
        f"vm-1 {meter}" for meter in ("cores", "memory", "sent", "requests", "hours")
    }
    assert {node["name"].partition(":")[0] for node in of(nodes, "line")} == {"RM-2013-0001"}
    assert [node["detail"] for node in of(nodes, "end")] == [
        "nobody is charged by this meter for the server at that time",  # hours are not in this plan
    ]
    (said,) = [node for node in of(nodes, "slot") if node["name"] == "vm-1 requests"]
    assert (said["unit"], Decimal(said["quantity"])) == ("request", Decimal(0 + 1 + 2))


def test_an_event_sent_twice_shows_both(world: World) -> None:
    """The one that counted and its duplicate, wherever they lie."""
    repeated = json.loads(messages("vm-1", 0)[10])
    nodes = data(world, "trace", repeated["id"], "--source", repeated["source"])
    assert [node["detail"].partition(" ")[0] for node in of(nodes, "event")] == ["counted;", "duplicate"]


def test_an_event_that_did_not_count_says_why(world: World) -> None:
    """Its reason code instead of a line; one the archive does not have is exit code 1."""
    nodes = data(world, "trace", "no-number", "--source", source_of("bench"))
    assert [node["what"] for node in nodes] == ["event", "end"]
    assert nodes[0]["detail"].startswith("parked (")
    assert run(world, "trace", "00f3a1b2c3d4e5f6-000000099999", "--source", source_of("vm-1")).exit_code == 1
    with pytest.raises(ConfigurationFault, match="several sources"):
        run(world, "trace", "00f3a1b2c3d4e5f6-000000000001")
    with pytest.raises(ConfigurationFault, match="nothing was read"):
        run(world, "trace", "ffffffffffffffff-000000000001")
