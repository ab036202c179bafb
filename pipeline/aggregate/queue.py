"""Remember what is decided about again: the queue in, changed decisions out. The worker owns the transaction."""

from collections.abc import Sequence

from pipeline.aggregate.model import Change, Position, Waiting
from pipeline.aggregate.store import Fence
from pipeline.domain.slots import to_us
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "redeciding.sql")


def read_queue(
    connection: Connection, topic: str, partitions: Sequence[int], rows_max: int
) -> tuple[list[Waiting], list[int]]:
    """
    Read what waits in these partitions, oldest first.

    Returns:
        The events still open, and the queue numbers of all that was read: also of events somebody settled meanwhile.
    """
    rows = connection.execute(
        QUERIES["read_queue"], {"topic": topic, "partitions": list(partitions), "rows_max": rows_max}
    ).fetchall()
    waiting = [
        Waiting(number, said_by, Position(*position), outcome, source, to_us(log_time), bytes(payload))
        for number, said_by, *position, outcome, settled, source, log_time, payload in rows
        if not settled
    ]
    return waiting, [row[0] for row in rows]


def write_changes(connection: Connection, fence: Fence, changes: Sequence[Change], numbers: Sequence[int]) -> None:
    """Write changed decisions, each beside what it was, and take the events out of the queue."""
    if changes:
        positions = [change.waiting.position for change in changes]
        decisions = [change.decision for change in changes]
        connection.execute(
            QUERIES["change_decisions"],
            {
                "topic": fence.topic,
                "log_id": fence.log_id,
                "partitions": [position.partition for position in positions],
                "offsets": [position.log_offset for position in positions],
                "indexes": [position.index_in_message for position in positions],
                "outcomes": [decision.outcome for decision in decisions],
                "reasons": [decision.reason for decision in decisions],
                "details": [decision.detail for decision in decisions],
                "digests": [decision.content_digest for decision in decisions],
                "said_by": [change.waiting.said_by for change in changes],
            },
        )
    connection.execute(QUERIES["delete_queued"], {"numbers": list(numbers)})
