"""The gateway port: what a payment provider must offer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pipeline.domain.money import Money

AttemptState = Literal["intended", "requested", "succeeded", "declined", "unknown"]
OutcomeState = Literal["requested", "succeeded", "declined", "unknown"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    A payment to be asked for; `idempotency_key` makes asking twice the same as asking once.

    customer, payment_method: The gateway's names for the buyer and the means, as of the intent; '' where it needs none.
    period_end: Of the invoice: no request for it can be older. None: not known.
    """

    invoice_id: str
    attempt_number: int
    invoice_number: str
    account_id: str
    amount: Money
    idempotency_key: str
    customer: str = ""
    payment_method: str = ""
    period_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class GatewayOutcome:
    """
    What came of a request.

    requested: The buyer was asked; the money comes later. succeeded: It is here. declined: It will not come by this
    attempt, ever. unknown: The gateway did not say; it is looked up before it is asked again.

    is_reached: False where it did not answer at all, so that others need not wait for it in vain.
    """

    state: OutcomeState
    reference: str = ""
    detail: str = ""
    is_reached: bool = True


class Gateway(Protocol):
    """
    A way to be paid. Network faults are the outcome `unknown`, never an exception.

    tells_later: Whether it will know that requested money came. Of a bank transfer only the bank does.
    """

    name: str
    tells_later: bool

    def request(self, attempt: Attempt) -> GatewayOutcome:
        """
        Ask for the money; the same key again gives the first answer and moves no money twice.

        Raises:
            ConfigurationFault: It does not know us, e.g. the key is wrong; nothing was asked for.
        """

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        """
        What the gateway knows under the attempt's key; None only where it is sure that it never heard of it.

        Raises:
            ConfigurationFault: As for request.
        """
