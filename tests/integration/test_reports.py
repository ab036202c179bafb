"""The commands that read the database say what is in it: exact, attributed, the same in every format."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.settings import schemas_dir
from tests.integration.invoice_world import ISSUED_ON, World, make_world

pytestmark = pytest.mark.real

NO_BROKER = {"KAFKA_BOOTSTRAP_SERVERS": None}

SLOTS = """
INSERT INTO meter_version (meter, version, event_type, aggregation, unit, slot_seconds, effective_from, known_number)
VALUES ('hours', 1, 'sample', 'active_hours', 'hour', 900, '2013-01-01Z', 1);
INSERT INTO series (meter_version_id, subject, source)
SELECT meter_version_id, 'vm-acme', 'agent-acme' FROM meter_version WHERE meter = 'cpu'
UNION ALL SELECT meter_version_id, 'vm-acme', '' FROM meter_version WHERE meter = 'hours'
UNION ALL SELECT meter_version_id, 'vm-nobody', 'agent-nobody' FROM meter_version WHERE meter = 'cpu';
INSERT INTO usage_bucket (series_id, slot_start, quantity)
SELECT series_id, at, CASE WHEN meter = 'hours' THEN 1 ELSE 0.000000000000001 END
FROM series JOIN meter_version USING (meter_version_id)
CROSS JOIN generate_series('2013-07-14T21:00Z'::timestamptz, '2013-07-14T22:45Z', '15 min') AS at;
INSERT INTO assignment (known_number, subject, subscription_id, valid_from, said_by)
VALUES (9, 'vm-acme', 'brick-main', '2013-07-14T22:00Z', 'test');
"""
BAD_EVENTS = """
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, detail, source, subject,
    log_time, payload, settled)
VALUES ('usage.events', 0, 5, -1, 'quarantined', 'json_invalid', 'not JSON', NULL, NULL, '2013-07-02Z', '\\xff0922',
        false),
    ('usage.events', 0, 6, 0, 'parked', 'unknown_meter', '', 'agent-acme', 'vm-acme', '2013-07-03Z', '{}', false),
    ('usage.events', 0, 7, 0, 'quarantined', 'time_future', '', 'agent-acme', 'vm-acme', '2013-07-04Z', '{}', true),
    ('usage.events', 0, 8, 0, 'duplicate', 'identity_seen', '', 'agent-acme', 'vm-acme', '2013-07-05Z', NULL, false);
INSERT INTO partition_tally (topic, partition, received, counted, duplicate, quarantined, parked)
VALUES ('usage.events', 0, 10, 6, 1, 2, 1);
"""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    with closing(connect(database_url, application_name="test-reports", role=None)) as connection:
        yield connection


def run(database_url: str, *arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments], env={**NO_BROKER, "DATABASE_URL": database_url})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def objects(database_url: str, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(database_url, *arguments, "--format", "json").stdout)
    return found


def test_usage_belongs_to_who_had_the_server_at_the_time(world: World, database_url: str) -> None:
    """A server that changed owner at a slot edge is split there; a server nobody has has no account; sums are exact."""
    world.admin.execute(SLOTS)
    rows = objects(database_url, "usage", "list", "--meter", "cpu", "--zone", "Europe/Amsterdam")
    assert rows == [
        {"account": account, "server": server, "meter": "cpu", "from": "2013-07-01T00:00:00+02:00",
         "quantity": quantity, "unit": "core-second"}
        for account, server, quantity in (
            ("acme", "vm-acme", "0.000000000000004"),
            ("brick", "vm-acme", "0.000000000000004"),
            (None, "vm-nobody", "0.000000000000008"),
        )
    ]  # fmt: skip
    assert [
        row["server"] for row in objects(database_url, "usage", "list", "--account", "brick", "--meter", "cpu")
    ] == ["vm-acme"]


def test_an_hour_with_four_active_slots_is_one_hour(world: World, database_url: str) -> None:
    """Active hours are counted, not added up from slots."""
    world.admin.execute(SLOTS)
    rows = objects(database_url, "usage", "list", "--meter", "hours", "--by", "day", "--zone", "Europe/Amsterdam")
    assert [(row["account"], row["from"], row["quantity"], row["unit"]) for row in rows] == [
        ("acme", "2013-07-14T00:00:00+02:00", "1", "hour"),
        ("brick", "2013-07-15T00:00:00+02:00", "1", "hour"),
    ]
    assert [row["quantity"] for row in objects(database_url, "usage", "show", "vm-acme") if row["unit"] == "hour"] == [
        "2"
    ]


def test_usage_can_be_cut_at_any_time(world: World, database_url: str) -> None:
    """--from and --to take slots that begin in [from, to)."""
    world.admin.execute(SLOTS)
    cut = ("--from", "2013-07-14T21:30:00Z", "--to", "2013-07-14T22:00:00Z", "--server", "vm-acme", "--meter", "cpu")
    assert [row["quantity"] for row in objects(database_url, "usage", "list", *cut)] == ["0.000000000000002"]


def test_the_sources_of_a_server_say_how_complete_they_are(world: World, database_url: str) -> None:
    """Who speaks for a server, until when, and whether a number is missing."""
    (source,) = objects(database_url, "usage", "show", "vm-acme", "--sources")
    assert source["source"] == "agent-acme"
    assert source["has_no_hole"] is True
    assert source["complete_until"] is None  # retired: for ever


def test_invoices_are_listed_and_shown_with_their_lines(world: World, database_url: str) -> None:
    """Totals are money with a currency, exact amounts have every digit, by number and by id."""
    world.run()
    rows = objects(database_url, "invoices", "list", "--period", "2013-07", "--state", "issued")
    assert [(row["account"], row["total"], row["currency"]) for row in rows] == [
        ("acme", "12.35", "EUR"),
        ("brick", "12.35", "EUR"),
    ]
    assert {row["issued_on"] for row in rows} == {ISSUED_ON.isoformat()}
    assert objects(database_url, "invoices", "list", "--period", "2013-06") == []
    by_number = objects(database_url, "invoices", "show", rows[0]["number"])
    assert by_number == objects(database_url, "invoices", "show", rows[0]["invoice_id"])
    (line,) = by_number
    assert (line["amount_exact"], line["amount"], line["currency"]) == ("12.345678901234", "12.35", "EUR")
    assert (line["quantity"], line["unit"]) == ("3600", "core-second")


def test_the_three_formats_say_the_same(world: World, database_url: str) -> None:
    """Table, JSON and CSV of one command hold the same cells."""
    world.run()
    for command in (("invoices", "list"), ("ledger", "trial-balance"), ("status",), ("status", "--partitions")):
        rows = objects(database_url, *command)
        lines = list(csv.DictReader(io.StringIO(run(database_url, *command, "--format", "csv").stdout)))
        table = run(database_url, *command).stdout
        # The time of the last flush is one of the values; nothing flushes between the calls.
        assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == lines
        assert all(cell in table for line in lines for cell in line.values())


def test_an_invoice_that_is_not_there_is_an_error_with_a_next_step(world: World, database_url: str) -> None:
    """A wrong number names itself and the command that lists the right ones."""
    with pytest.raises(ConfigurationFault, match=r"RM-nothing.*invoices list"):
        run(database_url, "invoices", "show", "RM-nothing")


def test_the_trial_balance_is_zero_in_every_currency(world: World, database_url: str) -> None:
    """Debits equal credits, and the command says so."""
    world.run()
    result = run(database_url, "ledger", "trial-balance")
    assert result.exit_code == 0
    assert "sum of all balances: 0 EUR" in result.stderr
    books = {row["name"]: row["balance"] for row in objects(database_url, "ledger", "trial-balance")}
    assert {name: balance for name, balance in books.items() if balance != "0"} == {
        name: f"{balance.normalize():f}" for name, balance in world.books().items()
    }


def test_quarantine_lists_what_is_open_and_shows_the_bytes(world: World, database_url: str) -> None:
    """Open quarantined and parked events by default, settled ones on request; original bytes, escaped."""
    world.admin.execute(BAD_EVENTS)
    listed = objects(database_url, "quarantine", "list")
    assert [(row["offset"], row["reason"]) for row in listed] == [(5, "json_invalid"), (6, "unknown_meter")]
    assert len(objects(database_url, "quarantine", "list", "--all")) == 3
    assert [row["offset"] for row in objects(database_url, "quarantine", "list", "--source", "agent-acme")] == [6]
    assert "more than these 1" in run(database_url, "quarantine", "list", "--limit", "1").stderr
    (shown,) = objects(database_url, "quarantine", "show", "0", "5", "-1")
    assert shown["payload"] == '\\xff\\t"'
    assert shown["detail"] == "not JSON"
    with pytest.raises(ConfigurationFault, match="offset 99"):
        run(database_url, "quarantine", "show", "0", "99")


def test_status_works_without_the_broker(world: World, database_url: str) -> None:
    """What the database knows is shown; what only the broker knows is left empty, and that is said."""
    world.admin.execute(BAD_EVENTS)
    result = run(database_url, "status", "--format", "json")
    values = {(row["name"], row["figure"]): row["value"] for row in json.loads(result.stdout)}
    assert values["usage.events", "received"] == 10
    assert values["aggregate", "read"] == 10
    assert values["aggregate", "lag"] is None
    assert values["database", "open decisions"] == 2
    assert values["database", "unsettled duplicates"] == 1
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in result.stderr
    (partition,) = objects(database_url, "status", "--partitions")
    assert (partition["received"], partition["aggregate_offset"], partition["log_end"]) == (10, 10, None)


def test_an_unmigrated_database_says_what_to_run(empty_database_url: str) -> None:
    """`migrate --plan` shows what is to come and applies nothing; reading before says to migrate."""
    planned = objects(empty_database_url, "migrate", "--plan")
    assert [row["version"] for row in planned] == [f"{number:04d}" for number in range(1, len(planned) + 1)]
    assert planned == objects(empty_database_url, "migrate", "--plan")
    with pytest.raises(Exception, match="rackmeter migrate"):
        run(empty_database_url, "invoices", "list")
    assert objects(empty_database_url, "migrate") == planned
    assert objects(empty_database_url, "migrate") == []
    assert objects(empty_database_url, "invoices", "list") == []


def test_a_catalogue_is_applied_and_servers_are_given_out(database_url: str) -> None:
    """Apply once and again, assign, move, retire: the list shows how it adds up, dates in the account's zone."""
    file = str(schemas_dir() / "demo" / "catalogue.yaml")
    assert objects(database_url, "catalogue", "apply", file)
    assert objects(database_url, "catalogue", "apply", file) == []
    first, second = "brabant-logistics-main", "cartographie-du-nord-main"
    assert len(objects(database_url, "servers", "assign", "vm-1", first, "--from", "2013-07-01")) == 1
    assert objects(database_url, "servers", "assign", "vm-1", first, "--from", "2013-07-01") == []
    objects(database_url, "servers", "move", "vm-1", second, "--at", "2013-07-15")
    objects(database_url, "servers", "retire", "vm-1", "--at", "2013-07-20T12:00:00Z")
    rows = objects(database_url, "servers", "list", "--server", "vm-1")
    assert [(row["subscription"], row["from"], row["to"]) for row in rows] == [
        (first, "2013-06-30T22:00:00Z", "2013-07-14T22:00:00Z"),
        (second, "2013-07-14T22:00:00Z", "2013-07-20T12:00:00Z"),
    ]
    with pytest.raises(ConfigurationFault, match="nothing-main"):
        run(database_url, "servers", "assign", "vm-2", "nothing-main", "--from", "2013-07-01")
