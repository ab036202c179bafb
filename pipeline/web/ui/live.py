"""Live figures of the stages: their /metrics, asked again at each look, and rates from one look to the next."""

import http.client
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

#: Process name (aggregate, aggregate-1, ...) -> URL of its /metrics.
MetricsUrls = Mapping[str, str]

ANSWER_SECONDS_MAX = 1.0
#: Rates over less time than this jump about.
BETWEEN_LOOKS_SECONDS_MIN = 1.0

_SAMPLE = re.compile(r"^(rackmeter_records_total|rackmeter_lag_records)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process says of itself: records so far by stage, and messages it is behind by stage."""

    records: Mapping[str, int]
    lag: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StageLive:
    """
    A stage that answers.

    per_second: Records a second, with one decimal; None at the first look and after a restart.
    lag: Messages it is behind, None where it does not say.
    processes: How many answered.
    """

    per_second: Decimal | None
    lag: int | None
    processes: int


def read_figures(text: str) -> Figures:
    """Read what we show out of Prometheus' text; lines that say something else are passed over."""
    records: Counter[str] = Counter()
    lag: Counter[str] = Counter()
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        stage = dict(_LABEL.findall(match[2])).get("stage", "")
        try:
            value = int(Decimal(match[3]))
        except (InvalidOperation, ValueError, OverflowError):
            continue
        (records if match[1] == "rackmeter_records_total" else lag)[stage] += value
    return Figures(records, lag)


def fetch(url: str) -> str | None:
    """Give what a loopback URL answers, None where nobody does."""
    if not url.startswith("http://127.0.0.1:"):
        return None
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS_MAX) as answer:  # noqa: S310  # loopback, see above
            text: str = answer.read().decode("utf-8", "replace")
            return text
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return None


@dataclass(slots=True)
class _Seen:
    records: int
    at: float
    per_second: Decimal | None = None


@dataclass(slots=True)
class Live:
    """Remembers what each process had counted at the last look; may be asked from several threads."""

    urls: Callable[[], MetricsUrls]
    ask: Callable[[str], str | None] = fetch
    monotonic: Callable[[], float] = time.monotonic
    _seen: dict[tuple[str, str], _Seen] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> dict[str, StageLive]:
        """Ask every process; give the stages of those that answer."""
        urls = self.urls()
        if not urls:
            return {}
        with ThreadPoolExecutor(len(urls)) as pool:
            answers = dict(zip(urls, pool.map(self.ask, urls.values()), strict=True))
        found: dict[str, StageLive] = {}
        with self._lock:
            for process, text in answers.items():
                if text is None:
                    continue
                figures = read_figures(text)
                # A process that has done nothing yet names no stage; its own name does.
                stages = {*figures.records, *figures.lag} or {process.partition("-")[0]}
                for stage in stages:
                    one = StageLive(
                        self._rate(urls[process], stage, figures.records.get(stage, 0)), figures.lag.get(stage), 1
                    )
                    found[stage] = _together(found[stage], one) if stage in found else one
        return found

    def _rate(self, url: str, stage: str, records: int) -> Decimal | None:
        now = self.monotonic()
        seen = self._seen.get((url, stage))
        if seen is None or records < seen.records:
            self._seen[url, stage] = _Seen(records, now)
            return None
        if now - seen.at >= BETWEEN_LOOKS_SECONDS_MIN:
            elapsed = Decimal(str(round(now - seen.at, 3)))
            rate = (Decimal(records - seen.records) / elapsed).quantize(Decimal("0.1"))
            self._seen[url, stage] = _Seen(records, now, rate)
            return rate
        return seen.per_second


def _together(one: StageLive, other: StageLive) -> StageLive:
    """Two processes of a stage as one."""
    rates = [rate for rate in (one.per_second, other.per_second) if rate is not None]
    lags = [lag for lag in (one.lag, other.lag) if lag is not None]
    return StageLive(
        sum(rates, Decimal(0)) if rates else None, sum(lags) if lags else None, one.processes + other.processes
    )
