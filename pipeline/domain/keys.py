"""Deterministic ids and digests: the same content has the same key, wherever and whenever it is made."""

import hashlib
import json
from datetime import UTC, datetime


def canonical_json(value: object) -> bytes:
    """One byte form of a JSON value: keys sorted, no spaces, UTF-8; TypeError for floats and anything not JSON."""
    _refuse_inexact(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _refuse_inexact(value: object, path: str) -> None:
    if value is None or isinstance(value, str | int):
        return
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has a key that is not text: {key!r}")
            _refuse_inexact(member, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            _refuse_inexact(member, f"{path}[{index}]")
    else:
        raise TypeError(f"{path} is a {type(value).__name__}; canonical JSON holds no floats, only exact text")


def digest(value: object) -> str:
    """sha256 of the canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def invoice_id(account_id: str, period_start: datetime) -> str:
    """The id of an account's invoice for the period that starts then (an aware time)."""
    if period_start.tzinfo is None:
        raise ValueError("a period starts at an aware time")
    start = period_start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return "inv_" + digest(["invoice", account_id, start])[:20]


def payment_key(invoice_id: str, attempt: int) -> str:
    """The idempotency key of a payment attempt, the same until that attempt has a definite outcome."""
    return f"{invoice_id}:{attempt}"
