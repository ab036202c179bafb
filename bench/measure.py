"""
The measured processes: each reads the whole topic once, with its own clock and processor time, and says what it took.

`python -m bench.measure REQUEST` with a Request as JSON; the Reading comes as JSON on stdout. A process of its own, so
that its cost can be told from that of the generator, the broker and the database.
"""

import contextlib
import cProfile
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from signal import SIGKILL
from typing import Literal

import msgspec
from confluent_kafka import Consumer, Message, TopicPartition

from bench import machine
from pipeline.aggregate.worker import Worker
from pipeline.bootstrap import EVENTS_TOPIC, build_stage
from pipeline.domain.errors import TransientFault
from pipeline.local.server_process import tethered
from pipeline.runtime import metrics
from pipeline.runtime.settings import Settings, checkout_dir

POLL_MESSAGES = 10_000
POLL_SECONDS = 0.1
#: Without a message for so long, something stands still.
STUCK_SECONDS = 60.0
#: A raw consumer reads a short topic again until it has read this much; less is over before it has speed.
RAW_BYTES_MIN = 30_000_000

#: What the raw consumer needs on both brokers; everything else is librdkafka's default.
_RAW_CONFIG = {
    "group.id": "bench-raw",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "receive.message.max.bytes": 1_000_000_000,
}
_TUNED_FETCH = {"queued.min.messages": 1_000_000, "fetch.queue.backoff.ms": 20}


class Request(msgspec.Struct, frozen=True):
    """
    What to measure.

    kind: `raw_default` and `raw_tuned` take the values and drop them; `aggregate` is the real worker.
    message_count, byte_count: What lies in the topic.
    server_pids: Of broker and database.
    profile: A file to write cProfile's statistics to; the figures are of no use then.
    """

    kind: Literal["raw_default", "raw_tuned", "aggregate"]
    bootstrap_servers: str
    message_count: int
    byte_count: int
    server_pids: dict[str, int]
    profile: str | None = None


class Reading(msgspec.Struct, frozen=True):
    """
    What it took: the worker from its assignment to its last commit, the raw consumer from the first poll that brought
    messages to the last one.

    passes: How often the topic was read.
    cpu_seconds, memory_mib: By process: python, broker, database. Memory is python's peak and the others' at the end.
    flushes, flush_seconds: How many commits, and the time in them.
    """

    seconds: float
    passes: int
    cpu_seconds: dict[str, float]
    memory_mib: dict[str, float]
    flushes: int = 0
    flush_seconds: float = 0.0


def measure(request: Request, environment: Mapping[str, str]) -> Reading:
    """
    Run one measurement in a process of its own.

    Raises:
        TransientFault: It failed; its messages are on stderr.
    """
    done = subprocess.run(
        [*tethered(SIGKILL), sys.executable, "-m", "bench.measure", msgspec.json.encode(request).decode()],
        stdout=subprocess.PIPE,
        cwd=checkout_dir(),
        env=dict(environment),
        check=False,
    )
    if done.returncode != 0:
        raise TransientFault(f"the measured process ({request.kind}) ended with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Reading)


class _Clock:
    """Wall time and processor time from `start` to `stop`; `start` again begins anew."""

    def __init__(self, server_pids: Mapping[str, int]) -> None:
        self._pids = {"python": os.getpid(), **server_pids}
        self.start()

    def start(self) -> None:
        """Begin."""
        self._cpu = {name: machine.cpu_seconds(pid) for name, pid in self._pids.items()}
        self._begun = time.perf_counter()

    def stop(self) -> tuple[float, dict[str, float]]:
        """Give seconds since the start, and processor seconds by process."""
        seconds = time.perf_counter() - self._begun
        return seconds, {name: machine.cpu_seconds(pid) - self._cpu[name] for name, pid in self._pids.items()}


class _AtAssignment(logging.Handler):
    """Starts the clock when the worker says that it has partitions: joining the group is no part of its speed."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock
        logger = logging.getLogger("rackmeter.aggregate")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line of the worker's log."""
        if getattr(record, "action", "") == "assign":
            self._clock.start()


def _memory(request: Request) -> dict[str, float]:
    others = {name: machine.memory_mib(pid) for name, pid in request.server_pids.items()}
    return {"python": machine.peak_memory_mib(os.getpid()), **others}


def _read_raw(request: Request) -> Reading:
    passes = -(-RAW_BYTES_MIN // request.byte_count)
    seconds, cpu = 0.0, dict.fromkeys(("python", *request.server_pids), 0.0)
    for _ in range(passes):
        took, used = _read_raw_once(request)
        seconds += took
        cpu = {name: cpu[name] + used[name] for name in cpu}
    return Reading(seconds, passes, cpu, _memory(request))


def _read_raw_once(request: Request) -> tuple[float, dict[str, float]]:
    tuning = _TUNED_FETCH if request.kind == "raw_tuned" else {}
    consumer = Consumer({"bootstrap.servers": request.bootstrap_servers, **_RAW_CONFIG, **tuning})
    try:
        partitions = consumer.list_topics(EVENTS_TOPIC, timeout=15).topics[EVENTS_TOPIC].partitions
        consumer.assign([TopicPartition(EVENTS_TOPIC, number, 0) for number in partitions])
        clock = _Clock(request.server_pids)
        left, size, deadline = request.message_count, 0, time.monotonic() + STUCK_SECONDS
        while left:
            # No more than there is, so that the last poll does not wait for what never comes.
            messages = consumer.consume(min(left, POLL_MESSAGES), POLL_SECONDS)
            size += sum(map(len, filter(None, map(Message.value, messages))))
            if messages:
                left, deadline = left - len(messages), time.monotonic() + STUCK_SECONDS
            elif left == request.message_count:
                clock.start()
            if time.monotonic() > deadline:
                raise TransientFault(f"{left} of {request.message_count} messages did not come")
        measured = clock.stop()
    finally:
        consumer.close()
    if size != request.byte_count:
        raise TransientFault(f"{size} bytes were read and {request.byte_count} were sent")
    return measured


def _aggregate(request: Request) -> Reading:
    settings = Settings.from_environment()
    profile = cProfile.Profile() if request.profile else contextlib.nullcontext()
    with contextlib.ExitStack() as opened:
        worker = build_stage("aggregate", settings, metrics.Health("aggregate"), opened)
        if not isinstance(worker, Worker):
            raise TypeError("the aggregate stage is another class than this benchmark knows")
        clock = _Clock(request.server_pids)
        _AtAssignment(clock)
        left, deadline = request.message_count, time.monotonic() + STUCK_SECONDS
        with profile:
            while left:
                gathered = worker.step()
                if gathered:
                    left, deadline = left - gathered, time.monotonic() + STUCK_SECONDS
                if time.monotonic() > deadline:
                    raise TransientFault(f"{left} of {request.message_count} messages did not come")
            worker.flush()
        seconds, cpu = clock.stop()
        memory = _memory(request)
        stop = threading.Event()
        stop.set()
        worker.run(stop)  # leaves the group
    if isinstance(profile, cProfile.Profile):
        profile.dump_stats(str(request.profile))
    labels = {"stage": "aggregate"}
    return Reading(
        seconds,
        1,
        cpu,
        memory,
        flushes=int(metrics.REGISTRY.get_sample_value("rackmeter_flush_seconds_count", labels) or 0),
        flush_seconds=metrics.REGISTRY.get_sample_value("rackmeter_flush_seconds_sum", labels) or 0.0,
    )


def main(argument: str) -> None:
    """Measure what is asked for and say it on stdout."""
    request = msgspec.json.decode(argument, type=Request)
    reading = _aggregate(request) if request.kind == "aggregate" else _read_raw(request)
    sys.stdout.buffer.write(msgspec.json.encode(reading))


if __name__ == "__main__":
    main(sys.argv[1])
