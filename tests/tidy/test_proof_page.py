"""docs/proof.md says of every column of what is billed whether the proof looks at it."""

import re

from tests.tidy.source import ROOT, SCHEMAS

MIGRATIONS = sorted((SCHEMAS / "sql" / "migrations").glob("*.sql"))
FIRST, LAST = "0002", "0006"
ALSO = {"ledger_chain"}

_TABLE = re.compile(r"^CREATE TABLE (\w+) \(\n(.*?)^\);", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"^    ([a-z_]+) ", re.MULTILINE)
_ADDED = re.compile(r"^ALTER TABLE (\w+)\s(.*?);", re.MULTILINE | re.DOTALL)


def columns() -> dict[str, set[str]]:
    """The columns of the tables from the catalogue to the payments, by table, with those added later."""
    found: dict[str, set[str]] = {}
    for path in MIGRATIONS:
        text = path.read_text(encoding="utf-8")
        for table, body in _TABLE.findall(text):
            if FIRST <= path.name[:4] <= LAST or table in ALSO:
                found[table] = set(_COLUMN.findall(body))
        for table, body in _ADDED.findall(text):
            if table in found:
                found[table] |= set(re.findall(r"ADD COLUMN (\w+)", body))
    return found


def rows() -> dict[str, list[str]]:
    """What the page says: table -> columns as they are listed."""
    text = (ROOT / "docs" / "proof.md").read_text(encoding="utf-8")
    listed = {}
    for line in text.splitlines():
        if match := re.match(r"\| `(\w+)` \|(.*)", line):
            listed[match[1]] = re.findall(r"`(\w+)`", match[2])
    return listed


def test_every_column_stands_in_the_page_once() -> None:
    """A new column does not go by unsaid, one that went does not stay promised, and none is said to be two things."""
    wanted = columns()

    assert len(wanted) > 25
    assert {table: sorted(names) for table, names in rows().items()} == {
        table: sorted(names) for table, names in wanted.items()
    }
