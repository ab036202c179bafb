"""Giving servers to subscriptions: assignments added in one transaction each, with the marks that move the totals."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pipeline.catalogue.apply import take_known_numbers
from pipeline.catalogue.assignments import FOREVER, Ownership, effective
from pipeline.catalogue.model import SLOT_EDGE_SECONDS, Assignment, Subscription
from pipeline.catalogue.store import QUERIES, load_assignments, load_subscriptions
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.slots import US_PER_SECOND, to_us
from pipeline.runtime.postgres import Connection


def assign(connection: Connection, wanted: Sequence[Assignment], said_by: str) -> list[Assignment]:
    """Add assignments in the given order, later ones winning; those that change nothing are left out.

    Args:
        connection: The rows, their known numbers and the dirty marks are one transaction on it.
        wanted: Their known numbers are ignored.
        said_by: Who says so, for the record.

    Returns:
        The assignments that were added, with their known numbers.

    Raises:
        ConfigurationFault: One line for each assignment that cannot be; then nothing was written.
    """
    with connection.transaction():
        row = connection.execute(QUERIES["lock_known_number"]).fetchone()
        number = int(row[0]) if row else 0
        subscriptions = load_subscriptions(connection)
        if faults := [fault for one in wanted for fault in _faults(one, subscriptions)]:
            raise ConfigurationFault("\n".join(faults), "assignment_refused")
        known = load_assignments(connection, sorted({one.subject for one in wanted}))
        added: list[Assignment] = []
        for one in wanted:
            candidate = replace(one, known_number=number + len(added) + 1)
            of_subject = known.setdefault(one.subject, [])
            if effective([*of_subject, candidate], one.subject) != effective(of_subject, one.subject):
                of_subject.append(candidate)
                added.append(candidate)
        if added:
            take_known_numbers(connection, len(added))
            _insert(connection, added, said_by)
    return added


def move(connection: Connection, subject: str, subscription_id: str, at: datetime, said_by: str) -> list[Assignment]:
    """Give a server to another subscription from `at` to where its present owner's time ends.

    Raises ConfigurationFault where nobody has the server at that time.
    """
    with connection.transaction():
        # The owner's end is read under the lock: a retire on its way may just be setting it.
        connection.execute(QUERIES["lock_known_number"])
        return assign(connection, [_until_next(connection, subject, subscription_id, at)], said_by)


def retire(connection: Connection, subject: str, at: datetime, said_by: str) -> list[Assignment]:
    """Say that nobody has a server from `at` on."""
    return assign(connection, [Assignment(0, subject, None, at, None)], said_by)


def list_owners(
    connection: Connection, subjects: Sequence[str] | None = None, known_number_max: int | None = None
) -> dict[str, list[Ownership]]:
    """Who has which server when, by subject in the order of names; of some subjects or all."""
    known = load_assignments(connection, subjects, known_number_max)
    return {subject: effective(known[subject], subject) for subject in sorted(known)}


def _until_next(connection: Connection, subject: str, subscription_id: str, at: datetime) -> Assignment:
    for owner in effective(load_assignments(connection, [subject]).get(subject, []), subject):
        if owner.valid_from <= at < (owner.valid_to or FOREVER):
            return Assignment(0, subject, subscription_id, at, owner.valid_to)
    raise ConfigurationFault(
        f"nobody has {subject} at {at.isoformat()}; assign it with `rackmeter servers assign`", "server_unassigned"
    )


def _faults(one: Assignment, subscriptions: dict[str, Subscription]) -> list[str]:
    where = f"{one.subject} from {one.valid_from.isoformat()}"
    found = [
        f"{where}: {edge.isoformat()} is not on a 15-minute mark"
        for edge in (one.valid_from, one.valid_to)
        if edge is not None and to_us(edge) % (SLOT_EDGE_SECONDS * US_PER_SECOND)
    ]
    if one.valid_to is not None and one.valid_to <= one.valid_from:
        found.append(f"{where}: ends at {one.valid_to.isoformat()}, not after it begins")
    if one.subscription_id is None:
        return found
    subscription = subscriptions.get(one.subscription_id)
    if subscription is None:
        return [*found, f"{where}: {one.subscription_id!r} is not a subscription of the catalogue"]
    if not subscription.is_running_at(one.valid_from):
        found.append(f"{where}: {one.subscription_id} is not running then")
    return found


def _insert(connection: Connection, added: Sequence[Assignment], said_by: str) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            QUERIES["insert_assignment"],
            [
                {
                    "known_number": one.known_number,
                    "subject": one.subject,
                    "subscription_id": one.subscription_id,
                    "valid_from": one.valid_from,
                    "valid_to": one.valid_to,
                    "said_by": said_by,
                }
                for one in added
            ],
        )
        cursor.executemany(
            QUERIES["mark_dirty"],
            [
                {"subject": one.subject, "subscription_id": None, "time_from": one.valid_from, "time_to": one.valid_to}
                for one in added
            ],
        )
