"""No float comes near money or quantity."""

import ast

import pytest

from tests.tidy.source import SourceFile, pipeline_files

EXACT_PACKAGES = (
    "domain", "contracts", "catalogue", "aggregate", "totals", "rate", "ledger_sink", "invoice_batch", "payments",
    "proof",
)  # fmt: skip

# Waits and deadlines are seconds of the clock, not of usage; a worker moves records and computes nothing.
CLOCK_NAMES = ("seconds", "monotonic", "timeout", "deadline")
WAITS_ONLY = ("worker.py",)

FILES = pytest.mark.parametrize(
    "file", [file for file in pipeline_files() if file.package in EXACT_PACKAGES], ids=lambda file: file.name
)


def _floats(file: SourceFile) -> list[str]:
    lines = file.text.splitlines()
    found = []
    for node in ast.walk(file.tree):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        literal = literal and file.path.name not in WAITS_ONLY
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
        if (literal or call) and isinstance(node, ast.expr):
            line = lines[node.lineno - 1]
            if not any(name in line.lower() for name in CLOCK_NAMES):
                found.append(f"{file.name}:{node.lineno}: {line.strip()}")
    return found


@FILES
def test_no_float_is_made_where_money_is(file: SourceFile) -> None:
    """The packages that hold money and quantity contain no float literal and call no float()."""
    assert _floats(file) == []


@FILES
def test_no_division_makes_a_float_of_whole_numbers(file: SourceFile) -> None:
    """`/` is for Fraction, Decimal and paths; it never divides two integer literals."""
    found = [
        f"{file.name}:{node.lineno}"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and all(isinstance(side, ast.Constant) and isinstance(side.value, int) for side in (node.left, node.right))
    ]

    assert found == []
