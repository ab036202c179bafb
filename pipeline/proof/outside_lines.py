"""Reads a stream of the journal by our own rules, and says where it is not as it was written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.proof.report import Findings


@dataclass(frozen=True, slots=True)
class OutsideLine:
    """A line of a journal's file that can be read."""

    number: int
    record: Mapping[str, Any]


def read_stream(path: Path, findings: Findings) -> list[OutsideLine]:
    """
    Read a stream's lines in order; what was altered, cut out or put in is a difference.

    What a crash left of a line is no JSON, and the next whole line goes on from the one before it.
    """
    if not path.is_file():
        return []
    previous = hashlib.sha256(f"rackmeter journal 1\n{path.stem}".encode()).hexdigest()
    lines: list[OutsideLine] = []
    torn: int | None = None
    for place, data in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        value = _json(data)
        if not isinstance(value, dict):
            torn = torn or place
            continue
        if value.get("previous") != previous or value.get("number") != len(lines) + 1:
            findings.add(
                "journal", f"{path.name} is not as it was written: line {place} does not go on from those before"
            )
            return lines
        previous, torn = hashlib.sha256(data).hexdigest(), None
        lines.append(OutsideLine(value["number"], value["record"]))
    if torn is not None:
        findings.add("journal", f"{path.name} is not as it was written: line {torn} cannot be read")
    return lines


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None
