"""Documents in the journal: written before their numbers take effect, finished where a crash came between."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote

from pipeline.domain.errors import InvariantViolation
from pipeline.domain.keys import digest
from pipeline.invoice_batch import store
from pipeline.runtime.journal import Journal
from pipeline.runtime.postgres import Connection

# What a document says about what was used and what is owed. Addresses and terms may have changed since it was written.
_SETTLED = ("invoice_id", "currency", "lines", "products", "total", "total_exact", "rounding", "proof")

Record = Mapping[str, Any]


def stream_of(seller: str, series: str) -> str:
    """Give the journal's stream of a seller's number series."""
    return f"documents-{quote(seller, safe='')}-{series}"


def record_of(seller: str, series: str, sequence: int, document: Mapping[str, Any]) -> Record:
    """Give what the journal keeps of a document: all of it. `sequence` counts from 1 in the series."""
    return {
        "seller": seller,
        "series": series,
        "sequence": sequence,
        "number": document["number"],
        "invoice_id": document["invoice_id"],
        "digest": digest(document),
        "document": document,
    }


def unfinished(connection: Connection, journal: Journal, seller: str) -> list[Record]:
    """
    Give the documents the journal has and the database has not numbered yet, of the first series with any, in order.

    A kill, or a lost answer, between the journal and the commit leaves them; so does a database that was restored.
    """
    prefix = stream_of(seller, "")
    for stream in (name for name in journal.streams() if name.startswith(prefix)):
        begun: list[Record] = []
        next_number: int | None = None
        for line in journal.backwards(stream):
            if line.record["seller"] != seller:
                break
            if next_number is None:
                found = store.rows(connection, "series_next", seller=seller, series=line.record["series"])
                next_number = found[0]["number_next"] if found else 1
            if line.record["sequence"] < next_number:
                break
            begun.append(line.record)
        if begun:
            return begun[::-1]
    return []


def check_same(record: Record, rebuilt: Mapping[str, Any]) -> None:
    """
    Compare a journalled document with the one that would be made of the proven invoice now.

    Raises:
        InvariantViolation: They say other things of usage or money.
    """
    differing = [name for name in _SETTLED if record["document"][name] != rebuilt[name]]
    if differing:
        raise InvariantViolation(
            f"the journal has the document {record['number']} of invoice {record['invoice_id']}, and the database's"
            f" invoice differs in {', '.join(differing)}: the number is given and can go to nothing else",
            "document_differs",
        )


def check_waiting(records: Sequence[Record], number_next: int, waiting: Sequence[str]) -> None:
    """
    See that journalled documents go on from the series' next number, each with a proven invoice that waits for it.

    Raises:
        InvariantViolation: One has none: the database is an older state than the journal. No number is given then.
    """
    missing = [record["number"] for record in records if record["invoice_id"] not in waiting]
    if not missing and records[0]["sequence"] != number_next:
        missing = [f"nothing of the numbers {number_next} to {records[0]['sequence'] - 1}"]
    if missing:
        raise InvariantViolation(
            f"the journal has {', '.join(missing[:5])}, and the database no proven invoice for it: it is an older state"
            " than was. No number is given. Bring the right database back, or close those accounts first",
            "database_behind_journal",
        )


def dates_of(record: Record) -> tuple[date, date]:
    """Give when a journalled document was issued, and when it is due."""
    document = record["document"]
    return date.fromisoformat(document["issued_on"]), date.fromisoformat(document["due_on"])
