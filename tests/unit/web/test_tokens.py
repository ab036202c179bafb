"""Tokens: what they cover, when they count, and that only their own secret opens them."""

from datetime import timedelta

import pytest

from pipeline.web.tokens import TokenBook, make_token
from tests.unit.web.desk import NOW, stored


@pytest.mark.parametrize(
    ("prefix", "source", "covered"),
    [
        ("rack-1", "rack-1", True),
        ("rack-1", "rack-1/host", True),
        ("rack-1", "rack-1.host", True),
        ("rack-1", "rack-10", False),
        ("rack-1", "rack-1a", False),
        ("rack-1", "Rack-1", False),
        ("rack-1", "rack-", False),
        ("rack-1/", "rack-1/host", True),
        ("rack-1/", "rack-10/host", False),
        ("rack-1/", "rack-1", False),
        ("host-", "host-77", True),
        ("é", "éa", False),
    ],
)
def test_a_prefix_ends_a_word(prefix: str, source: str, *, covered: bool) -> None:
    """A prefix that ends in a letter or digit does not reach into a longer name."""
    assert stored(make_token(), source_prefix=prefix).covers(source) is covered


def test_a_read_token_covers_no_source() -> None:
    """Whatever its account is called."""
    assert not stored(make_token(), "read", account_id="rack-1").covers("rack-1")


def test_only_its_own_secret_opens_a_token() -> None:
    """Not another's secret under its id, not its id alone, not a text around it."""
    one, other = make_token(), make_token()
    book = TokenBook([stored(one), stored(other)])

    found = book.find(one.text, NOW)
    assert found is not None
    assert found.token_id == one.token_id
    crossed = f"rmt_{one.token_id}_{other.text[21:]}"
    for text in (crossed, one.text + "\n", " " + one.text, one.text[:-1], one.token_id, "", make_token().text):
        assert book.find(text, NOW) is None


def test_a_token_counts_until_it_expires_or_is_revoked() -> None:
    """To the instant."""
    new = make_token()
    text = new.text
    assert TokenBook([stored(new, expires_at=NOW)]).find(text, NOW) is None
    assert TokenBook([stored(new, expires_at=NOW)]).find(text, NOW - timedelta(microseconds=1)) is not None
    assert TokenBook([stored(new, revoked_at=NOW)]).find(text, NOW) is None


def test_the_secret_is_not_what_is_stored() -> None:
    """Neither the token's text nor its secret can be read from what the database gets."""
    new = make_token()
    assert len(new.secret_digest) == 32
    assert new.text[21:].encode() not in new.secret_digest
    assert make_token().text != new.text
