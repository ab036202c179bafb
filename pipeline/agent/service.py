"""The agent as a process: wires machine, spool and broker by itself, so that a host needs no database driver."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil

from pipeline.agent.beat import Agent
from pipeline.agent.host import boot_id
from pipeline.agent.options import EVENTS_TOPIC, AgentOptions, probe_of
from pipeline.agent.status import AgentStatus, spool_folder, status_path, store_status, totals_path
from pipeline.agent.totals import Totals, load_totals
from pipeline.domain.errors import ConfigurationFault, InvariantViolation
from pipeline.ingest.delivery import Delivery
from pipeline.ingest.emitter import UsageEmitter
from pipeline.ingest.machine import machine_id
from pipeline.ingest.spool import NO_ROOM, Spool
from pipeline.runtime import metrics
from pipeline.runtime.logs import configure_logs
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.settings import Settings

LOGGER = logging.getLogger("rackmeter.agent")

#: A clock further from the log's is warned about; events more than 5 minutes ahead of it are refused.
SKEW_MS_MAX = 2000
#: How long the last delivery may take at the stop; what it does not send stays in the spool.
STOP_SECONDS = 25.0

Opened = TypeVar("Opened")


def run_agent(settings: Settings, options: AgentOptions) -> None:
    """
    Run the agent until SIGTERM or SIGINT.

    Raises:
        ConfigurationFault: A setting or a file is wrong, or another agent has the source.
    """
    configure_logs(settings.log_level, "agent")
    source, subject = options.named()
    probe = probe_of(options)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    health = metrics.Health("agent")
    port = metrics.serve(settings.metrics_port, health)
    LOGGER.info(f"the agent of {subject} starts", extra={"action": "start", "source": source, "metrics_port": port})
    parts = _when_the_disk_allows(lambda: _open(settings, options, source), stop, options.interval_seconds)
    if parts is None:
        return
    spool, emitter = parts
    delivery = Delivery(
        spool, source, EVENTS_TOPIC, lambda note: LogProducer(settings.kafka_bootstrap_servers, on_log_time=note)
    )
    with contextlib.closing(spool), _delivering(delivery, stop), contextlib.closing(emitter):
        path = totals_path(settings.state_dir, source)
        agent = Agent(subject, emitter, probe, _load_totals(settings, source), path, make_room=spool.make_room)
        agent.run(options.interval_seconds, stop, _Reporter(settings, options, agent, delivery, health).report)
    LOGGER.info("the agent stopped", extra={"action": "stop"})


def _open(settings: Settings, options: AgentOptions, source: str) -> tuple[Spool, UsageEmitter]:
    spool = Spool(spool_folder(settings.state_dir, source), source, options.limits)
    try:
        return spool, UsageEmitter(source, settings.state_dir, machine_id(), spool)
    except BaseException:
        spool.close()
        raise


def _when_the_disk_allows(open_it: Callable[[], Opened], stop: threading.Event, retry_seconds: float) -> Opened | None:
    """Open, and try again while the disk is full; None where the agent is told to stop before."""
    while not stop.is_set():
        try:
            return open_it()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise ConfigurationFault(f"the state cannot be used: {error}") from error
            LOGGER.error(f"the disk is full, nothing is measured: {error}", extra={"action": "disk_full"})
            stop.wait(retry_seconds)
    return None


def _load_totals(settings: Settings, source: str) -> Totals:
    path = totals_path(settings.state_dir, source)
    boot = boot_id()
    try:
        return load_totals(path, boot)
    except (OSError, ValueError) as error:
        raise ConfigurationFault(
            f"{path} cannot be read ({error}): move it away together with the source's other files; the source then "
            "begins a new epoch"
        ) from error


@contextlib.contextmanager
def _delivering(delivery: Delivery, stop: threading.Event) -> Iterator[None]:
    """Deliver in a thread of its own while this lasts; a fault that it does not wait out stops the agent."""
    ended = threading.Event()
    faults: list[Exception] = []

    def deliver() -> None:
        try:
            delivery.run(ended)
        except Exception as error:
            LOGGER.exception("the delivery ends", extra={"action": "delivery_ended"})
            faults.append(error)
            stop.set()
            raise

    thread = threading.Thread(target=deliver, name="delivery", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_SECONDS)
    if faults:
        raise InvariantViolation(f"the spool cannot be delivered: {faults[0]}") from faults[0]


class _Reporter:
    """Writes the status after each beat, and warns of a clock that is off."""

    def __init__(
        self, settings: Settings, options: AgentOptions, agent: Agent, delivery: Delivery, health: metrics.Health
    ) -> None:
        self._source, self._subject = options.named()
        self._path = status_path(settings.state_dir, self._source)
        self._interval_seconds = options.interval_seconds
        self._agent = agent
        self._delivery = delivery
        self._health = health
        self._process = psutil.Process()
        self._started_us = _now_us()
        # What the start took is not what running takes.
        self._cpu_us_before = self._cpu_us()
        self._is_skewed = False

    def report(self) -> None:
        self._health.step()
        self._warn_of_skew()
        beats, delivery = self._agent.state, self._delivery.state
        status = AgentStatus(
            source=self._source,
            subject=self._subject,
            pid=os.getpid(),
            interval_seconds=self._interval_seconds,
            started_us=self._started_us,
            beat_us=_now_us(),
            beat_count=beats.count,
            failed_beat_count=beats.failed_count,
            cpu_us=self._cpu_us() - self._cpu_us_before,
            rss_bytes=self._process.memory_info().rss,
            skew_ms=delivery.skew_ms,
            fault=delivery.fault,
            beat_fault=beats.fault,
        )
        # A full disk keeps the old one, whose time tells.
        with contextlib.suppress(OSError):
            store_status(self._path, status)

    def _cpu_us(self) -> int:
        used = self._process.cpu_times()
        return int((used.user + used.system) * 1_000_000)

    def _warn_of_skew(self) -> None:
        skew_ms = self._delivery.state.skew_ms
        is_skewed = skew_ms is not None and abs(skew_ms) > SKEW_MS_MAX
        if is_skewed and not self._is_skewed:
            LOGGER.warning(
                f"this machine's clock is {skew_ms} ms ahead of the log's: set it", extra={"action": "clock_skew"}
            )
        self._is_skewed = is_skewed


def _now_us() -> int:
    return time.time_ns() // 1000
