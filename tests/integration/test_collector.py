"""The collector between real HTTP, a real broker and a real database."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition

from pipeline.contracts.usage_event import encode_batch, split_message
from pipeline.domain.identity import home_partition
from pipeline.local.broker import choose_broker
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.topics import ensure_topics, load_topics, watermarks
from pipeline.web import store
from pipeline.web.content import BATCH, STRUCTURED
from pipeline.web.tokens import NewToken, make_token
from pipeline.web.views import REFRESH_SECONDS
from tests.conftest import FreshTopics
from tests.integration.collector_process import Collector, collecting, new_token
from tests.unit.web.desk import EPOCH, SAMPLE, event

pytestmark = pytest.mark.real

PARTITIONS = 4
ONE = {"content-type": STRUCTURED}
MANY = {"content-type": BATCH}


@pytest.fixture
def topic(fresh_topics: FreshTopics) -> str:
    return fresh_topics(PARTITIONS)["usage.events"]


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    with closing(connect(database_url, application_name="tests-owner", role=None)) as connection:
        yield connection


@pytest.fixture
def token(database_url: str) -> NewToken:
    return new_token(database_url)


@pytest.fixture
def collector(bootstrap_servers: str, database_url: str, topic: str, token: NewToken) -> Iterator[Collector]:
    with collecting(bootstrap_servers, database_url, topic) as running:
        yield running


def stored(bootstrap_servers: str, topic: str) -> list[tuple[int, bytes, bytes]]:
    """Every message of the topic: partition, key, value."""
    ends = watermarks(bootstrap_servers, topic)
    expected = sum(high - low for low, high in ends.values())
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "tests", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, partition, low) for partition, (low, _) in ends.items()])
        found: list[tuple[int, bytes, bytes]] = []
        deadline = time.monotonic() + 20.0
        while len(found) < expected:
            assert time.monotonic() < deadline
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                partition, key, value = message.partition(), message.key(), message.value()
                assert isinstance(partition, int)
                assert isinstance(key, bytes)
                assert isinstance(value, bytes)
                found.append((partition, key, value))
        return found
    finally:
        consumer.close()


def events_in(bootstrap_servers: str, topic: str) -> list[bytes]:
    """Every event of the topic."""
    found: list[bytes] = []
    for _, _, value in stored(bootstrap_servers, topic):
        parts = split_message(value)
        assert isinstance(parts, list)
        found += parts
    return found


def test_what_is_accepted_lies_at_its_home(
    collector: Collector, token: NewToken, bootstrap_servers: str, topic: str
) -> None:
    """Structured, batch and binary: each event is in the partition its source hashes to, under its key."""
    sources = [f"rack-1/host-{number}" for number in range(8)]
    batch = [event(number, source=source) for number, source in enumerate(sources, 1)] + [
        event(9, source="other"),
        b"{}",
    ]
    binary = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": f"{EPOCH}-000000000100",
        "ce-source": "rack-1/h%C3%B6st",
        "ce-type": SAMPLE,
        "ce-subject": "vm-1",
        "ce-time": "2026-06-01T11:59:00Z",
    }
    with collector.client(token) as client:
        single = client.post("/v1/events", content=event(50), headers=ONE)
        mixed = client.post("/v1/events", content=encode_batch(batch), headers=MANY)
        in_headers = client.post("/v1/events", content=b'{"calls": 2}', headers=binary)
        forbidden = client.post("/v1/events", content=event(source="other"), headers=ONE)
        large = client.post("/v1/events", content=b" " * 1_000_001, headers=ONE)
        # Refused before its body is looked at, and the connection goes on.
        unknown = client.post("/v1/events", content=b" " * 900_000, headers=ONE | {"authorization": "Bearer x"})
        assert client.get("/healthz").status_code == 200

    answers = (single, mixed, in_headers, forbidden, large, unknown)
    assert [one.status_code for one in answers] == [200, 207, 200, 403, 413, 401]
    assert [one["status"] for one in mixed.json()["results"]] == ["accepted"] * 8 + ["rejected"] * 2
    messages = stored(bootstrap_servers, topic)
    assert len(messages) == 10
    for partition, key, value in messages:
        assert json.loads(value)["source"].encode() == key
        assert partition == home_partition(key.decode(), PARTITIONS)


def test_metrics_count_what_was_answered(collector: Collector, token: NewToken) -> None:
    """Requests by path and status, events by outcome; metrics have a port of their own."""
    with collector.client(token) as client:
        client.post("/v1/events", content=encode_batch([event(1), b"{}"]), headers=MANY)
        assert client.get("/metrics").status_code == 404
    text = httpx.get(f"http://127.0.0.1:{collector.metrics_port}/metrics").text
    assert 'rackmeter_http_requests_total{path="/v1/events",status="207"} 1.0' in text
    assert 'rackmeter_records_total{outcome="accepted",stage="collector"} 1.0' in text
    assert 'rackmeter_records_total{outcome="rejected",stage="collector"} 1.0' in text


def test_limits_are_settings(bootstrap_servers: str, database_url: str, topic: str, token: NewToken) -> None:
    """Body size and event rate are those of the environment."""
    limits = {"RACKMETER_COLLECTOR_BODY_BYTES_MAX": "5000", "RACKMETER_COLLECTOR_EVENTS_PER_SECOND_MAX": "1"}
    with collecting(bootstrap_servers, database_url, topic, limits) as collector, collector.client(token) as client:
        assert client.post("/v1/events", content=b" " * 5_001, headers=ONE).status_code == 413
        few = encode_batch([event(number) for number in range(1, 20)])
        answers = [client.post("/v1/events", content=few, headers=MANY) for _ in range(6)]
    assert [one.status_code for one in answers] == [200] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 5


def await_status(client: httpx.Client, status: int) -> None:
    deadline = time.monotonic() + REFRESH_SECONDS * 3
    while client.post("/v1/events", content=event(), headers=ONE).status_code != status:
        assert time.monotonic() < deadline, f"never {status}"
        time.sleep(0.1)


def test_rotated_tokens_overlap_and_revoked_ones_end(collector: Collector, token: NewToken, owner: Connection) -> None:
    """The successor counts within seconds and the old one goes on until the overlap is over."""
    following, last = make_token(), make_token()
    store.rotate_token(owner, token.token_id, following, 3600)
    with collector.client(token) as old, collector.client(following) as new, collector.client(last) as newest:
        await_status(new, 200)
        await_status(old, 200)
        store.revoke_token(owner, token.token_id)
        await_status(old, 401)
        await_status(new, 200)
        store.rotate_token(owner, following.token_id, last, 0)
        await_status(new, 401)
        await_status(newest, 200)
    states = {row["token_id"]: row["state"] for row in store.list_tokens(owner)}
    assert states == {token.token_id: "revoked", following.token_id: "expired", last.token_id: "valid"}
    used = {row["token_id"] for row in store.list_tokens(owner) if row["last_used_at"] is not None}
    assert token.token_id in used


def test_a_request_in_flight_is_finished_before_it_ends(
    collector: Collector, token: NewToken, bootstrap_servers: str, topic: str
) -> None:
    """SIGTERM: no new connection is taken, the half-sent request is answered once it is acknowledged, exit code 0."""
    body = event(1)
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token.text}\r\n"
        f"Content-Type: {STRUCTURED}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", collector.port), timeout=20.0) as connection:
        connection.sendall(head + body[:10])
        time.sleep(0.3)
        collector.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", collector.port), timeout=1.0).close()
        assert collector.process.poll() is None
        connection.sendall(body[10:])
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert collector.process.wait(20.0) == 0
    assert events_in(bootstrap_servers, topic) == [body]


def test_without_its_broker_nothing_is_acknowledged(tmp_path: Path, database_url: str, token: NewToken) -> None:
    """503 with Retry-After while the broker is away; the same request again counts once it is back."""
    broker = choose_broker(tmp_path / "broker").broker
    broker.start()
    try:
        spec = next(one for one in load_topics() if one.name == "usage.events")
        ensure_topics(broker.bootstrap_servers, [spec], {"usage.events": PARTITIONS})
        acked = {"RACKMETER_COLLECTOR_ACK_SECONDS": "1.5"}
        with (
            collecting(broker.bootstrap_servers, database_url, "usage.events", acked) as collector,
            collector.client(token) as client,
        ):
            assert client.post("/v1/events", content=event(1), headers=ONE).status_code == 200
            broker.stop()
            refused = client.post("/v1/events", content=event(2), headers=ONE)
            assert refused.status_code == 503
            assert refused.json()["code"] == "not_acknowledged"
            assert int(refused.headers["retry-after"]) >= 1
            broker.start()
            assert [json.loads(one)["id"][-1] for one in events_in(broker.bootstrap_servers, "usage.events")] == ["1"]
            await_status(client, 200)
            assert client.post("/v1/events", content=event(2), headers=ONE).status_code == 200
        kept = [json.loads(one)["id"][-1] for one in events_in(broker.bootstrap_servers, "usage.events")]
        assert kept[-1] == "2"
    finally:
        broker.stop()
