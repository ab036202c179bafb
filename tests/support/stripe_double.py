"""A stand-in for Stripe over HTTP: it keeps state, honours idempotency keys and fails when told to."""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

KEY = "sk_test_double"

#: Payment methods that behave in their own way; any other that was made here is paid at once.
DECLINED, NEEDS_BUYER, SLOW = "pm_card_chargeDeclined", "pm_card_authenticationRequired", "pm_slow"


class Fault(StrEnum):
    """What happens to the next POST that would make, confirm or cancel something."""

    ERROR_BEFORE = "500 before effect"
    ERROR_AFTER = "500 after effect"
    CUT_BEFORE = "connection cut before effect"
    CUT_AFTER = "connection cut after effect"
    LATE_ANSWER = "effect, and an answer that comes too late"
    RATE_LIMITED = "429"


@dataclass(slots=True)
class _Seen:
    """A request under an idempotency key; without an answer it is under way."""

    path: str
    parameters: dict[str, str]
    answer: tuple[int, dict[str, Any]] | None = None


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, kind: str, code: str | None, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "code": code, "message": message, **more}}


@dataclass(slots=True)
class StripeDouble:
    """
    The state behind the API.

    faults: For the next POSTs, first in first out. list_faults: HTTP statuses of the next lists. late_seconds: How long
    an answer that comes too late takes. gate: While it is cleared, requests wait in the middle of their work.
    """

    url: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    list_faults: deque[int] = field(default_factory=deque)
    late_seconds: float = 0.5
    gate: threading.Event = field(default_factory=threading.Event)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _last_number: int = 0

    def add_buyer(self, payment_method: str = "") -> tuple[str, str]:
        """Make a customer with a payment method of its own, or a known one; their ids."""
        with self._lock:
            customer = self._make(self.customers, "cus_", {"object": "customer"})["id"]
            method = payment_method or self._make(self.methods, "pm_", {"object": "payment_method"})["id"]
            self.methods.setdefault(method, {"id": method, "object": "payment_method"})["customer"] = customer
        return customer, method

    def charges(self, invoice_id: str | None = None) -> list[dict[str, Any]]:
        """The intents that took money, of one invoice or all."""
        return [
            intent for intent in self.intents.values()
            if intent["status"] == "succeeded" and invoice_id in (None, intent["metadata"].get("rackmeter_invoice"))
        ]  # fmt: skip

    def posts(self, end: str = "/payment_intents") -> list[tuple[str, str, dict[str, str], str]]:
        """The POST requests to paths that end so: (method, path, parameters, idempotency key)."""
        return [one for one in self.requests if one[0] == "POST" and one[1].endswith(end)]

    def forget_keys(self) -> None:
        """Forget every idempotency key, as Stripe does after a day."""
        self._seen.clear()

    def answer(self, method: str, path: str, parameters: dict[str, str], key: str) -> tuple[int, dict[str, Any], bool]:
        """Give status, body, and whether the connection is cut instead of answering."""
        self.requests.append((method, path, parameters, key))
        if method == "GET":
            if path == "/v1/payment_intents" and self.list_faults:
                status = self.list_faults.popleft()
                return status, {"error": {"type": "api_error", "message": f"HTTP {status}"}}, False
            return (*self._answered(method, path, parameters), False)
        fault = self.faults.popleft() if self.faults else None
        if fault is Fault.RATE_LIMITED:
            return (
                429,
                {"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "slow down"}},
                False,
            )
        if fault is Fault.CUT_BEFORE:
            return 0, {}, True
        try:
            status, body = self._once(path, parameters, key, fault)
        except Refused as refused:
            return refused.status, refused.body, False
        if fault is Fault.LATE_ANSWER:
            time.sleep(self.late_seconds)
        return status, body, fault is Fault.CUT_AFTER

    def _once(self, path: str, parameters: dict[str, str], key: str, fault: Fault | None) -> tuple[int, dict[str, Any]]:
        """Do a POST once for its key: the same again gives the stored answer, also an error of the server."""
        with self._lock:
            seen = self._seen.get(key) if key else None
            if seen is not None:
                if (seen.path, seen.parameters) != (path, parameters):
                    raise Refused(400, "idempotency_error", None, "other parameters under this key")
                if seen.answer is None:
                    raise Refused(409, "idempotency_error", "idempotency_key_in_use", "a request is under way")
                return seen.answer
            seen = self._seen[key] = _Seen(path, parameters)
        self.gate.wait(10)
        broken = (500, {"error": {"type": "api_error", "message": "an error of the server"}})
        with self._lock:
            answer = broken if fault is Fault.ERROR_BEFORE else self._answered("POST", path, parameters)
            seen.answer = broken if fault is Fault.ERROR_AFTER else answer
            if seen.answer[0] in (400, 404):
                del self._seen[key]  # what is not valid has no effect and is not kept
            return seen.answer

    def _answered(self, method: str, path: str, parameters: dict[str, str]) -> tuple[int, dict[str, Any]]:
        try:
            with self._lock:
                return 200, self._route(method, path, parameters)
        except Refused as refused:
            return refused.status, refused.body

    def _route(self, method: str, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        if (method, path) == ("POST", "/v1/payment_intents"):
            return self._create(parameters)
        if (method, path) == ("GET", "/v1/payment_intents"):
            return self._list(parameters)
        if (method, path) == ("POST", "/v1/customers"):
            return self._make(self.customers, "cus_", {"object": "customer"})
        if (method, path) == ("POST", "/v1/payment_methods"):
            return self._make(self.methods, "pm_", {"object": "payment_method", "type": parameters["type"]})
        if match := re.fullmatch(r"/v1/payment_methods/(pm_\w+)/attach", path):
            customer = self._found(self.customers, parameters["customer"], "customer")["id"]
            found = self._found(self.methods, match[1], "payment_method")
            found["customer"] = customer
            return found
        if match := re.fullmatch(r"/v1/payment_intents/(pi_\w+)(?:/(cancel|confirm))?", path):
            intent = self._found(self.intents, match[1], "payment_intent")
            if match[2] == "confirm":
                self._confirm(intent, intent["payment_method"])
            return self._cancel(intent) if match[2] == "cancel" else intent
        raise Refused(404, "invalid_request_error", "url_invalid", f"{method} {path} is not known here")

    def _create(self, parameters: dict[str, str]) -> dict[str, Any]:
        customer = self._found(self.customers, parameters["customer"], "customer")["id"]
        method = self._found(self.methods, parameters["payment_method"], "payment_method")["id"]
        amount = int(parameters["amount"])
        if amount < 50:
            raise Refused(400, "invalid_request_error", "amount_too_small", "at least 50")
        intent = self._make(
            self.intents, "pi_",
            {
                "object": "payment_intent", "amount": amount, "amount_received": 0, "currency": parameters["currency"],
                "customer": customer, "payment_method": method, "status": "requires_confirmation",
                "created": int(time.time()), "last_payment_error": None, "cancellation_reason": None,
                "description": parameters.get("description"),
                "metadata": {name[9:-1]: value for name, value in parameters.items() if name.startswith("metadata[")},
            },
        )  # fmt: skip
        if parameters.get("confirm") == "true":
            self._confirm(intent, method)
        return intent

    def _confirm(self, intent: dict[str, Any], method: str) -> None:
        if intent["status"] not in ("requires_confirmation", "requires_payment_method"):
            message = f"it is {intent['status']}"
            raise Refused(400, "invalid_request_error", "payment_intent_unexpected_state", message)
        refused = {
            DECLINED: {"code": "card_declined", "decline_code": "insufficient_funds", "message": "insufficient funds"},
            NEEDS_BUYER: {"code": "authentication_required", "message": "the buyer must confirm"},
        }
        if method in refused:
            error = {"type": "card_error", **refused[method]}
            intent |= {"status": "requires_payment_method", "last_payment_error": error}
            about = {name: text for name, text in refused[method].items() if name not in ("code", "message")}
            raise Refused(402, "card_error", error["code"], error["message"], payment_intent=dict(intent), **about)
        intent["status"] = "processing" if method == SLOW else "succeeded"
        intent["amount_received"] = 0 if method == SLOW else intent["amount"]

    def _cancel(self, intent: dict[str, Any]) -> dict[str, Any]:
        if intent["status"] in ("succeeded", "canceled", "processing"):
            message = f"it is {intent['status']}"
            raise Refused(400, "invalid_request_error", "payment_intent_unexpected_state", message)
        intent |= {"status": "canceled", "cancellation_reason": "abandoned"}
        return intent

    def _list(self, parameters: dict[str, str]) -> dict[str, Any]:
        self._found(self.customers, parameters["customer"], "customer")
        found = [
            intent for intent in reversed(self.intents.values())
            if intent["customer"] == parameters["customer"]
            and intent["created"] >= int(parameters.get("created[gte]", "0"))
        ]  # fmt: skip
        after = parameters.get("starting_after")
        if after:
            found = found[[intent["id"] for intent in found].index(after) + 1 :]
        limit = int(parameters.get("limit", "10"))
        return {
            "object": "list", "url": "/v1/payment_intents", "data": found[:limit], "has_more": len(found) > limit,
        }  # fmt: skip

    def _make(self, where: dict[str, dict[str, Any]], prefix: str, values: dict[str, Any]) -> dict[str, Any]:
        self._last_number += 1
        name = f"{prefix}{self._last_number:06d}"
        where[name] = {"id": name, **values}
        return where[name]

    def _found(self, where: dict[str, dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
        if name not in where:
            raise Refused(404, "invalid_request_error", "resource_missing", f"No such {kind}: '{name}'", param=kind)
        return where[name]


class _Handler(BaseHTTPRequestHandler):
    double: ClassVar[StripeDouble]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())

    def _serve(self, body: str) -> None:
        url = urlsplit(self.path)
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._send(401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}})
            return
        parameters = dict(parse_qsl(body or url.query))
        key = self.headers.get("Idempotency-Key", "")
        status, answer, is_cut = self.double.answer(self.command, url.path, parameters, key)
        if is_cut:
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, answer)

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        payload = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
        except OSError:
            self.close_connection = True  # whoever asked did not wait

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@contextmanager
def stripe_double() -> Iterator[StripeDouble]:
    """Serve a fresh double on a free port of this machine."""
    double = StripeDouble()
    double.gate.set()

    class Handler(_Handler):
        pass

    Handler.double = double
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        double.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
