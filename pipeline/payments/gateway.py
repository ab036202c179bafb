"""The gateway port: what a payment provider must offer."""

from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.domain.money import Money

AttemptState = Literal["requested", "succeeded", "declined", "unknown"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A payment to be asked for; `idempotency_key` makes asking twice the same as asking once."""

    invoice_id: str
    attempt_number: int
    invoice_number: str
    account_id: str
    amount: Money
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class GatewayOutcome:
    """
    What came of a request.

    requested: The buyer was asked; the money comes later. succeeded: It is here. declined: It will not come by this
    attempt. unknown: The gateway did not say; it is looked up before it is asked again.
    """

    state: AttemptState
    reference: str = ""
    detail: str = ""


class Gateway(Protocol):
    """A way to be paid. Network faults are the outcome `unknown`, never an exception."""

    name: str

    def request(self, attempt: Attempt) -> GatewayOutcome:
        """Ask for the money; the same key again gives the first answer and moves no money twice."""

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        """What the gateway knows under the attempt's key; None where it never heard of it."""
