"""Where each field of a document stands, so that whoever finds it wrong names file and line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.domain.errors import Problem

_LAST_STEP = re.compile(r"(\.[^.\[]*|\[[^\]]*\])$")


@dataclass(frozen=True, slots=True)
class Positions:
    """A document's file, and the line (from 1) of each path in it, such as plans.standard.items.cpu.changes[0]."""

    file: str
    lines: Mapping[str, int]

    def problem(self, path: str, message: str) -> Problem:
        """A problem of a field; where the field is not in the file, its nearest parent gives the line."""
        return Problem(self.file, self._line_of(path), path or "document", message)

    def _line_of(self, path: str) -> int:
        while path not in self.lines:
            shorter = _LAST_STEP.sub("", path)
            if shorter == path:
                return self.lines.get("", 1)
            path = shorter
        return self.lines[path]
