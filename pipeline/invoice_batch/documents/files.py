"""Issued documents on disk: HTML and JSON per invoice, CSV per month; each whole or not there at all."""

import os
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.domain.keys import canonical_json
from pipeline.invoice_batch.documents.render import render_invoice
from pipeline.invoice_batch.frames import invoices_csv, lines_csv


def has_documents(folder: Path, month: str, number: str) -> bool:
    """Whether an invoice's two files lie in the folder."""
    return all((folder / month / f"{number}.{kind}").is_file() for kind in ("html", "json"))


def write_documents(documents: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """
    Make sure that every document lies in the folder as stored; give the paths, the CSV files last.

    A file that is missing or differs is written again: the database holds the truth.
    """
    paths: list[Path] = []
    by_month: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for document in documents:
        month = document["service_period"]["month"]
        by_month[month].append(document)
        base = folder / month / document["number"]
        paths += [
            write_whole(base.with_name(f"{base.name}.html"), render_invoice(document).encode()),
            write_whole(base.with_name(f"{base.name}.json"), canonical_json(document) + b"\n"),
        ]
    for month, issued in sorted(by_month.items()):
        paths += [
            write_whole(folder / month / "invoices.csv", invoices_csv(issued).encode()),
            write_whole(folder / month / "lines.csv", lines_csv(issued).encode()),
        ]
    return [str(path) for path in paths]


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never half; one with this content is left alone."""
    if path.is_file() and path.read_bytes() == content:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, so that two runs at once never write one temporary file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path
