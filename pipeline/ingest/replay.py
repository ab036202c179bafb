"""Replay: a recorded trace becomes the events its servers would have sent, under ids that follow from its content."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import msgspec

from pipeline.contracts.usage_event import (
    CONTROL_PREFIX,
    EVENTS_PER_MESSAGE_MAX,
    HOST_SAMPLE_FIELDS,
    HOST_SAMPLE_TYPE,
    encode_batch,
    encode_event,
)
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.identity import format_sequenced_id
from pipeline.domain.period import Period, period_containing
from pipeline.ingest import faults
from pipeline.ingest.emitter import Producer, rfc3339
from pipeline.ingest.faults import Outgoing
from pipeline.ingest.trace_csv import Trace, TraceRow

SOURCE_PREFIX = "urn:rackmeter:replay:"
#: Where a month ends last; a zone of its own per replay would make other events under the same ids.
LAST_ZONE = "Etc/GMT+12"
FLUSH_TIMEOUT_SECONDS = 120.0
PROGRESS_EVENTS = 5000


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """
    How a trace is sent; none of it changes what its events are.

    Args:
        faults_seed: Add duplicates, late events and bad events (see faults); None adds none.
        events_per_message: Events of one source gathered into a message, 1 to 100.
        shuffle_seed: Send the samples in a random order; the control events still come last.
    """

    faults_seed: int | None = None
    events_per_message: int = 1
    shuffle_seed: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.events_per_message <= EVENTS_PER_MESSAGE_MAX:
            raise ConfigurationFault(f"events_per_message is 1 to {EVENTS_PER_MESSAGE_MAX}")


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """
    What was sent, and what must become of it on a log that did not know the trace.

    `events_sent` = sample_count + control_count + duplicate_count + the bad events; `late_count` events came late and
    are among the samples. `quarantined` and `parked` are by reason code.
    """

    period: Period
    source_count: int
    messages_sent: int
    events_sent: int
    sample_count: int
    control_count: int
    duplicate_count: int = 0
    late_count: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)


Progress = Callable[[int, int], None]


def source_of(vm: str) -> str:
    """The source a server of a trace is replayed under."""
    return SOURCE_PREFIX + vm


def epoch_of(trace_digest: str, vm: str) -> str:
    """The epoch of a server's ids: 16 hex digits that follow from the trace's content and the server."""
    return hashlib.sha256(f"{trace_digest}:{vm}".encode()).hexdigest()[:16]


def replay(
    trace: Trace,
    producer: Producer,
    topic: str,
    *,
    zone_name: str,
    options: ReplayOptions | None = None,
    progress: Progress | None = None,
) -> ReplayReport:
    """
    Send a whole trace, in the order of its timestamps, and wait until it is durable.

    After its last sample each source says that it is complete to the end of the last month it covers, and retires.

    Args:
        trace: From read_trace.
        producer: The port to the log.
        topic: usage.events.
        zone_name: IANA zone in which months begin.
        options: See ReplayOptions.
        progress: Called with (events sent, events in all) every few thousand events.

    Raises:
        ConfigurationFault: Faults are asked for, and the trace has a server of the bench's name.
        TransientFault: Something is not known to be durable; replay again, what arrived counts once.
    """
    options = options or ReplayOptions()
    injected = faults.Injected()
    samples, total = _with_faults(trace, options, injected)
    sender = _Sender(producer, topic, options.events_per_message, progress, total)
    for source, event in samples:
        # Bad bytes in an array would spoil their neighbours: the bench sends one at a time.
        sender.send(source, event, alone=source == faults.BENCH_SOURCE)
    sender.send_gathered()
    for source, event in _last_words(trace):
        sender.send(source, event, alone=True)
    producer.flush(FLUSH_TIMEOUT_SECONDS)
    sender.report_progress()
    return ReplayReport(
        period=trace.period(zone_name),
        source_count=len(trace.vms),
        messages_sent=sender.message_count,
        events_sent=sender.event_count,
        sample_count=len(trace.rows),
        control_count=2 * len(trace.vms),
        duplicate_count=injected.duplicate_count,
        late_count=injected.late_count,
        quarantined=dict(injected.quarantined),
        parked=dict(injected.parked),
    )


def sample_events(trace: Trace) -> Iterator[Outgoing]:
    """(source, encoded event) of every row, in the order of time."""
    return _samples(trace, _sending_order(trace.rows, None))


def _with_faults(trace: Trace, options: ReplayOptions, injected: faults.Injected) -> tuple[Iterator[Outgoing], int]:
    """The samples in sending order, with faults where asked, and how many events are to be expected in all."""
    samples = _samples(trace, _sending_order(trace.rows, options.shuffle_seed))
    total = len(trace.rows) + 2 * len(trace.vms)
    if options.faults_seed is None:
        return samples, total
    if faults.BENCH_SUBJECT in trace.vms:
        raise ConfigurationFault(f"the trace has a server {faults.BENCH_SUBJECT}: replay it without faults")
    bad = faults.bad_events(trace.digest, _first_time(trace))
    return faults.inject(samples, len(trace.rows), bad, options.faults_seed, injected), total + len(bad)


class _Sender:
    """Gathers events of a source into messages and counts them."""

    def __init__(
        self, producer: Producer, topic: str, events_per_message: int, progress: Progress | None, total: int
    ) -> None:
        self.message_count = 0
        self.event_count = 0
        self._producer = producer
        self._topic = topic
        self._events_per_message = events_per_message
        self._progress = progress
        self._total = total
        self._keys: dict[str, bytes] = {}
        self._gathered: dict[str, list[bytes]] = {}

    def send(self, source: str, event: bytes, *, alone: bool = False) -> None:
        if alone or self._events_per_message == 1:
            self._send_message(source, event, 1)
            return
        gathered = self._gathered.setdefault(source, [])
        gathered.append(event)
        if len(gathered) == self._events_per_message:
            self._send_message(source, encode_batch(gathered), len(gathered))
            gathered.clear()

    def send_gathered(self) -> None:
        for source, gathered in self._gathered.items():
            if gathered:
                self._send_message(source, encode_batch(gathered), len(gathered))
        self._gathered.clear()

    def report_progress(self) -> None:
        if self._progress is not None:
            self._progress(self.event_count, max(self._total, self.event_count))

    def _send_message(self, source: str, value: bytes, count: int) -> None:
        key = self._keys.get(source)
        if key is None:
            key = self._keys[source] = source.encode()
        self._producer.send(self._topic, key, value)
        self.message_count += 1
        before = self.event_count // PROGRESS_EVENTS
        self.event_count += count
        if self.event_count // PROGRESS_EVENTS != before:
            self.report_progress()


def _sending_order(rows: tuple[TraceRow, ...], shuffle_seed: int | None) -> list[TraceRow]:
    if shuffle_seed is None:
        return sorted(rows, key=lambda row: row.timestamp)
    shuffled = list(rows)
    Random(shuffle_seed).shuffle(shuffled)  # noqa: S311  # a test's order, no secret
    return shuffled


def _samples(trace: Trace, rows: Iterable[TraceRow]) -> Iterator[Outgoing]:
    # The bytes are those of encode_event, joined from their few moving parts; a test holds the two together.
    sources = [source_of(vm) for vm in trace.vms]
    heads = [f'{{"specversion":"1.0","id":"{epoch_of(trace.digest, vm)}-' for vm in trace.vms]
    middles = [_middle(vm) for vm in trace.vms]
    data = ",".join(f'"{name}":"%s"' for name in HOST_SAMPLE_FIELDS)
    days: dict[int, str] = {}
    for timestamp, index, number, values in rows:
        day, second = divmod(timestamp, 86_400)
        date = days.get(day)
        if date is None:
            date = days[day] = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT")
        minute, second = divmod(second, 60)
        event = (
            f"{heads[index]}{number:012d}{middles[index]}{date}{minute // 60:02d}:{minute % 60:02d}:{second:02d}Z"
            f'","data":{{{data % tuple(values.split(","))}}}}}'
        )
        yield Outgoing(sources[index], event.encode())


def _middle(vm: str) -> str:
    """Everything between the number and the time."""
    source, subject = (msgspec.json.encode(text).decode() for text in (source_of(vm), vm))
    return f'","source":{source},"type":"{HOST_SAMPLE_TYPE}","subject":{subject},"time":"'


def _last_words(trace: Trace) -> Iterator[Outgoing]:
    last_number = Counter(row.vm_index for row in trace.rows)
    last_at: dict[int, int] = {}
    for row in trace.rows:
        last_at[row.vm_index] = max(row.timestamp, last_at.get(row.vm_index, 0))
    for index, vm in enumerate(trace.vms):
        at = datetime.fromtimestamp(last_at[index], UTC)
        # Nothing more comes, so it is complete wherever the month ends last: the same event for whoever replays it.
        until = period_containing(at, LAST_ZONE).end
        words: list[tuple[str, dict[str, str]]] = [("complete_until", {"until": rfc3339(until)}), ("retired", {})]
        for number, (name, data) in enumerate(words, start=last_number[index] + 1):
            yield Outgoing(
                source_of(vm),
                encode_event(
                    source=source_of(vm),
                    event_id=format_sequenced_id(epoch_of(trace.digest, vm), number),
                    event_type=f"{CONTROL_PREFIX}{name}.v1",
                    subject=vm,
                    time=rfc3339(at),
                    data=data,
                ),
            )


def _first_time(trace: Trace) -> str:
    return rfc3339(datetime.fromtimestamp(min(row.timestamp for row in trace.rows), UTC))
