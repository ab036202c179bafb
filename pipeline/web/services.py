"""What the endpoints need: ports, limits and settings; and who may use them."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.runtime.metrics import Health
from pipeline.web.answers import Refused
from pipeline.web.limits import EventRate, InFlight
from pipeline.web.sender import Messages
from pipeline.web.store import Row, UsageQuestion
from pipeline.web.tokens import Scope, Token
from pipeline.web.views import Known


class Publisher(Protocol):
    """The port to the log; sender.Sender has it."""

    def publish(self, messages: Messages) -> "Future[None]":
        """Have messages sent; done once they are durable, TransientFault where that is not known."""


@dataclass(frozen=True, slots=True)
class Services:
    """
    Everything an endpoint may ask for.

    known: Tokens and meters; TransientFault where they are too old.
    used: Told of each use of a token.
    read_usage: Rows of usage, at most so many; blocks, TransientFault where the database does not answer.
    """

    sender: Publisher
    known: Callable[[], Known]
    used: Callable[[str], None]
    read_usage: Callable[[UsageQuestion, int], list[Row]]
    in_flight: InFlight
    rate: EventRate
    health: Health
    clock: Callable[[], datetime]
    body_bytes_max: int
    ack_seconds: float


def authorised(services: Services, text: str | None, scope: Scope) -> Token:
    """Give the token of a request; Refused with 401 where there is no valid one, with 403 where it is for other use."""
    token = services.known().tokens.find(text, services.clock()) if text is not None else None
    if token is None:
        raise Refused(
            401,
            "token_invalid" if text is not None else "token_missing",
            "send `Authorization: Bearer TOKEN` with a valid token",
            headers={"WWW-Authenticate": "Bearer"},
        )
    services.used(token.token_id)
    if token.scope != scope:
        raise Refused(403, "scope_forbidden", f"this token is for {token.scope}, not for {scope}")
    return token
