"""stripe: charges a card on file off-session, by PaymentIntents, and looks a payment up by what it wrote on it."""

from collections.abc import Callable, Mapping
from typing import Any

import stripe

from pipeline.domain.errors import ConfigurationFault
from pipeline.payments.gateway import Attempt, GatewayOutcome
from pipeline.payments.stripe_amounts import stripe_amount
from pipeline.payments.stripe_intents import (
    INVOICE_FIELD,
    KEY_FIELD,
    Intent,
    declined,
    detail_of,
    is_for,
    is_rival,
    outcome_of,
)

#: Pinned: what requests and answers look like does not change with the Stripe account's settings.
#: The one whose specification `make stripe-mock` checks our requests against.
API_VERSION = "2026-08-26.dahlia"
TIMEOUT_SECONDS = 30.0
NETWORK_RETRIES = 2
PAGE_INTENTS = 100

# Our clock and Stripe's need not agree.
CLOCK_SKEW_SECONDS = 86_400

# Said of this buyer, card or amount: asking again says the same. Any other refusal may be our mistake, and stays open.
_REFUSED_FOR_GOOD = frozenset(
    {
        "amount_too_large",
        "amount_too_small",
        "payment_method_currency_mismatch",
        "payment_method_not_available",
        "payment_method_unexpected_state",
        "resource_missing",
    }
)


class StripeGateway:
    """
    Stripe by its API.

    api_key: A secret or restricted key that may write PaymentIntents.
    base_url: Of another server that speaks its API, for tests; '' is Stripe.
    timeout_seconds: For one request.
    network_retries: How often the client itself repeats a request, under the same idempotency key.
    """

    name = "stripe"
    tells_later = True

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        network_retries: int = NETWORK_RETRIES,
    ) -> None:
        self._http = stripe.RequestsClient(timeout=timeout_seconds)
        self._intents = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            base_addresses={"api": base_url} if base_url else {},
            max_network_retries=network_retries,
            http_client=self._http,
        ).v1.payment_intents

    def close(self) -> None:
        """Close the connection."""
        self._http.close()  # type: ignore[no-untyped-call]  # stripe declares no types for it

    def request(self, attempt: Attempt) -> GatewayOutcome:
        """Make and confirm a PaymentIntent over the invoice; one that is not paid at once is cancelled, for good."""
        try:
            amount = stripe_amount(attempt.amount)
        except ValueError as error:
            return GatewayOutcome("declined", detail=detail_of("amount_unrepresentable", str(error)))

        answer = _intent_or_refusal(
            lambda: self._intents.create(
                {
                    "amount": amount,
                    "currency": attempt.amount.currency.lower(),
                    "customer": attempt.customer,
                    "payment_method": attempt.payment_method,
                    "confirm": True,
                    "off_session": True,
                    "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                    "description": f"Invoice {attempt.invoice_number}",
                    "metadata": {KEY_FIELD: attempt.idempotency_key, INVOICE_FIELD: attempt.invoice_id},
                },
                {"idempotency_key": attempt.idempotency_key},
            )
        )
        return self._settled(attempt, answer)

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        """
        Find the PaymentIntent that carries the attempt's key among its customer's: lists are current, search is not.

        Another attempt's intent that took or may take the invoice's money makes this one `unknown`: a person must look.
        """
        try:
            listed = self._listed(attempt)
        except stripe.StripeError as error:
            # That nothing could be listed does not mean that nothing is there.
            return _refusal(error)
        mine = [intent for intent in listed if is_for(intent, attempt)]
        others = [intent for intent in listed if is_rival(intent, attempt)]
        if len(mine) > 1 or others:
            names = ", ".join(f"{intent['id']} {intent['status']}" for intent in (*mine, *others))
            return GatewayOutcome("unknown", detail=detail_of("several_intents", f"of one invoice: {names}"))
        return self._settled(attempt, mine[0]) if mine else None

    def _listed(self, attempt: Attempt) -> list[Intent]:
        params: stripe.params.PaymentIntentListParams = {"customer": attempt.customer, "limit": PAGE_INTENTS}
        if attempt.period_end is not None:
            params["created"] = {"gte": int(attempt.period_end.timestamp()) - CLOCK_SKEW_SECONDS}
        return [intent.to_dict() for intent in self._intents.list(params).auto_paging_iter()]

    def _settled(self, attempt: Attempt, answer: Intent | GatewayOutcome) -> GatewayOutcome:
        """The outcome an answer stands for; an intent that is still open is cancelled, so that nobody pays it later."""
        if isinstance(answer, GatewayOutcome):
            return answer
        outcome = outcome_of(answer, attempt)
        return self._cancelled(attempt, answer) if outcome is None else outcome

    def _cancelled(self, attempt: Attempt, intent: Intent) -> GatewayOutcome:
        reference = str(intent["id"])
        key = f"{attempt.idempotency_key}:cancel"
        answer = _intent_or_refusal(
            lambda: self._intents.cancel(reference, {"cancellation_reason": "abandoned"}, {"idempotency_key": key})
        )
        if isinstance(answer, GatewayOutcome):
            # It may have been paid or cancelled in between.
            answer = _intent_or_refusal(lambda: self._intents.retrieve(reference))
        if isinstance(answer, GatewayOutcome):
            return GatewayOutcome("unknown", reference, answer.detail, is_reached=answer.is_reached)
        if answer["status"] == "canceled":
            # Why it was refused stands in the intent as it was before.
            return declined({**answer, "last_payment_error": intent.get("last_payment_error")})
        outcome = outcome_of(answer, attempt)
        return outcome or GatewayOutcome("unknown", reference, f"not_cancelled: {answer['status']}")


def _intent_or_refusal(call: Callable[[], stripe.PaymentIntent]) -> Intent | GatewayOutcome:
    """What a call gave, or what its error means; a refused card comes with the intent it was refused for."""
    try:
        return call().to_dict()
    except stripe.StripeError as error:
        intent = _said(error).get("payment_intent")
        return intent if isinstance(intent, dict) else _refusal(error)


def _refusal(error: stripe.StripeError) -> GatewayOutcome:
    """An error without an intent: `declined` where no money can come of it, else `unknown`."""
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        raise ConfigurationFault(
            f"stripe refuses our key: {error.user_message}. Check RACKMETER_STRIPE_API_KEY", "stripe_key_refused"
        ) from error
    code = str(_said(error).get("code") or type(error).__name__)
    is_reached = not isinstance(error, stripe.APIConnectionError | stripe.RateLimitError)
    is_final = isinstance(error, stripe.CardError) or (
        isinstance(error, stripe.InvalidRequestError) and code in _REFUSED_FOR_GOOD
    )
    detail = detail_of(code, error.user_message or "")
    return GatewayOutcome("declined" if is_final else "unknown", detail=detail, is_reached=is_reached)


def _said(error: stripe.StripeError) -> Mapping[str, Any]:
    """The error as the answer has it; empty where there was no answer."""
    body = error.json_body
    said = body.get("error") if isinstance(body, dict) else None
    return said if isinstance(said, dict) else {}
