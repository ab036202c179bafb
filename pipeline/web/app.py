"""The collector's HTTP interface: routes, who answers them, and how every failure looks."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import __version__
from pipeline.domain.errors import RejectedRecord, TransientFault
from pipeline.runtime import metrics
from pipeline.web.answers import PROBLEM_TYPE, EventResults, Problem, Refused, Usage
from pipeline.web.content import BATCH, STRUCTURED
from pipeline.web.intake import RETRY_AFTER_SECONDS, take_events
from pipeline.web.limits import Busy
from pipeline.web.services import Services
from pipeline.web.usage import GroupBy, UsageDesk

LOGGER = logging.getLogger("rackmeter.collector")

_PATHS = ("/v1/events", "/v1/usage", "/healthz")
_BEARER = HTTPBearer(auto_error=False, description="A token of `rackmeter collector token create`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


_MEANINGS = {
    400: "Nothing was accepted: what was sent, or every event of it, is wrong.",
    401: "No valid token.",
    403: "The token is for another scope, source or account.",
    408: "The body took too long.",
    413: "The body, or the batch, is too large.",
    415: "Not a content type or encoding that is taken.",
    429: "Too much at once; come back after Retry-After seconds.",
    503: "Not acknowledged, or not readable now; send the same again after Retry-After seconds.",
}
_EVENT_BODY = {
    "required": True,
    "content": {
        STRUCTURED: {"schema": {"type": "object", "description": "One CloudEvent 1.0."}},
        BATCH: {"schema": {"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "object"}}},
        "application/json": {"schema": {"type": "object", "description": "The data; attributes are ce- headers."}},
    },
}


def build_app(services: Services, watch: Callable[[], Awaitable[None]] | None = None) -> FastAPI:
    """
    Make the application.

    Args:
        services: Ports, limits, settings.
        watch: Runs as long as the application does, beside the requests.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.ensure_future(watch()) if watch is not None else None
        yield
        if watching is not None:
            watching.cancel()

    app = FastAPI(
        title="Rackmeter collector",
        version=__version__,
        summary="Usage events in, usage out.",
        # Who has no token learns nothing; the contract is in schemas/openapi.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_event_route(app, services)
    _add_usage_route(app, services)

    @app.get("/healthz", summary="Whether the collector works", response_class=Response, tags=["health"])
    async def healthz() -> Response:
        problem = services.health.problem()
        return Response((problem or "ok") + "\n", 503 if problem else 200, media_type="text/plain")

    _add_failures(app)

    app.add_middleware(_Counted)
    return app


class _Counted:
    """Counts answers by path and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in _PATHS else "other"
                metrics.HTTP_REQUESTS.labels(path, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting if scope["type"] == "http" else send)


def _add_event_route(app: FastAPI, services: Services) -> None:
    @app.post(
        "/v1/events",
        summary="Send usage events",
        tags=["events"],
        response_model=EventResults,
        response_description="All events are accepted and durable.",
        responses={
            207: {"model": EventResults, "description": "Some events are accepted and durable, the others rejected."},
            **_problems(400, 401, 403, 408, 413, 415, 429, 503),
        },
        openapi_extra={"requestBody": _EVENT_BODY},
    )
    async def events(request: Request, credentials: Credentials) -> Response:
        """CloudEvents 1.0 over HTTP: structured, binary, or a batch of up to 100. Each event has its own result."""
        return await take_events(services, request, _text_of(credentials))


def _add_usage_route(app: FastAPI, services: Services) -> None:
    desk: list[UsageDesk] = []

    @app.get("/v1/usage", summary="Ask for usage", tags=["usage"], responses=_problems(400, 401, 403, 429, 503))
    async def usage(
        credentials: Credentials,
        start: Annotated[str, Query(alias="from", description="RFC 3339 with its zone.")],
        end: Annotated[str | None, Query(alias="to", description="RFC 3339 with its zone; default: now.")] = None,
        window: Annotated[Literal["hour", "day", "total"], Query(description="What is summed over.")] = "total",
        account: Annotated[str | None, Query(description="Only what it had at the time.")] = None,
        subject: Annotated[str | None, Query(description="Only this server.")] = None,
        meter: Annotated[str | None, Query(description="Only this meter.")] = None,
        zone: Annotated[str | None, Query(description="IANA zone of hours and days; default: the account's.")] = None,
        group_by: Annotated[
            list[GroupBy] | None, Query(description="May be given again; default: all. The meter always is.")
        ] = None,
    ) -> Usage:
        """Usage as far as it is aggregated, exact, of slots that begin in [from, to)."""
        if not desk:
            desk.append(UsageDesk(services))
        return await desk[0].answer(
            _text_of(credentials),
            start=start,
            end=end,
            window=window,
            account=account,
            subject=subject,
            meter=meter,
            zone_name=zone,
            group_by=group_by or [],
        )


def _add_failures(app: FastAPI) -> None:
    """Have every failure answered as a problem."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(Busy)
    async def busy(_request: Request, error: Busy) -> Response:
        return Refused(429, error.reason, error.detail, headers=_retry_after(error.retry_after_seconds)).response()

    @app.exception_handler(TransientFault)
    async def transient(_request: Request, error: TransientFault) -> Response:
        LOGGER.warning(error.detail, extra={"action": "unavailable"})
        detail = "the database does not answer now; try again"
        return Refused(503, "unavailable", detail, headers=_retry_after(RETRY_AFTER_SECONDS)).response()

    @app.exception_handler(RejectedRecord)
    async def rejected(_request: Request, error: RejectedRecord) -> Response:
        return Refused(400, error.reason_code, error.detail).response()

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return Refused(400, "query_invalid", f"`{where}`: {first['msg']}").response()

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> Response:
        code = {404: "path_unknown", 405: "method_not_allowed"}.get(error.status_code, "request_invalid")
        return Refused(error.status_code, code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:
        return Refused(500, "internal", "the collector met a fault of its own; its log says which").response()


def contract(app: FastAPI) -> dict[str, Any]:
    """Give the OpenAPI document of the application, as schemas/openapi/collector.json keeps it."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    problem.pop("$defs", None)
    schemas["Problem"] = problem
    # What our own handlers never answer.
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _text_of(credentials: HTTPAuthorizationCredentials | None) -> str | None:
    return credentials.credentials if credentials is not None else None


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(seconds))}
