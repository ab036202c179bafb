"""The flow page: every stage with its rate and what is before it, and what waits for somebody."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from pipeline.reports import store as reports
from pipeline.runtime.postgres import Connection
from pipeline.web.ui import store
from pipeline.web.ui.charts import tall_layout, wide_layout
from pipeline.web.ui.database import snapshot
from pipeline.web.ui.events import EVENTS_TOPIC
from pipeline.web.ui.live import StageLive
from pipeline.web.ui.look import Look, answer
from pipeline.web.ui.pages import grouped

State = Literal["running", "off", "plain"]
STAGES = ("aggregate", "archive", "totals", "rate", "ledger_sink")
OUTCOMES = ("counted", "duplicate", "conflict", "quarantined", "parked", "ignored", "control", "handed_over")
INVOICE_GROUPS = 6
HOLDING_MAX = 1000


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the diagram: three short lines, and where it leads."""

    name: str
    title: str
    lines: tuple[str, str]
    state: State
    link: str = ""


def add_routes(app: FastAPI, look: Look) -> None:
    """Add the first page."""

    @app.get("/")
    def flow(request: Request) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            facts = _facts(connection)
        live = look.live.look()
        facts["boxes"] = boxes(live, facts["work"], facts["tally"], facts["archived"], facts["issued"])
        facts["is_running"] = bool(live)
        facts["layouts"] = (wide_layout(), tall_layout())
        return answer(request, look, "/", "Flow", "flow.html", facts)


def _facts(connection: Connection) -> dict[str, Any]:
    tally: Counter[str] = Counter()
    for row in reports.tallies(connection, EVENTS_TOPIC):
        tally.update({name: row[name] for name in ("received", *OUTCOMES)})
    offsets = [row for row in reports.stage_offsets(connection) if row["topic"] == EVENTS_TOPIC]
    invoices = reports.last_invoices(connection, INVOICE_GROUPS)
    holding = reports.decisions(connection, limit=HOLDING_MAX)
    work = reports.work_left(connection)
    held = {row["account"] or row["source"] for row in holding if row["holds"]}
    return {
        "now": reports.clock(connection),
        "tally": tally,
        "outcomes": OUTCOMES,
        "flushed": {
            row["stage"]: max(r["updated_at"] for r in offsets if r["stage"] == row["stage"]) for row in offsets
        },
        "archived": sum(row["offset_next"] for row in offsets if row["stage"] == "archive"),
        "work": work,
        "waiting": waiting(store.open_outcomes(connection), work, len(held)),
        "months": store.month_states(connection),
        "invoices": invoices,
        "issued": sum(row["count"] for row in invoices if row["state"] == "issued"),
    }


def waiting(open_outcomes: Mapping[str, int], work: Mapping[str, int], held: int) -> list[tuple[str, int, str, str]]:
    """What waits: (name, count, what it means, where it is shown)."""
    return [
        ("quarantined", open_outcomes["quarantined"], "events that are invalid", "/quarantine"),
        ("parked", open_outcomes["parked"], "events nobody can count yet", "/quarantine"),
        ("conflicts", open_outcomes["conflict"], "two contents under one identity", "/quarantine"),
        ("dirty marks", work["dirty_marks"] + work["dirty_items"], "changes no total has taken up", ""),
        ("unbooked", work["unbooked_totals"], "totals not in the books yet", "/ledger"),
        ("held accounts", held, "cannot close before open events are settled", "/quarantine"),
    ]


def boxes(
    live: Mapping[str, StageLive], work: Mapping[str, int], tally: Mapping[str, int], archived: int, issued: int
) -> Sequence[Box]:
    """The diagram's boxes: what runs with its rate and lag, the rest with what the database has of it."""
    behind = {
        "totals": f"{grouped(work['dirty_marks'] + work['dirty_items'])} dirty marks",
        "rate": f"{grouped(work['unbooked_totals'])} totals unbooked",
    }
    stages = [_stage(name, live.get(name), behind.get(name, "")) for name in STAGES]
    received = (f"{grouped(tally['received'])} received", f"{grouped(tally['counted'])} counted")
    return [
        Box("events", "usage.events", received, "plain"),
        *stages,
        Box("invoices", "invoices", (f"{grouped(issued)} issued", "gate, cut, number"), "plain", "/invoices"),
        Box("proof", "proof", (f"{grouped(archived)} messages", "are its evidence"), "plain", "/proof"),
    ]  # fmt: skip


def _stage(name: str, live: StageLive | None, behind: str) -> Box:
    title = name.replace("_", " ")
    if live is None:
        return Box(name, title, ("not running", behind or "lag not known"), "off")
    rate = "rate: next look" if live.per_second is None else f"{grouped(live.per_second)} /s"
    lag = f"{grouped(live.lag)} messages behind" if live.lag is not None else behind or "lag not said yet"
    return Box(name, title, (rate, lag), "running")
