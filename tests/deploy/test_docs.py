"""docs/install.md and docs/operations.md: what they name exists, and what exists is named."""

import re
from dataclasses import fields

import pytest
import typer.main

from pipeline.cli.main import app
from pipeline.reports.watch import OUTCOMES
from pipeline.runtime import metrics
from pipeline.runtime.settings import Settings, variable_name
from tests.deploy.files import INSTALL, OPERATIONS
from tests.tidy.source import ROOT

PAGES = pytest.mark.parametrize("page", [INSTALL, OPERATIONS], ids=lambda page: page.name)


def test_every_setting_is_explained() -> None:
    """Whoever installs finds each variable in the table."""
    text = INSTALL.read_text(encoding="utf-8")

    assert [
        variable_name(field.name) for field in fields(Settings) if f"| `{variable_name(field.name)}` |" not in text
    ] == []


@PAGES
def test_files_that_are_named_exist(page: object) -> None:
    """A path of the checkout that a page names is there."""
    text = (ROOT / "docs" / str(page)).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.])((?:deploy|schemas|docs)/[\w./@-]*\w)", text)

    assert named
    assert [path for path in named if not (ROOT / path).exists() and not list(ROOT.glob(f"{path}*"))] == []


@PAGES
def test_links_lead_somewhere(page: object) -> None:
    """A relative link has a file at its end."""
    text = (ROOT / "docs" / str(page)).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)

    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


@PAGES
def test_commands_that_are_named_exist(page: object) -> None:
    """Every `rackmeter ...` of a page is a command with these options."""
    text = (ROOT / "docs" / str(page)).read_text(encoding="utf-8")
    top = typer.main.get_command(app)
    unknown = []
    lines = re.findall(r"(?:^|[`$ /])rackmeter ((?:[a-z][a-z-]*)(?: [^`\n|&;#]*)?)", text, re.MULTILINE)
    for line in lines:
        words = line.split()
        command = top
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        if hasattr(command, "commands") or not used <= options:
            unknown.append(line)

    assert lines
    assert unknown == []


def test_every_reason_that_holds_a_close_is_explained() -> None:
    """Whoever closes a month finds each code in the table, and no code that does not exist."""
    source = (ROOT / "pipeline" / "invoice_batch" / "gate.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'Reason\(\s*"([a-z_]+)"', source))
    outcomes = {f"open_{outcome}" for outcome in OUTCOMES}
    section = OPERATIONS.read_text(encoding="utf-8").partition("## Close a month")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    told = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}

    # An item's outcome is a reason too.
    assert told == codes | outcomes | {"no_price", "failed"}


def test_every_metric_is_explained() -> None:
    """Whoever sees a number on the board finds what it means, and no number that is not there."""
    told = set(re.findall(r"rackmeter_[a-z_]+", OPERATIONS.read_text(encoding="utf-8").partition("## Alerts")[0]))
    there = {f"{one.name}_total" if one.type == "counter" else one.name for one in metrics.REGISTRY.collect()}

    assert told == there
