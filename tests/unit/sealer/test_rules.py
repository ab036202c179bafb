"""The bytes that are hashed, and the chain they make."""

import hashlib
from collections.abc import Sequence

import pytest

from pipeline.sealer.rules import Head, Posting, content, first_head, links

DATABASE = "6f1f0e8e-0000-4000-8000-000000000001"
ENTRY = ("1", "unbilled:acme:EUR", "5.000000000000", None)


def posting(number: int = 1, fields: Sequence[str | None] = ("key", None), *entries: Sequence[str | None]) -> Posting:
    return Posting(number, fields, entries or (ENTRY,))


def test_the_bytes_are_as_documented() -> None:
    """Length, colon, bytes, comma; "-," for nothing; the number of entries between the transaction and them."""
    assert content(Posting(1, ("ké", None, ""), [("1", None)])) == "3:ké,-,0:,1:1,1:1,-,".encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (posting(1, ("ab", "c")), posting(1, ("a", "bc"))),
        (posting(1, ("a", None)), posting(1, ("a", ""))),
        (posting(1, ("a", "-,")), posting(1, ("a", None, "-,"))),
        (posting(1, ("a",), ("1",), ("2",)), posting(1, ("a",), ("1", "2"))),
        (posting(1, ("a",), ("1",), ("2",)), posting(1, ("a",), ("2",), ("1",))),
        (posting(1, ("1:a",)), posting(1, ("a",))),
    ],
)
def test_different_postings_have_different_bytes(one: Posting, other: Posting) -> None:
    """However their texts are cut, what is not the same does not hash the same."""
    assert content(one) != content(other)


def test_each_hash_holds_all_before_it() -> None:
    """A chain is the same however it is cut into batches, and another from the first change on."""
    postings = [posting(number, (f"key {number}",)) for number in range(1, 6)]
    start = first_head(DATABASE)
    whole = links(start, postings)
    first = links(start, postings[:2])
    rest = links(Head(first[-1].position, first[-1].hash), postings[2:])
    changed = links(start, [*postings[:1], posting(2, ("another",)), *postings[2:]])

    assert first + rest == whole
    assert [link.position for link in whole] == [1, 2, 3, 4, 5]
    assert [link.ledger_transaction_id for link in whole] == [1, 2, 3, 4, 5]
    assert whole[0].hash == hashlib.sha256(start.hash + content(postings[0])).digest()
    assert [a.hash == b.hash for a, b in zip(whole, changed, strict=True)] == [True, False, False, False, False]


def test_a_chain_belongs_to_one_database() -> None:
    """The chain of another database does not fit behind this one's beginning."""
    assert first_head(DATABASE).hash != first_head("6f1f0e8e-0000-4000-8000-000000000002").hash
