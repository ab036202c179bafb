"""The pages as one application: routes of every section, errors as pages, the guard around it all."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pipeline.domain.errors import ConfigurationFault, PipelineError, TransientFault
from pipeline.web.ui import billing, flow, quarantine, usage
from pipeline.web.ui.guard import Guard
from pipeline.web.ui.look import Look, answer
from pipeline.web.ui.pages import static_text

STATIC = {"ui.css": "text/css", "ui.js": "text/javascript", "icon.svg": "image/svg+xml"}


def create_app(look: Look) -> FastAPI:
    """Make the application; it reads nothing until it is asked."""
    # No pages of FastAPI's own: they load scripts from elsewhere.
    app = FastAPI(title="Rackmeter", docs_url=None, redoc_url=None, openapi_url=None)
    flow.add_routes(app, look)
    usage.add_routes(app, look)
    billing.add_routes(app, look)
    quarantine.add_routes(app, look)
    for name, kind in STATIC.items():
        _add_static(app, name, kind)
    _add_errors(app, look)
    app.add_middleware(Guard)
    return app


def _add_static(app: FastAPI, name: str, kind: str) -> None:
    def static() -> Response:
        return Response(static_text(name), media_type=kind)

    app.get(f"/static/{name}", name=name)(static)


def _add_errors(app: FastAPI, look: Look) -> None:
    def said(request: Request, status: int, title: str, sentence: str) -> Response:
        return answer(request, look, "", title, "error.html", {"sentence": sentence}, status=status)

    def on_fault(request: Request, error: Exception) -> Response:
        detail = error.detail if isinstance(error, PipelineError) else str(error)
        if isinstance(error, ConfigurationFault):
            return said(request, 404, "Not found", detail)
        return said(request, 503, "Not answered", detail)

    def on_bad_request(request: Request, error: Exception) -> Response:
        problems = error.errors() if isinstance(error, RequestValidationError) else []
        return said(request, 400, "Not understood", "; ".join(str(one["msg"]) for one in problems))

    def on_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return said(request, status, "Not found" if status == 404 else "Refused", "There is no such page.")

    app.add_exception_handler(ConfigurationFault, on_fault)
    app.add_exception_handler(TransientFault, on_fault)
    app.add_exception_handler(RequestValidationError, on_bad_request)
    app.add_exception_handler(HTTPException, on_http)
