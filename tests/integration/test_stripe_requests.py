"""Our requests as Stripe's own specification reads them, in the API version that is pinned."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import stripe

from pipeline.payments.gateway import Attempt
from pipeline.payments.stripe import API_VERSION, StripeGateway
from pipeline.runtime.settings import checkout_dir
from tests.unit.payments.gateways import attempt

pytestmark = [pytest.mark.real, pytest.mark.tools]

BINARY = checkout_dir() / ".rackmeter" / "bin" / "stripe-mock"


@pytest.fixture(scope="module")
def mock_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """stripe-mock on a free port, refusing another version than its own."""
    if not BINARY.exists() and shutil.which("go") is not None:
        subprocess.run(["make", "stripe-mock"], cwd=checkout_dir(), check=True, stdout=subprocess.DEVNULL)
    if not BINARY.exists():
        pytest.fail("stripe-mock is missing: install Go (https://go.dev/dl), then run make stripe-mock", pytrace=False)
    said = tmp_path_factory.mktemp("stripe-mock") / "said"
    with said.open("w") as output:
        process = subprocess.Popen(
            [BINARY, "-strict-version-check", "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _await_url(said)
    finally:
        process.kill()
        process.wait()


def _await_url(said: Path, timeout_seconds: float = 20.0) -> str:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if match := re.search(r"for HTTP at address: (\S+)", said.read_text()):
            return f"http://{match[1]}"
        time.sleep(0.05)
    raise AssertionError(f"stripe-mock did not start: {said.read_text()}")


@pytest.fixture
def gateway(mock_url: str) -> Iterator[StripeGateway]:
    with closing(StripeGateway("sk_test_123", base_url=mock_url, network_retries=0)) as opened:
        yield opened


@pytest.fixture
def wanted() -> Attempt:
    return attempt(customer="cus_1", payment_method="pm_card_visa")


def test_a_request_is_what_the_specification_allows(gateway: StripeGateway, wanted: Attempt) -> None:
    """Every parameter of creating and cancelling an intent is known, and of the right kind."""
    outcome = gateway.request(wanted)
    assert outcome.reference.startswith("pi_"), outcome


def test_a_look_up_is_what_the_specification_allows(gateway: StripeGateway, wanted: Attempt) -> None:
    """Listing a customer's intents since a time; the mock's one is not ours."""
    assert gateway.look_up(wanted) is None


def test_what_the_specification_does_not_know_is_refused(mock_url: str) -> None:
    """The check can fail: a parameter that does not exist is not waved through."""
    client = stripe.RequestsClient(timeout=10)
    intents = stripe.StripeClient(
        "sk_test_123",
        stripe_version=API_VERSION,
        base_addresses={"api": mock_url},
        max_network_retries=0,
        http_client=client,
    ).v1.payment_intents
    with pytest.raises(stripe.InvalidRequestError, match="additional properties"):
        intents.create({"amount": 5, "currency": "eur", "colour": "red"})  # type: ignore[typeddict-unknown-key]
    client.close()  # type: ignore[no-untyped-call]
