"""The stripe gateway against the double: what is asked for, and what each answer means."""

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.payments.gateway import Attempt, GatewayOutcome
from pipeline.payments.stripe import StripeGateway
from tests.support.stripe_double import DECLINED, NEEDS_BUYER, SLOW, Fault, StripeDouble
from tests.unit.payments.gateways import attempt, stripe_on_double

Opened = tuple[StripeGateway, StripeDouble]

WITH_EFFECT = [Fault.ERROR_AFTER, Fault.CUT_AFTER, Fault.LATE_ANSWER]
WITHOUT_EFFECT = [Fault.CUT_BEFORE, Fault.RATE_LIMITED]


@pytest.fixture
def opened() -> Iterator[Opened]:
    with stripe_on_double() as pair:
        yield pair


def _buyer(double: StripeDouble, payment_method: str = "", number: int = 1) -> Attempt:
    customer, method = double.add_buyer(payment_method)
    return attempt(number, customer=customer, payment_method=method)


def test_the_intent_is_over_the_invoice_to_the_cent(opened: Opened) -> None:
    """Amount, currency, buyer, card and key are the attempt's, and the invoice is named."""
    gateway, double = opened
    wanted = _buyer(double)
    gateway.request(wanted)
    ((_, _, sent, key),) = double.posts()
    assert key == "inv_1:1"
    assert sent == {
        "amount": "1234", "currency": "eur", "customer": wanted.customer, "payment_method": wanted.payment_method,
        "confirm": "true", "off_session": "true", "automatic_payment_methods[enabled]": "true",
        "automatic_payment_methods[allow_redirects]": "never", "description": "Invoice RM-2013-0001",
        "metadata[rackmeter_attempt]": "inv_1:1", "metadata[rackmeter_invoice]": "inv_1",
    }  # fmt: skip
    (charge,) = double.charges("inv_1")
    assert (charge["amount_received"], charge["currency"]) == (1234, "eur")


@pytest.mark.parametrize(
    ("card", "detail"),
    [
        (DECLINED, "insufficient_funds: insufficient funds"),
        (NEEDS_BUYER, "authentication_required: the buyer must confirm"),
    ],
)
def test_a_refused_card_is_declined_for_good(opened: Opened, card: str, detail: str) -> None:
    """The reason is kept, and the intent is cancelled, so that nobody pays it beside the next attempt."""
    gateway, double = opened
    wanted = _buyer(double, card)
    outcome = gateway.request(wanted)
    (intent,) = double.intents.values()
    assert outcome == GatewayOutcome("declined", intent["id"], detail)
    assert intent["status"] == "canceled"
    assert gateway.look_up(wanted) == outcome
    assert double.charges() == []


def test_money_under_way_is_requested_and_found_when_it_is_there(opened: Opened) -> None:
    """What takes days is neither paid nor refused until it is."""
    gateway, double = opened
    wanted = _buyer(double, SLOW)
    assert gateway.request(wanted).state == "requested"
    (intent,) = double.intents.values()
    intent |= {"status": "succeeded", "amount_received": intent["amount"]}
    assert gateway.look_up(wanted) == GatewayOutcome("succeeded", intent["id"])


@pytest.mark.parametrize("fault", WITH_EFFECT)
def test_an_answer_that_was_lost_is_looked_up(fault: Fault) -> None:
    """The charge was made, nobody was told: unknown, then found, and asking again makes no second one."""
    with stripe_on_double() as (gateway, double):
        slow = StripeGateway("sk_test_double", base_url=double.url, timeout_seconds=0.2, network_retries=0)
        wanted = _buyer(double)
        double.faults.append(fault)
        assert slow.request(wanted).state == "unknown"
        slow.close()
        found = gateway.look_up(wanted)
        assert found is not None
        assert found.state == "succeeded"
        gateway.request(wanted)
        assert len(double.charges()) == 1


@pytest.mark.parametrize("fault", WITHOUT_EFFECT)
def test_a_request_that_never_arrived_is_not_found(opened: Opened, fault: Fault) -> None:
    """Unknown, then surely not there, and the same key may be asked."""
    gateway, double = opened
    wanted = _buyer(double)
    double.faults.append(fault)
    assert gateway.request(wanted).state == "unknown"
    assert gateway.look_up(wanted) is None
    assert gateway.request(wanted).state == "succeeded"
    assert len(double.charges()) == 1


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.RATE_LIMITED, Fault.ERROR_AFTER])
def test_no_answer_is_told_from_an_answer_that_says_nothing(opened: Opened, fault: Fault) -> None:
    """Nobody else waits for a provider that cannot be reached; one that answers is asked for everybody."""
    gateway, double = opened
    double.faults.append(fault)
    outcome = gateway.request(_buyer(double))
    assert (outcome.state, outcome.is_reached) == ("unknown", fault is Fault.ERROR_AFTER)


def test_a_request_beside_one_that_is_under_way_charges_nothing(opened: Opened) -> None:
    """The provider is still at work under the key: unknown, whoever asks, until it is done."""
    gateway, double = opened
    wanted = _buyer(double)
    double.gate.clear()
    first = threading.Thread(target=gateway.request, args=(wanted,))
    first.start()
    while not double.posts():
        time.sleep(0.01)
    outcome = gateway.request(wanted)
    double.gate.set()
    first.join(5)
    assert outcome == GatewayOutcome("unknown", detail="idempotency_key_in_use: a request is under way")
    assert len(double.charges()) == 1


def test_a_stored_error_stays_unknown_until_its_key_is_forgotten(opened: Opened) -> None:
    """Stripe repeats an error under its key; nothing else is tried meanwhile."""
    gateway, double = opened
    wanted = _buyer(double)
    double.faults.append(Fault.ERROR_BEFORE)
    assert [gateway.request(wanted).state for _ in range(3)] == ["unknown"] * 3
    double.forget_keys()
    assert gateway.request(wanted).state == "succeeded"


def test_a_look_up_that_fails_is_not_a_payment_that_is_not_there(opened: Opened) -> None:
    """Else a list that cannot be had would allow a second charge."""
    gateway, double = opened
    wanted = _buyer(double)
    gateway.request(wanted)
    double.list_faults.append(500)
    found = gateway.look_up(wanted)
    assert found is not None
    assert found.state == "unknown"


def test_a_payment_is_found_behind_many_others(opened: Opened) -> None:
    """A list has pages, and all of them are read."""
    gateway, double = opened
    wanted = _buyer(double)
    gateway.request(wanted)
    first = next(iter(double.intents.values()))
    for number in range(250):
        double.intents[f"pi_x{number}"] = {**first, "id": f"pi_x{number}", "metadata": {}}
    assert gateway.look_up(wanted) == GatewayOutcome("succeeded", first["id"])


def test_a_payment_by_another_attempt_stops_this_one(opened: Opened) -> None:
    """A restored database may have forgotten an attempt that took the money; no other one is asked beside it."""
    gateway, double = opened
    first = _buyer(double)
    gateway.request(first)
    found = gateway.look_up(attempt(2, customer=first.customer, payment_method=first.payment_method))
    assert found is not None
    assert found.state == "unknown"
    assert found.detail.startswith("several_intents")


@pytest.mark.parametrize("change", [{"amount": 1}, {"currency": "usd"}, {"amount_received": 1233}])
def test_another_amount_is_never_a_success(opened: Opened, change: dict[str, object]) -> None:
    """An intent that is not over the invoice's total is for a person to look at."""
    gateway, double = opened
    wanted = _buyer(double)
    gateway.request(wanted)
    next(iter(double.intents.values())).update(change)
    found = gateway.look_up(wanted)
    assert found is not None
    assert (found.state, found.detail.partition(":")[0]) == ("unknown", "amount_differs")


def test_a_buyer_who_is_not_there_is_declined(opened: Opened) -> None:
    """What Stripe says of this buyer or amount does not change by asking again."""
    gateway, double = opened
    wanted = _buyer(double)
    missing = attempt(customer=wanted.customer, payment_method="pm_gone")
    assert gateway.request(missing).detail.startswith("resource_missing: No such payment_method")
    tiny = attempt(minor=10, customer=wanted.customer, payment_method=wanted.payment_method)
    assert gateway.request(tiny) == GatewayOutcome("declined", detail="amount_too_small: at least 50")


def test_other_parameters_under_a_key_are_not_another_charge(opened: Opened) -> None:
    """The first request counts; that ours changed is for a person to look at."""
    gateway, double = opened
    wanted = _buyer(double)
    gateway.request(wanted)
    again = attempt(minor=5000, customer=wanted.customer, payment_method=wanted.payment_method)
    assert gateway.request(again).state == "unknown"
    assert len(double.charges()) == 1


def test_an_amount_that_stripe_cannot_count_is_not_asked_for(opened: Opened) -> None:
    """Nothing is rounded on the way."""
    gateway, double = opened
    outcome = gateway.request(attempt(minor=1234, currency="KWD"))
    assert outcome.state == "declined"
    assert outcome.detail.startswith("amount_unrepresentable")
    assert double.requests == []


def test_a_wrong_key_is_a_setting_and_says_so(opened: Opened) -> None:
    """Nothing was asked for, and the key is not repeated."""
    _, double = opened
    gateway = StripeGateway("sk_test_wrong", base_url=double.url, network_retries=0)
    with pytest.raises(ConfigurationFault, match="RACKMETER_STRIPE_API_KEY") as caught:
        gateway.request(_buyer(double))
    gateway.close()
    assert "sk_test_wrong" not in caught.value.detail
