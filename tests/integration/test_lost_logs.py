"""A log is lost, made again or rolled back: after adopting it and sending again, the same invoices, proven."""

import dataclasses
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest

from pipeline.archive.lost import find_lost
from pipeline.proof.report import Report
from pipeline.proof.verify import select_invoices, verify_invoices
from pipeline.runtime.log_adoption import Adoption, LogAtBroker, adopt
from pipeline.runtime.postgres import Connection
from pipeline.runtime.topics import LogIdentity
from tests.integration import proof_world
from tests.integration.memory_log import LogInMemory
from tests.integration.proof_world import LOG_TIME_MS, PARTITIONS, TOPIC, World
from tests.integration.test_proof import copied_database, late

pytestmark = pytest.mark.real

LATER_MS = LOG_TIME_MS + 60_000
LINES = """
SELECT i.account_id, i.period_start, i.total_minor, l.subscription_id, l.item, l.product, l.service_period_start,
    l.subject, l.quantity, l.amount_exact
FROM invoice i JOIN invoice_line l USING (invoice_id) WHERE i.state = 'issued' ORDER BY i.account_id, l.line_number
"""
OFFSETS = "SELECT partition, offset_next FROM consumer_offset WHERE topic = 'usage.events' AND stage = %s ORDER BY 1"

Lines = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def templates(
    server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World, Lines]]:
    """Give the name of a database in which nothing is read yet, its world, and what July costs when nothing is lost."""
    with (
        copied_database(server_url, migrated_template) as (_, url),
        copied_database(server_url, migrated_template) as (name, empty_url),
    ):
        whole = proof_world.build(url, tmp_path_factory.mktemp("whole"))
        with whole.connect() as connection:
            lines = connection.execute(LINES).fetchall()
        yield name, proof_world.prepare(empty_url, tmp_path_factory.mktemp("unread")), lines


@pytest.fixture
def world(templates: tuple[str, World, Lines], server_url: str, tmp_path: Path) -> Iterator[World]:
    """A world whose log nobody has read yet."""
    name, unread, _ = templates
    with copied_database(server_url, name) as (_, url):
        yield World(url, tmp_path, part_of(unread.log))


@pytest.fixture
def july(templates: tuple[str, World, Lines]) -> Lines:
    """What July costs when nothing is lost."""
    return templates[2]


@pytest.fixture
def connection(world: World) -> Iterator[Connection]:
    with world.connect() as connection:
        yield connection


def part_of(log: LogInMemory, count: int | None = None) -> LogInMemory:
    """The first messages of each partition of a log."""
    part = LogInMemory()
    part.partitions = {partition: listed[:count] for partition, listed in log.partitions.items()}
    return part


def send_again(log: LogInMemory, sent: LogInMemory, at_ms: int = LATER_MS) -> None:
    """Send what was sent before, at a later time."""
    for partition, listed in sorted(sent.partitions.items()):
        for message in listed:
            log.append(partition, message.value(), key=message.key(), at_ms=at_ms)


def lose(world: World, connection: Connection, log: LogInMemory, first: int = 0) -> Adoption:
    """Put another log in the place of the world's, and adopt it."""
    world.log = log

    def time_at(partition: int, offset: int) -> datetime:
        _, at_ms = log.partitions[partition][offset].timestamp()
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)

    identity = LogIdentity(TOPIC, uuid.uuid4(), "k", PARTITIONS)
    broker = LogAtBroker(
        identity,
        {partition: (first, len(log.values(partition))) for partition in range(PARTITIONS)},
        time_at,
        lambda: dataclasses.replace(identity, log_id=uuid.uuid4()),
    )
    return adopt(connection, broker, lambda connection: find_lost(connection, world.archive_dir, TOPIC))


def close(world: World, connection: Connection) -> list[str]:
    """Close July; give the codes of what holds it."""
    run = proof_world.close(world, connection)
    assert not any(result.differences for result in run.results), run.results
    return sorted({reason.code for result in run.results for reason in result.reasons})


def prove(world: World, connection: Connection) -> Report:
    return verify_invoices(connection, world.archive_dir, select_invoices(connection))


def assert_same(world: World, connection: Connection, july: Lines) -> Report:
    """What was issued is what it would have been, and proven."""
    assert connection.execute(LINES).fetchall() == july
    report = prove(world, connection)
    assert report.differences == ()
    return report


def tamper(world: World, statement: LiteralString) -> None:
    with world.admin() as admin:
        admin.execute("SET session_replication_role = replica")
        assert admin.execute(statement).rowcount > 0, statement


def test_made_again(world: World, connection: Connection, july: Lines) -> None:
    """A topic made anew after half was read, whose first records are gone already: nothing twice, nothing missing."""
    sent = world.log
    world.log = part_of(sent, 500)
    proof_world.read(world, connection)
    again = LogInMemory()
    for partition in range(PARTITIONS):
        for _ in range(3):
            again.append(partition, b"deleted before anybody read it")
    send_again(again, sent)
    adoption = lose(world, connection, again, first=3)
    assert adoption.is_from_start
    assert adoption.lost == ()
    assert "log_unread" in close(world, connection)
    proof_world.read(world, connection)
    assert close(world, connection) == []
    report = assert_same(world, connection, july)
    assert report.compared["events_duplicate"] > 500
    open_count = "SELECT count(*) FROM decision WHERE NOT settled AND outcome IN ('duplicate', 'conflict')"
    assert connection.execute(open_count).fetchone() == (0,)


@pytest.mark.parametrize(
    ("aggregated", "archived", "kept"),
    [(600, 300, 450), (600, 300, 200), (900, 0, 450), (300, 600, 200), (None, 500, 520)],
    ids=["archived before", "archived behind", "never archived", "archived ahead", "repeats lost"],
)
def test_rolled_back(
    world: World, connection: Connection, july: Lines, aggregated: int | None, archived: int, kept: int
) -> None:
    """The log's end is lost, counted or not, archived or not; others come to its offsets before anybody looks."""
    sent = world.log
    proof_world.aggregate(part_of(sent, aggregated), connection)
    proof_world.archive(part_of(sent, archived), connection, world.archive_dir)
    proof_world.book(connection)
    rolled_back = part_of(sent, kept)
    send_again(rolled_back, part_of(sent, 700))
    adoption = lose(world, connection, rolled_back)
    assert adoption.is_from_start
    is_behind = aggregated is None or archived < aggregated
    assert bool(adoption.lost) == is_behind
    if is_behind:
        assert "evidence_lost" in close(world, connection)
    proof_world.read(world, connection)
    if aggregated is None:
        assert "evidence_lost" in close(world, connection)
    send_again(world.log, sent, LATER_MS + 1)
    proof_world.read(world, connection)
    assert close(world, connection) == []
    assert_same(world, connection, july)
    left = "SELECT count(*) FROM lost_number WHERE numbers <> found"
    assert connection.execute(left).fetchone() == (0,)


def test_lost_twice(world: World, connection: Connection, july: Lines) -> None:
    """What one log had archived but not counted, and the next counted but not archived, has no evidence yet."""
    sent = world.log
    proof_world.aggregate(part_of(sent, 300), connection)
    proof_world.archive(part_of(sent, 900), connection, world.archive_dir)
    assert lose(world, connection, LogInMemory()).lost == ()
    send_again(world.log, sent)
    proof_world.aggregate(part_of(world.log, 800), connection)
    proof_world.archive(part_of(world.log, 500), connection, world.archive_dir)
    lost = lose(world, connection, LogInMemory()).lost
    # The messages from 500 to 800 of the longer partition, one of them a batch of 20.
    assert sum(one.count for one in lost) == 319
    send_again(world.log, sent, LATER_MS + 1)
    proof_world.read(world, connection)
    assert close(world, connection) == []
    assert_same(world, connection, july)


def test_nothing_lost(world: World, connection: Connection, july: Lines) -> None:
    """A log that only has another id is read on: the archive's files of both ids are one row of offsets."""
    sent = world.log
    world.log = part_of(sent, 500)
    proof_world.read(world, connection)
    adoption = lose(world, connection, sent)
    assert not adoption.is_from_start
    proof_world.read(world, connection)
    assert close(world, connection) == []
    assert assert_same(world, connection, july).compared["events_duplicate"] == 8
    assert connection.execute("SELECT count(DISTINCT log_id) FROM archive_file").fetchone() == (2,)
    assert not lose(world, connection, world.log).is_from_start
    assert_same(world, connection, july)


def test_issued_invoices_stay_proven(world: World, connection: Connection, july: Lines) -> None:
    """What was issued from a log is proven after two more were lost; corrections from later logs are proven too."""
    sent = part_of(world.log)
    proof_world.read(world, connection)
    assert close(world, connection) == []
    lose(world, connection, LogInMemory())
    assert_same(world, connection, july)
    late(world, connection)
    run = proof_world.close(world, connection, "2013-08")
    assert {result.outcome.value for result in run.results} <= {"issued", "nothing_to_bill"}, run.results
    send_again(world.log, sent)
    proof_world.aggregate(world.log, connection)
    lose(world, connection, LogInMemory())
    send_again(world.log, sent)
    proof_world.read(world, connection)
    report = prove(world, connection)
    assert report.differences == ()
    assert len(report.invoices) >= 3
    tamper(world, "UPDATE archive_file SET row_count = row_count - 1 WHERE path = (SELECT min(path) FROM archive_file)")
    assert not prove(world, connection).ok


def test_a_lost_event_is_proven_by_its_content(world: World, connection: Connection) -> None:
    """What is sent again under a lost event's identity with another value does not prove it."""
    sent = world.log
    proof_world.aggregate(sent, connection)
    proof_world.archive(part_of(sent, 500), connection, world.archive_dir)
    other = LogInMemory()
    for partition, listed in sent.partitions.items():
        for message in listed:
            value = message.value() or b""
            if b'00f3a1b2c3d4e5f6-000000000103"' in value and b'"vm-4"' in value:
                assert message.offset() >= 500
                value = value.replace(b'"mem": 2', b'"mem": 3')
            other.append(partition, value, key=message.key(), at_ms=LATER_MS)
    lose(world, connection, other)
    proof_world.read(world, connection)
    run = proof_world.close(world, connection)
    differences = [text for result in run.results for text in result.differences]
    assert any("usage: bucket of memory, vm-4" in text for text in differences), run.results


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE lost_number SET numbers = '{[1,2)}', found = '{}'", "of an event that was never taken"),
        ("UPDATE partition_tally SET counted = counted + 1, received = received + 1 WHERE topic LIKE '%@%'", "tallied"),
        (
            "DELETE FROM archive_file WHERE path = (SELECT min(path) FROM archive_file)",
            "manifest_digest",
        ),
        ("DELETE FROM decision WHERE topic LIKE '%@%' AND outcome = 'duplicate'", "is tallied"),
    ],
    ids=["lost numbers", "tally", "manifest", "decision"],
)
def test_tampering_with_a_log_set_aside(
    world: World, connection: Connection, statement: LiteralString, named: str
) -> None:
    """The rows of a log that is gone are looked at as those of the present one."""
    sent = world.log
    proof_world.aggregate(sent, connection)
    proof_world.archive(part_of(sent, 500), connection, world.archive_dir)
    lose(world, connection, LogInMemory())
    send_again(world.log, sent)
    proof_world.read(world, connection)
    assert close(world, connection) == []
    assert prove(world, connection).ok
    tamper(world, statement)
    differences = prove(world, connection).differences
    assert any(named in text for text in differences), differences
