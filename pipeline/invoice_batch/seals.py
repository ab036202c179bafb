"""The digest that seals what an invoice was made from; the proof states the same definition on its own."""

import hashlib
import json
from collections.abc import Iterable, Sequence


def canonical_parameters(parameters: object) -> str:
    """A price's parameters as one text: keys sorted, no spaces."""
    return json.dumps(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def rows_digest(rows: Iterable[Sequence[object]]) -> str:
    """
    sha256, hex, over the rows in the order given.

    Each row is a JSON array of its columns as text or null, without spaces; rows are joined by line feeds.
    """
    lines = (
        json.dumps(
            [None if column is None else str(column) for column in row], separators=(",", ":"), ensure_ascii=False
        )
        for row in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
