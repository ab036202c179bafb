"""GET /v1/usage: what is asked, whether it may be asked, and the answer with exact quantities."""

import asyncio
from datetime import UTC, datetime
from typing import Literal

from pipeline.domain.decimals import plain
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.period import zone
from pipeline.web.answers import Refused, Usage, UsageRow
from pipeline.web.services import Services, authorised
from pipeline.web.store import Row, UsageQuestion, Window

ROWS_MAX = 10_000
#: Questions that are answered at once; more of them wait, and not for ever.
READERS_MAX = 4
WAIT_SECONDS = 5.0
_NAME_CHARACTERS_MAX = 256

GroupBy = Literal["account", "subject", "meter"]


class UsageDesk:
    """Answers questions about usage, a few at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._readers = asyncio.Semaphore(READERS_MAX)

    async def answer(
        self,
        token_text: str | None,
        *,
        start: str,
        end: str | None,
        window: Window,
        account: str | None,
        subject: str | None,
        meter: str | None,
        zone_name: str | None,
        group_by: list[GroupBy],
    ) -> Usage:
        """Answer one question; Refused where it cannot or may not be asked, TransientFault where nothing answers."""
        services = self._services
        token = authorised(services, token_text, "read")
        if token.account_id is not None and account not in (None, token.account_id):
            raise Refused(403, "account_forbidden", "this token is for another account")
        for name, text in (("account", account), ("subject", subject), ("meter", meter)):
            if text is not None and (len(text) > _NAME_CHARACTERS_MAX or not text.isprintable()):
                raise Refused(400, "query_invalid", f"{name} is no name that anything could have")
        services.rate.take(token.token_id, 1)
        question = UsageQuestion(
            start=_moment("from", start),
            end=_moment("to", end) if end is not None else services.clock(),
            window=window,
            account=token.account_id or account,
            subject=subject,
            meter=meter,
            zone_name=_zone(zone_name),
            by_account=not group_by or "account" in group_by,
            by_subject=not group_by or "subject" in group_by,
        )
        if question.end <= question.start:
            raise Refused(400, "query_invalid", "`to` must be after `from`")
        rows = await self._read(question)
        if len(rows) > ROWS_MAX:
            raise Refused(400, "too_many_rows", f"over {ROWS_MAX} rows: ask for less time, or group")
        return Usage(
            window=window,
            **{"from": _text(question.start, "UTC"), "to": _text(question.end, "UTC")},
            rows=[
                UsageRow(
                    account=row["account"],
                    subject=row["subject"],
                    meter=row["meter"],
                    start=_text(row["window_start"], row["zone_name"]),
                    quantity=plain(row["quantity"]),
                    unit=row["unit"],
                )
                for row in rows
            ],
        )

    async def _read(self, question: UsageQuestion) -> list[Row]:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._readers.acquire()
        except TimeoutError:
            raise Refused(503, "busy", "too many questions at once", headers={"Retry-After": "2"}) from None
        try:
            return await asyncio.to_thread(self._services.read_usage, question, ROWS_MAX + 1)
        finally:
            self._readers.release()


def _moment(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        problem = f"`{name}` is a time with its zone, e.g. 2013-07-01T00:00:00Z (a + is written %2B)"
        raise Refused(400, "query_invalid", problem) from None


def _zone(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        zone(name)
    except ConfigurationFault:
        raise Refused(400, "query_invalid", "`zone` is an IANA time zone, e.g. Europe/Amsterdam") from None
    return name


def _text(at: datetime, zone_name: str) -> str:
    return at.astimezone(zone(zone_name)).isoformat().replace("+00:00", "Z")
