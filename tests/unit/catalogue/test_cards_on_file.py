"""Whom a gateway charges: Stripe's ids in the catalogue, and never card data."""

import pytest
import yaml

from pipeline.catalogue.document import parse_catalogue
from pipeline.domain.errors import Problems
from tests.unit.catalogue.test_document import SMALL, schema_of

BY_STRIPE = "payment_gateway: stripe, payment_customer: cus_Na6dX7aXxi11N4, payment_method: pm_1MqLiJLkdIwHu7ix"


def with_account(fields: str) -> str:
    """The small catalogue with these fields in its account."""
    return SMALL.replace("    name: Acme\n", "    name: Acme\n" + "".join(f"    {one}\n" for one in fields.split(", ")))


def test_a_card_on_file_is_named_by_stripes_ids() -> None:
    """Gateway, customer and payment method; schema and reader agree."""
    catalogue = parse_catalogue(with_account(BY_STRIPE), "c.yaml")
    (account,) = catalogue.accounts.values()
    assert (account.payment_gateway, account.payment_customer, account.payment_method) == (
        "stripe", "cus_Na6dX7aXxi11N4", "pm_1MqLiJLkdIwHu7ix",
    )  # fmt: skip
    validator = schema_of("catalogue.schema.json")
    assert validator.is_valid(yaml.load(with_account(BY_STRIPE), yaml.BaseLoader))
    assert not validator.is_valid(yaml.load(with_account(BY_STRIPE.replace("pm_", "4242")), yaml.BaseLoader))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("payment_gateway: stripe, payment_method: pm_1", "payment_customer: is missing"),
        ("payment_gateway: stripe, payment_customer: cus_1", "payment_method: is missing"),
        (BY_STRIPE.replace("cus_", "acct_"), "payment_customer: is not an id of Stripe's"),
        (BY_STRIPE.replace("pm_1MqLiJLkdIwHu7ix", '"4242424242424242"'), "payment_method: is not an id of Stripe's"),
        ("payment_customer: cus_1", "payment_customer: has no meaning for manual"),
        ("payment_gateway: cheque", "payment_gateway: 'cheque' is not one of manual, stripe"),
    ],
)
def test_what_cannot_be_charged_is_refused(fields: str, problem: str) -> None:
    """Half a card on file, an id of something else, or an id that nothing uses."""
    with pytest.raises(Problems) as caught:
        parse_catalogue(with_account(fields), "c.yaml")
    assert problem in str(caught.value)
    assert "4242" not in str(caught.value)
