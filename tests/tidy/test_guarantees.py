"""What docs/guarantees.md promises can be looked up: tests and constraints it names exist, links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, SCHEMAS

TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_TEST = re.compile(r"`((?:[a-z_]+/)+test_[a-z_]+\.py)(?:::(test_[a-z0-9_]+))?`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    """A test that was renamed or dropped does not stay promised."""
    named = _TEST.findall(TEXT)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (path := ROOT / "tests" / file).is_file() or (name and name not in _tests_of(path))
    ]

    assert named
    assert missing == []


def test_every_named_constraint_exists() -> None:
    """A check that is named in the page stands in the migrations."""
    migrations = "\n".join(path.read_text(encoding="utf-8") for path in (SCHEMAS / "sql" / "migrations").glob("*.sql"))
    named = set(re.findall(r"`([a-z_]+_ck)`", TEXT))

    assert named
    assert {name for name in named if name not in migrations} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    """A page that was moved does not leave links to nowhere."""
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_listed() -> None:
    """The list of decisions has every page, and pages have the three parts."""
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(folder.glob("[0-9]*.md"))

    assert [page.name for page in pages if page.name not in listed] == []
    assert [page.name for page in pages if not re.match(r"\d{4}-[a-z-]+\.md$", page.name)] == []
    for heading in ("## Context", "## Decision", "## Consequences"):
        assert [page.name for page in pages if heading not in page.read_text(encoding="utf-8")] == []
