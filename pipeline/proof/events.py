"""Step two: take messages apart and judge every event by our own statement of validity."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.proof.facts import Meter, to_us
from pipeline.proof.judge import BATCH_MAX, STAMP, judge_message
from pipeline.proof.report import Findings
from pipeline.proof.workspace import Workspace, path_list
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "events.sql")

#: After every event time there is.
END_US = 1 << 62

_STRING = r'"[ !#-\[\]-~]*"'
_NUMBER = r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?|[1-9][0-9]{9,14}"
_MEMBER = rf'{_STRING}\s*:\s*(?:{_NUMBER}|"(?:{_NUMBER})")'
_DATA = rf"\{{\s*(?:{_MEMBER}\s*(?:,\s*{_MEMBER}\s*)*)?\}}"
_ATTRIBUTE = rf"{_STRING}\s*:\s*(?:{_STRING}|{_DATA})"
PLAIN = rf"\s*\{{\s*{_ATTRIBUTE}\s*(?:,\s*{_ATTRIBUTE}\s*)*\}}\s*".replace(r"\s", r"[ \t\r\n]")
# Each event with the sign behind it; what JSON makes of a bracket in the middle or a comma at the end is asked besides.
PLAIN_ARRAY = rf"[ \t\r\n]*\[(?:{PLAIN}[,\]])+[ \t\r\n]*"
PLAIN_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"

_JUDGED = pa.schema(
    [
        ("partition", pa.int32()),
        ("log_offset", pa.int64()),
        ("index_in_message", pa.int32()),
        ("log_time_us", pa.int64()),
        ("key_is_source", pa.bool_()),
        ("source", pa.string()),
        ("event_id", pa.string()),
        ("event_type", pa.string()),
        ("subject", pa.string()),
        ("at_us", pa.int64()),
        ("nano", pa.list_(pa.decimal128(38, 0))),
        ("fault", pa.string()),
        ("stamped", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class MeterSpan:
    """A meter version and the half-open event time it is in force for, in microseconds."""

    meter: Meter
    from_us: int
    to_us: int

    @property
    def is_ordered(self) -> bool:
        """Whether it needs samples in order."""
        return self.meter.aggregation in ("time_weighted", "increase")


@dataclass(frozen=True, slots=True)
class Need:
    """What must be readable in an event of a type at a time: fields of all meters, and those of ordered meters."""

    event_type: str
    from_us: int
    to_us: int
    fields: tuple[str, ...]
    ordered_fields: tuple[str, ...]


def meter_spans(meters: Sequence[Meter]) -> list[MeterSpan]:
    """Give each version its time: from its start to the start of the next version of the same meter."""
    spans: list[MeterSpan] = []
    by_name = sorted(meters, key=lambda m: (m.meter, m.effective_from, m.version))
    for _, versions in itertools.groupby(by_name, key=lambda m: m.meter):
        listed = list(versions)
        edges = [*(to_us(version.effective_from) for version in listed), END_US]
        spans += [
            MeterSpan(version, start, end)
            for version, start, end in zip(listed, edges, edges[1:], strict=False)
            if start < end
        ]
    return spans


def needs(spans: Sequence[MeterSpan]) -> list[Need]:
    """Cut time, by event type, into stretches with one set of meters in force; stretches without any are left out."""
    found: list[Need] = []
    for event_type in sorted({span.meter.event_type for span in spans}):
        here = [span for span in spans if span.meter.event_type == event_type]
        edges = sorted({edge for span in here for edge in (span.from_us, span.to_us)})
        for start, end in itertools.pairwise(edges):
            in_force = [span for span in here if span.from_us <= start < span.to_us]
            if in_force:
                every = {span.meter.value_field for span in in_force} - {None}
                ordered = {span.meter.value_field for span in in_force if span.is_ordered} - {None}
                found.append(Need(event_type, start, end, _sorted(every), _sorted(ordered)))
    return found


def fields_of(spans: Sequence[MeterSpan]) -> list[str]:
    """Give every field some meter reads; places in `nano` count from 1 in this order."""
    return sorted({span.meter.value_field for span in spans if span.meter.value_field is not None})


def read_events(
    workspace: Workspace,
    files: Mapping[int, Sequence[Path]],
    offsets: Mapping[int, int],
    spans: Sequence[MeterSpan],
    ignored_types: frozenset[str],
    partition_count: int,
    findings: Findings,
    fields: Sequence[str] | None = None,
) -> None:
    """
    Fill the table `verdict` from archive files, up to the offsets.

    Args:
        workspace: An empty one.
        files: By the number of their log.
        offsets: By partition, numbered on over the logs.
        spans: Every meter version with its time.
        ignored_types: Event types that are not metered.
        partition_count: Of each log.
        findings: Takes what differs.
        fields: Other ones than the meters read.
    """
    fields = fields_of(spans) if fields is None else fields
    workspace.load("cut_offset", {"partition": pa.int32(), "offset_next": pa.int64()}, sorted(offsets.items()))
    workspace.run(QUERIES["create_event"])
    if files:
        pieces = [
            QUERIES["read_files"].replace("$shift", str(number * partition_count)).replace("$paths", path_list(paths))
            for number, paths in sorted(files.items())
        ]
        workspace.run(QUERIES["create_archived"].replace("$pieces", " UNION ALL ".join(pieces)))
        workspace.run_all(QUERIES, ("create_log_clock", "create_message"))
        paths = ["$.data." + '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in fields]
        workspace.run(
            QUERIES["read_plain"],
            # A path that nothing has keeps the list from being empty.
            {
                "field_paths": paths or ["$.data.none"],
                "plain": PLAIN,
                "plain_array": PLAIN_ARRAY,
                "plain_time": PLAIN_TIME,
                "stamp": STAMP,
                "events_max": BATCH_MAX,
            },
        )
        workspace.run(QUERIES["drop_half_read"])
        _judge_rest(workspace, fields)
        twice = workspace.rows(QUERIES["rows_twice"])
        findings.add_listed(
            "evidence",
            [(f"offset {at} of partition {part} is archived {count} times", None) for part, at, count in twice],
        )
    _load_rules(workspace, fields, spans, ignored_types, partition_count)
    workspace.run(QUERIES["create_verdict"].replace("$partition_count", str(partition_count)))
    workspace.run(QUERIES["drop_event"])


def home_of(source: str, partition_count: int) -> int:
    """Give the partition Java's Kafka client puts a key on: murmur2, sign bit off, modulo."""
    return (_murmur2(source.encode()) & 0x7FFFFFFF) % partition_count


def _judge_rest(workspace: Workspace, fields: Sequence[str]) -> None:
    rows = [
        (
            partition,
            log_offset,
            judged.index,
            log_time_us,
            judged.source is not None and key == judged.source.encode(),
            judged.source,
            judged.event_id,
            judged.event_type,
            judged.subject,
            judged.at_us,
            list(judged.nano),
            judged.fault,
            judged.stamped,
        )
        for partition, log_offset, log_time_us, key, value in workspace.rows(QUERIES["not_plain"])
        for judged in judge_message(value, fields)
    ]
    workspace.load("judged", dict(zip(_JUDGED.names, _JUDGED.types, strict=True)), rows)
    workspace.run(QUERIES["add_judged"])


def _load_rules(
    workspace: Workspace,
    fields: Sequence[str],
    spans: Sequence[MeterSpan],
    ignored_types: frozenset[str],
    partition_count: int,
) -> None:
    place = {name: index for index, name in enumerate(fields, start=1)}
    workspace.load(
        "need",
        {
            "event_type": pa.string(),
            "from_us": pa.int64(),
            "to_us": pa.int64(),
            "fields": pa.list_(pa.int64()),
            "ordered_fields": pa.list_(pa.int64()),
        },
        [
            (n.event_type, n.from_us, n.to_us, [place[f] for f in n.fields], [place[f] for f in n.ordered_fields])
            for n in needs(spans)
        ],
    )
    workspace.load("ignored", {"event_type": pa.string()}, [(name,) for name in sorted(ignored_types)])
    sources = [source for (source,) in workspace.rows(QUERIES["sources"])]
    workspace.load(
        "home",
        {"source": pa.string(), "partition": pa.int32()},
        [(source, home_of(source, partition_count)) for source in sources],
    )


def _sorted(names: set[str | None]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if name is not None))


def _murmur2(data: bytes) -> int:
    mixer, mask = 0x5BD1E995, 0xFFFFFFFF
    state = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * mixer & mask
        word = (word ^ word >> 24) * mixer & mask
        state = (state * mixer & mask) ^ word
    if rest := data[whole:]:
        state = (state ^ int.from_bytes(rest, "little")) * mixer & mask
    state = (state ^ state >> 13) * mixer & mask
    return state ^ state >> 15
