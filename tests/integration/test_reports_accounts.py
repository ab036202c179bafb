"""The commands tell usage and bad events by account as invoices do: its own months, and what its close waits for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault
from tests.integration.invoice_world import World, make_world
from tests.integration.test_reports import BAD_EVENTS, SLOTS, objects

pytestmark = pytest.mark.real

# Midnight of the first of August in Amsterdam is 22:00 of the last of July by UTC.
OVER_MIDNIGHT = """
INSERT INTO usage_bucket (series_id, slot_start, quantity)
SELECT series_id, at, 2 FROM series JOIN meter_version USING (meter_version_id)
CROSS JOIN unnest('{2013-07-31T21:45Z,2013-07-31T22:00Z}'::timestamptz[]) AS at
WHERE meter = 'cpu';
"""
MORE_BAD_EVENTS = """
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, source, subject, occurred_at,
    log_time, payload, settled)
VALUES ('usage.events', 0, 1, 0, 'quarantined', 'value_negative', 'agent-acme', 'vm-acme', '2013-07-20Z',
        '2013-07-21Z', '{}', false),
    ('usage.events', 0, 2, 0, 'quarantined', 'value_negative', 'agent-x', 'vm-nobody', '2013-07-20Z', '2013-07-21Z',
        '{}', false),
    ('usage.events', 0, 3, 0, 'quarantined', 'subject_missing', 'agent-acme', NULL, '2013-07-20Z', '2013-07-21Z',
        '{}', false),
    ('usage.events', 0, 4, 0, 'quarantined', 'time_future', 'agent-acme', 'vm-acme', '2999-01-01Z', '2013-07-21Z',
        '{}', true);
"""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


def test_months_are_cut_as_the_accounts_invoices_are(world: World, database_url: str) -> None:
    """Without --zone an account's month begins at its own midnight, and what nobody had is cut by UTC."""
    world.admin.execute(SLOTS)
    world.admin.execute(OVER_MIDNIGHT)
    rows = objects(database_url, "usage", "list", "--meter", "cpu", "--from", "2013-07-20")
    assert [(row["account"], row["server"], row["from"], row["quantity"]) for row in rows] == [
        ("brick", "vm-acme", "2013-07-01T00:00:00+02:00", "2"),
        ("brick", "vm-acme", "2013-08-01T00:00:00+02:00", "2"),
        (None, "vm-nobody", "2013-07-01T00:00:00Z", "4"),
    ]
    by_utc = objects(database_url, "usage", "list", "--meter", "cpu", "--from", "2013-07-20", "--zone", "UTC")
    assert [row["quantity"] for row in by_utc] == ["4", "4"]


def test_a_day_as_an_edge_is_the_accounts_day(world: World, database_url: str) -> None:
    """--from and --to given as days are cut at each account's own midnight."""
    world.admin.execute(SLOTS)
    world.admin.execute(OVER_MIDNIGHT)
    rows = objects(database_url, "usage", "list", "--meter", "cpu", "--from", "2013-07-31", "--to", "2013-08-01")
    assert [(row["account"], row["quantity"]) for row in rows] == [("brick", "2"), (None, "4")]


def test_a_bad_event_names_the_account_and_whether_it_is_waited_for(world: World, database_url: str) -> None:
    """What nobody had and what is settled holds nothing; an event without a server holds whom its sender speaks for."""
    world.admin.execute(MORE_BAD_EVENTS)
    rows = objects(database_url, "quarantine", "list", "--all")
    assert [(row["offset"], row["account"], row["holds"]) for row in rows] == [
        (1, "acme", True),
        (2, None, False),
        (3, None, True),
        (4, "acme", False),
    ]


def test_a_server_given_up_before_the_month_of_the_event_holds_nobody(world: World, database_url: str) -> None:
    """The last month that an account had a server in is the last one its bad events can hold."""
    world.admin.execute(MORE_BAD_EVENTS)
    world.admin.execute(
        "INSERT INTO assignment (known_number, subject, subscription_id, valid_from, said_by)"
        " VALUES (9, 'vm-acme', NULL, '2013-06-30T22:00Z', 'test')"
    )
    assert [row["holds"] for row in objects(database_url, "quarantine", "list", "--server", "vm-acme")] == [False]


def test_the_list_leaves_detail_and_log_time_to_show(world: World, database_url: str) -> None:
    """A list is for finding, one decision for reading."""
    world.admin.execute(BAD_EVENTS)
    assert not {"detail", "log_time"} & set(objects(database_url, "quarantine", "list")[0])
    assert {"detail", "log_time"} <= set(objects(database_url, "quarantine", "show", "0", "5", "-1")[0])


def test_servers_are_told_of_in_the_zone_that_was_asked(world: World, database_url: str) -> None:
    """A date at an account's midnight comes back as that midnight, in what was added and in a refusal."""
    given = ("servers", "assign", "vm-new", "brick-main", "--from", "2013-07-15", "--to", "2013-08-01")
    (added,) = objects(database_url, *given)
    assert (added["from"], added["to"]) == ("2013-07-15T00:00:00+02:00", "2013-08-01T00:00:00+02:00")
    with pytest.raises(ConfigurationFault, match=r"nobody has vm-none at 2013-07-15T00:00:00\+02:00"):
        objects(database_url, "servers", "move", "vm-none", "brick-main", "--at", "2013-07-15")


def test_a_month_without_invoices_is_not_proven(world: World, database_url: str, tmp_path: Path) -> None:
    """Nothing compared is no proof: exit code 1 and a sentence."""
    environment = {"DATABASE_URL": database_url, "RACKMETER_ARCHIVE_DIR": str(tmp_path)}
    result = CliRunner().invoke(app, ["verify", "--period", "2020-01"], env=environment)
    assert result.exit_code == 1
    assert "2020-01 has no invoice" in result.stderr
