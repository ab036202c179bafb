"""What a proof found: what was compared, and what differs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Differences of one kind that are listed one by one; the rest are counted.
LISTED_MAX = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as recomputed. `subject`: the server it is about, where it is about one."""

    step: str
    text: str
    subject: str | None = None

    def __str__(self) -> str:
        return f"{self.step}: {self.text}"


@dataclass(frozen=True, slots=True)
class InvoiceProof:
    """The verdict about one invoice; `report` is JSON without floats, `differences` are sentences."""

    invoice_id: str
    ok: bool
    report: Mapping[str, Any]
    differences: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """Gathers differences and counts; steps add to it."""

    compared: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def add(self, step: str, text: str, subject: str | None = None) -> None:
        """Add one difference."""
        self.differences.append(Difference(step, text, subject))

    def add_listed(self, step: str, found: Iterable[tuple[str, str | None]]) -> None:
        """Add (text, subject) differences of one kind: of each subject the first ones, the rest as a number."""
        by_subject: dict[str | None, list[str]] = {}
        for text, subject in found:
            by_subject.setdefault(subject, []).append(text)
        for subject, texts in by_subject.items():
            self.differences += [Difference(step, text, subject) for text in texts[:LISTED_MAX]]
            if len(texts) > LISTED_MAX:
                about = f" about {subject}" if subject else ""
                self.add(step, f"and {len(texts) - LISTED_MAX} more of this kind{about}", subject)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `verify`: counts of what was compared, differences in all, and the verdict for each invoice."""

    compared: Mapping[str, int]
    differences: tuple[str, ...]
    invoices: Mapping[str, InvoiceProof]

    def is_proven(self, invoice_id: str) -> bool:
        """Whether nothing differs in an invoice or in what it rests on."""
        return self.invoices[invoice_id].ok

    def summary(self, invoice_id: str) -> Mapping[str, Any]:
        """What was compared for an invoice; JSON without floats."""
        return self.invoices[invoice_id].report

    def differences_of(self, invoice_id: str) -> tuple[str, ...]:
        """What differs in an invoice, or in what it rests on."""
        return self.invoices[invoice_id].differences

    @property
    def lines_compared(self) -> int:
        """How many lines were recomputed."""
        return self.compared.get("lines", 0)

    @property
    def ok(self) -> bool:
        """Whether nothing differs, anywhere."""
        return not self.differences
