"""Every stage looks the same, so whoever knows one finds their way in all."""

import ast

import pytest

from tests.tidy.source import PIPELINE, STAGES, pipeline_files

HEADINGS = ("Reads", "Writes", "Key", "Order", "Idempotency", "Commit point", "On failure")

# Ingest takes no decision and owns no table; rate keeps no state, its store reads price versions through the catalogue.
WITHOUT_RULES = {"ingest"}
WITHOUT_WORKER = {"ingest"}
WITHOUT_STORE = {"ingest"}
WITHOUT_QUERIES = {"ingest", "rate"}


def _contract(stage: str) -> str:
    tree = ast.parse((PIPELINE / stage / "__init__.py").read_text(encoding="utf-8"))
    return ast.get_docstring(tree) or ""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("heading", HEADINGS)
def test_a_stage_states_its_contract(stage: str, heading: str) -> None:
    """The package's docstring says what the stage reads, writes, relies on and does on failure."""
    lines = _contract(stage).splitlines()
    accepted = (f"{heading}:", f"{heading}s:")

    assert any(line.startswith(accepted) for line in lines), f"pipeline/{stage}/__init__.py says no '{heading}:'"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_files_every_stage_has(stage: str) -> None:
    """Rules decide, the store remembers, the worker moves: one file each, under these names."""
    wanted = {"__init__.py"}
    wanted |= set() if stage in WITHOUT_RULES else {"rules.py"}
    wanted |= set() if stage in WITHOUT_WORKER else {"worker.py"}
    wanted |= set() if stage in WITHOUT_STORE else {"store.py"}
    wanted |= set() if stage in WITHOUT_QUERIES else {"queries.sql"}
    found = {path.name for path in (PIPELINE / stage).iterdir()}

    assert wanted <= found, f"pipeline/{stage} lacks {sorted(wanted - found)}"


@pytest.mark.parametrize("stage", STAGES)
def test_importing_a_stage_runs_nothing(stage: str) -> None:
    """A stage's `__init__` is its contract: a docstring, at most imports beside it."""
    tree = ast.parse((PIPELINE / stage / "__init__.py").read_text(encoding="utf-8"))
    others = [node for node in tree.body[1:] if not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign)]

    assert others == []


def test_no_folder_is_a_stage_by_accident() -> None:
    """A package with a worker is a stage, and listed as one."""
    with_worker = {file.package for file in pipeline_files() if file.path.name == "worker.py"}

    assert with_worker <= set(STAGES)
