"""kill -9 in the middle of work: of stages while a trace flows, and of a close at a step of its own."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from random import Random

from pipeline.bootstrap import CHARGES_TOPIC, STAGES, Stage
from pipeline.ingest.emitter import Producer
from pipeline.runtime.postgres import Connection
from tests.support.fresh_logs import record_count
from tests.support.installation import Installation, is_up, scalar

FLUSH_SECONDS = 30.0
#: How long after its work came a stage is killed at most; the later stages get theirs later.
_DELAY_SECONDS_MAX: dict[Stage, float] = {
    "aggregate": 0.3,
    "archive": 0.6,
    "totals": 1.0,
    "rate": 1.2,
    "ledger_sink": 1.2,
    "sealer": 2.0,
}

_FLUSHES = "SELECT coalesce(sum(flush_number), 0) FROM consumer_offset WHERE stage = '{stage}'"
_TOTALS = "SELECT coalesce(sum(revision), 0) FROM usage_total"
_SEALED = "SELECT count(*) FROM ledger_chain"
_BOOKED = "SELECT coalesce(sum(revision), 0) FROM booked_charge"


class KillingProducer:
    """
    Sends like its producer, and in between kills stages with SIGKILL while they work on what was sent.

    Every stage is killed `times` times, in turn. Before each kill the stage must have done something since its last.
    """

    def __init__(
        self, producer: Producer, installation: Installation, connection: Connection, *, messages: int, times: int = 3
    ) -> None:
        self.killed: dict[Stage, int] = dict.fromkeys(STAGES, 0)
        self._producer = producer
        self._installation = installation
        self._work = work_done(installation, connection)
        self._work_at_kill: dict[Stage, int] = dict.fromkeys(STAGES, 0)
        self._random = Random(9)
        self._sent = 0
        kills = [stage for _ in range(times) for stage in STAGES]
        every = messages // (len(kills) + 1)
        self._kills = {(index + 1) * every: stage for index, stage in enumerate(kills)}

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Send a message; kills the stage whose turn it is."""
        stage = self._kills.get(self._sent)
        if stage is not None:
            self._await_work(stage)
        self._producer.send(topic, key, value)
        self._sent += 1
        # What is sent between waiting and killing is what it is in the middle of.
        stage = self._kills.get(self._sent - 100)
        if stage is not None:
            self._producer.flush(FLUSH_SECONDS)
            self._kill(stage)

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything is acknowledged."""
        self._producer.flush(timeout_seconds)

    def _await_work(self, stage: Stage) -> None:
        self._producer.flush(FLUSH_SECONDS)
        self._installation.wait_for(
            lambda: is_up(self._installation.child(stage)) and self._work[stage]() > self._work_at_kill[stage],
            f"{stage} to work again after {self.killed[stage]} kills",
            30.0,
        )

    def _kill(self, stage: Stage) -> None:
        time.sleep(self._random.random() * _DELAY_SECONDS_MAX[stage])
        pid = self._installation.child(stage).pid
        assert pid is not None, f"{stage} does not run"
        os.kill(pid, signal.SIGKILL)
        self.killed[stage] += 1
        self._work_at_kill[stage] = self._work[stage]()
        self._installation.poll()


def work_done(installation: Installation, connection: Connection) -> Mapping[Stage, Callable[[], int]]:
    """By stage, a number that grows whenever it has done something."""
    servers = installation.settings.kafka_bootstrap_servers
    return {
        "aggregate": lambda: scalar(connection, _FLUSHES.format(stage="aggregate")),
        "archive": lambda: scalar(connection, _FLUSHES.format(stage="archive")),
        "totals": lambda: scalar(connection, _TOTALS),
        "rate": lambda: record_count(servers, CHARGES_TOPIC),
        "ledger_sink": lambda: scalar(connection, _BOOKED),
        "sealer": lambda: scalar(connection, _SEALED),
    }
