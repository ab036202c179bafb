"""Sizes, names and docstrings of files."""

import ast
import re

import pytest

from tests.tidy.source import PIPELINE, ROOT, SourceFile, functions, pipeline_files

LINES_MAX = 400
FUNCTION_LINES_MAX = 60
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "misc"}

FILES = pytest.mark.parametrize("file", pipeline_files(), ids=lambda file: file.name)


@FILES
def test_a_module_says_what_it_is_for(file: SourceFile) -> None:
    """Every module begins with a docstring."""
    assert ast.get_docstring(file.tree), f"{file.name} has no docstring"


@FILES
def test_files_and_functions_stay_readable(file: SourceFile) -> None:
    """No file and no function outgrows what one reads in a sitting."""
    long = [
        f"{file.name}:{node.lineno} {node.name}: {(node.end_lineno or node.lineno) - node.lineno + 1} lines"
        for node in functions(file.tree)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]

    assert long == []
    assert file.text.count("\n") <= LINES_MAX, f"{file.name} has {file.text.count(chr(10))} lines"


def test_no_junk_drawers() -> None:
    """A module is named after what it holds."""
    paths = [*PIPELINE.rglob("*"), *(ROOT / "bench").rglob("*"), *(ROOT / "tests").rglob("*")]

    assert [str(path) for path in paths if path.stem in BANNED_NAMES] == []


@FILES
def test_nothing_is_left_to_do_in_a_comment(file: SourceFile) -> None:
    """What is to be done is an issue, and a comment is a sentence without a banner around it."""
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b|#\s*[-=#*]{4,}")

    assert [line for line in file.text.splitlines() if marks.search(line)] == []


@FILES
def test_invariants_survive_optimised_python(file: SourceFile) -> None:
    """`assert` vanishes under -O, so the pipeline raises instead."""
    found = [f"{file.name}:{node.lineno}" for node in ast.walk(file.tree) if isinstance(node, ast.Assert)]

    assert found == []


def test_every_test_folder_is_a_package() -> None:
    """Two tests of one file name in different folders need packages around them."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}

    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
