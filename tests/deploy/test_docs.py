"""docs/install.md and docs/operations.md: what they name exists, and what exists is named."""

import re
from dataclasses import fields

import pytest
import typer.main

from pipeline.cli.main import app
from pipeline.runtime.settings import Settings, variable_name
from tests.deploy.files import INSTALL, OPERATIONS
from tests.tidy.source import ROOT

PAGES = pytest.mark.parametrize("page", [INSTALL, OPERATIONS], ids=lambda page: page.name)


def test_every_setting_is_explained() -> None:
    """Whoever installs finds each variable in the table."""
    text = INSTALL.read_text(encoding="utf-8")

    assert [variable_name(field.name) for field in fields(Settings) if f"| `{variable_name(field.name)}` |" not in text] == []


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
        if command is top or hasattr(command, "commands"):
            unknown.append(line)
        elif not {word.partition("=")[0] for word in words if word.startswith("--")} <= options:
            unknown.append(line)

    assert lines
    assert unknown == []
