"""Control flow of payment attempts: intent, call, outcome."""

from collections.abc import Callable, Mapping, Sequence

from pipeline.domain.errors import ConfigurationFault
from pipeline.payments import store
from pipeline.payments.gateway import Gateway
from pipeline.payments.store import Undecided
from pipeline.runtime.postgres import Connection


def request_payments(
    connection: Connection,
    gateways: Mapping[str, Gateway],
    invoice_ids: Sequence[str],
    write_down: Callable[[Sequence[Undecided]], None] = lambda _intents: None,
) -> int:
    """
    Ask for the money of issued invoices; harmless to repeat, and safe while another run does the same.

    Args:
        connection: Autocommit, outside a transaction: each step commits by itself.
        gateways: By name, as billing accounts name them.
        invoice_ids: Of issued invoices.
        write_down: Keeps outside what is going to be asked for, before anybody is.

    Returns:
        How many attempts got an outcome.

    Raises:
        ConfigurationFault: An account names a gateway that is not there; its intent stays for the next run, and
            everybody else was asked.
    """
    for invoice_id in invoice_ids:
        store.intend(connection, invoice_id)
    answered = 0
    unknown: list[str] = []
    waiting = store.undecided(connection, invoice_ids)
    write_down([undecided for undecided in waiting if not undecided.asked])
    for undecided in waiting:
        attempt = undecided.attempt
        gateway = gateways.get(undecided.gateway)
        if gateway is None:
            unknown.append(f"account {attempt.account_id} pays by {undecided.gateway!r}")
            continue
        # An intent may have been sent by a run that was killed, so it is asked under the same key; an unknown outcome
        # is looked up first and never blindly asked again.
        found = gateway.look_up(attempt) if undecided.asked else None
        answered += store.record_outcome(connection, attempt, found or gateway.request(attempt))
    if unknown:
        raise ConfigurationFault(f"{'; '.join(unknown)}; known are {', '.join(sorted(gateways))}", "gateway_unknown")
    return answered
