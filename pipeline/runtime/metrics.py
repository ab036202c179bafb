"""Metrics: every metric by name, and the small server of /metrics and /healthz."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

REGISTRY = CollectorRegistry()

RECORDS = Counter(
    "rackmeter_records",
    "Records a stage decided about, by outcome (counted, duplicate, quarantined, booked, spooled, dropped, ...).",
    ["stage", "outcome"],
    registry=REGISTRY,
)
FLUSH_SECONDS = Histogram(
    "rackmeter_flush_seconds",
    "Time of one commit of a stage, from its first statement to the answer of COMMIT.",
    ["stage"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=REGISTRY,
)
LAG_RECORDS = Gauge(
    "rackmeter_lag_records",
    "Records in the log beyond the stage's committed offset, by partition.",
    ["stage", "partition"],
    registry=REGISTRY,
)
FAULTS = Counter(
    "rackmeter_faults",
    "Faults a stage met and survived, by kind (transient, fenced).",
    ["stage", "kind"],
    registry=REGISTRY,
)
UNBOOKED_TOTALS = Gauge(
    "rackmeter_unbooked_totals",
    "Totals whose current revision is not booked yet.",
    registry=REGISTRY,
)
DIRTY_MARKS = Gauge(
    "rackmeter_dirty_marks",
    "Changes that no total has taken up yet.",
    registry=REGISTRY,
)
OPEN_DECISIONS = Gauge(
    "rackmeter_open_decisions",
    "Events that did not count and that nobody has settled, by outcome (quarantined, parked, conflict, duplicate).",
    ["outcome"],
    registry=REGISTRY,
)
OLDEST_UNBOOKED_SECONDS = Gauge(
    "rackmeter_oldest_unbooked_seconds",
    "Since when the oldest total whose current revision is not booked was computed; 0 where all are booked.",
    registry=REGISTRY,
)
UNRATED_CHARGES = Gauge(
    "rackmeter_unrated_charges",
    "Items whose last charge has no price or failed; they hold the close.",
    registry=REGISTRY,
)
UNPROVEN_PERIODS = Gauge(
    "rackmeter_unproven_periods",
    "Months of accounts whose invoice the proof refused, and that are not closed since.",
    registry=REGISTRY,
)
PERIODS = Gauge(
    "rackmeter_periods",
    "Months of accounts that a close has looked at, by state (open, closing, cut, closed).",
    ["state"],
    registry=REGISTRY,
)
EVENTS_WITHOUT_EVIDENCE = Gauge(
    "rackmeter_events_without_evidence",
    "Events that were counted and then lost before they were archived; their accounts are held.",
    registry=REGISTRY,
)
EVENTS_DECLARED_LOST = Gauge(
    "rackmeter_events_declared_lost",
    "Events that their sources gave up (spool full, crash between number and disk) and that did not come all the same.",
    registry=REGISTRY,
)
LOG_CHANGED = Gauge(
    "rackmeter_log_changed",
    "1 where a topic is not the log the database has been reading, else 0.",
    ["topic"],
    registry=REGISTRY,
)
DISK_FREE_BYTES = Gauge(
    "rackmeter_disk_free_bytes",
    "What is free for us on the file system of a folder (archive, documents, state).",
    ["folder"],
    registry=REGISTRY,
)
DISK_SIZE_BYTES = Gauge(
    "rackmeter_disk_size_bytes",
    "How big the file system of a folder is (archive, documents, state).",
    ["folder"],
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "rackmeter_http_requests",
    "Requests the collector answered, by path and status.",
    ["path", "status"],
    registry=REGISTRY,
)
SPOOL_WAITING_BYTES = Gauge(
    "rackmeter_spool_waiting_bytes",
    "Bytes in an emitter's spool that the broker has not acknowledged.",
    registry=REGISTRY,
)
LAST_STEP = Gauge(
    "rackmeter_last_step_timestamp_seconds",
    "When the stage last finished a step of work, Unix time.",
    ["stage"],
    registry=REGISTRY,
)

# A stage that has not finished a step for this long is stuck, and /healthz says so.
STUCK_AFTER_SECONDS = 120.0


class Health:
    """What /healthz answers: ok while the loop turns and nothing has halted it."""

    def __init__(self, stage: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._monotonic = monotonic
        self._stepped_at = monotonic()
        self._halted: str | None = None

    def step(self) -> None:
        """Say that the loop turned once more."""
        self._stepped_at = self._monotonic()
        LAST_STEP.labels(self._stage).set_to_current_time()

    def halt(self, why: str) -> None:
        """Say that the stage stopped for a reason a person must look at."""
        self._halted = why

    def problem(self) -> str | None:
        """Give what is wrong, or None."""
        if self._halted is not None:
            return self._halted
        idle_seconds = self._monotonic() - self._stepped_at
        if idle_seconds > STUCK_AFTER_SECONDS:
            return f"no step for {idle_seconds:.0f} s"
        return None


def serve(port: int, health: Health, host: str = "127.0.0.1") -> int:
    """
    Serve /metrics and /healthz in a daemon thread.

    Args:
        port: 0 takes a free one.
        health: Asked at each /healthz; 503 with the problem's text, else 200.
        host: The IPv4 address to listen on; loopback unless said.

    Returns:
        The port that was taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            elif self.path == "/healthz":
                problem = health.problem()
                self._answer(503 if problem else 200, "text/plain; charset=utf-8", (problem or "ok").encode() + b"\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"/metrics or /healthz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing: a scrape is not news."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_address[1])
