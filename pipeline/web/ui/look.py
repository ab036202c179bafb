"""What the pages look at, and how a page becomes an answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse

from pipeline.web.ui.live import Live
from pipeline.web.ui.pages import render

#: The header of our script that asks for the part of a page that changes, and not for the frame around it.
FRAGMENT_HEADER = "X-Fragment"

#: What the navigation shows: path and name.
SECTIONS = (
    ("/", "Flow"),
    ("/usage", "Usage"),
    ("/invoices", "Invoices"),
    ("/quarantine", "Quarantine"),
    ("/ledger", "Ledger"),
    ("/proof", "Proof"),
)


def nothing_runs() -> Mapping[str, str]:
    """No stage serves its metrics."""
    return {}


@dataclass(frozen=True, slots=True)
class Look:
    """
    One installation.

    name: What the pages call it, e.g. the folder's name.
    database_url: Of a login that may read.
    archive_dir: The evidence; None: pages cannot show the events of a slot.
    metrics_urls: Where the stages serve their metrics now, by process.
    """

    name: str
    database_url: str
    archive_dir: Path | None = None
    metrics_urls: Callable[[], Mapping[str, str]] = nothing_runs
    live: Live = field(init=False)

    def __post_init__(self) -> None:
        """Begin to remember live figures."""
        object.__setattr__(self, "live", Live(self.metrics_urls))


def answer(
    request: Request,
    look: Look,
    section: str,
    title: str,
    template: str,
    facts: Mapping[str, object],
    *,
    status: int = 200,
) -> HTMLResponse:
    """
    Give a page, or its changing part alone to our script.

    Args:
        request: Says which.
        look: Whose pages they are.
        section: Path of the section that is marked in the navigation.
        title: Of the page.
        template: The changing part's template.
        facts: What the template shows, by name.
        status: Of the answer.
    """
    part = render(template, facts)
    if request.headers.get(FRAGMENT_HEADER):
        return HTMLResponse(part, status)
    frame = render(
        "frame.html", {"title": title, "name": look.name, "sections": SECTIONS, "section": section, "part": part}
    )
    return HTMLResponse(frame, status)
