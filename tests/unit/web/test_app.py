"""The HTTP interface: what is answered to whom, with which status."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from pipeline.contracts.usage_event import decode_event, encode_batch, split_message
from pipeline.domain.slots import to_us
from pipeline.web.content import BATCH, STRUCTURED
from pipeline.web.store import Row, UsageQuestion
from tests.unit.web.desk import EPOCH, NOW, SAMPLE, SOURCE, Client, Desk, LogInMemory, client_of, event

ONE = {"content-type": STRUCTURED}
MANY = {"content-type": BATCH}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    with client_of(desk) as client:
        yield client


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of a response, which must be that one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    return body


def test_an_event_is_accepted_and_lies_in_the_log_as_it_was_sent(desk: Desk, client: Client) -> None:
    """200 follows the acknowledgement; key is the source, value the bytes."""
    response = client.post("/v1/events", content=event(), headers=ONE)

    assert response.status_code == 200
    assert response.json()["results"] == [
        {"index": 0, "id": f"{EPOCH}-000000000001", "status": "accepted", "reason": "", "detail": ""}
    ]
    assert desk.log.messages == [(SOURCE.encode(), event())]
    assert desk.used == [desk.ingest.token_id]


def test_one_bad_event_does_not_hurt_its_neighbours(desk: Desk, client: Client) -> None:
    """A mixed batch is 207: the right ones are in the log, the others named with their reason."""
    bad = event(2, data={"calls": "many"})
    body = encode_batch([event(1), bad, event(3), event(4, source="rack-2/x"), b'{"no":1}'])
    response = client.post("/v1/events", content=body, headers=MANY)

    assert response.status_code == 207
    answer = response.json()
    assert (answer["accepted"], answer["rejected"]) == (2, 3)
    assert [one["status"] for one in answer["results"]] == ["accepted", "rejected", "accepted", "rejected", "rejected"]
    assert [one["reason"] for one in answer["results"]] == [
        "", "value_invalid", "", "source_forbidden", "envelope_invalid",
    ]  # fmt: skip
    assert desk.log.messages == [(SOURCE.encode(), encode_batch([event(1), event(3)]))]


def test_each_source_of_a_batch_has_its_own_message(desk: Desk, client: Client) -> None:
    """A message of the log is of one source, in the order sent."""
    other = "rack-1/host-b"
    batch = [event(1), event(1, source=other), event(2), event(2, source=other)]
    assert client.post("/v1/events", content=encode_batch(batch), headers=MANY).status_code == 200

    assert desk.log.messages == [
        (SOURCE.encode(), encode_batch([batch[0], batch[2]])),
        (other.encode(), encode_batch([batch[1], batch[3]])),
    ]


def test_binary_mode_says_the_same_as_structured(desk: Desk, client: Client) -> None:
    """ce- headers are percent-decoded, the body is the data; an extension stays."""
    headers = {
        "content-type": "application/json; charset=utf-8",
        "ce-specversion": "1.0",
        "ce-id": f"{EPOCH}-000000000007",
        "ce-source": "rack-1/h%C3%B6st",
        "ce-type": SAMPLE,
        "ce-subject": '"vm 1"',
        "ce-time": "2026-06-01T11:59:00Z",
        "ce-trace": "x",
    }
    response = client.post("/v1/events", content=b' {"calls": 1.50} ', headers=headers)

    assert response.status_code == 200, response.text
    [(key, value)] = desk.log.messages
    sent = json.loads(value)
    assert key == "rack-1/höst".encode()
    assert (sent["subject"], sent["trace"]) == ("vm 1", "x")
    assert b'"data":{"calls": 1.50}' in value


def test_a_missing_time_is_stamped_once_and_said(desk: Desk, client: Client) -> None:
    """The event counts at the collector's time, and an extension says where it came from; numbers stay as spelt."""
    members = json.loads(event())
    for body in (
        json.dumps({name: value for name, value in members.items() if name != "time"}),
        json.dumps(members | {"time": None}),
    ):
        raw = body.replace('"calls": 3', '"calls": 3.10').encode()
        assert client.post("/v1/events", content=raw, headers=ONE).status_code == 200
    for _, value in desk.log.messages:
        assert json.loads(value)["timestampedby"] == "collector"
        assert b'"calls": 3.10' in value
        decoded = decode_event(value)
        assert decoded.occurred_us == to_us(NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_id": "invoice-77"}, "unsequenced_id"),
        ({"event_type": "test.unheard.v1"}, "unknown_meter"),
    ],
)
def test_what_will_be_parked_is_accepted_and_said(
    client: Client, desk: Desk, changes: dict[str, str], reason: str
) -> None:
    """It is durable, and its sender learns what it waits for."""
    response = client.post("/v1/events", content=event(1, **changes), headers=ONE)

    assert response.status_code == 200
    assert response.json()["results"][0]["status"] == "accepted"
    assert response.json()["results"][0]["reason"] == reason
    assert len(desk.log.messages) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "json_invalid"),
        (b"[]", "envelope_invalid"),
        (event(time="2026-06-01T12:05:01Z"), "time_future"),
        (event(data={"calls": -1}), "value_negative"),
        (event(data={}), "value_missing"),
        (event(event_type="rackmeter.control.dropped.v1", data={"first": 2, "last": 1}), "control_invalid"),
        (event(subject=None), "subject_missing"),
        (event() + b" x", "json_invalid"),
        (event()[:-1] + b',"timestampedby":"collector"}', "envelope_invalid"),
        (event()[:-1] + b',"time\\u0073tampedby":"collector"}', "envelope_invalid"),
    ],
)
def test_what_aggregate_would_quarantine_is_refused(desk: Desk, client: Client, body: bytes, reason: str) -> None:
    """400, with the reason code of docs/reasons.md; nothing reaches the log."""
    answer = problem(client.post("/v1/events", content=body, headers=ONE), 400, "events_rejected")

    assert [one["reason"] for one in answer["results"]] == [reason]
    assert desk.log.messages == []


def test_a_token_sends_for_its_own_sources_only(client: Client, desk: Desk) -> None:
    """403 where no event is of its prefix; rack-1 is not rack-10."""
    response = client.post("/v1/events", content=event(source="rack-10/host"), headers=ONE)

    problem(response, 403, "source_forbidden")
    assert desk.log.messages == []


def test_nothing_is_answered_without_a_valid_token_of_its_scope(client: Client, desk: Desk) -> None:
    """401 without one, 403 with one for other use; only /healthz is open."""
    wrong = desk.ingest.text[:-1] + ("A" if desk.ingest.text[-1] != "A" else "B")
    for header in ("", f"Bearer {wrong}", "Bearer x", "Basic x", f"bearer  {wrong}"):
        response = client.post("/v1/events", content=event(), headers=ONE | {"authorization": header})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    problem(client.get("/v1/usage", params={"from": "2026-06-01T00:00:00Z"}), 403, "scope_forbidden")
    reading = {"authorization": f"Bearer {desk.read.text}"}
    problem(client.post("/v1/events", content=event(), headers=ONE | reading), 403, "scope_forbidden")
    assert client.get("/healthz", headers={"authorization": ""}).text == "ok\n"
    for path in ("/docs", "/openapi.json", "/v1/openapi.json", "/metrics"):
        problem(client.get(path), 404, "path_unknown")
    assert desk.log.messages == []


def test_too_large_is_413(client: Client, desk: Desk) -> None:
    """By its declared length, by what arrives, and by the number of events."""
    large = event(data={"calls": 1, "text": "x" * 20_000})
    problem(client.post("/v1/events", content=large, headers=ONE), 413, "body_too_large")
    problem(client.post("/v1/events", content=[large[:15_000], large[15_000:]], headers=ONE), 413, "body_too_large")
    problem(client.post("/v1/events", content=b"[" + b"1," * 100 + b"1]", headers=MANY), 413, "batch_too_large")
    assert desk.log.messages == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json"},
        {"content-type": "application/cloudevents+avro"},
        {"content-type": "application/cloudevents+json; charset=latin-1"},
        {"content-type": STRUCTURED, "content-encoding": "gzip"},
    ],
)
def test_other_content_is_415(client: Client, headers: dict[str, str]) -> None:
    """A body that is no CloudEvents of a form we read is not guessed at."""
    assert client.post("/v1/events", content=event(), headers=headers).status_code == 415


def test_a_sender_that_is_too_fast_is_told_when_to_come_back() -> None:
    """429 with Retry-After; what was refused used nothing up."""
    desk = Desk(events_per_second=100)
    with client_of(desk) as client:
        batch = encode_batch([event(number) for number in range(1, 101)])
        assert client.post("/v1/events", content=batch, headers=MANY).status_code == 200
        response = client.post("/v1/events", content=batch, headers=MANY)
        problem(response, 429, "rate_limited")
        assert response.headers["retry-after"] == "1"
    assert len(desk.log.messages) == 1


def test_back_pressure_is_429() -> None:
    """Where too many bytes wait already, a sender is told to come back; the room is given back afterwards."""
    desk = Desk()
    with client_of(desk) as client:
        with desk.in_flight.holding(1_000_000):
            response = client.post("/v1/events", content=event(), headers=ONE)
            problem(response, 429, "back_pressure")
            assert response.headers["retry-after"] == "1"
        assert client.post("/v1/events", content=event(), headers=ONE).status_code == 200
        assert client.post("/v1/events", content=b"", headers=ONE).status_code == 400
    assert desk.in_flight.bytes_taken == 0


@pytest.mark.parametrize("log", [LogInMemory(fails=True), LogInMemory(is_silent=True)])
def test_what_the_broker_does_not_acknowledge_is_503(log: LogInMemory) -> None:
    """No 2xx, and when to try again."""
    with client_of(Desk(log=log, ack_seconds=0.05)) as client:
        response = client.post("/v1/events", content=event(), headers=ONE)

    problem(response, 503, "not_acknowledged")
    assert int(response.headers["retry-after"]) >= 1


def reading(rows: Callable[[UsageQuestion, int], list[Row]]) -> tuple[Desk, dict[str, str], dict[str, str]]:
    desk = Desk(rows=rows)
    return (
        desk,
        {"authorization": f"Bearer {desk.read.text}"},
        {"authorization": f"Bearer {desk.read_acme.text}"},
    )


def test_usage_is_exact_and_in_its_zone() -> None:
    """Quantities are strings of exact decimals with their unit; windows begin in local time."""
    asked: list[UsageQuestion] = []

    def rows(question: UsageQuestion, _limit: int) -> list[Row]:
        asked.append(question)
        return [
            {
                "account": "acme",
                "subject": None,
                "meter": "cpu",
                "window_start": question.start,
                "zone_name": "Europe/Amsterdam",
                "quantity": Decimal("12345678901234567890.000000000100"),
                "unit": "core-second",
            }
        ]

    desk, everybody, _ = reading(rows)
    with client_of(desk) as client:
        parameters = {"from": "2026-06-01T00:00:00+02:00", "window": "day", "group_by": "account", "meter": "cpu"}
        response = client.get("/v1/usage", params=parameters, headers=everybody)

    assert response.status_code == 200, response.text
    assert response.json() == {
        "window": "day",
        "from": "2026-05-31T22:00:00Z",
        "to": "2026-06-01T12:00:00Z",
        "rows": [
            {
                "account": "acme",
                "subject": None,
                "meter": "cpu",
                "start": "2026-06-01T00:00:00+02:00",
                "quantity": "12345678901234567890.0000000001",
                "unit": "core-second",
            }
        ],
    }
    assert (asked[0].by_account, asked[0].by_subject, asked[0].account) == (True, False, None)


def test_a_token_of_an_account_sees_that_account_only() -> None:
    """It is asked for whether the query says so or not; another one is 403."""
    asked: list[str | None] = []

    def rows(question: UsageQuestion, _limit: int) -> list[Row]:
        asked.append(question.account)
        return []

    desk, _, of_acme = reading(rows)
    with client_of(desk) as client:
        query = {"from": "2026-06-01T00:00:00Z"}
        assert client.get("/v1/usage", params=query, headers=of_acme).status_code == 200
        other = client.get("/v1/usage", params=query | {"account": "globex"}, headers=of_acme)
    problem(other, 403, "account_forbidden")
    assert asked == ["acme"]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"from": "yesterday"},
        {"from": "2026-06-01"},
        {"from": "2026-06-01T00:00:00"},
        {"from": "2026-06-02T00:00:00Z", "to": "2026-06-01T00:00:00Z"},
        {"from": "2026-06-01T00:00:00Z", "window": "week"},
        {"from": "2026-06-01T00:00:00Z", "group_by": "colour"},
        {"from": "2026-06-01T00:00:00Z", "zone": "Mars/Base"},
        {"from": "2026-06-01T00:00:00Z", "zone": "../../etc/passwd"},
        {"from": "2026-06-01T00:00:00Z", "subject": "a\0b"},
        {"from": "0001-01-01T00:00:00+23:00"},
    ],
    ids=str,
)
def test_a_question_that_cannot_be_meant_is_400(query: dict[str, str]) -> None:
    """A problem that names what is wrong."""
    desk, everybody, _ = reading(lambda _question, _limit: [])
    with client_of(desk) as client:
        problem(client.get("/v1/usage", params=query, headers=everybody), 400, "query_invalid")


def test_a_batch_in_the_log_comes_apart_as_it_was_put_together(desk: Desk, client: Client) -> None:
    """What the aggregate stage takes out of a message are the events that were judged, byte by byte."""
    events = [event(1), b" " + event(2) + b"\n", event(3, data={"calls": "0.50", "x": "],{"})]
    assert client.post("/v1/events", content=b"[" + b",".join(events) + b"]", headers=MANY).status_code == 200

    [(_, value)] = desk.log.messages
    assert split_message(value) == [one.strip() for one in events]
