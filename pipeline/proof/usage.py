"""Step four: compute every slot of every meter again, and compare it with usage_bucket."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa

from pipeline.proof import facts
from pipeline.proof.events import MeterSpan, fields_of
from pipeline.proof.report import Findings
from pipeline.proof.workspace import Workspace
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "usage.sql")
STEP = "usage"
US_PER_SECOND = 1_000_000
#: Quantities are kept as whole numbers of 10^-15 of the meter's unit: values have 9 decimals, times 6.
SCALE = 15


def compute_usage(workspace: Workspace, spans: Sequence[MeterSpan], from_us: int, to_us: int) -> None:
    """Fill `slot_usage` for slots in [from_us, to_us), slot edges both."""
    place = {name: index for index, name in enumerate(fields_of(spans), start=1)}
    workspace.run_all(QUERIES, ("create_stream", "create_counted", "create_slot_usage"))
    workspace.load(
        "meter",
        {"meter_version_id": pa.int32(), "meter": pa.string(), "aggregation": pa.string()},
        [(span.meter.meter_version_id, span.meter.meter, span.meter.aggregation) for span in spans],
    )
    gauges: dict[tuple[object, ...], list[MeterSpan]] = defaultdict(list)
    for span in spans:
        if span.meter.aggregation == "time_weighted":
            # Meters whose samples are the same are computed at once.
            same_samples = tuple((o.from_us, o.to_us) for o in spans if _reads_same(o, span))
            meter = span.meter
            key = (meter.event_type, meter.slot_seconds, meter.gap_seconds_max, span.from_us, span.to_us, same_samples)
            gauges[key].append(span)
        else:
            _compute_one(workspace, span, place, from_us, to_us)
    for group in gauges.values():
        first = group[0].meter
        workspace.run(
            QUERIES["add_time_weighted"],
            {
                "event_type": first.event_type,
                "slot_us": first.slot_seconds * US_PER_SECOND,
                "gap_us": (first.gap_seconds_max or 0) * US_PER_SECOND,
                "from_us": max(from_us, group[0].from_us),
                "to_us": min(to_us, group[0].to_us),
                "meters": [span.meter.meter_version_id for span in group],
                "fields": [place[str(span.meter.value_field)] for span in group],
            },
        )


def check_buckets(workspace: Workspace, connection: Connection, from_us: int, to_us: int, findings: Findings) -> None:
    """Compare `slot_usage` with the buckets of the same time, both ways; what retention dropped is counted as such."""
    ((dropped_before_us, _),) = facts.rows(connection, "retention_edge")
    kept_us = min(max(from_us, dropped_before_us), to_us)
    if behind := workspace.rows(QUERIES["count_behind"], {"kept_us": kept_us})[0][0]:
        findings.compared["slots_not_compared_behind_retention"] += behind
    workspace.load(
        "series",
        {"series_id": pa.int64(), "meter_version_id": pa.int32(), "source": pa.string(), "subject": pa.string()},
        facts.rows(connection, "series"),
    )
    workspace.copy(
        "bucket",
        {"series_id": "BIGINT", "slot_us": "BIGINT", "quantity": "VARCHAR"},
        connection,
        facts.QUERIES["buckets"],
        {"from": facts.to_time(kept_us), "to": facts.to_time(to_us)},
    )
    findings.compared["buckets"] += workspace.rows(QUERIES["bucket_count"])[0][0]
    differing = workspace.rows(QUERIES["other_buckets"], {"kept_us": kept_us})
    findings.add_listed(STEP, [(_bucket_difference(*row), row[1]) for row in differing])


def plain(quantity: int) -> str:
    """A quantity in 10^-15 as decimal text."""
    text = f"{Decimal(f'{quantity}E-{SCALE}'):f}"
    return text.rstrip("0").rstrip(".") or "0"


def _bucket_difference(
    meter: str, subject: str, source: str, slot_us: int, stored: str | None, quantity: str | None
) -> str:
    who = f"{meter}, {subject}{f' by {source}' if source else ''}, {facts.to_time(slot_us).isoformat()}"
    recomputed = "nothing" if quantity is None else plain(int(quantity))
    return f"bucket of {who}: quantity {stored or 'missing'}, recomputed {recomputed}"


def _reads_same(other: MeterSpan, span: MeterSpan) -> bool:
    return (
        other.is_ordered
        and other.meter.event_type == span.meter.event_type
        and other.meter.value_field == span.meter.value_field
    )


def _compute_one(workspace: Workspace, span: MeterSpan, place: dict[str, int], from_us: int, to_us: int) -> None:
    parameters: dict[str, object] = {
        "meter": span.meter.meter_version_id,
        "event_type": span.meter.event_type,
        "slot_us": span.meter.slot_seconds * US_PER_SECOND,
        "from_us": max(from_us, span.from_us),
        "to_us": min(to_us, span.to_us),
    }
    if span.meter.value_field is not None:
        parameters["field"] = place[span.meter.value_field]
    workspace.run(QUERIES[f"add_{span.meter.aggregation}"], parameters)
