"""Step three: prove every decision from the evidence."""

from collections.abc import Mapping

from pipeline.proof import facts
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
}


def read_decisions(workspace: Workspace, connection: Connection, topic: str) -> None:
    """Fill the tables `decided` and `taken`."""
    workspace.copy("decision", _DECISION, connection, facts.QUERIES["decisions"], {"topic": topic})
    workspace.run_all(QUERIES, ("create_decided", "drop_verdict", "create_taken"))


def check_decisions(workspace: Workspace, findings: Findings) -> None:
    """Compare every decision with what the events themselves say."""
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
            (f"{_event(*who)} is {outcome}, by its content it should be {expected}", subject)
            for *who, outcome, expected, subject in workspace.rows(QUERIES["other_outcomes"])
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


def check_tallies(workspace: Workspace, tallies: Mapping[int, Mapping[str, int]], findings: Findings) -> None:
    """Compare partition_tally with a recount; only where the workspace reads as far as aggregate has."""
    recounted: dict[int, dict[str, int]] = {}
    for partition, outcome, count in workspace.rows(QUERIES["recount"]):
        recounted.setdefault(partition, {})[outcome] = count
    for partition in sorted(recounted.keys() | tallies.keys()):
        found = recounted.get(partition, {})
        found["received"] = sum(found.values())
        for outcome, tallied in tallies.get(partition, dict.fromkeys(found, 0)).items():
            findings.compared["tallies"] += 1
            if tallied != found.get(outcome, 0):
                findings.add(
                    STEP, f"partition {partition}: {outcome} is tallied {tallied}, recounted {found.get(outcome, 0)}"
                )


def _at(partition: int, log_offset: int, index: int) -> str:
    return f"partition {partition}, offset {log_offset}, index {index}"


def _event(partition: int, log_offset: int, index: int, source: str, event_id: str) -> str:
    return f"event {event_id} of {source} at {_at(partition, log_offset, index)}"
