"""Money moves: one charge an invoice whatever dies when, and every outcome in the books once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.payments.attempts import reconcile_payments, request_payments, retry_payment
from pipeline.payments.gateway import Attempt, Gateway, GatewayOutcome
from tests.integration.invoice_world import ACCOUNTS, World, make_world
from tests.support.stripe_double import DECLINED, KEY, SLOW, Fault, StripeDouble
from tests.unit.payments.gateways import FakeGateway, stripe_on_double

pytestmark = pytest.mark.real

ACME, BRICK = ACCOUNTS


class Killed(Exception):
    """Stands for the process dying at this point."""


class Dying:
    """A gateway whose process dies before or after it heard of a request."""

    name = "stripe"
    tells_later = True

    def __init__(self, gateway: Gateway, *, after: bool) -> None:
        self._gateway = gateway
        self._after = after

    def request(self, attempt: Attempt) -> GatewayOutcome:
        if self._after:
            self._gateway.request(attempt)
        raise Killed

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        return self._gateway.look_up(attempt)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


@pytest.fixture
def double(world: World) -> Iterator[StripeDouble]:
    """Both accounts pay by cards at the double."""
    with stripe_on_double() as (gateway, double):
        world.gateways["stripe"] = gateway
        for account in ACCOUNTS:
            give_card(world, account, *double.add_buyer())
        yield double


def give_card(world: World, account: str, customer: str, method: str) -> None:
    world.admin.execute(
        "UPDATE billing_account SET payment_gateway = 'stripe', payment_customer = %s, payment_method = %s"
        " WHERE account_id = %s",
        (customer, method, account),
    )


def reconcile(world: World, gateways: dict[str, Gateway] | None = None) -> None:
    with closing(world.connect()) as connection:
        reconcile_payments(connection, gateways or world.gateways)


def retry(world: World, name: str) -> None:
    with closing(world.connect()) as connection:
        retry_payment(connection, world.gateways, name)


def invoice_of(world: World, account: str) -> str:
    found: str = world.value("SELECT invoice_id FROM invoice WHERE account_id = %s", account)
    return found


def attempts(world: World, account: str) -> list[tuple[int, str]]:
    """(number, state) of the account's attempts."""
    return world.all(
        "SELECT attempt_number, p.state FROM payment_attempt p JOIN invoice USING (invoice_id)"
        " WHERE account_id = %s ORDER BY 1",
        account,
    )


def issue_unasked(world: World) -> None:
    """Close the month with nobody at the gateway's end: invoices with intents, no call made."""
    gateway = world.gateways.pop("stripe")
    with pytest.raises(ConfigurationFault, match="'stripe'"):
        world.run()
    world.gateways["stripe"] = gateway


def is_paid_once(world: World, double: StripeDouble, account: str) -> bool:
    """One charge over the invoice's total, posted once, nothing left to receive."""
    charges = double.charges(invoice_of(world, account))
    posted = world.all(
        "SELECT e.amount FROM ledger_entry e JOIN ledger_account USING (ledger_account_id)"
        " JOIN ledger_transaction t USING (ledger_transaction_id)"
        " WHERE t.kind = 'payment' AND ledger_account.account_id = %s",
        account,
    )
    total = world.value("SELECT total_minor FROM invoice WHERE account_id = %s", account)
    return (
        [(charge["amount"], charge["amount_received"], charge["currency"]) for charge in charges]
        == [(total, total, "eur")]
        and posted == [(Decimal("-12.35"),)]
        and f"receivable:{account}:EUR" not in world.books()
    )


def test_a_close_charges_the_card_and_posts_the_money(world: World, double: StripeDouble) -> None:
    """Debit cash, credit receivable, over exactly the invoice's total; a second close moves nothing."""
    world.run()
    books = world.books()
    assert books["cash:stripe:EUR"] == Decimal("24.70")
    assert sum(books.values()) == 0
    assert all(is_paid_once(world, double, account) for account in ACCOUNTS)
    assert world.all("SELECT DISTINCT key FROM ledger_transaction WHERE kind = 'payment' ORDER BY 1") == sorted(
        (f"payment:{invoice_of(world, account)}:1",) for account in ACCOUNTS
    )
    world.run()
    assert world.books() == books
    assert len(double.charges()) == 2


@pytest.mark.parametrize("died", ["before the call", "after the call"])
@pytest.mark.parametrize("key", ["known", "forgotten"])
def test_a_kill_around_the_call_leads_to_one_charge(world: World, double: StripeDouble, died: str, key: str) -> None:
    """The next run looks the attempt up before it asks, also when the provider has forgotten the key by then."""
    issue_unasked(world)
    with pytest.raises(Killed):
        reconcile(world, {"stripe": Dying(world.gateways["stripe"], after=died == "after the call")})
    assert attempts(world, ACME) == [(1, "intended")]
    assert len(double.charges()) == int(died == "after the call")
    if key == "forgotten":
        double.forget_keys()
    reconcile(world)
    assert all(is_paid_once(world, double, account) for account in ACCOUNTS)


def test_a_process_that_is_killed_inside_the_call_leads_to_one_charge(
    world: World, double: StripeDouble, tmp_path: Path
) -> None:
    """SIGKILL while the provider is at work: its charge is found, not made again."""
    issue_unasked(world)
    key_file = tmp_path / "stripe-key"
    key_file.write_text(f"{KEY}\n")
    double.gate.clear()
    environment = os.environ | {
        "DATABASE_URL": world.database_url,
        "RACKMETER_JOURNAL_DIR": str(world.documents_dir.parent / "journal"),
        "RACKMETER_STRIPE_API_KEY_FILE": str(key_file),
        "RACKMETER_STRIPE_BASE_URL": double.url,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", "payments", "reconcile"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        await_post(double)
        child.send_signal(signal.SIGKILL)
    double.gate.set()
    reconcile(world)
    assert attempts(world, ACME) in ([(1, "succeeded")], [(1, "unknown")])
    reconcile(world)
    assert all(is_paid_once(world, double, account) for account in ACCOUNTS)


def await_post(double: StripeDouble, timeout_seconds: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not double.posts():
        assert time.monotonic() < deadline, "the process never called"
        time.sleep(0.02)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_fault_of_the_provider_leads_to_one_charge(world: World, double: StripeDouble, fault: Fault) -> None:
    """Errors, cut connections, refusals: unknown is looked up, and asked under the same key where it is not there."""
    double.late_seconds = 3.0
    issue_unasked(world)
    double.faults.append(fault)
    reconcile(world)
    assert attempts(world, ACME) == [(1, "unknown")]
    assert is_paid_once(world, double, BRICK)
    double.forget_keys()
    reconcile(world)
    assert all(is_paid_once(world, double, account) for account in ACCOUNTS)
    keys = {key for *_, key in double.posts()}
    assert keys == {f"{invoice_of(world, account)}:1" for account in ACCOUNTS}


def test_two_runs_at_once_charge_once(world: World, double: StripeDouble) -> None:
    """While one run asks, the other leaves the attempt alone."""
    issue_unasked(world)
    double.gate.clear()
    runs = [threading.Thread(target=reconcile, args=(world,)) for _ in range(2)]
    for run in runs:
        run.start()
    await_post(double)
    time.sleep(0.2)
    double.gate.set()
    for run in runs:
        run.join(30)
    reconcile(world)
    assert all(is_paid_once(world, double, account) for account in ACCOUNTS)
    assert len(double.posts()) == 2


def test_a_declined_card_waits_for_an_explicit_retry(world: World, double: StripeDouble) -> None:
    """The reason is kept; no close or reconcile asks again; a retry takes the card of now under a new key."""
    give_card(world, ACME, *double.add_buyer(DECLINED))
    world.run()
    world.run()
    reconcile(world)
    assert attempts(world, ACME) == [(1, "declined")]
    detail = world.value("SELECT detail FROM payment_attempt WHERE state = 'declined'")
    assert detail == "insufficient_funds: insufficient funds"
    assert world.books()["receivable:acme:EUR"] == Decimal("12.35")
    customer = world.value("SELECT payment_customer FROM billing_account WHERE account_id = 'acme'")
    give_card(world, ACME, customer, double.add_buyer()[1])
    retry(world, "RM-2013-0001")
    assert attempts(world, ACME) == [(1, "declined"), (2, "succeeded")]
    assert is_paid_once(world, double, ACME)
    assert double.posts()[-1][3] == f"{invoice_of(world, ACME)}:2"


@pytest.mark.parametrize("name", ["RM-2013-0001", "nobody's"])
def test_what_cannot_be_retried_says_why(world: World, double: StripeDouble, name: str) -> None:
    """A paid invoice is not charged again because somebody asks for it."""
    world.run()
    with pytest.raises(ConfigurationFault, match=r"is paid|there is no invoice"):
        retry(world, name)
    assert len(double.charges()) == 2


def test_a_retry_finishes_an_attempt_that_is_open(world: World, double: StripeDouble) -> None:
    """There is no second attempt beside one whose outcome is not known."""
    issue_unasked(world)
    double.faults.append(Fault.CUT_AFTER)
    reconcile(world)
    retry(world, invoice_of(world, ACME))
    assert attempts(world, ACME) == [(1, "succeeded")]
    assert is_paid_once(world, double, ACME)


def test_money_that_takes_days_is_posted_when_it_is_there(world: World, double: StripeDouble) -> None:
    """Requested until the provider says otherwise; reconciling twice posts once."""
    give_card(world, ACME, *double.add_buyer(SLOW))
    world.run()
    reconcile(world)
    assert attempts(world, ACME) == [(1, "requested")]
    assert "receivable:acme:EUR" in world.books()
    for intent in double.intents.values():
        intent |= {"status": "succeeded", "amount_received": intent["amount"]}
    reconcile(world)
    reconcile(world)
    assert is_paid_once(world, double, ACME)


def test_a_card_changed_between_intent_and_call_changes_nothing(world: World, double: StripeDouble) -> None:
    """A request repeated under its key says the same; the new card is for the next attempt."""
    issue_unasked(world)
    old = world.value(
        "SELECT payment_method FROM payment_attempt JOIN invoice USING (invoice_id) WHERE account_id = 'acme'"
    )
    give_card(world, ACME, *double.add_buyer())
    reconcile(world)
    assert double.posts()[0][2]["payment_method"] == old


def test_an_outcome_is_posted_with_its_state_or_not_at_all(world: World, double: StripeDouble) -> None:
    """A kill between posting and state leaves neither, and the next run has both."""
    issue_unasked(world)
    world.admin.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'killed' USING ERRCODE = '57P01'; END $$"
    )
    world.admin.execute("CREATE TRIGGER die AFTER UPDATE ON payment_attempt FOR EACH ROW EXECUTE FUNCTION die()")
    with pytest.raises(psycopg.OperationalError, match="killed"):
        reconcile(world)
    assert world.value("SELECT count(*) FROM ledger_transaction WHERE kind = 'payment'") == 0
    world.admin.execute("DROP TRIGGER die ON payment_attempt")
    reconcile(world)
    assert all(is_paid_once(world, double, account) for account in ACCOUNTS)


def test_a_gateway_that_does_not_answer_is_left_alone(
    world: World, double: StripeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run does not wait for every buyer of a provider that is down; what was not asked stays an intent."""
    monkeypatch.setattr("pipeline.payments.attempts.UNANSWERED_MAX", 1)
    silent = FakeGateway(name="stripe", answers=[GatewayOutcome("unknown", is_reached=False)])
    issue_unasked(world)
    with closing(world.connect()) as connection:
        ids = [invoice_of(world, account) for account in ACCOUNTS]
        request_payments(connection, {"stripe": silent}, ids)
        assert len(silent.asked) == 1
        assert [attempts(world, account) for account in ACCOUNTS] == [[(1, "unknown")], [(1, "intended")]]
        request_payments(connection, {"stripe": silent}, ids)
    assert [attempts(world, account) for account in ACCOUNTS] == [[(1, "succeeded")]] * 2


def test_attempts_that_a_person_must_look_at_keep_nobody_waiting(
    world: World, double: StripeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that answers is asked for everybody, however many of its answers settle nothing."""
    monkeypatch.setattr("pipeline.payments.attempts.UNANSWERED_MAX", 1)
    issue_unasked(world)
    double.faults.append(Fault.ERROR_BEFORE)
    reconcile(world)
    assert [attempts(world, account) for account in ACCOUNTS] == [[(1, "unknown")], [(1, "succeeded")]]


def test_a_key_that_is_refused_stops_nobody_else(world: World, double: StripeDouble) -> None:
    """Who pays by bank transfer is asked; the run ends with what to do."""
    world.admin.execute("UPDATE billing_account SET payment_gateway = 'manual' WHERE account_id = 'brick'")
    from pipeline.payments.stripe import StripeGateway

    with closing(StripeGateway("sk_test_wrong", base_url=double.url, network_retries=0)) as gateway:
        world.gateways["stripe"] = gateway
        with pytest.raises(ConfigurationFault, match="refuses our key"):
            world.run()
    assert attempts(world, ACME) == [(1, "intended")]
    assert attempts(world, BRICK) == [(1, "requested")]
