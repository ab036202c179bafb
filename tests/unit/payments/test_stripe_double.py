"""The double itself: what the gateway's tests rest on, asked by Stripe's own client."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import stripe

from tests.support.stripe_double import KEY, StripeDouble, stripe_double


@contextmanager
def client_of(double: StripeDouble) -> Iterator[stripe.StripeClient]:
    http = stripe.RequestsClient(timeout=5)
    try:
        yield stripe.StripeClient(KEY, base_addresses={"api": double.url}, max_network_retries=0, http_client=http)
    finally:
        http.close()  # type: ignore[no-untyped-call]


def test_a_buyer_pays_in_steps() -> None:
    """Customer, card, intent, confirmation: each is kept, and what is paid is paid once."""
    with stripe_double() as double, client_of(double) as client:
        customer = client.v1.customers.create({})
        card = client.v1.payment_methods.create({"type": "card"})
        client.v1.payment_methods.attach(card.id, {"customer": customer.id})
        intent = client.v1.payment_intents.create(
            {"amount": 500, "currency": "eur", "customer": customer.id, "payment_method": card.id}
        )
        assert intent.status == "requires_confirmation"
        assert double.charges() == []
        client.v1.payment_intents.confirm(intent.id)
        assert client.v1.payment_intents.retrieve(intent.id).status == "succeeded"
        with pytest.raises(stripe.InvalidRequestError, match="succeeded"):
            client.v1.payment_intents.confirm(intent.id)
        assert [charge["id"] for charge in double.charges()] == [intent.id]


def test_a_key_stands_for_one_request() -> None:
    """The same request again gives the same answer; another one under its key is refused."""
    with stripe_double() as double, client_of(double) as client:
        first = client.v1.customers.create({}, {"idempotency_key": "k"})
        assert client.v1.customers.create({}, {"idempotency_key": "k"}).id == first.id
        with pytest.raises(stripe.IdempotencyError):
            client.v1.payment_methods.create({"type": "card"}, {"idempotency_key": "k"})
        assert client.v1.customers.create({}).id != first.id
