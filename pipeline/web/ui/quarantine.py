"""Quarantine pages: events that do not count, by reason; one of them with its bytes."""

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse

from pipeline.reports import store as reports
from pipeline.web.ui import store
from pipeline.web.ui.database import snapshot
from pipeline.web.ui.look import Look, answer

Text = Annotated[str, Query(max_length=300)]
LISTED_MAX = 200
BIGINT_MAX = 2**63 - 1
INTEGER_MAX = 2**31 - 1


def add_routes(app: FastAPI, look: Look) -> None:
    """Add the pages of events that do not count."""

    @app.get("/quarantine")
    def quarantine(request: Request, reason: Text = "", server: Text = "") -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            reasons = store.open_reasons(connection)
            rows = reports.decisions(connection, limit=LISTED_MAX + 1, reason=reason or None, server=server or None)
        facts = {
            "reasons": reasons,
            "rows": rows[:LISTED_MAX],
            "has_more": len(rows) > LISTED_MAX,
            "reason": reason,
            "server": server,
        }
        return answer(request, look, "/quarantine", "Quarantine", "quarantine.html", facts)

    @app.get("/quarantine/{topic}/{partition}/{offset}/{index}")
    def decision(
        request: Request,
        topic: Annotated[str, Path(max_length=300)],
        partition: Annotated[int, Path(ge=0, le=INTEGER_MAX)],
        offset: Annotated[int, Path(ge=0, le=BIGINT_MAX)],
        index: Annotated[int, Path(ge=-1, le=INTEGER_MAX)],
    ) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            found = reports.decision(connection, topic, partition, offset, index)
        payload = None if found["payload"] is None else bytes(found["payload"])
        facts = {"decision": found, "payload": payload}
        return answer(request, look, "/quarantine", f"Event {topic} {partition} {offset}", "decision.html", facts)
