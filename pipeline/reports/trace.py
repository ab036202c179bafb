"""Where an event went: decision, slots, item, total, posting, line and invoice, or where it stopped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.identity import parse_sequenced_id
from pipeline.domain.money import format_minor
from pipeline.reports.explain import Node, rows
from pipeline.runtime.postgres import Connection


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as it was sent once: where it stands in the log, and what it says."""

    log_number: int
    partition: int
    log_offset: int
    index_in_message: int
    source: str
    event_id: str
    event_type: str
    subject: str
    occurred_at: datetime | None
    data: str | None


def senders(connection: Connection, event_id: str, source: str | None) -> list[str]:
    """
    Give the source of an event by its id.

    Raises:
        ConfigurationFault: Nothing is known of it, or several sources sent one of that id.
    """
    if source is not None:
        return [source]
    parsed = parse_sequenced_id(event_id)
    epoch = "" if parsed is None else parsed.epoch
    found = [row["source"] for row in rows(connection, "sources_of_epoch", epoch=epoch, event_id=event_id)]
    if not found:
        raise ConfigurationFault(
            f"nothing was read that could be the event {event_id!r}; give its --source if it may be archived",
            "event_unknown",
        )
    if len(found) > 1:
        raise ConfigurationFault(
            f"several sources send ids like {event_id!r}; give one with --source: {', '.join(found)}", "event_ambiguous"
        )
    return found


def partition_count(connection: Connection, topic: str) -> int:
    """Give how many partitions the log has; ConfigurationFault where there is no log."""
    found = rows(connection, "log_partitions", topic=topic)
    if not found:
        raise ConfigurationFault(f"no log of {topic} is known: nothing was read yet", "log_unknown")
    return int(found[0]["partition_count"])


def speakers(connection: Connection, server: str, event_type: str) -> list[str]:
    """Give the sources that send a type of event about a server."""
    return [row["source"] for row in rows(connection, "speakers", server=server, event_type=event_type)]


def seen(connection: Connection, topic: str, sent: Sequence[Sent], level: int = 0) -> list[Node]:
    """Give a node for each time an event was sent, with its place in the log and what was decided."""
    outcomes: dict[tuple[int, int, int, int], str] = {}
    for partition in sorted({one.partition for one in sent}):
        here = [one for one in sent if one.partition == partition]
        for row in rows(
            connection,
            "decisions_at",
            topic=topic,
            partition=partition,
            numbers=[one.log_number for one in here],
            offsets=[one.log_offset for one in here],
            indexes=[one.index_in_message for one in here],
        ):
            place = (partition, row["number"], row["log_offset"], row["index_in_message"])
            outcomes[place] = f"{row['outcome']} ({row['reason']})"
    return [
        Node(
            level=level,
            what="event",
            name=one.event_id,
            start=one.occurred_at,
            detail=f"{_outcome(outcomes, one)}; partition {one.partition} offset {one.log_offset}"
            f" index {one.index_in_message}{_of_log(one)}; {one.source}; {one.data}",
        )
        for one in sent
    ]


def trace(connection: Connection, topic: str, sent: Sequence[Sent]) -> Iterator[Node]:
    """
    Follow an event forward from where it stands in the log.

    Args:
        connection: Is read only.
        topic: Of the log.
        sent: Each time it was sent; at least once.
    """
    nodes = seen(connection, topic, sent)
    yield from nodes
    counted = next((one for one, node in zip(sent, nodes, strict=True) if _is_counted(node)), None)
    if counted is None or counted.occurred_at is None:
        yield Node(level=1, what="end", name="", detail="it was not counted, so nothing is charged for it")
        return
    about = {"server": counted.subject, "at": counted.occurred_at}
    buckets = rows(connection, "fed_buckets", **about, event_type=counted.event_type, source=counted.source)
    items = rows(connection, "fed_items", **about, meters=[row["meter"] for row in buckets])
    for bucket in buckets:
        yield Node(
            level=1, what="slot", name=f"{counted.subject} {bucket['meter']}", start=bucket["slot_start"],
            quantity=bucket["quantity"], unit=bucket["unit"],
            detail=f"{bucket['aggregation']}, version {bucket['version']} of the meter",
        )  # fmt: skip
        charging = [item for item in items if item["meter"] == bucket["meter"]]
        for item in charging:
            yield from _item(connection, item)
        if not charging:
            yield Node(
                level=2, what="end", name="", detail="nobody is charged by this meter for the server at that time"
            )
    if not buckets:
        yield Node(level=1, what="end", name="", detail="no meter reads it")


def _item(connection: Connection, item: Mapping[str, object]) -> Iterator[Node]:
    yield Node(
        level=2, what="total", name=f"{item['subscription_id']} {item['item']}", start=_instant(item["period_start"]),
        end=_instant(item["period_end"]),
        detail=f"account {item['account_id']}; generation {item['generation']}, revision {item['revision']}",
    )  # fmt: skip
    postings = rows(connection, "item_postings", billed_item_id=item["billed_item_id"])
    for posted in postings:
        yield Node(
            level=3, what="posting", name=posted["key"], start=posted["booked_at"], amount=posted["amount"],
            currency=posted["currency"], detail=f"posting {posted['ledger_transaction_id']}",
        )  # fmt: skip
        if posted["line_number"] is None:
            yield Node(level=4, what="end", name="", detail="on no invoice yet")
            continue
        (line,) = rows(connection, "line_of", invoice_id=posted["invoice_id"], line=posted["line_number"])
        yield Node(
            level=4, what="line", name=f"{posted['invoice']}:{posted['line_number']}", quantity=line["quantity"],
            amount=format_minor(line["amount_minor"], posted["currency"]), currency=posted["currency"],
            detail=f"{line['description']}; exact {line['amount_exact']:f}",
        )  # fmt: skip
    if not postings:
        yield Node(
            level=3, what="end", name="", detail="nothing is posted for it: it costs nothing, or is not booked yet"
        )


def _instant(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _is_counted(node: Node) -> bool:
    return (node.detail or "").startswith("counted")


def _outcome(outcomes: Mapping[tuple[int, int, int, int], str], one: Sent) -> str:
    return outcomes.get((one.partition, one.log_number, one.log_offset, one.index_in_message), "counted")


def _of_log(one: Sent) -> str:
    return f" of log {one.log_number + 1}" if one.log_number else ""
