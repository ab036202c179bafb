"""The checkout's source files as the shape tests read them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "pipeline"
SCHEMAS = ROOT / "schemas"

# In the order of an event's way; each has the same shape.
STAGES = ("ingest", "archive", "aggregate", "totals", "rate", "ledger_sink", "sealer", "invoice_batch")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Python file: where it is, its text and its parsed tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its path in the checkout, as messages show it."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def package(self) -> str:
        """The package of `pipeline` it lies in; a top-level module is its own."""
        first = self.path.relative_to(PIPELINE).parts[0]
        return first.removesuffix(".py")


@cache
def pipeline_files() -> tuple[SourceFile, ...]:
    """Every module of the package, in path order."""
    paths = sorted(PIPELINE.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return tuple(
        SourceFile(path, text, ast.parse(text, str(path))) for path, text in zip(paths, texts, strict=True) if text
    )


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Every module a file imports, wherever in the file it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.module


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
