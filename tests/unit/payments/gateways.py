"""The gateways the contract is checked against: by name, a way to open one with a buyer who pays."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.domain.money import Money
from pipeline.payments.gateway import Attempt, Gateway, GatewayOutcome
from pipeline.payments.manual import ManualGateway
from pipeline.payments.stripe import StripeGateway
from tests.support.stripe_double import KEY, StripeDouble, stripe_double

PERIOD_END = datetime(2013, 7, 31, 22, tzinfo=UTC)


def attempt(
    number: int = 1, *, invoice_id: str = "inv_1", minor: int = 1234, currency: str = "EUR", customer: str = "cus_1",
    payment_method: str = "pm_1",
) -> Attempt:  # fmt: skip
    """An attempt at an invoice's money."""
    return Attempt(
        invoice_id, number, "RM-2013-0001", "acme", Money(minor, currency), f"{invoice_id}:{number}", customer,
        payment_method, PERIOD_END,
    )  # fmt: skip


@dataclass(slots=True)
class FakeGateway:
    """Pays in memory; `asked` are the keys of requests, `answers` what the next ones say instead of being paid."""

    name: str = "fake"
    tells_later: bool = True
    paid: dict[str, GatewayOutcome] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answers: list[GatewayOutcome] = field(default_factory=list)

    def request(self, attempt: Attempt) -> GatewayOutcome:
        key = attempt.idempotency_key
        self.asked.append(key)
        if key not in self.paid:
            said = self.answers.pop(0) if self.answers else GatewayOutcome("succeeded", f"fake-{len(self.paid) + 1}")
            if said.state == "unknown":
                return said
            self.paid[key] = said
        return self.paid[key]

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        return self.paid.get(attempt.idempotency_key)


@contextmanager
def stripe_on_double() -> Iterator[tuple[StripeGateway, StripeDouble]]:
    """The stripe gateway, and the server it speaks to; it repeats nothing by itself."""
    with (
        stripe_double() as double,
        closing(StripeGateway(KEY, base_url=double.url, timeout_seconds=2.0, network_retries=0)) as gateway,
    ):
        yield gateway, double


@contextmanager
def _stripe() -> Iterator[tuple[Gateway, Attempt]]:
    with stripe_on_double() as (gateway, double):
        customer, payment_method = double.add_buyer()
        yield gateway, attempt(customer=customer, payment_method=payment_method)


GATEWAYS: dict[str, Callable[[], AbstractContextManager[tuple[Gateway, Attempt]]]] = {
    "manual": lambda: nullcontext((ManualGateway(), attempt())),
    "fake": lambda: nullcontext((FakeGateway(), attempt())),
    "stripe": _stripe,
}
