"""The hash of a ledger transaction and of the chain: pure. docs/books.md states the bytes."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
_FIRST = b"rackmeter ledger chain 1\n"

Fields = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Posting:
    """A ledger transaction as sealed: its own fields, and those of each entry in the order of their ids."""

    ledger_transaction_id: int
    fields: Fields
    entries: Sequence[Fields]


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain."""

    position: int
    ledger_transaction_id: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends: at position 0 before anything is sealed."""

    position: int
    hash: bytes


def first_head(database_id: str) -> Head:
    """Where the chain of this database begins; another database's chain does not fit behind it."""
    return Head(0, hashlib.sha256(_FIRST + database_id.encode()).digest())


def content(posting: Posting) -> bytes:
    """
    Give the bytes of a posting: unambiguous, whatever its texts hold.

    Each field is its length in bytes, a colon, the bytes and a comma; nothing at all is "-,". The transaction's
    fields come first, then the number of entries as a field, then each entry's fields.
    """
    parts = [*posting.fields, str(len(posting.entries))]
    for entry in posting.entries:
        parts += entry
    # One expression and one encoding: this runs for every field of every posting.
    return "".join(
        ["-," if part is None else f"{len(part) if part.isascii() else len(part.encode())}:{part}," for part in parts]
    ).encode()


def links(head: Head, postings: Iterable[Posting]) -> list[Link]:
    """Chain postings behind a head: each hash is sha256 of the one before and of the posting's bytes."""
    position, previous = head.position, head.hash
    made = []
    for posting in postings:
        position += 1
        previous = hashlib.sha256(previous + content(posting)).digest()
        made.append(Link(position, posting.ledger_transaction_id, previous))
    return made
