"""A collector in this process: a real application over a log in memory, tokens and meters that are given."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
from fastapi import FastAPI

from pipeline.aggregate.model import MeterRule
from pipeline.aggregate.rules import MeterBook
from pipeline.contracts.usage_event import encode_event
from pipeline.domain.errors import TransientFault
from pipeline.runtime.metrics import Health
from pipeline.web.app import build_app
from pipeline.web.limits import EventRate, InFlight
from pipeline.web.sender import Messages
from pipeline.web.services import Services
from pipeline.web.store import Row, UsageQuestion
from pipeline.web.tokens import NewToken, Scope, Token, TokenBook, make_token
from pipeline.web.views import Known

Headers = Mapping[str, str] | Mapping[bytes, bytes]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SAMPLE = "test.sample.v1"
SOURCE = "rack-1/host-a"
EPOCH = "00f3a1b2c3d4e5f6"


def book() -> MeterBook:
    """One meter that sums `calls` of the sample type."""
    rule = MeterRule(
        meter_version_id=1,
        meter="calls",
        aggregation="sum",
        value_field="calls",
        slot_us=300_000_000,
        gap_us=0,
        from_us=0,
        to_us=2**62,
    )
    return MeterBook({SAMPLE: [rule]}, ["test.ignored.v1"])


def event(number: int = 1, *, source: str = SOURCE, **changes: object) -> bytes:
    """A right event; a change replaces an argument of encode_event."""
    values: dict[str, object] = {
        "source": source,
        "event_id": f"{EPOCH}-{number:012d}",
        "event_type": SAMPLE,
        "subject": "vm-1",
        "time": "2026-06-01T11:59:00Z",
        "data": {"calls": 3},
    }
    return encode_event(**(values | changes))  # type: ignore[arg-type]


@dataclass
class LogInMemory:
    """Takes messages, or does not: `fails` answers with a fault, `is_silent` never."""

    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    fails: bool = False
    is_silent: bool = False

    def publish(self, messages: Messages) -> "Future[None]":
        done: Future[None] = Future()
        if self.fails:
            done.set_exception(TransientFault("no broker"))
        elif not self.is_silent:
            self.messages.extend(messages)
            done.set_result(None)
        return done


def stored(
    new: NewToken,
    scope: Scope = "ingest",
    *,
    source_prefix: str | None = None,
    account_id: str | None = None,
    expires_at: datetime = NOW + timedelta(days=1),
    revoked_at: datetime | None = None,
) -> Token:
    """The token as the database would give it."""
    prefix = source_prefix or ("rack-1" if scope == "ingest" else None)
    return Token(new.token_id, new.secret_digest, scope, prefix, account_id, expires_at, revoked_at)


@dataclass
class Desk:
    """The application with what stands behind it."""

    log: LogInMemory = field(default_factory=LogInMemory)
    ingest: NewToken = field(default_factory=make_token)
    read: NewToken = field(default_factory=make_token)
    read_acme: NewToken = field(default_factory=make_token)
    rows: Callable[[UsageQuestion, int], list[Row]] = lambda _question, _limit: []
    body_bytes_max: int = 20_000
    events_per_second: int = 1_000_000
    ack_seconds: float = 2.0
    in_flight: InFlight = field(default_factory=lambda: InFlight(1_000_000))
    used: list[str] = field(default_factory=list)

    def app(self) -> FastAPI:
        """The application; each has its own limits."""
        known = Known(
            TokenBook(
                [
                    stored(self.ingest),
                    stored(self.read, "read"),
                    stored(self.read_acme, "read", account_id="acme"),
                ]
            ),
            book(),
        )
        return build_app(
            Services(
                sender=self.log,
                known=lambda: known,
                used=self.used.append,
                read_usage=lambda question, limit: self.rows(question, limit),
                in_flight=self.in_flight,
                rate=EventRate(self.events_per_second),
                health=Health("collector"),
                clock=lambda: NOW,
                body_bytes_max=self.body_bytes_max,
                ack_seconds=self.ack_seconds,
            )
        )


class Client:
    """Sends requests to an application in this process and waits for the answers."""

    def __init__(self, app: FastAPI, headers: Mapping[str, str]) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://collector", headers=headers)

    def post(self, path: str, *, content: bytes | Sequence[bytes], headers: Headers) -> httpx.Response:
        """Send a body, whole or in pieces of no declared length."""

        async def pieces() -> AsyncIterator[bytes]:
            for piece in content:
                assert isinstance(piece, bytes)
                yield piece

        body = content if isinstance(content, bytes) else pieces()
        return self._runner.run(self._client.post(path, content=body, headers=headers))

    def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Ask."""
        return self._runner.run(self._client.get(path, params=params, headers=headers))

    def close(self) -> None:
        """End."""
        self._runner.run(self._client.aclose())
        self._runner.close()


@contextmanager
def client_of(desk: Desk) -> Iterator[Client]:
    """A client of the desk's application with its ingest token."""
    client = Client(desk.app(), {"authorization": f"Bearer {desk.ingest.text}"})
    try:
        yield client
    finally:
        client.close()
