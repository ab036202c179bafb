"""The migration code makes hypertables of the usage tables, and says why where it does not."""

import contextlib
import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.migrations import migrate
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.timescale import convert, offer

pytestmark = pytest.mark.timescale


def test_a_server_that_does_not_load_it_keeps_plain_tables(plain: Connection) -> None:
    """The extension's files alone are not enough; the reason is said, and converting is refused with it."""
    migrate(plain)

    assert not offer(plain).is_usable
    with pytest.raises(ConfigurationFault, match="shared_preload_libraries"):
        convert(plain)


def test_the_plain_schema_comes_first(plain: Connection) -> None:
    """Converting what is not there is refused with the command to run."""
    plain.execute("CREATE EXTENSION timescaledb")

    with pytest.raises(ConfigurationFault, match="rackmeter migrate"):
        convert(plain)


def test_the_usage_tables_become_hypertables_once(plain: Connection) -> None:
    """Slots and samples in chunks, with policies; the second run finds nothing to do."""
    migrate(plain)
    plain.execute("CREATE EXTENSION timescaledb")
    offered = offer(plain)

    assert offered.is_usable
    assert not offered.is_upgrade
    assert convert(plain) == list(offered.pending)
    assert convert(plain) == []
    assert offer(plain).pending == ()
    tables = plain.execute(
        "SELECT hypertable_name, compression_enabled FROM timescaledb_information.hypertables"
        " WHERE hypertable_name LIKE 'usage%' ORDER BY 1"
    ).fetchall()
    assert tables == [("usage_bucket", True), ("usage_sample", True)]
    jobs = plain.execute(
        "SELECT proc_name, count(*) FROM timescaledb_information.jobs WHERE hypertable_schema IS NOT NULL GROUP BY 1"
    ).fetchall()
    assert dict(jobs) == {"policy_compression": 2, "policy_refresh_continuous_aggregate": 3}


def test_views_have_the_columns_they_have_on_plain_postgresql(plain: Connection) -> None:
    """Who looks at usage over time need not know which server it is."""
    columns = (
        "SELECT attrelid::regclass::text, attname, atttypid::regtype::text FROM pg_attribute"
        " WHERE attrelid = ANY (ARRAY['usage_by_hour', 'usage_by_day', 'usage_by_month']::regclass[]) AND attnum > 0"
        " ORDER BY 1, attnum"
    )
    migrate(plain)
    before = plain.execute(columns.encode()).fetchall()
    plain.execute("CREATE EXTENSION timescaledb")
    convert(plain)

    assert len(before) == 12
    assert plain.execute(columns.encode()).fetchall() == before


def test_migrate_makes_them_by_itself(timescale_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extension is there and no usage yet; `--plan` says so and changes nothing."""
    with contextlib.closing(connect(timescale_url, application_name="tests", role=None)) as connection:
        connection.execute("CREATE EXTENSION timescaledb")
    monkeypatch.setenv("DATABASE_URL", timescale_url)
    planned, applied = (
        CliRunner().invoke(app, ["migrate", *option, "--format", "json"]) for option in (["--plan"], [])
    )

    assert (planned.exit_code, applied.exit_code) == (0, 0), applied.output
    assert "TimescaleDB: 3 to apply" in planned.stderr
    assert "TimescaleDB: 3 applied" in applied.stderr
    assert json.loads(planned.stdout) == json.loads(applied.stdout)
    assert [row["set"] for row in json.loads(applied.stdout)][-4:] == ["schema", *["timescale"] * 3]


def test_migrate_leaves_usage_where_it_is(timescale_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving rows takes time and locks: that is a command of its own."""
    with contextlib.closing(connect(timescale_url, application_name="tests", role=None)) as connection:
        migrate(connection)
        connection.execute("INSERT INTO usage_bucket VALUES (1, '2013-07-01Z', 1)")
        connection.execute("CREATE EXTENSION timescaledb")
    monkeypatch.setenv("DATABASE_URL", timescale_url)
    told = CliRunner().invoke(app, ["migrate"])
    upgraded = CliRunner().invoke(app, ["upgrade-timescale"])

    assert "`rackmeter upgrade-timescale` converts them" in told.stderr
    assert told.stdout == ""
    assert (upgraded.exit_code, upgraded.stderr) == (0, "3 applied\n")
