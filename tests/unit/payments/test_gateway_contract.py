"""What every gateway promises, the fake that other tests use included."""

import dataclasses
from collections.abc import Iterator

import pytest

from pipeline.payments.gateway import Attempt, Gateway
from tests.unit.payments.gateways import GATEWAYS


@pytest.fixture(params=GATEWAYS)
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Gateway, Attempt]]:
    with GATEWAYS[request.param]() as pair:
        yield pair


def test_a_request_has_a_definite_answer_and_a_reference(opened: tuple[Gateway, Attempt]) -> None:
    """A buyer who can pay pays, or has been asked to."""
    gateway, attempt = opened
    outcome = gateway.request(attempt)
    assert outcome.state == ("succeeded" if gateway.tells_later else "requested")
    assert outcome.reference


def test_asking_twice_is_asking_once(opened: tuple[Gateway, Attempt]) -> None:
    """The same key gives the same answer under the same reference."""
    gateway, attempt = opened
    assert gateway.request(attempt) == gateway.request(attempt)


def test_what_was_asked_for_is_found(opened: tuple[Gateway, Attempt]) -> None:
    """Looking up says what the request said."""
    gateway, attempt = opened
    outcome = gateway.request(attempt)
    found = gateway.look_up(attempt)
    assert found is not None
    assert (found.state, found.reference) == (outcome.state, outcome.reference)


def test_what_was_never_asked_for_is_not_found(opened: tuple[Gateway, Attempt]) -> None:
    """A gateway that moves money says that it never heard of an attempt."""
    gateway, attempt = opened
    assert gateway.tells_later == (gateway.look_up(attempt) is None)


def test_attempts_at_two_invoices_are_two_payments(opened: tuple[Gateway, Attempt]) -> None:
    """Other keys, other references."""
    gateway, attempt = opened
    other = dataclasses.replace(attempt, invoice_id="inv_2", invoice_number="RM-2013-0002", idempotency_key="inv_2:1")
    assert gateway.request(attempt).reference != gateway.request(other).reference
