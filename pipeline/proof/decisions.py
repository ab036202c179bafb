"""Step three: prove every decision from the evidence."""

from collections import Counter, defaultdict

import pyarrow as pa

from pipeline.proof import facts
from pipeline.proof.events import home_of
from pipeline.proof.facts import LogFacts
from pipeline.proof.report import Findings
from pipeline.proof.workspace import Workspace
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "decisions.sql")
STEP = "decisions"

_DECISION = {
    "partition": "INTEGER",
    "log_offset": "BIGINT",
    "index_in_message": "INTEGER",
    "outcome": "VARCHAR",
    "reason": "VARCHAR",
    "settled": "BOOLEAN",
    "was_parked": "BOOLEAN",
}
_UNARCHIVED = {"partition": "INTEGER", "outcome": "VARCHAR", "source": "VARCHAR", "event_id": "VARCHAR"}


def read_decisions(workspace: Workspace, connection: Connection, log: LogFacts) -> None:
    """Fill the tables `decided` and `taken`."""
    about = {"topic": log.topic}
    workspace.copy("decision", _DECISION, connection, facts.QUERIES["decisions"], about)
    workspace.copy("unarchived", _UNARCHIVED, connection, facts.QUERIES["unarchived_decisions"], about)
    workspace.load(
        "lost",
        {
            "source": pa.string(),
            "epoch": pa.string(),
            "first": pa.int64(),
            "after": pa.int64(),
            "partitions_before": pa.int64(),
        },
        [
            (span.source, span.epoch, span.first, span.after, (span.log_number + 1) * log.partition_count)
            for span in log.lost
        ],
    )
    workspace.run_all(QUERIES, ("create_stand_in", "create_decided", "drop_verdict", "create_taken"))


def check_decisions(workspace: Workspace, connection: Connection, findings: Findings) -> None:
    """Compare every decision with what the events themselves say."""
    ((_, edge_us),) = facts.rows(connection, "retention_edge")
    findings.add_listed(
        STEP,
        [
            (f"{outcome} is decided about {_at(*position)}, where the archive has no event", None)
            for *position, outcome in workspace.rows(QUERIES["decisions_of_nothing"])
        ],
    )
    findings.add_listed(
        STEP,
        [
            (f"event {event_id} of {source} is taken {count} times", subject)
            for source, event_id, count, subject in workspace.rows(QUERIES["taken_twice"])
        ],
    )
    findings.add_listed(
        STEP,
        [
            (f"{_event(*who)} is a {outcome} of an event that was never taken", subject)
            for *who, outcome, subject in workspace.rows(QUERIES["without_twin"])
        ],
    )
    findings.add_listed(
        STEP,
        [
            (f"{_event(*who)} is settled as a duplicate, but says something else than the one that counted", subject)
            for *who, subject in workspace.rows(QUERIES["other_content"])
        ],
    )
    findings.add_listed(
        STEP,
        [
            (f"{_event(*who)} is {outcome}, by its content it should be {expected}", subject)
            for *who, outcome, expected, subject in workspace.rows(QUERIES["other_outcomes"], {"edge_us": edge_us})
        ],
    )
    findings.add_listed(
        STEP,
        [
            (f"{_event(*who)} is parked as too sparse, but its numbers are not", subject)
            for *who, subject in workspace.rows(QUERIES["too_dense_to_be_sparse"])
        ],
    )
    counts = {f"events_{outcome}": count for outcome, count in workspace.rows(QUERIES["outcome_counts"])}
    counts["events_received"] = sum(counts.values())
    for name, count in counts.items():
        # Several cuts read the same events; each counts once.
        findings.compared[name] = max(findings.compared[name], count)


def check_tallies(workspace: Workspace, log: LogFacts, findings: Findings) -> None:
    """
    Compare partition_tally with a recount; only where the workspace reads as far as aggregate has.

    Of what was lost before it was archived, the numbers that were taken are known, and every decision but "counted".
    """
    recounted: dict[int, Counter[str]] = defaultdict(Counter)
    for partition, outcome, count in workspace.rows(QUERIES["recount"]):
        recounted[partition][outcome] = count
    for span in log.lost:
        partition = span.log_number * log.partition_count + home_of(span.source, log.partition_count)
        recounted[partition]["counted"] += span.after - span.first
    for partition, taken in workspace.rows(QUERIES["taken_unarchived"]):
        recounted[partition]["counted"] -= taken
    for partition in sorted(recounted.keys() | log.tallies.keys()):
        found = recounted[partition]
        found["received"] = sum(found.values())
        for outcome, tallied in log.tallies.get(partition, dict.fromkeys(found, 0)).items():
            findings.compared["tallies"] += 1
            if tallied != found[outcome]:
                findings.add(STEP, f"partition {partition}: {outcome} is tallied {tallied}, recounted {found[outcome]}")


def _at(partition: int, log_offset: int, index: int) -> str:
    return f"partition {partition}, offset {log_offset}, index {index}"


def _event(partition: int, log_offset: int, index: int, source: str, event_id: str) -> str:
    return f"event {event_id} of {source} at {_at(partition, log_offset, index)}"
