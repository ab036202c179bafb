"""A small world made by the real stages over a log in memory: July 2013 of four servers, closed and issued."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pipeline.aggregate.store import Fence
from pipeline.aggregate.worker import Pace
from pipeline.aggregate.worker import Worker as Aggregate
from pipeline.archive.twins import settle
from pipeline.archive.worker import Worker as Archive
from pipeline.bootstrap import catalogue_view
from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import parse_catalogue
from pipeline.catalogue.model import Assignment
from pipeline.catalogue.servers import assign
from pipeline.catalogue.store import load_prices
from pipeline.contracts.usage_total import decode_totals
from pipeline.domain.identity import home_partition
from pipeline.domain.period import Period
from pipeline.invoice_batch.model import CloseRequest, Ports, ProofResult, RunReport
from pipeline.invoice_batch.worker import Worker as Closer
from pipeline.ledger_sink.posting import book_charges
from pipeline.proof.verify import owed_without_invoice, verify_invoices
from pipeline.rate.rules import rate_total
from pipeline.runtime.journal import Journal
from pipeline.runtime.known_log import known_log
from pipeline.runtime.postgres import Connection, connect
from pipeline.totals.worker import Worker as Totals
from tests.integration.memory_log import LogInMemory, Reader

TOPIC = "usage.events"
LOG_ID = "6f1f0e8e-0000-4000-8000-000000000002"
PARTITIONS = 2
START = datetime(2013, 6, 30, 22, tzinfo=UTC)
END = datetime(2013, 7, 31, 22, tzinfo=UTC)
LOG_TIME_MS = int(datetime(2013, 9, 1, tzinfo=UTC).timestamp() * 1000)
SERVERS = ("vm-1", "vm-2", "vm-3", "vm-4")

CATALOGUE = """
version: 1
sellers:
  host: {name: Host B.V., address: [Street 1], number_prefix: RM, time_zone: Europe/Amsterdam}
meters:
  cores: {event_type: sample, aggregation: time_weighted, value: cpu, unit: core-second, slot_seconds: 900,
          max_gap_seconds: 600}
  memory: {event_type: sample, aggregation: time_weighted, value: mem, unit: KiB-second, slot_seconds: 300,
           max_gap_seconds: 900}
  sent: {event_type: sample, aggregation: increase, value: sent, unit: byte, slot_seconds: 900}
  requests: {event_type: sample, aggregation: sum, value: requests, unit: request, slot_seconds: 900}
  hours: {event_type: sample, aggregation: active_hours, unit: hour, slot_seconds: 900}
prices:
  cores_a: {model: per_unit, product: compute, currency: EUR, unit: core-hour, base_units: 3600, unit_price: 0.017}
  cores_b: {model: per_unit, product: compute, currency: EUR, unit: core-hour, base_units: 3600, unit_price: 0.0213}
  memory_a: {model: per_unit, product: memory, currency: EUR, unit: GiB-hour, base_units: 3774873600,
             unit_price: 0.0035}
  sent_a:
    model: graduated
    product: network
    currency: EUR
    unit: GB
    base_units: 1000000000
    tiers: [{up_to: 0.5, unit_price: 0}, {up_to: 1, unit_price: 0.7}, {unit_price: 0.3}]
  requests_a: {model: per_unit, product: network, currency: EUR, unit: request, base_units: 1, unit_price: 0.000007}
  instance_a: {model: hourly_capped, product: compute, currency: EUR, unit: hour, base_units: 1, unit_price: 0.03,
               cap: 2.5}
plans:
  metered:
    items:
      cores: {meter: cores, price: cores_a, changes: [{from: 2013-07-16, price: cores_b}]}
      memory: {meter: memory, price: memory_a}
      sent: {meter: sent, price: sent_a}
      requests: {meter: requests, price: requests_a}
  hourly:
    items:
      instance: {meter: hours, price: instance_a}
      requests: {meter: requests, price: requests_a}
accounts:
  acme:
    name: Acme
    currency: EUR
    time_zone: Europe/Amsterdam
    subscriptions: {acme-main: {plan: metered, from: 2013-01-01}}
  brick:
    name: Brick
    currency: EUR
    time_zone: Europe/Amsterdam
    subscriptions: {brick-main: {plan: hourly, from: 2013-01-01}}
"""


@dataclass(slots=True)
class World:
    """A database, an archive and a log."""

    database_url: str
    folder: Path
    log: LogInMemory

    @property
    def archive_dir(self) -> Path:
        return self.folder / "archive"

    @property
    def journal_dir(self) -> Path:
        folder = self.folder / "journal"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def connect(self) -> Connection:
        return connect(self.database_url, application_name="test-proof")

    def admin(self) -> Connection:
        return connect(self.database_url, application_name="test-proof-admin", role=None)


class _Sent:
    """Takes what totals sends."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        self.values.append(value)

    def flush(self, timeout_seconds: float) -> None:
        pass


def source_of(server: str) -> str:
    return f"urn:test:{server}"


def event(server: str, number: int, at: datetime, **data: object) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": f"00f3a1b2c3d4e5f6-{number:012d}",
        "source": source_of(server),
        "type": "sample",
        "subject": server,
        "time": at.isoformat().replace("+00:00", "Z"),
        "data": data,
    }


def samples(server: str, index: int) -> Iterator[dict[str, object]]:
    """Irregular samples of three stretches of the month: gaps, one instant twice, resets, numbers of every spelling."""
    number = 0
    for day in (0, 14, 30):
        at = START + timedelta(days=day, minutes=7 * index + (600 if day == 14 else 0))
        for step in range(170):
            number += 1
            if at >= END + timedelta(minutes=20):
                break
            cpu: object = [1, 2, "1.5", "0.333333333"][(step + index) % 4]
            sent = 1_000_000 * ((step * 37 + index) % 450)
            yield event(server, number, at, cpu=cpu, mem=2097152 + step, sent=sent, requests=step % 11)
            at += timedelta(seconds=[300, 301, 300, 1207, 0, 299][step % 6])


def messages(server: str, index: int) -> list[bytes]:
    """What a source sends: single events, a batch, an escaped one, one of long numbers, repeats, control events."""
    events = list(samples(server, index))
    last = len(events)
    events[3]["data"] = {**dict(_data(events[3])), "cpu": "0.123456789", "sent": 123456789012345678}
    raw = [json.dumps(one).encode() for one in events]
    raw[5] = raw[5].replace(b'"sample"', b'"s\\u0061mple"')
    raw[6] = raw[6].replace(b'"requests": 6', b'"requests": 6e0, "extra": [1.25, null]')
    raw = [*raw[:20], b"[" + b", ".join(raw[20:40]) + b"]", *raw[40:], raw[10], raw[25]]
    if index == 1:
        raw[60], raw[90] = raw[90], raw[60]
    for offset, (kind, data) in enumerate(
        [("complete_until.v1", {"until": "2013-07-31T22:00:00Z"}), ("retired.v1", {})], start=1
    ):
        said = event(server, last + offset, END + timedelta(hours=1), **data)
        raw.append(json.dumps({**said, "type": f"rackmeter.control.{kind}"}).encode())
    return raw


def bad_messages() -> Iterator[tuple[bytes | None, bytes | None]]:
    """(key, value) of what must be quarantined or parked, from a bench nobody is billed for."""
    key = source_of("bench").encode()
    good = json.dumps(event("bench", 1, START, cpu=1, mem=1, sent=1, requests=1))
    at = START.isoformat().replace("+00:00", "Z")
    for value in [
        "{", "", "[]", good.replace('"cpu": 1', '"cpu": -1'), good.replace('"cpu": 1', '"cpu": NaN'),
        good.replace('"cpu": 1', '"cpu": 1, "cpu": 2'), good.replace('"cpu": 1', '"cpu": 0.1234567891'),
        good.replace(at, "2013-07-01"), good.replace(at, "2013-10-01T00:00:00Z"), good.replace('"1.0"', '"2.0"'),
        good.replace('"subject": "bench", ', ""), good.replace('"cpu": 1, ', ""), good.replace('"bench"', '"\\u0000"'),
        good.replace('"cpu": 1', '"cpu": "1_000"'), good.replace('"cpu": 1', '"cpu": 1e99'),
        good.replace("sample", "rackmeter.control.nonsense.v1"),
    ]:  # fmt: skip
        yield key, value.encode()
    yield key, None
    yield key, b"\xff" + good.encode()
    yield b"another key", good.encode()
    yield key, good.replace("sample", "unheard-of").encode()
    yield key, good.replace("00f3a1b2c3d4e5f6-000000000001", "no-number").encode()


def build(database_url: str, folder: Path) -> World:
    """Make the world: catalogue, servers, log, every stage once, and the close."""
    world = prepare(database_url, folder)
    with world.connect() as connection:
        read(world, connection)
        close(world, connection)
    return world


def prepare(database_url: str, folder: Path) -> World:
    """Make the world as it is before anything is read."""
    world = World(database_url, folder, LogInMemory())
    with world.admin() as admin:
        admin.execute(
            "INSERT INTO log (topic, log_id, kafka_topic_id, partition_count) VALUES (%s, %s, 'k', %s)",
            (TOPIC, LOG_ID, PARTITIONS),
        )
    with world.connect() as connection:
        apply(connection, parse_catalogue(CATALOGUE, "catalogue.yaml"))
        moving = START + timedelta(days=14, hours=12, minutes=15)
        wanted = [("vm-1", "acme-main", START), ("vm-2", "brick-main", START), ("vm-3", "acme-main", START)]
        wanted += [("vm-4", "brick-main", START), ("vm-3", "brick-main", moving)]
        assign(connection, [Assignment(0, *row, None) for row in wanted], "test")
        for index, server in enumerate(SERVERS):
            home = home_partition(source_of(server), PARTITIONS)
            for value in messages(server, index):
                world.log.append(home, value, key=source_of(server).encode(), at_ms=LOG_TIME_MS)
        home = home_partition(source_of("bench"), PARTITIONS)
        for key, bad in bad_messages():
            world.log.append(home, bad, key=key, at_ms=LOG_TIME_MS)
        world.log.append(1 - home, json.dumps(event("bench", 9, START)).encode(), key=source_of("bench").encode(),
                         at_ms=LOG_TIME_MS)  # fmt: skip
    return world


def read(world: World, connection: Connection) -> None:
    """Aggregate and archive what the log holds, settle duplicates, compute, rate and book totals."""
    aggregate(world.log, connection)
    archive(world.log, connection, world.archive_dir)
    settle(connection, world.archive_dir, TOPIC, range(PARTITIONS))
    book(connection)


def aggregate(log: LogInMemory, connection: Connection) -> None:
    """Aggregate what the log holds."""
    _drain(
        log,
        Aggregate(
            connection,
            TOPIC,
            open_log=lambda: (Fence(TOPIC, known_log(connection, TOPIC).log_id, 1), PARTITIONS),
            load_catalogue=catalogue_view,
            pace=Pace(flush_events=333),
        ),
    )


def archive(log: LogInMemory, connection: Connection, archive_dir: Path) -> None:
    """Archive what the log holds."""
    _drain(log, Archive(connection, TOPIC, archive_dir, flush_messages=200))


def _drain(log: LogInMemory, stage: Aggregate | Archive) -> None:
    Reader(log, stage, range(PARTITIONS), batch=150)
    while stage.step():
        pass
    stage.flush()


def book(connection: Connection) -> None:
    """Compute every dirty total, rate and book it."""
    sent = _Sent()
    Totals(connection, sent, "usage.totals", pace_seconds=0, sweep_seconds=3600, lag=lambda: 0).drain()
    prices = load_prices(connection)
    for value in sent.values:
        batch = decode_totals(value)
        book_charges(connection, batch.generation, [rate_total(total, prices) for total in batch.totals])


def close(world: World, connection: Connection, month: str = "2013-07", *, is_trusted: bool = False) -> RunReport:
    """Close a month; `is_trusted` lets drafts pass unproven."""

    def prove(connection: Connection, invoice_ids: Sequence[str]) -> Mapping[str, ProofResult]:
        if is_trusted:
            return {invoice_id: ProofResult(ok=True, report={}, differences=[]) for invoice_id in invoice_ids}
        found = verify_invoices(connection, world.archive_dir, invoice_ids).invoices
        return {name: ProofResult(proof.ok, proof.report, proof.differences) for name, proof in found.items()}

    def prove_nothing_owed(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
        spans = [(account_id, period.start, period.end) for account_id, period in periods]
        owed = owed_without_invoice(connection, world.archive_dir, spans)
        return {account_id: ProofResult(not said, {}, said) for account_id, said in owed.items()}

    ports = Ports(
        prove=prove,
        prove_nothing_owed=prove_nothing_owed,
        log_ends=lambda: {partition: len(world.log.values(partition)) for partition in range(PARTITIONS)},
        request_payments=lambda _connection, _ids: 0,
        payment_reference=lambda _gateway, _number: "",
        journal=Journal(world.journal_dir),
    )
    closer = Closer(connection, ports, world.folder / "documents", topic=TOPIC)
    return closer.close(CloseRequest(month=month, now=datetime(2027, 1, 2, tzinfo=UTC), issued_on=date(2013, 8, 1)))


def _data(one: Mapping[str, object]) -> Mapping[str, object]:
    data = one["data"]
    assert isinstance(data, dict)
    return data
