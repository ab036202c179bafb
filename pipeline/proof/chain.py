"""Recompute the chain of the books and compare it with what was written outside; shares no code with the sealer."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.proof.outside import check_documents, documents_outside
from pipeline.proof.outside_lines import OutsideLine, read_stream
from pipeline.proof.report import Findings
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "chain.sql")

_BATCH = 10_000
HEADS = "heads.jsonl"
#: How long a sealer that has just committed gets to write the head outside.
_HEAD_SECONDS = 3.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ChainReport:
    """
    The verdict about the books.

    sealed: Positions of the chain; unsealed: transactions that wait for the sealer; head: hash of the last position,
    in hex. compared: what was compared, by name. differences: sentences, the first position that differs first.
    """

    sealed: int
    unsealed: int
    head: str
    compared: Mapping[str, int]
    differences: tuple[str, ...]


def verify_chain(connection: Connection, journal_dir: Path, expected: tuple[int, str] | None = None) -> ChainReport:
    """
    Recompute every hash, and compare order, presence and ends with the journal.

    Args:
        connection: In autocommit mode; one snapshot is read.
        journal_dir: The journal's folder.
        expected: A position and its hash (hex) that somebody kept elsewhere.
    """
    findings = Findings()
    before, documents_before = _heads(journal_dir, Findings()), documents_outside(journal_dir)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute(QUERIES["chain_extent"]).fetchone() or (0, 0, 0, 0)
        first, last, count, unsealed = (int(value) for value in row)
        database_id = str((connection.execute(QUERIES["chain_identity"]).fetchone() or ("",))[0])
        hashes = _check_links(connection, _genesis(database_id), findings)
        if count and (first != 1 or last != count):
            findings.add("order", f"the chain goes from {first} to {last} and has {count} positions")
        for transaction_id, key in connection.execute(QUERIES["chain_passed_over"]).fetchall():
            findings.add("presence", f"transaction {transaction_id} ({key}) is not in the chain, later ones are")
        check_documents(connection, journal_dir, documents_before, findings)
        batches = [int(row[0]) for row in connection.execute(QUERIES["chain_batches"]).fetchall()]
    known = {0: _genesis(database_id).hex()} | hashes
    _check_heads_in_chain(before, known, last, database_id, findings)
    _check_chain_in_heads(journal_dir, batches, findings)
    if expected is not None and known.get(expected[0]) != expected[1]:
        findings.add(
            "head", f"position {expected[0]} has the hash {known.get(expected[0], 'of nothing')}, not the given"
        )
    findings.compared["positions"] = count
    findings.compared["heads"] = len(before)
    return ChainReport(
        count, unsealed, known.get(last, ""), dict(findings.compared), tuple(str(one) for one in findings.differences)
    )


def _genesis(database_id: str) -> bytes:
    return hashlib.sha256(f"rackmeter ledger chain 1\n{database_id}".encode()).digest()


def _check_links(connection: Connection, start: bytes, findings: Findings) -> dict[int, str]:
    """Recompute each hash from the stored one before it, so that each change is named by itself; give the stored."""
    stored: dict[int, str] = {}
    previous, at = start, 0
    found: list[tuple[str, str | None]] = []
    while rows := connection.execute(QUERIES["chain_links"], {"after": at, "limit": _BATCH}).fetchall():
        for position, link_hash, transaction_id, key, content in rows:
            if position != at + 1:
                found.append((f"positions {at + 1} to {position - 1} are missing", None))
            elif content is None:
                found.append((f"position {position}: its transaction {transaction_id} is gone", None))
            elif hashlib.sha256(previous + content.encode()).digest() != bytes(link_hash):
                what = f"transaction {transaction_id} ({key}), one of its entries or the hash at it or before it"
                found.append((f"position {position}: {what} is not what was sealed", None))
            previous, at = bytes(link_hash), position
            stored[position] = previous.hex()
    findings.add_listed("chain", found)
    return stored


def _check_heads_in_chain(
    heads: Sequence[OutsideLine], known: Mapping[int, str], last: int, database_id: str, findings: Findings
) -> None:
    found: list[tuple[str, str | None]] = []
    for head in heads:
        position, said = int(head.record["position"]), str(head.record["hash"])
        if head.record["database_id"] != database_id:
            found.append((f"the journal's head {head.number} is of the database {head.record['database_id']}", None))
        elif position > last:
            found.append((f"the chain ends at {last}; the journal says it came to {position}", None))
        elif known.get(position) != said:
            found.append((f"position {position} has another hash than the journal's head {head.number}", None))
    findings.add_listed("journal", found)


def _check_chain_in_heads(journal_dir: Path, batches: Sequence[int], findings: Findings) -> None:
    """Every commit of the sealer has its head outside; the last one may be a moment late."""
    give_up_at = time.monotonic() + _HEAD_SECONDS
    while True:
        taken = Findings()
        heads = {int(head.record["position"]) for head in _heads(journal_dir, taken)}
        missing = [position for position in batches if position not in heads]
        if not missing or missing != batches[-1:] or time.monotonic() > give_up_at:
            break
        time.sleep(_POLL_SECONDS)
    findings.differences += taken.differences
    findings.add_listed("journal", [(f"it has no head for position {position}", None) for position in missing])


def _heads(journal_dir: Path, findings: Findings) -> list[OutsideLine]:
    return read_stream(journal_dir / HEADS, findings)
