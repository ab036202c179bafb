"""Whether a database holds the generator's truth, in whole numbers; every difference as a sentence."""

from collections.abc import Iterable, Mapping
from typing import get_args

from bench.events import Outcome, Quantities, Truth, Workload
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries("bench")

SHOWN_MAX = 5
_TALLY = ("messages", "received", "counted", "duplicate", "quarantined", "parked", "ignored", "control")


def differences(connection: Connection, truth: Truth, workload: Workload, messages: int) -> list[str]:
    """
    Compare tallies, decisions, slots and days with the truth.

    Args:
        connection: To the database the topic was aggregated into.
        truth: Of the generator, complete.
        workload: Whose meters the database has.
        messages: How many the topic has.

    Returns:
        Nothing where all of it is right; else a few of the differences of each kind.
    """
    wanted = truth.quantities[workload.name]
    additive = {key: quantity for key, quantity in wanted.items() if key[0] != workload.active_meter}
    row = connection.execute(QUERIES["tally"]).fetchone() or ()
    tally = {name: int(count or 0) for name, count in zip(_TALLY, row, strict=False)}
    rows: dict[str, int] = dict(connection.execute(QUERIES["decisions"]).fetchall())
    kept = {**tally, **{outcome: rows.get(outcome, 0) for outcome in ("duplicate", "quarantined", "parked")}}
    return [
        *tally_differences(tally, truth, messages),
        *(f"decisions, {line}" for line in tally_differences(kept, truth, messages)),
        *quantity_differences("slots", connection.execute(QUERIES["bucket_sums"]), wanted),
        *quantity_differences("days", connection.execute(QUERIES["day_sums"]), additive),
    ]


def tally_differences(tally: Mapping[str, int], truth: Truth, messages: int) -> list[str]:
    """Compare how many messages and events were seen, and what was decided about them."""
    wanted = dict.fromkeys(_TALLY, 0) | {outcome: truth.outcomes[outcome] for outcome in get_args(Outcome)}
    wanted |= {"messages": messages, "received": truth.event_count}
    return [
        f"{name}: {tally.get(name, 0)} in the database, {count} in truth"
        for name, count in wanted.items()
        if tally.get(name, 0) != count
    ]


def quantity_differences(what: str, rows: Iterable[tuple[str, str, str]], wanted: Quantities) -> list[str]:
    """Compare (meter, server, quantity in 10^-15 as text) with the truth, both ways."""
    found = {(meter, subject): quantity for meter, subject, quantity in rows}
    # A server without a good sample has no slots.
    wrong = [
        f"{what} of {meter}, {subject}: {found.get((meter, subject), '0')} in the database, {quantity} in truth"
        for (meter, subject), quantity in sorted(wanted.items())
        if found.get((meter, subject), "0") != str(quantity)
    ]
    wrong += [
        f"{what} of {meter}, {subject}: in the database only" for meter, subject in sorted(found.keys() - wanted.keys())
    ]
    return wrong if len(wrong) <= SHOWN_MAX else [*wrong[:SHOWN_MAX], f"and {len(wrong) - SHOWN_MAX} more of {what}"]
