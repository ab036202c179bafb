"""`rackmeter payments`: what it prints, and with which exit code."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault
from tests.integration.invoice_world import ACCOUNTS, World, make_world
from tests.support.stripe_double import DECLINED, KEY, Fault, StripeDouble, stripe_double

pytestmark = pytest.mark.real

Command = Callable[..., Result]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A closed month of two accounts that pay by cards; nobody was asked yet."""
    with make_world(database_url, tmp_path / "documents") as made:
        made.admin.execute(
            "UPDATE billing_account SET payment_gateway = 'stripe', payment_customer = 'cus_1', payment_method = 'pm_1'"
        )
        with pytest.raises(ConfigurationFault, match="Set RACKMETER_STRIPE_API_KEY_FILE"):
            made.run()
        yield made


@pytest.fixture
def double(world: World) -> Iterator[StripeDouble]:
    with stripe_double() as made:
        made.customers["cus_1"] = {"id": "cus_1"}
        made.methods["pm_1"] = {"id": "pm_1"}
        yield made


@pytest.fixture
def command(world: World, double: StripeDouble) -> Command:
    environment = {
        "DATABASE_URL": world.database_url,
        "RACKMETER_JOURNAL_DIR": str(world.documents_dir.parent / "journal"),
        "RACKMETER_STRIPE_API_KEY": KEY,
        "RACKMETER_STRIPE_BASE_URL": double.url,
    }
    return lambda *words: CliRunner().invoke(app, ["payments", *words, "--format", "json"], env=environment)


def test_reconcile_asks_for_what_was_never_asked(command: Command, double: StripeDouble) -> None:
    """Intents become charges; amounts are exact text in major units."""
    result = command("reconcile")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["number"], row["account"], row["attempt"], row["state"], row["amount"]) for row in rows] == [
        ("RM-2013-0001", ACCOUNTS[0], 1, "succeeded", "12.35"),
        ("RM-2013-0002", ACCOUNTS[1], 1, "succeeded", "12.35"),
    ]
    assert {row["reference"] for row in rows} == double.intents.keys()
    assert "2 succeeded" in result.stderr
    assert command("reconcile").stdout.strip() == "[]"


def test_reconcile_says_that_an_outcome_is_not_known(command: Command, double: StripeDouble) -> None:
    """Exit code 1 until there is a definite outcome."""
    double.faults.extend([Fault.ERROR_AFTER] * 3)
    result = command("reconcile")
    assert result.exit_code == 1
    assert "unknown" in result.stderr
    assert command("reconcile").exit_code == 0


def test_a_declined_card_is_listed_and_asked_again(command: Command, double: StripeDouble) -> None:
    """Reason and state stand in the list; a retry with the same card is declined again, with another it is paid."""
    (intent_before,) = [*command_rows(command, "list", "--account", "acme")]
    assert intent_before["state"] == "intended"
    double.methods["pm_1"]["id"] = DECLINED
    assert command("reconcile").exit_code == 0
    (declined,) = command_rows(command, "list", "--state", "declined", "--account", "acme")
    assert declined["detail"] == "insufficient_funds: insufficient funds"
    assert command("retry", "RM-2013-0001").exit_code == 1
    double.methods["pm_1"]["id"] = "pm_1"
    result = command("retry", "RM-2013-0001")
    assert result.exit_code == 0
    assert [row["state"] for row in json.loads(result.stdout)] == ["declined", "declined", "succeeded"]
    assert isinstance(command("retry", "RM-2013-0001").exception, ConfigurationFault)


def command_rows(command: Command, *words: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(command(*words).stdout)
    return rows


def test_a_list_can_be_narrowed(command: Command) -> None:
    """By account, state and invoice."""
    assert len(json.loads(command("list").stdout)) == 2
    assert [row["account"] for row in json.loads(command("list", "--account", "acme").stdout)] == ["acme"]
    assert [row["number"] for row in json.loads(command("list", "--invoice", "RM-2013-0002").stdout)] == [
        "RM-2013-0002"
    ]
    assert json.loads(command("list", "--state", "succeeded").stdout) == []
