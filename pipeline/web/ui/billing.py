"""Pages of money: invoices down to days, the books, the proofs."""

from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse

from pipeline.domain.errors import ConfigurationFault
from pipeline.reports import store as reports
from pipeline.runtime.postgres import Connection
from pipeline.web.ui import store
from pipeline.web.ui.database import snapshot
from pipeline.web.ui.look import Look, answer
from pipeline.web.ui.usage import month_edges

Text = Annotated[str, Query(max_length=300)]
Name = Annotated[str, Path(max_length=300)]


def add_routes(app: FastAPI, look: Look) -> None:
    """Add the pages of invoices, ledger and proof."""

    @app.get("/invoices")
    def invoices(request: Request, month: Text = "", account: Text = "") -> HTMLResponse:
        if month:
            month_edges(month)
        with snapshot(look.database_url) as connection:
            rows = reports.invoices(connection, period=month or None, account=account or None)
            months = store.months(connection)
            accounts = [row["account"] for row in store.accounts(connection)]
        facts = {"rows": rows, "months": months, "month": month, "accounts": accounts, "account": account}
        return answer(request, look, "/invoices", "Invoices", "invoices.html", facts)

    @app.get("/invoices/{name}")
    def invoice(request: Request, name: Name) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            found = reports.invoice(connection, name)
            lines = reports.invoice_lines(connection, found["invoice_id"])
        title = f"Invoice {found['number'] or found['invoice_id']}"
        return answer(request, look, "/invoices", title, "invoice.html", {"invoice": found, "lines": lines})

    @app.get("/invoices/{name}/lines/{number}")
    def line(request: Request, name: Name, number: Annotated[int, Path(ge=0, le=2**31 - 1)]) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            found = reports.invoice(connection, name)
            one = store.line(connection, found["invoice_id"], number)
            facts = {"invoice": found, "line": one, **days_of(store.line_days(connection, one))}
        title = f"Invoice {found['number'] or found['invoice_id']}, line {number}"
        return answer(request, look, "/invoices", title, "line.html", facts)

    @app.get("/ledger")
    def ledger(request: Request) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            rows = reports.trial_balance(connection)
        return answer(request, look, "/ledger", "Ledger", "ledger.html", {"rows": rows, "sums": _sums(rows)})

    @app.get("/ledger/entries")
    def entries(request: Request, name: Text) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            account = next((row for row in reports.trial_balance(connection) if row["name"] == name), None)
            if account is None:
                raise ConfigurationFault(f"there is no ledger account {name!r}", "ledger_account_unknown")
            rows = store.ledger_entries(connection, name)
        facts = {"account": account, "rows": rows, "limit": store.ROWS_MAX}
        return answer(request, look, "/ledger", name, "entries.html", facts)

    @app.get("/proof")
    def proof(request: Request) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            facts = _proof(connection)
        return answer(request, look, "/proof", "Proof", "proof.html", facts)


def days_of(rows: list[store.Row]) -> dict[str, Any]:
    """The rows of `line_days` by what they are: of days by server, of servers, of everything."""
    servers = [row for row in rows if row["server"] is not None and row["day"] is None]
    days: dict[str, list[store.Row]] = {row["server"]: [] for row in servers}
    for row in rows:
        if row["day"] is not None:
            days[row["server"]].append(row)
    return {"servers": servers, "days": days, "sums": [row for row in rows if row["server"] is None]}


def _sums(rows: list[reports.Row]) -> list[tuple[str, Any]]:
    # Summed by the database: Python's decimals round at 28 digits.
    return sorted({row["currency"]: row["currency_balance"] for row in rows}.items())


def _proof(connection: Connection) -> dict[str, Any]:
    proofs = store.proofs(connection)
    compared = [row["proof"] or {} for row in proofs]
    return {
        "proofs": proofs,
        "failures": store.proof_failures(connection),
        "sums": _sums(reports.trial_balance(connection)),
        "proven": sum(row["proven_at"] is not None for row in proofs),
        "lines": sum(one.get("lines", 0) for one in compared),
        "without_evidence": reports.work_left(connection)["events_without_evidence"],
    }
