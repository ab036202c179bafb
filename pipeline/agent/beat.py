"""The agent's beat: read the machine, spool what was read, say until when that is everything."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.agent.readings import Probe
from pipeline.agent.samples import samples
from pipeline.agent.totals import Totals
from pipeline.domain.errors import TransientFault
from pipeline.ingest.emitter import UsageEmitter
from pipeline.ingest.spool import NO_ROOM
from pipeline.runtime.metrics import FAULTS

LOGGER = logging.getLogger("rackmeter.agent")


@dataclass(frozen=True, slots=True)
class BeatState:
    """How many beats there were and how many gave nothing; why the last one did not, None after a good one."""

    count: int = 0
    failed_count: int = 0
    fault: str | None = None


class Agent:
    """
    Beats. The broker is not asked: everything goes into the emitter's spool.

    Args:
        subject: The host's name in events.
        emitter: With a spool.
        probe: The machine.
        totals: Of this boot.
        totals_path: Where they are kept; written before their values are sent, so that they never fall.
        clock: The time of samples; aware.
        make_room: Gives up what is oldest in the spool where the disk is full; False where it cannot.
    """

    def __init__(
        self,
        subject: str,
        emitter: UsageEmitter,
        probe: Probe,
        totals: Totals,
        totals_path: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state = BeatState()
        self._subject = subject
        self._emitter = emitter
        self._probe = probe
        self._totals = totals
        self._totals_path = totals_path
        self._clock = clock
        self._make_room = make_room

    def beat(self) -> bool:
        """Make one beat; False where it gave nothing, which is logged. Counters make up for it with the next one."""
        try:
            self._beat()
        except (TransientFault, OSError) as error:
            FAULTS.labels("agent", "transient").inc()
            LOGGER.error(f"this beat is lost: {error}", extra={"action": "beat_lost"})
            self.state = BeatState(self.state.count + 1, self.state.failed_count + 1, str(error))
            return False
        self.state = BeatState(self.state.count + 1, self.state.failed_count)
        return True

    def run(self, interval_seconds: int, stop: threading.Event, after_beat: Callable[[], None]) -> None:
        """Beat until told to stop, as often as said; beats that would come too late are left out."""
        due = time.monotonic()
        while not stop.is_set():
            self.beat()
            after_beat()
            due += interval_seconds
            late = time.monotonic() - due
            if late > 0:
                due += (late // interval_seconds + 1) * interval_seconds
            stop.wait(due - time.monotonic())

    def _beat(self) -> None:
        at = self._clock().replace(microsecond=0)
        reading = self._probe.read()
        found = samples(self._subject, reading, self._totals, int(at.timestamp()) * 1_000_000)
        self._store_totals()
        for sample in found:
            self._emitter.emit(sample.subject, sample.event_type, at, sample.data)
        self._emitter.complete_until(at)
        self._emitter.flush()

    def _store_totals(self) -> None:
        try:
            self._totals.store(self._totals_path)
        except OSError as error:
            if error.errno not in NO_ROOM or not self._make_room():
                raise
            self._totals.store(self._totals_path)
