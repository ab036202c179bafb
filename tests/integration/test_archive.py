"""Every message is archived exactly once, whatever dies when; duplicates get their verdict from the archive."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from pipeline.archive import store, twins
from pipeline.archive.files import WrittenFile
from pipeline.archive.worker import Worker
from pipeline.domain.errors import Fenced, InvariantViolation
from pipeline.runtime.postgres import Connection, connect
from tests.integration.memory_log import DAY_MS, LogInMemory, Reader

pytestmark = pytest.mark.real

TOPIC = "usage.events"
LOG_ID = "6f1f0e8e-0000-4000-8000-000000000001"

Row = tuple[int, int, bytes | None, bytes | None]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url, application_name="test", role=None) as admin:
        admin.execute(
            "INSERT INTO log (topic, log_id, kafka_topic_id, partition_count) VALUES (%s, %s, 'k', 2)", (TOPIC, LOG_ID)
        )
    with connect(database_url, application_name="test-archive") as connection:
        yield connection


def new_worker(connection: Connection, archive_dir: Path, **bounds: float) -> Worker:
    return Worker(connection, TOPIC, archive_dir, flush_messages=int(bounds.get("flush_messages", 10)))


def drain(owner: Worker) -> None:
    while owner.step():
        pass
    owner.flush()


def archived(connection: Connection, archive_dir: Path, partition: int) -> list[Row]:
    """Rows of the files that exist, in order; checks that ranges join and digests of rows fit."""
    rows: list[Row] = []
    reached = 0
    for first, after, path, count in connection.execute(
        "SELECT offset_first, offset_next, path, row_count FROM archive_file WHERE partition = %s"
        " ORDER BY offset_first",
        (partition,),
    ):
        assert first == reached
        reached = after
        table = pq.read_table(archive_dir / path).to_pylist()
        assert len(table) == count
        rows += [(row["partition"], row["log_offset"], row["key"], row["value"]) for row in table]
    return rows


def files_on_disk(archive_dir: Path) -> set[str]:
    return {path.relative_to(archive_dir).as_posix() for path in archive_dir.rglob("*") if path.is_file()}


def listed(connection: Connection) -> set[str]:
    return {path for (path,) in connection.execute("SELECT path FROM archive_file")}


def test_every_message_is_archived_as_it_is(connection: Connection, tmp_path: Path) -> None:
    """Empty values, missing keys, bytes that are no text and two log days come back byte for byte, in order."""
    log = LogInMemory()
    for number in range(40):
        log.append(number % 2, b"%d" % number, at_ms=DAY_MS * (1 + number // 25))
    log.append(0, None)
    log.append(1, b"\xff\x00", key=None)
    log.append(1, b"")
    owner = new_worker(connection, tmp_path)
    Reader(log, owner, [0, 1])
    drain(owner)
    for partition in (0, 1):
        rows = archived(connection, tmp_path, partition)
        assert [row[1] for row in rows] == list(range(len(rows)))
        assert [row[3] for row in rows] == log.values(partition)
    assert archived(connection, tmp_path, 1)[-2][2] is None
    assert store.archived_offsets(connection, TOPIC) == {0: 21, 1: 22}
    assert files_on_disk(tmp_path) == listed(connection)


def test_killed_between_file_and_manifest(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were written but not listed do not exist: they are swept, their records archived once."""
    log = LogInMemory()
    for number in range(30):
        log.append(0, b"%d" % number)

    class Killed(BaseException):
        pass

    def die(*_: object) -> dict[int, store.Stand]:
        raise Killed

    owner = new_worker(connection, tmp_path)
    Reader(log, owner, [0])
    with monkeypatch.context() as patch:
        patch.setattr(store, "commit_flush", die)
        with pytest.raises(Killed):
            drain(owner)
    assert files_on_disk(tmp_path)
    assert not listed(connection)
    (next(tmp_path.rglob("*.parquet")).with_suffix(".parquet.tmp")).write_bytes(b"half a file")

    successor = new_worker(connection, tmp_path)
    Reader(log, successor, [0])
    drain(successor)
    assert [row[3] for row in archived(connection, tmp_path, 0)] == log.values(0)
    assert files_on_disk(tmp_path) == listed(connection)


def test_killed_after_the_manifest_before_the_hint(connection: Connection, tmp_path: Path) -> None:
    """The stored offset counts, not what the broker was told: nothing is archived twice."""
    log = LogInMemory()
    for number in range(25):
        log.append(0, b"%d" % number)
    for _ in range(4):
        owner = new_worker(connection, tmp_path)
        Reader(log, owner, [0])
        owner.step()
        owner.step()
    drain(owner)
    assert [row[3] for row in archived(connection, tmp_path, 0)] == log.values(0)


def test_a_zombie_is_fenced(connection: Connection, tmp_path: Path) -> None:
    """A worker that slept through losing its partition cannot list its files; its strays are swept (trap 42)."""
    log = LogInMemory()
    for number in range(20):
        log.append(0, b"%d" % number)
    zombie = new_worker(connection, tmp_path, flush_messages=1000)
    Reader(log, zombie, [0])
    zombie.step()
    successor = new_worker(connection, tmp_path)
    Reader(log, successor, [0])
    with pytest.raises(Fenced):
        zombie.flush()
    drain(successor)
    assert [row[3] for row in archived(connection, tmp_path, 0)] == log.values(0)
    third = new_worker(connection, tmp_path)
    Reader(log, third, [0])
    assert files_on_disk(tmp_path) == listed(connection)


def test_a_range_is_listed_once(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should two writers pass the fence all the same, the manifest's key refuses the second."""
    log = LogInMemory()
    log.append(0, b"1")
    owner = new_worker(connection, tmp_path)
    Reader(log, owner, [0])
    written: list[WrittenFile] = []
    commit = store.commit_flush

    def keep(
        connection: Connection, topic: str, log_id: str, moves: Sequence[store.Move], files: Sequence[WrittenFile]
    ) -> dict[int, store.Stand]:
        written.extend(files)
        return commit(connection, topic, log_id, moves, files)

    monkeypatch.setattr(store, "commit_flush", keep)
    drain(owner)
    stand = store.claim(connection, TOPIC, LOG_ID, [0])[0]
    with pytest.raises(Fenced, match="somebody else listed"):
        commit(connection, TOPIC, LOG_ID, [store.Move(0, stand, 1, 0)], written)
    assert store.claim(connection, TOPIC, LOG_ID, [0])[0].offset_next == 1


def test_another_log_halts(connection: Connection, tmp_path: Path) -> None:
    """A topic that was made anew is not archived behind the old one's offsets."""
    store.claim(connection, TOPIC, LOG_ID, [0])
    connection.execute("UPDATE log SET log_id = gen_random_uuid()")
    with pytest.raises(InvariantViolation, match="made anew"):
        new_worker(connection, tmp_path).assign([0])


def test_the_manifest_is_append_only_for_stages(connection: Connection) -> None:
    """The application role can neither change nor remove a manifest row."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM archive_file")


def event(number: int, value: int) -> bytes:
    return json.dumps({"source": "s", "id": f"{'0' * 16}-{number:012d}", "data": {"v": value}}).encode()


def decide(connection: Connection, log_offset: int, number: int, index: int = 0) -> None:
    connection.execute(
        "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, source, event_id,"
        " log_time) VALUES (%s, 0, %s, %s, 'duplicate', 'identity_seen', 's', %s, now())",
        (TOPIC, log_offset, index, f"{'0' * 16}-{number:012d}"),
    )


def test_duplicates_get_their_verdict(connection: Connection, tmp_path: Path) -> None:
    """The same bytes or the same content settle a duplicate; other content is a conflict and holds (trap 2)."""
    log = LogInMemory()
    log.append(0, event(1, 1))
    log.append(0, event(2, 2))
    log.append(0, b"[" + event(3, 3) + b", " + event(4, 4) + b"]")
    log.append(0, event(1, 1))  # 3: the same bytes
    log.append(0, event(2, 2) + b"\n")
    log.append(0, event(3, 3))  # 5: its twin lies in a batch
    log.append(0, event(4, 5))  # 6: other content
    log.append(0, event(2, 2).replace(b" ", b"").replace(b'{"v":2}', b'{"v":2.0}'))  # 7: other spelling
    log.append(0, event(9, 9))  # 8: said to be a duplicate, but nothing was taken
    log.append(0, b"[" + event(4, 4) + b"," + event(1, 7) + b"]")  # 9: one of each
    owner = new_worker(connection, tmp_path)
    Reader(log, owner, [0])
    connection.execute(
        "INSERT INTO partition_tally (topic, partition, received, counted, duplicate) VALUES (%s, 0, 12, 4, 8)",
        (TOPIC,),
    )
    for log_offset, number, index in [
        (3, 1, 0), (4, 2, 0), (5, 3, 0), (6, 4, 0), (7, 2, 0), (8, 9, 0), (9, 4, 0), (9, 1, 1),
    ]:  # fmt: skip
        decide(connection, log_offset, number, index)
    assert twins.settle(connection, tmp_path, TOPIC, [0, 1]) == twins.Settled()
    drain(owner)
    assert twins.settle(connection, tmp_path, TOPIC, [0, 1]) == twins.Settled(5, 2, 1)
    rows = connection.execute(
        "SELECT log_offset, index_in_message, outcome, settled FROM decision ORDER BY 1, 2"
    ).fetchall()
    assert rows == [
        (3, 0, "duplicate", True),
        (4, 0, "duplicate", True),
        (5, 0, "duplicate", True),
        (6, 0, "conflict", False),
        (7, 0, "duplicate", True),
        (8, 0, "duplicate", False),
        (9, 0, "duplicate", True),
        (9, 1, "conflict", False),
    ]
    tally = connection.execute("SELECT duplicate, conflict FROM partition_tally").fetchone()
    assert tally == (6, 2)
    assert twins.settle(connection, tmp_path, TOPIC, [0, 1]) == twins.Settled(0, 0, 1)


def test_two_passes_over_a_partition_write_one_after_the_other(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    """A pass waits for another one to commit, so that neither can lock the other's rows the other way round."""
    log = LogInMemory()
    log.append(0, event(1, 1))
    log.append(0, event(1, 1))
    owner = new_worker(connection, tmp_path)
    Reader(log, owner, [0])
    drain(owner)
    decide(connection, 1, 1)
    with connect(database_url, application_name="test-close") as other, ThreadPoolExecutor(1) as beside:
        with other.transaction():
            other.execute(twins.QUERIES["lock_settling"], {"topic": TOPIC, "partition": 0})
            waiting = beside.submit(twins.settle, connection, tmp_path, TOPIC, [0])
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
        assert waiting.result(timeout=10) == twins.Settled(1, 0, 0)
