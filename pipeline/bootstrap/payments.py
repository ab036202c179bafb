"""Wire the payments: which gateways there are, and what a person asks of them."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection
from pipeline.runtime.settings import Settings

if TYPE_CHECKING:
    from pipeline.payments.attempts import WriteDown
    from pipeline.payments.gateway import Gateway


@contextlib.contextmanager
def payment_gateways(settings: Settings) -> "Iterator[dict[str, Gateway]]":
    """
    Open the gateways by name: manual, and stripe where its key is set.

    Raises:
        ConfigurationFault: The file of the key cannot be read or is empty.
    """
    from pipeline.payments.manual import ManualGateway

    gateways: dict[str, Gateway] = {"manual": ManualGateway()}
    key = _stripe_key(settings)
    with contextlib.ExitStack() as opened:
        if key:
            from pipeline.payments.stripe import StripeGateway

            gateways["stripe"] = opened.enter_context(
                contextlib.closing(StripeGateway(key, base_url=settings.stripe_base_url))
            )
        yield gateways


def reconcile_payments(settings: Settings, connection: Connection) -> list[str]:
    """Finish every payment attempt without a definite outcome; the ids of their invoices."""
    from pipeline.payments.attempts import reconcile_payments as reconcile

    with payment_gateways(settings) as gateways:
        attempts = reconcile(connection, gateways, intents_to_journal(settings))
        return list(dict.fromkeys(attempt.invoice_id for attempt in attempts))


def retry_payment(settings: Settings, connection: Connection, name: str) -> str:
    """Ask once more for the money of an invoice, by number or id, that was declined; its id."""
    from pipeline.payments.attempts import retry_payment as retry

    with payment_gateways(settings) as gateways:
        return retry(connection, gateways, name, intents_to_journal(settings))


def intents_to_journal(settings: Settings) -> "WriteDown":
    """Give what keeps payment intents outside the database."""
    from pipeline.runtime.journal import Journal

    journal = Journal(settings.journal_dir)
    return lambda intents: journal.append("payments", [intent.record for intent in intents])


def _stripe_key(settings: Settings) -> str:
    if settings.stripe_api_key_file is None:
        return settings.stripe_api_key
    try:
        key = settings.stripe_api_key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationFault(f"RACKMETER_STRIPE_API_KEY_FILE cannot be read: {error}") from error
    if not key.startswith(("sk_", "rk_")):
        raise ConfigurationFault(
            f"RACKMETER_STRIPE_API_KEY_FILE={settings.stripe_api_key_file} does not hold a key, sk_... or rk_..."
        )
    return key
