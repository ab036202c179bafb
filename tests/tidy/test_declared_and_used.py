"""What is declared is used, and what is used is declared: queries, metrics, topics, reason codes."""

import ast
import re

import pytest

from pipeline.runtime import metrics
from pipeline.runtime.topic_specs import load_topics
from tests.tidy.source import PIPELINE, ROOT, SCHEMAS, pipeline_files

SQL_FILES = sorted(path for path in PIPELINE.rglob("*.sql"))
_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$", re.MULTILINE)


def _named_by(package: str, name: str) -> bool:
    """Whether a package's modules hold this text as a literal, or an f-string that can become it."""
    for file in pipeline_files():
        if file.package != package:
            continue
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Constant) and node.value == name:
                return True
            if isinstance(node, ast.JoinedStr) and _can_become(node, name):
                return True
    return False


def _can_become(node: ast.JoinedStr, name: str) -> bool:
    parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z0-9_]+" for part in node.values]
    fixed = any(isinstance(part, ast.Constant) for part in node.values)
    return fixed and re.fullmatch("".join(parts), name) is not None


def _asked(package: str) -> set[str]:
    """The names a package's modules look up in something called ...QUERIES."""
    return {
        node.slice.value
        for file in pipeline_files()
        if file.package == package
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id.upper().endswith(("QUERIES", "SQL"))
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.relative_to(PIPELINE).as_posix())
def test_every_query_is_used(path: object) -> None:
    """A statement that no code names is dead."""
    file = PIPELINE / str(path)
    package = file.relative_to(PIPELINE).parts[0]
    declared = set(_NAME.findall(file.read_text(encoding="utf-8")))

    assert [name for name in sorted(declared) if not _named_by(package, name)] == []


@pytest.mark.parametrize("package", sorted({path.relative_to(PIPELINE).parts[0] for path in SQL_FILES}))
def test_every_query_that_is_used_exists(package: str) -> None:
    """A misspelt query name fails here and not on the day its branch runs."""
    declared: set[str] = set()
    for path in (PIPELINE / package).rglob("*.sql"):
        declared |= set(_NAME.findall(path.read_text(encoding="utf-8")))

    assert _asked(package) - declared == set()


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.relative_to(PIPELINE).as_posix())
def test_no_query_name_is_given_twice(path: object) -> None:
    """A name stands for one statement."""
    names = _NAME.findall((PIPELINE / str(path)).read_text(encoding="utf-8"))

    assert sorted(names) == sorted(set(names))


def test_every_metric_is_measured() -> None:
    """A metric that nothing sets would show a comforting zero."""
    from prometheus_client.metrics import MetricWrapperBase

    declared = {name for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}
    used: set[str] = set()
    for file in pipeline_files():
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)

    assert declared - used == set()


def test_metric_names_carry_their_unit() -> None:
    """A metric is named rackmeter_..., with its base unit last where it has one."""
    names = [family.name for family in metrics.REGISTRY.collect()]

    assert names
    assert [name for name in names if not re.fullmatch(r"rackmeter_[a-z_]+", name)] == []
    assert [name for name in names if name.endswith(("_ms", "_milliseconds", "_minutes", "_kb"))] == []


# Our own log ids are written and read by the runtime alone; its record is a struct of pipeline.runtime.topics.
PRIVATE_TOPICS = {"rackmeter.log"}


@pytest.mark.parametrize("topic", [spec.name for spec in load_topics() if spec.name not in PRIVATE_TOPICS])
def test_every_topic_has_a_schema_and_examples(topic: str) -> None:
    """A topic is described by a JSON Schema with examples of both kinds."""
    assert list((SCHEMAS / "events" / topic).glob("v*.schema.json"))
    assert list((SCHEMAS / "examples" / topic).glob("v*/valid/*"))
    assert list((SCHEMAS / "examples" / topic).glob("v*/invalid/*"))


def test_every_schema_has_a_topic() -> None:
    """A schema or example of no topic is an orphan."""
    topics = {spec.name for spec in load_topics()}

    assert {path.name for path in (SCHEMAS / "events").iterdir()} <= topics
    assert {path.name for path in (SCHEMAS / "examples").iterdir()} <= topics


def test_every_migration_is_named_by_what_it_does() -> None:
    """Migrations are NNNN_verb_object.sql, numbered without gap."""
    names = sorted(path.name for path in (SCHEMAS / "sql" / "migrations").iterdir())

    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z]+_[a-z_]+\.sql", name)] == []
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_every_reason_an_example_names_is_explained() -> None:
    """Each invalid event's reason code is in docs/reasons.md."""
    explained = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    folder = SCHEMAS / "examples" / "usage.events" / "v1" / "invalid"
    codes = {path.name.partition("--")[0] for path in folder.iterdir()}

    assert {code for code in codes if f"`{code}`" not in explained} == set()
