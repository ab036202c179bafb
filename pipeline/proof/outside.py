"""Compare the journal's documents with the database's invoices: each is in both, under one number, the same."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.proof.facts import Invoice
from pipeline.proof.outside_lines import OutsideLine, read_stream
from pipeline.proof.report import Findings
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "chain.sql")


def documents_outside(journal_dir: Path) -> frozenset[str]:
    """Give the ids of invoices the journal has documents of."""
    streams = [read_stream(path, Findings()) for path in journal_dir.glob("documents-*.jsonl")]
    return frozenset(line.record["invoice_id"] for lines in streams for line in lines)


def check_documents(connection: Connection, journal_dir: Path, before: frozenset[str], findings: Findings) -> None:
    """
    Compare every journalled document and every issued invoice, both ways.

    Args:
        connection: In the snapshot to compare with.
        journal_dir: The journal's folder.
        before: What was outside before the snapshot was taken; what came since may not be issued in it yet.
        findings: Takes what differs, and the count `documents`.
    """
    issued: dict[str, tuple[str, str]] = {
        row[0]: (row[1], row[2]) for row in connection.execute(QUERIES["issued_documents"]).fetchall()
    }
    found: list[tuple[str, str | None]] = []
    seen: set[str] = set()
    for path in sorted(journal_dir.glob("documents-*.jsonl")):
        lines = read_stream(path, findings)
        found += [(text, None) for text in _out_of_series(path.stem, lines)]
        for line in lines:
            record = line.record
            seen.add(record["invoice_id"])
            if _digest(record["document"]) != record["digest"]:
                found.append((f"the journal's document {record['number']} is not what its digest says", None))
            elif record["invoice_id"] not in issued and record["invoice_id"] not in before:
                continue
            elif record["invoice_id"] not in issued:
                text = f"{record['number']} is in the journal, and its invoice {record['invoice_id']} is not issued"
                found.append((text + ": `rackmeter close` finishes it, unless the database is an older state", None))
            elif issued[record["invoice_id"]] != (record["number"], record["digest"]):
                found.append(
                    (f"invoice {issued[record['invoice_id']][0]} is not the journal's {record['number']}", None)
                )
    found += [
        (f"invoice {number} is issued and not in the journal", None)
        for invoice_id, (number, _) in sorted(issued.items(), key=lambda item: item[1])
        if invoice_id not in seen
    ]
    findings.add_listed("documents", found)
    findings.compared["documents"] = len(seen)


def check_journalled(
    invoices: Sequence[Invoice], journal_dir: Path, shared: Findings, own: Mapping[str, Findings]
) -> None:
    """
    Compare the documents of issued invoices, member by member, with what was journalled before they were.

    Whoever changes a document and its digest in one row is given away by it.

    Args:
        invoices: Drafts among them are passed over.
        journal_dir: The journal's folder.
        shared: Takes what is wrong with the journal's files.
        own: By invoice, takes what differs, and the count `journalled`.
    """
    wanted = {invoice.invoice_id: invoice for invoice in invoices if invoice.state == "issued"}
    if not wanted:
        return
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(journal_dir.glob("documents-*.jsonl")):
        for line in read_stream(path, shared):
            if line.record["invoice_id"] in wanted:
                found[line.record["invoice_id"]] = line.record
    for invoice_id, invoice in wanted.items():
        record, findings = found.get(invoice_id), own[invoice_id]
        if record is None:
            findings.add("journal", f"{invoice.name} is issued and not in the journal")
            continue
        findings.compared["journalled"] += 1
        if record["number"] != invoice.number:
            findings.add("journal", f"{invoice.name} has the number {record['number']} in the journal")
        if record["digest"] != invoice.document_digest or record["document"] != invoice.document:
            names = sorted(_differing(record["document"], invoice.document or {}))
            what = ", ".join(names) or "its digest"
            findings.add("journal", f"{invoice.name}: its document is not the one in the journal; {what} differs")


def _differing(journalled: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    """Give the paths of members that differ; lists are looked at whole."""
    for name in journalled.keys() | stored.keys():
        its, mine = journalled.get(name), stored.get(name)
        if isinstance(its, Mapping) and isinstance(mine, Mapping):
            yield from (f"{name}.{path}" for path in _differing(its, mine))
        elif its != mine:
            yield name


def _out_of_series(stream: str, lines: list[OutsideLine]) -> Iterator[str]:
    expected: int | None = None
    for line in lines:
        sequence = int(line.record["sequence"])
        if expected is not None and sequence != expected:
            yield f"{stream} has number {sequence} where {expected} is next"
        expected = sequence + 1


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
