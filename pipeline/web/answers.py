"""The bodies of answers as the HTTP contract has them: results of events, usage, problems."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Literal

from fastapi import Response
from pydantic import BaseModel, Field

PROBLEM_TYPE = "application/problem+json"


class EventResult(BaseModel):
    """What became of one event."""

    index: int = Field(description="Its place in the request, from 0.")
    id: str | None = Field(description="Its id, where that could be read.")
    status: Literal["accepted", "rejected"]
    reason: str = Field(default="", description="Why it was rejected, or why an accepted event waits; see reasons.md.")
    detail: str = Field(default="", description="A sentence that names field and value.")


class EventResults(BaseModel):
    """Results in the order of the events. What is accepted is durable: the broker has acknowledged it."""

    accepted: int
    rejected: int
    results: list[EventResult]


class UsageRow(BaseModel):
    """Usage of one window; `account` is null where nobody had the server, or where it is not grouped by."""

    account: str | None
    subject: str | None
    meter: str
    start: str = Field(description="Of the window, RFC 3339 in its zone.")
    quantity: str = Field(description="An exact decimal, without exponent.")
    unit: str


class Usage(BaseModel):
    """Usage as far as it is aggregated; slots that begin in [from, to)."""

    window: Literal["hour", "day", "total"]
    start: str = Field(alias="from")
    end: str = Field(alias="to")
    rows: list[UsageRow]


class Problem(BaseModel):
    """What is wrong, as RFC 9457 has it; `code` is a stable word, `results` is there where events were looked at."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    results: list[EventResult] | None = None


class Refused(Exception):
    """Answer with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        results: Sequence[EventResult] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.results = results
        super().__init__(detail)

    def response(self) -> Response:
        """Give the answer."""
        problem: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.results is not None:
            problem["results"] = [one.model_dump() for one in self.results]
        # Escaped to ASCII: a text of the sender's may hold half a character, which UTF-8 cannot write.
        return Response(json.dumps(problem).encode("ascii"), self.status, self.headers, PROBLEM_TYPE)
