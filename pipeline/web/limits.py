"""What the collector takes at once: bytes in flight, and events a second of each token."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Tokens remembered at most; one that was forgotten begins with a full allowance again.
ALLOWANCES_MAX = 10_000


class Busy(Exception):
    """Too much at once: come back after so many whole seconds."""

    def __init__(self, retry_after_seconds: int, reason: str, detail: str) -> None:
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


class InFlight:
    """Bytes of requests that are being read or wait for the broker; bounds the memory of the process."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.bytes_taken = 0

    @contextmanager
    def holding(self, byte_count: int) -> Iterator[None]:
        """Hold room for so many bytes; Busy where there is none. The first request always fits."""
        if self.bytes_taken and self.bytes_taken + byte_count > self._bytes_max:
            raise Busy(1, "back_pressure", "too many bytes wait for the broker already")
        self.bytes_taken += byte_count
        try:
            yield
        finally:
            self.bytes_taken -= byte_count


class EventRate:
    """Events a second of each token, with a second's worth saved up, and never less than one batch."""

    def __init__(self, per_second: int, burst_min: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(per_second, burst_min)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, token_id: str, events: int) -> None:
        """Use up an allowance for so many events; Busy, and nothing used, where it is not there."""
        now = self._clock()
        left, at = self._left.pop(token_id, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        if len(self._left) >= ALLOWANCES_MAX:
            self._left.pop(next(iter(self._left)))
        if left < events:
            self._left[token_id] = (left, now)
            seconds = math.ceil((events - left) / self._per_second)
            raise Busy(max(1, seconds), "rate_limited", f"this token may send {self._per_second} events a second")
        self._left[token_id] = (left - events, now)
