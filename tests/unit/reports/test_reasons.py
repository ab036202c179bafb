"""Every reason code is explained, and the page has the same ones."""

import re

from pipeline.reports.reasons import REASONS
from pipeline.runtime.settings import checkout_dir

_ROW = re.compile(r"^\| (?:conflict \| )?`([a-z_]+)` \|", re.MULTILINE)


def test_what_is_explained_is_what_the_page_lists() -> None:
    """docs/reasons.md and `quarantine explain` know the same codes."""
    page = (checkout_dir() / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert set(_ROW.findall(page)) == set(REASONS)
