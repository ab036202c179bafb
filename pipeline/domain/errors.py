"""Errors, named by what the worker that meets one does next."""

from collections.abc import Iterable
from dataclasses import dataclass


class PipelineError(Exception):
    """Root of our errors: `detail` is a sentence for people, `code` a stable word for logs and metrics."""

    default_code = "pipeline_error"

    def __init__(self, detail: str, code: str = "") -> None:
        self.detail = detail
        self.code = code or self.default_code
        super().__init__(detail)


class RejectedRecord(PipelineError):
    """One record is bad: quarantine it under `reason_code` (docs/reasons.md) and go on."""

    default_code = "rejected_record"

    def __init__(self, reason_code: str, detail: str = "") -> None:
        self.reason_code = reason_code
        super().__init__(detail or reason_code, reason_code)


class TransientFault(PipelineError):
    """A service did not answer: keep the offset, back off, try again."""

    default_code = "transient_fault"


class ConfigurationFault(PipelineError):
    """A setting or a file is wrong: refuse to start, say what to do."""

    default_code = "configuration_fault"


class InvariantViolation(PipelineError):
    """A law does not hold: stop the process, loudly."""

    default_code = "invariant_violation"


class Fenced(PipelineError):
    """Somebody else owns the partition: forget what is in memory, read the stored state again."""

    default_code = "fenced"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a file; `line` counts from 1, 0 where no line can be named, and is not printed then."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = f"{place}: {self.field}: {self.message}"
        # A key or a cell of the file may hold a line's end; a problem is one line.
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Problems(ConfigurationFault):
    """Everything wrong in a file, found at once; prints one problem a line, in the order of the file."""

    default_code = "problems_in_file"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
