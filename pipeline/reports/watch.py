"""The watch: what the books, the logs and the disks say, as metrics; reads only."""

import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import psycopg

from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.reports import store
from pipeline.runtime import metrics, topics
from pipeline.runtime.postgres import Connection, is_transient
from pipeline.runtime.sql import load_queries

LOGGER = logging.getLogger("rackmeter.watch")
QUERIES = load_queries(__package__, "watch.sql")

#: How often it looks; Prometheus need not ask more often.
LOOK_SECONDS = 15.0
OUTCOMES = ("quarantined", "parked", "conflict", "duplicate")
PERIOD_STATES = ("open", "closing", "cut", "closed")


class Watch:
    """
    Looks at everything every 15 seconds.

    Args:
        connection: To the database, as the application role.
        bootstrap_servers: The broker, host:port.
        folders: By the name they have in the metrics; one that is not there yet is measured at its nearest parent.
        health: Told of each look.
    """

    def __init__(
        self, connection: Connection, bootstrap_servers: str, folders: Mapping[str, Path], health: metrics.Health
    ) -> None:
        self._connection = connection
        self._bootstrap_servers = bootstrap_servers
        self._folders = folders
        self._health = health

    def run(self, stop: threading.Event) -> None:
        """
        Look until told to stop.

        Raises:
            TransientFault: The database stopped answering; start again.
        """
        while not stop.is_set():
            self.look()
            self._health.step()
            stop.wait(LOOK_SECONDS)

    def look(self) -> None:
        """Measure everything once; a broker that does not answer leaves what is known of the logs as it was."""
        try:
            self._look_at_books()
            logs, offsets = self._stored_logs()
        except psycopg.Error as error:
            if is_transient(error):
                raise TransientFault(f"the database stopped answering: {str(error).strip()}") from error
            raise
        self._look_at_disks()
        for topic, log in logs.items():
            try:
                changed = self._has_changed(log, offsets.get(topic, []))
            except TransientFault as fault:
                LOGGER.warning(fault.detail, extra={"action": "broker_silent"})
                metrics.FAULTS.labels("watch", "transient").inc()
                return
            metrics.LOG_CHANGED.labels(topic).set(changed)

    def _look_at_books(self) -> None:
        row = self._connection.execute(QUERIES["watched"]).fetchone()
        if row is None:
            raise InvariantViolation("the database counted nothing, not even zero")
        age, unrated, unproven, without_evidence, declared_lost = row
        metrics.OLDEST_UNBOOKED_SECONDS.set(age)
        metrics.UNRATED_CHARGES.set(unrated)
        metrics.UNPROVEN_PERIODS.set(unproven)
        metrics.EVENTS_WITHOUT_EVIDENCE.set(without_evidence)
        metrics.EVENTS_DECLARED_LOST.set(declared_lost)
        counts: dict[str, int] = dict(self._connection.execute(QUERIES["open_decisions"]).fetchall())
        for outcome in OUTCOMES:
            metrics.OPEN_DECISIONS.labels(outcome).set(counts.get(outcome, 0))
        counts = dict(self._connection.execute(QUERIES["periods"]).fetchall())
        for state in PERIOD_STATES:
            metrics.PERIODS.labels(state).set(counts.get(state, 0))

    def _look_at_disks(self) -> None:
        for name, folder in self._folders.items():
            there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
            usage = shutil.disk_usage(there)
            metrics.DISK_FREE_BYTES.labels(name).set(usage.free)
            metrics.DISK_SIZE_BYTES.labels(name).set(usage.total)

    def _stored_logs(self) -> tuple[dict[str, topics.LogIdentity], dict[str, list[dict[int, int]]]]:
        """The logs that are read, and by topic the next offsets of each stage."""
        logs = {
            row["topic"]: topics.LogIdentity(
                row["topic"], UUID(row["log_id"]), row["kafka_topic_id"], row["partition_count"]
            )
            for row in store.known_logs(self._connection)
            if row["is_read"]
        }
        by_stage: dict[tuple[str, str], dict[int, int]] = {}
        for row in store.stage_offsets(self._connection):
            by_stage.setdefault((row["topic"], row["stage"]), {})[row["partition"]] = row["offset_next"]
        offsets: dict[str, list[dict[int, int]]] = {}
        for (topic, _stage), positions in sorted(by_stage.items()):
            offsets.setdefault(topic, []).append(positions)
        return logs, offsets

    def _has_changed(self, stored: topics.LogIdentity, offsets: list[dict[int, int]]) -> bool:
        try:
            now = topics.read_log_identity(self._bootstrap_servers, stored.topic)
            available = topics.watermarks(self._bootstrap_servers, stored.topic)
            for positions in offsets or [{}]:
                topics.verify_log(now, stored, positions, available)
        except InvariantViolation as violation:
            LOGGER.error(violation.detail, extra={"action": "log_changed", "code": violation.code})
            return True
        return False
