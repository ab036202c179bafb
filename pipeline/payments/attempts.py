"""Control flow of payment attempts: intent, call, outcome."""

import logging
from collections.abc import Callable, Mapping, Sequence

from pipeline.domain.errors import ConfigurationFault
from pipeline.payments import store
from pipeline.payments.gateway import Attempt, AttemptState, Gateway, GatewayOutcome
from pipeline.payments.rules import SETTLED
from pipeline.payments.store import Undecided
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection

LOGGER = logging.getLogger("rackmeter.payments")

#: Keeps intents outside the database before a gateway is asked.
WriteDown = Callable[[Sequence[Undecided]], None]

#: A gateway that does not answer so often in a row is left alone for the rest of the run.
UNANSWERED_MAX = 3


def request_payments(
    connection: Connection,
    gateways: Mapping[str, Gateway],
    invoice_ids: Sequence[str],
    write_down: WriteDown = lambda _intents: None,
) -> int:
    """
    Ask for the money of issued invoices; harmless to repeat, and safe while another run does the same.

    What was declined is not asked for again: that takes `retry_payment`.

    Args:
        connection: Autocommit, outside a transaction: each step commits by itself.
        gateways: By name, as billing accounts name them.
        invoice_ids: Of issued invoices.
        write_down: Keeps outside what is going to be asked for, before anybody is.

    Returns:
        How many attempts got an outcome.

    Raises:
        ConfigurationFault: An account names a gateway that is not there, or a gateway does not know us; the intents
            stay for the next run, and everybody else was asked.
    """
    for invoice_id in invoice_ids:
        store.intend(connection, invoice_id)
    return _decide(connection, gateways, store.undecided(connection, invoice_ids), write_down)


def reconcile_payments(
    connection: Connection, gateways: Mapping[str, Gateway], write_down: WriteDown = lambda _intents: None
) -> list[Attempt]:
    """
    Finish every attempt that has no definite outcome: look it up, and ask where the gateway never heard of it.

    Returns:
        The attempts that were looked at.

    Raises:
        ConfigurationFault: As for request_payments.
    """
    telling = [name for name, gateway in gateways.items() if gateway.tells_later]
    open_attempts = store.undecided(connection, None, telling)
    _decide(connection, gateways, open_attempts, write_down)
    return [one.attempt for one in open_attempts]


def retry_payment(
    connection: Connection,
    gateways: Mapping[str, Gateway],
    name: str,
    write_down: WriteDown = lambda _intents: None,
) -> str:
    """
    Ask once more for the money of an invoice whose last attempt was declined; an unfinished one is finished instead.

    Args:
        connection: Autocommit, outside a transaction.
        gateways: By name.
        name: The invoice's number or id.

    Returns:
        The invoice's id.

    Raises:
        ConfigurationFault: There is no such invoice, or there is nothing to ask for; else as for request_payments.
    """
    last = store.last_attempt(connection, name)
    if last is None:
        raise ConfigurationFault(
            f"there is no invoice {name!r}; `rackmeter invoices list` shows what there is", "invoice_unknown"
        )
    if not last.is_issued or last.total_minor <= 0:
        raise ConfigurationFault(f"invoice {name} asks for no money: it is not issued, or its total is not above zero")
    if last.state in ("succeeded", "requested"):
        said = "is paid" if last.state == "succeeded" else "was asked for and not refused; the money may still come"
        raise ConfigurationFault(
            f"invoice {name} {said}: `rackmeter payments list --invoice {name}`", "nothing_to_retry"
        )
    if last.state in (None, "declined"):
        store.intend(connection, last.invoice_id, last.attempt_number + 1)
    _decide(connection, gateways, store.undecided(connection, [last.invoice_id]), write_down)
    return last.invoice_id


def _decide(
    connection: Connection, gateways: Mapping[str, Gateway], undecided: Sequence[Undecided], write_down: WriteDown
) -> int:
    """Bring attempts as far as their gateways let them; how many got an outcome."""
    answered = 0
    problems: dict[str, None] = {}
    silent: dict[str, int] = {}
    for one in undecided:
        gateway = gateways.get(one.gateway)
        if gateway is None:
            known = f"known are {', '.join(sorted(gateways))}"
            problems[
                f"account {one.attempt.account_id} pays by {one.gateway!r}; {known}{_HINTS.get(one.gateway, '')}"
            ] = None
            continue
        if silent.get(one.gateway, 0) >= UNANSWERED_MAX:
            continue
        with store.attempt_lock(connection, one.attempt) as is_ours:
            if not is_ours:
                continue
            state = store.attempt_state(connection, one.attempt)
            if state in SETTLED:
                continue
            if state == "intended":
                write_down([one])
            try:
                outcome = _call(gateway, one.attempt, state)
            except ConfigurationFault as fault:
                problems[fault.detail] = None
                silent[one.gateway] = UNANSWERED_MAX
                continue
            answered += store.record_outcome(connection, one.attempt, outcome)
        silent[one.gateway] = 0 if outcome.is_reached else silent.get(one.gateway, 0) + 1
        _tell(one.attempt, outcome)
    if problems:
        raise ConfigurationFault("; ".join(problems), "gateway_unknown")
    return answered


_HINTS = {"stripe": ". Set RACKMETER_STRIPE_API_KEY_FILE"}


def _call(gateway: Gateway, attempt: Attempt, state: AttemptState) -> GatewayOutcome:
    """
    The one place where a gateway is called: the intent is committed, no transaction is open, the outcome comes next.

    Whatever the state says, an earlier run may have been killed after its request, or a restored database may have
    forgotten it, and providers forget keys within a day: so it is looked up before money is asked for.
    """
    found = gateway.look_up(attempt)
    if found is not None:
        return found
    if state == "requested":
        return GatewayOutcome("unknown", detail="was requested, and the gateway knows of no such payment")
    return gateway.request(attempt)


def _tell(attempt: Attempt, outcome: GatewayOutcome) -> None:
    metrics.RECORDS.labels("payments", outcome.state).inc()
    level = logging.ERROR if outcome.state == "unknown" else logging.INFO
    LOGGER.log(
        level,
        "payment %s: %s %s",
        attempt.idempotency_key,
        outcome.state,
        outcome.detail,
        extra={"action": f"payment_{outcome.state}", "invoice_id": attempt.invoice_id, "reference": outcome.reference},
    )
