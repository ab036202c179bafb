"""POST /v1/events: a request from its headers to the broker's acknowledgement."""

import asyncio
from collections.abc import Sequence

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from pipeline.domain.errors import TransientFault
from pipeline.domain.slots import to_us
from pipeline.runtime import metrics
from pipeline.web.answers import EventResult, EventResults, Refused
from pipeline.web.content import Refusal, events_of
from pipeline.web.rules import Verdict, judge, messages_of
from pipeline.web.services import Services, authorised

STAGE = "collector"
#: A body that takes longer to arrive is given up.
BODY_SECONDS = 30.0
#: So much of a body that is too large is read and thrown away: a sender that is still writing when the connection is
#: closed would see a reset and no answer.
DISCARDED_BYTES_MAX = 16_000_000
RETRY_AFTER_SECONDS = 2


async def take_events(services: Services, request: Request, token_text: str | None) -> Response:
    """Answer a request; Refused or Busy where nothing of it was accepted."""
    token = authorised(services, token_text, "ingest")
    bytes_max = services.body_bytes_max
    declared = request.headers.get("content-length", "")
    expected = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 16 else bytes_max
    if expected > bytes_max:
        if "expect" not in request.headers:
            await _body(request, bytes_max)
        raise _too_large(bytes_max)
    with services.in_flight.holding(expected):
        body = await _body(request, bytes_max)
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers.raw]
        events = events_of(headers, body)
        if isinstance(events, Refusal):
            services.rate.take(token.token_id, 1)
            raise Refused(events.status, events.reason, events.detail)
        services.rate.take(token.token_id, len(events))
        book = services.known().book
        now_us = to_us(services.clock())
        verdicts = [judge(event, token.covers, book, now_us) for event in events]
        await _acknowledged(services, verdicts)
    return _answer(verdicts)


async def _body(request: Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes <= bytes_max:
                    chunks.append(chunk)
                elif size_bytes <= DISCARDED_BYTES_MAX:
                    chunks.clear()
                else:
                    break
    except TimeoutError:
        raise Refused(408, "body_too_slow", f"the body did not arrive within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "disconnected", "the sender went away before the end of the body") from None
    if size_bytes > bytes_max:
        raise _too_large(bytes_max)
    return b"".join(chunks)


async def _acknowledged(services: Services, verdicts: Sequence[Verdict]) -> None:
    """Wait until all that is right is durable; Refused with 503 where the broker did not say so in time."""
    messages = messages_of(verdicts)
    if not messages:
        return
    try:
        async with asyncio.timeout(services.ack_seconds):
            await asyncio.wrap_future(services.sender.publish(messages))
    except (TimeoutError, TransientFault):
        raise Refused(
            503,
            "not_acknowledged",
            "the broker has not acknowledged the events; send the same again: what did arrive counts once",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from None


def _answer(verdicts: Sequence[Verdict]) -> Response:
    results = [
        EventResult(
            index=index,
            id=verdict.event_id,
            status="rejected" if verdict.event is None else "accepted",
            reason=verdict.reason,
            detail=verdict.detail,
        )
        for index, verdict in enumerate(verdicts)
    ]
    rejected = [result for result in results if result.status == "rejected"]
    accepted_count = len(results) - len(rejected)
    metrics.RECORDS.labels(STAGE, "accepted").inc(accepted_count)
    metrics.RECORDS.labels(STAGE, "rejected").inc(len(rejected))
    if not accepted_count:
        forbidden = all(result.reason == "source_forbidden" for result in rejected)
        code = "source_forbidden" if forbidden else "events_rejected"
        detail = rejected[0].detail if len(rejected) == 1 else f"none of the {len(rejected)} events was accepted"
        raise Refused(403 if forbidden else 400, code, detail, results=results)
    body = EventResults(accepted=accepted_count, rejected=len(rejected), results=results)
    return Response(body.model_dump_json(), 207 if rejected else 200, media_type="application/json")


def _too_large(bytes_max: int) -> Refused:
    return Refused(413, "body_too_large", f"a request has at most {bytes_max} bytes", headers={"Connection": "close"})
