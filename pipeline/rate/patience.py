"""Rest for the Faust app at the log's end, where the broker gives none."""

import asyncio
import contextlib
import importlib
from typing import Any


def rest_between_empty_fetches(seconds: float) -> None:
    """
    Have aiokafka, which Faust reads with, wait after a fetch that brought nothing; for the whole process.

    It has no option for that, because a broker is meant to hold an empty fetch for `fetch.max.wait`. One that answers
    at once is asked thousands of times a second.

    Raises:
        AttributeError: aiokafka fetches by another method than it did when this was written.
    """
    fetcher = importlib.import_module("aiokafka.consumer.fetcher").Fetcher
    fetch = fetcher._proc_fetch_request

    async def fetch_and_rest(self: Any, *request: Any) -> Any:
        has_records = await fetch(self, *request)
        if not has_records:
            # The fetcher takes the node for busy until this ends, so it does not ask again. Its close cancels us and
            # would fail on what comes out of that.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
        return has_records

    fetcher._proc_fetch_request = fetch_and_rest
