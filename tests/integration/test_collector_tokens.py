"""`rackmeter collector token`: what is shown, what is kept, and what is refused."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection, connect
from pipeline.web import store
from pipeline.web.tokens import TokenBook

pytestmark = pytest.mark.real


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    with closing(connect(database_url, application_name="tests-owner", role=None)) as connection:
        yield connection


def run(database_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["collector", "token", *arguments], env={"DATABASE_URL": database_url})


def made(database_url: str, *arguments: str) -> dict[str, str]:
    result = run(database_url, *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    [record] = json.loads(result.stdout)
    assert isinstance(record, dict)
    return record


def listed(database_url: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run(database_url, "list", "--format", "json").stdout)
    return rows


def test_a_secret_is_shown_once_and_kept_nowhere(database_url: str, owner: Connection) -> None:
    """What was printed opens the token; no row and no later command has it."""
    new = made(database_url, "create", "--source-prefix", "rack-1", "--note", "rack one")
    found = TokenBook(store.read_tokens(owner)).find(new["token"], datetime.now(UTC))
    assert found is not None
    assert (found.token_id, found.source_prefix, found.scope) == (new["token_id"], "rack-1", "ingest")
    secret = new["token"].rpartition("_")[2]
    assert secret not in run(database_url, "list").output
    row = owner.execute("SELECT collector_token::text FROM collector_token").fetchone()
    assert row is not None
    assert secret not in row[0]
    assert secret.encode().hex() not in row[0]


def test_rotation_ends_the_old_one_after_the_overlap(database_url: str, owner: Connection) -> None:
    """The successor may do the same; the old one has one successor, and an end."""
    first = made(database_url, "create", "--source-prefix", "rack-1")
    second = made(database_url, "rotate", first["token_id"], "--overlap-hours", "48")
    rows = {row["token_id"]: row for row in listed(database_url)}
    assert rows[second["token_id"]]["replaces"] == first["token_id"]
    assert rows[second["token_id"]]["source_prefix"] == "rack-1"
    assert rows[second["token_id"]]["expires_at"] is None
    ends_at = datetime.fromisoformat(rows[first["token_id"]]["expires_at"])
    assert timedelta(hours=47) < ends_at - datetime.now(UTC) <= timedelta(hours=48)
    again = run(database_url, "rotate", first["token_id"])
    assert isinstance(again.exception, ConfigurationFault)
    assert "rotated already" in again.exception.detail
    with pytest.raises(ConfigurationFault, match="no valid token"):
        raise run(database_url, "rotate", "0123456789abcdef").exception or AssertionError


def test_a_limited_tokens_successor_is_as_limited(database_url: str) -> None:
    """It is made for as long as its predecessor was."""
    until = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    first = made(database_url, "create", "--read", "--expires", until)
    second = made(database_url, "rotate", first["token_id"])
    row = next(row for row in listed(database_url) if row["token_id"] == second["token_id"])
    assert row["scope"] == "read"
    left = datetime.fromisoformat(row["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_a_revoked_token_stays_revoked(database_url: str, owner: Connection) -> None:
    """It is gone from what the collector reads; revoking it again changes nothing."""
    new = made(database_url, "create", "--read")
    for _ in range(2):
        assert run(database_url, "revoke", new["token_id"]).exit_code == 0
    assert store.read_tokens(owner) == []
    assert isinstance(run(database_url, "rotate", new["token_id"]).exception, ConfigurationFault)
    assert isinstance(run(database_url, "revoke", "0123456789abcdef").exception, ConfigurationFault)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--source-prefix", "rack-1", "--read"],
        ["--source-prefix", "rack-1", "--account", "acme"],
        ["--read", "--expires", "soon"],
    ],
    ids=" ".join,
)
def test_a_token_without_bounds_is_not_made(database_url: str, arguments: list[str]) -> None:
    """Either for a prefix, or for reading; wrong use is exit code 2."""
    assert run(database_url, "create", *arguments).exit_code == 2
    assert listed(database_url) == []


def test_a_token_for_nobody_or_for_the_past_is_refused(database_url: str) -> None:
    """An account that is not known; an end that is over."""
    unknown = run(database_url, "create", "--read", "--account", "nobody")
    past = run(database_url, "create", "--read", "--expires", "2020-01-01")
    for result, code in ((unknown, "account_unknown"), (past, "token_expired")):
        assert isinstance(result.exception, ConfigurationFault)
        assert result.exception.code == code


def test_only_the_owner_makes_tokens(database_url: str, owner: Connection) -> None:
    """A login of a stage is told that it may not."""
    name = f"stage_{id(owner)}"
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE rackmeter_app").format(sql.Identifier(name)))
    try:
        result = run(make_conninfo(database_url, user=name), "create", "--read")
        assert isinstance(result.exception, ConfigurationFault), result.output
        assert result.exception.code == "not_permitted"
    finally:
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_use_is_noted_to_the_hour_by_the_collector(database_url: str, owner: Connection) -> None:
    """One write an hour; the collector's role may do no other."""
    new = made(database_url, "create", "--read")
    with closing(connect(database_url, application_name="tests", role=store.COLLECTOR_ROLE)) as connection:
        store.note_use(connection, [new["token_id"]])
        store.note_use(connection, [new["token_id"]])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            store.revoke_token(connection, new["token_id"])
    [row] = store.list_tokens(owner)
    assert row["last_used_at"] == datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
