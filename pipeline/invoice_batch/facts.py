"""Reads the gate's facts; the caller decides in which snapshot."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.period import Period
from pipeline.invoice_batch.gate import Expectation, GateFacts, LostEvents, OpenDecisions, PartitionStand, UnbookedItem
from pipeline.invoice_batch.model import Account
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "gate.sql")


def read_facts(
    connection: Connection,
    account: Account,
    period: Period,
    *,
    topic: str,
    now: datetime,
    close_grace_seconds: int,
    log_ends: Mapping[int, int],
) -> GateFacts:
    """
    Read everything the gate decides on for one account and period.

    Args:
        connection: Open one transaction around this for one consistent answer.
        log_ends: partition -> offset after the last record, asked for before the snapshot.

    Raises:
        ConfigurationFault: The topic was never adopted, or the broker has partitions the database does not know.
    """
    about = {
        "account_id": account.account_id,
        "period_start": period.start,
        "period_end": period.end,
        "currency": account.currency,
        "topic": topic,
    }
    expectations = tuple(Expectation(**row) for row in _rows(connection, "expectations", about))
    subjects = sorted({expectation.subject for expectation in expectations})
    return GateFacts(
        period=period,
        now=now,
        close_grace_seconds=close_grace_seconds,
        currency=account.currency,
        expectations=expectations,
        open_decisions=tuple(
            OpenDecisions(**row) for row in _rows(connection, "open_decisions", {**about, "subjects": subjects})
        ),
        lost_events=tuple(LostEvents(**row) for row in _rows(connection, "lost_events", {"subjects": subjects})),
        dirty_subjects=tuple(row["subject"] for row in _rows(connection, "dirty_subjects", about)),
        dirty_items=_rows(connection, "dirty_item_count", about)[0]["count"],
        unbooked=tuple(UnbookedItem(**row) for row in _rows(connection, "unbooked_items", about)),
        partitions=_partitions(_rows(connection, "partition_stands", about), log_ends, topic),
        earlier_open=tuple(row["period_start"] for row in _rows(connection, "earlier_open_periods", about)),
        other_currencies=tuple(row["currency"] for row in _rows(connection, "other_currencies", about)),
    )


def _partitions(rows: list[dict[str, Any]], log_ends: Mapping[int, int], topic: str) -> tuple[PartitionStand, ...]:
    known = {row["partition"] for row in rows}
    if not rows or known != set(log_ends):
        raise ConfigurationFault(
            f"topic {topic} has partitions {sorted(log_ends)} at the broker and {sorted(known)} in the database;"
            " run `rackmeter doctor`",
            "log_partitions_differ",
        )
    return tuple(PartitionStand(log_end=log_ends[row["partition"]], **row) for row in rows)


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()
