"""One commit of the sink: which charges are booked, which are left aside, and why."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from pipeline.contracts.charge import Charge
from pipeline.domain.errors import RejectedRecord
from pipeline.ledger_sink import store
from pipeline.ledger_sink.rules import BilledItem, Booking, book, latest
from pipeline.runtime.postgres import Connection

LOGGER = logging.getLogger("rackmeter.ledger_sink")

# A transaction waits for the closing of any of its accounts, and holds up the closing of all of them.
ACCOUNTS_MAX = 100
ITEMS_MAX = 5_000


class Result(StrEnum):
    """What became of a charge; all but the first three leave it aside."""

    BOOKED = "booked"  # entries were posted
    UNCHANGED = "unchanged"  # the revision moved, no amount did
    UNRATED = "unrated"  # its outcome no_price or failed is on record and holds the close
    STALE = "stale"  # booked already, or a newer one is at hand
    AHEAD = "ahead"  # newer than the current total
    WRONG_GENERATION = "wrong_generation"  # of another life of the database
    DEFERRED = "deferred"  # its account is closing
    UNKNOWN = "unknown"  # there is no such item
    FAILED = "failed"  # it cannot be read or posted


Results = Counter[Result]


def book_charges(connection: Connection, generation: int, charges: Iterable[Charge]) -> Results:
    """
    Book the charges of one generation, in as many transactions as their accounts need.

    Args:
        connection: In autocommit mode; each transaction is opened and committed here.
        generation: That the charges were made in.
        charges: In any order, with repeats; every one is counted once in the results.

    Raises:
        TransientFault: The database did not answer; what was committed stays, and calling again is harmless.
        InvariantViolation: The database refused what must never be tried, e.g. entries out of balance.
    """
    charges = list(charges)
    wanted = latest(charges)
    results: Results = Counter({Result.STALE: len(charges) - len(wanted)})
    items = store.items(connection, list(wanted))
    for billed_item_id in wanted.keys() - items.keys():
        results[_left_aside(wanted[billed_item_id], Result.UNKNOWN, "there is no such billed item")] += 1
    for chunk in _chunks(items.values()):
        results += _book_or_split(connection, generation, wanted, chunk)
    return +results


def _chunks(items: Iterable[BilledItem]) -> Iterator[Sequence[BilledItem]]:
    """Cut items, by account ascending, into runs bounded in accounts and items."""
    chunk: list[BilledItem] = []
    accounts: set[str] = set()
    for item in sorted(items, key=lambda item: (item.account_id, item.billed_item_id)):
        if len(chunk) >= ITEMS_MAX or (item.account_id not in accounts and len(accounts) >= ACCOUNTS_MAX):
            yield chunk
            chunk, accounts = [], set()
        chunk.append(item)
        accounts.add(item.account_id)
    if chunk:
        yield chunk


def _book_or_split(
    connection: Connection, generation: int, charges: Mapping[int, Charge], items: Sequence[BilledItem]
) -> Results:
    """Book items together; where the database refuses a value, in halves, until the one that is bad stands alone."""
    try:
        with store.booking_transaction(connection):
            return _book(connection, generation, charges, items)
    except RejectedRecord as rejection:
        if len(items) == 1:
            charge = charges[items[0].billed_item_id]
            return Counter([_left_aside(charge, Result.FAILED, rejection.detail)])
    middle = len(items) // 2
    return _book_or_split(connection, generation, charges, items[:middle]) + _book_or_split(
        connection, generation, charges, items[middle:]
    )


def _book(
    connection: Connection, generation: int, charges: Mapping[int, Charge], items: Sequence[BilledItem]
) -> Results:
    results: Results = Counter()
    if store.installation_generation(connection) != generation:
        results[Result.WRONG_GENERATION] = len(items)
        return results
    closing = store.lock_accounts(connection, (item.account_id for item in items))
    open_items = {item.billed_item_id: item for item in items if item.account_id not in closing}
    results[Result.DEFERRED] = len(items) - len(open_items)

    totals = store.current_totals(connection, list(open_items))
    due: list[int] = []
    for billed_item_id in open_items:
        total = totals.get(billed_item_id)
        if total is None or (total.generation, total.revision) < (generation, charges[billed_item_id].revision):
            results[Result.AHEAD] += 1
        else:
            due.append(billed_item_id)

    bookings: list[Booking] = []
    for billed_item_id, booked in store.lock_booked(connection, due, generation).items():
        charge = charges[billed_item_id]
        if not booked.is_overtaken_by(generation, charge):
            results[Result.STALE] += 1
            continue
        booking = book(charge, open_items[billed_item_id], generation, booked)
        bookings.append(booking)
        results[_result(booking)] += 1
    store.post(connection, bookings)
    store.update_booked(connection, bookings, generation)
    return results


def _result(booking: Booking) -> Result:
    if booking.charge.outcome != "rated":
        return Result.UNRATED
    return Result.BOOKED if booking.entries else Result.UNCHANGED


def _left_aside(charge: Charge, result: Result, why: str) -> Result:
    LOGGER.error(
        "charge left aside: %s",
        why,
        extra={"action": f"charge_{result}", "billed_item_id": charge.billed_item_id, "revision": charge.revision},
    )
    return result
