"""What a PaymentIntent says about an attempt; pure."""

from collections.abc import Mapping
from typing import Any

from pipeline.payments.gateway import Attempt, GatewayOutcome
from pipeline.payments.stripe_amounts import stripe_amount

#: Members of a PaymentIntent's metadata: the attempt's key, and the invoice's id.
KEY_FIELD, INVOICE_FIELD = "rackmeter_attempt", "rackmeter_invoice"

DETAIL_CHARACTERS_MAX = 500

_OPEN = frozenset({"requires_payment_method", "requires_confirmation", "requires_action", "requires_capture"})

Intent = Mapping[str, Any]


def is_for(intent: Intent, attempt: Attempt) -> bool:
    """Whether the intent was made for this attempt."""
    return bool((intent.get("metadata") or {}).get(KEY_FIELD) == attempt.idempotency_key)


def is_rival(intent: Intent, attempt: Attempt) -> bool:
    """Whether the intent is another attempt's at the same invoice, and took its money or still may."""
    metadata = intent.get("metadata") or {}
    of_invoice = metadata.get(INVOICE_FIELD) == attempt.invoice_id
    return of_invoice and not is_for(intent, attempt) and intent["status"] != "canceled"


def outcome_of(intent: Intent, attempt: Attempt) -> GatewayOutcome | None:
    """
    The outcome an intent stands for; None where it could still be paid by somebody and is to be cancelled first.

    An intent of another amount or currency than the attempt's is `unknown`, whatever it says: a person must look.
    """
    reference, status = str(intent["id"]), str(intent["status"])
    wanted = (stripe_amount(attempt.amount), attempt.amount.currency.lower())
    found = (intent["amount"], str(intent["currency"]).lower())
    if found != wanted:
        return GatewayOutcome("unknown", reference, f"amount_differs: asked for {wanted}, the intent is over {found}")
    if status == "succeeded":
        if intent.get("amount_received") != wanted[0]:
            received = intent.get("amount_received")
            return GatewayOutcome("unknown", reference, f"amount_differs: asked for {wanted}, received {received}")
        return GatewayOutcome("succeeded", reference)
    if status == "processing":
        return GatewayOutcome("requested", reference, "processing")
    if status == "canceled":
        return declined(intent)
    if status in _OPEN:
        return None
    return GatewayOutcome("unknown", reference, f"status_unknown: {status}")


def declined(intent: Intent) -> GatewayOutcome:
    """The outcome of an intent that will never be paid, with the reason it gives."""
    error = intent.get("last_payment_error") or {}
    code = error.get("decline_code") or error.get("code") or intent.get("cancellation_reason") or intent["status"]
    return GatewayOutcome("declined", str(intent["id"]), detail_of(str(code), str(error.get("message") or "")))


def detail_of(code: str, message: str) -> str:
    """`code: message`, bounded."""
    return (f"{code}: {message}" if message else code)[:DETAIL_CHARACTERS_MAX]
