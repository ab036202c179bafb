"""Compare what the pipeline keeps of usage beside buckets: sums of days, and the samples later slots are made from."""

import json
from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa

from pipeline.proof import facts
from pipeline.proof.report import Findings
from pipeline.proof.usage import QUERIES, STEP, plain
from pipeline.proof.workspace import Workspace
from pipeline.runtime.postgres import Connection

_DAY_US = timedelta(days=1) // timedelta(microseconds=1)


def check_days(workspace: Workspace, connection: Connection, from_us: int, to_us: int, findings: Findings) -> None:
    """Compare usage_day with the sums of `slot_usage`, for whole UTC days in [from_us, to_us); needs table `series`."""
    first_us, after_us = -(-from_us // _DAY_US) * _DAY_US, to_us // _DAY_US * _DAY_US
    if first_us >= after_us:
        return
    about = {"from": facts.to_time(first_us).date(), "to": facts.to_time(after_us).date()}
    workspace.copy(
        "day",
        {"series_id": "BIGINT", "day_us": "BIGINT", "quantity": "VARCHAR"},
        connection,
        facts.QUERIES["days"],
        about,
    )
    findings.compared["days"] += workspace.rows(QUERIES["day_count"])[0][0]
    differing = workspace.rows(QUERIES["other_days"], {"from_us": first_us, "to_us": after_us})
    findings.add_listed(STEP, [(_day_difference(*row), row[1]) for row in differing])


def check_samples(
    workspace: Workspace,
    connection: Connection,
    fields: Sequence[str],
    from_us: int,
    to_us: int,
    findings: Findings,
) -> None:
    """
    Compare usage_sample with the counted events of [from_us, to_us), but for what retention dropped.

    Args:
        workspace: With `counted` and `stream` filled.
        connection: In the snapshot.
        fields: In the order of their places in `counted.nano`.
        from_us: Where it begins.
        to_us: Where it ends.
        findings: Takes what differs.
    """
    ((dropped_before_us, _),) = facts.rows(connection, "retention_edge")
    kept_us = min(max(from_us, dropped_before_us), to_us)
    workspace.load(
        "sample_stream",
        {"sample_stream_id": pa.int64(), "source": pa.string(), "subject": pa.string(), "event_type": pa.string()},
        facts.rows(connection, "sample_streams"),
    )
    between = {"from": facts.to_time(kept_us), "to": facts.to_time(to_us)}
    workspace.load(
        "sample_day",
        {
            "sample_stream_id": pa.int64(),
            "day_us": pa.int64(),
            "samples": pa.int64(),
            "first_sum": pa.string(),
            "last_sum": pa.string(),
        },
        facts.rows(connection, "sample_days", between),
    )
    findings.compared["samples"] += workspace.rows(QUERIES["sample_count"])[0][0]
    # PostgreSQL puts shorter names first.
    order = sorted(range(len(fields)), key=lambda index: (len(fields[index].encode()), fields[index].encode()))
    differing = workspace.rows(
        QUERIES["other_samples"],
        {
            "places": [index + 1 for index in order],
            "labels": [f"{json.dumps(field, ensure_ascii=False)}: " for field in fields],
            "from_us": kept_us,
            "to_us": to_us,
        },
    )
    findings.add_listed(STEP, [(_sample_difference(*row), row[1]) for row in differing])


def _day_difference(
    meter: str, subject: str, source: str, day_us: int, stored: str | None, quantity: str | None
) -> str:
    who = f"{meter}, {subject}{f' by {source}' if source else ''}, {facts.to_time(day_us).date()}"
    recomputed = "nothing" if quantity is None else plain(int(quantity))
    return f"day of {who}: quantity {stored or 'missing'}, recomputed {recomputed}"


def _sample_difference(source: str, subject: str, day_us: int, stored: int | None, counted: int | None) -> str:
    what = f"samples of {subject} by {source}, {facts.to_time(day_us).date()}"
    if stored != counted:
        return f"{what}: {stored or 0} are stored, {counted or 0} counted"
    return f"{what}: they are not the events that counted"
