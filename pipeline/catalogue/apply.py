"""Putting a checked catalogue into the database: one transaction, only what is new, twice is once."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from psycopg.types.json import Jsonb

from pipeline.catalogue import store
from pipeline.catalogue.bindings import BoundPrice
from pipeline.catalogue.changes import Stored, new_bindings, refusals
from pipeline.catalogue.model import Catalogue, Price
from pipeline.catalogue.store import QUERIES
from pipeline.domain.decimals import plain
from pipeline.domain.errors import ConfigurationFault, Problems
from pipeline.domain.keys import digest
from pipeline.runtime.postgres import Connection


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did; without changes `known_number` is the latest one and `changes` is empty."""

    is_changed: bool
    known_number: int
    changes: tuple[str, ...]


def apply(connection: Connection, catalogue: Catalogue) -> Applied:
    """Store a catalogue in one transaction, under the lock of the known number.

    Versions, bindings and ends of subscriptions are only added; accounts and sellers keep their latest names and
    addresses. What changes the charges of a known subscription leaves a dirty mark. Raises Problems, each with its
    place in the document, where that would change what never changes; then nothing was written.
    """
    with connection.transaction():
        last = connection.execute(QUERIES["lock_known_number"]).fetchone()
        latest = connection.execute(QUERIES["latest_catalogue_digest"]).fetchone()
        document_digest = catalogue_digest(catalogue)
        if latest is not None and latest[0] == document_digest:
            return Applied(False, last[0] if last else 0, ())
        connection.execute(QUERIES["hold_meters"])
        stored = load_stored(connection)
        if refused := refusals(stored, catalogue):
            raise Problems(refused)
        writer = _Writer(connection, take_known_numbers(connection, 1))
        connection.execute(
            QUERIES["insert_catalogue_version"],
            {"known_number": writer.known_number, "digest": document_digest, "document": catalogue.text},
        )
        writer.write_meters(stored, catalogue)
        writer.queue_parked(stored, catalogue)
        price_ids = writer.write_prices(stored, catalogue)
        writer.write_parties(stored, catalogue)
        writer.write_subscriptions(stored, catalogue)
        writer.write_bindings(new_bindings(stored, catalogue), price_ids, stored)
        return Applied(True, writer.known_number, tuple(writer.changes))


def catalogue_digest(catalogue: Catalogue) -> str:
    """sha256 of what the document says, as 64 hex digits; layout and comments do not count."""
    said = {name: value for name, value in _fields(catalogue).items() if name not in ("text", "positions")}
    return digest(_canonical(said))


def load_stored(connection: Connection) -> Stored:
    """The catalogue as the database has it, the latest version of each name."""
    return Stored(
        sellers=store.load_sellers(connection),
        meters={meter.meter: meter for meter in store.load_meters(connection)},
        prices={price.price: price for price in store.load_prices(connection).values()},
        accounts=store.load_accounts(connection),
        subscriptions=store.load_subscriptions(connection),
        bindings=[row for rows in store.load_bindings(connection).values() for row in rows],
        ignored_types=frozenset(store.load_ignore_rules(connection)),
        counted_until=store.load_counted_until(connection),
    )


def take_known_numbers(connection: Connection, count: int) -> int:
    """Take known numbers; returns the last of them. The lock is held to the end of the caller's transaction."""
    row = connection.execute(QUERIES["take_known_numbers"], {"count": count}).fetchone()
    if row is None:
        raise ConfigurationFault("the database has no known_number row; run `rackmeter migrate`", "not_migrated")
    return int(row[0])


class _Writer:
    """The inserts of one apply, and a line about each."""

    def __init__(self, connection: Connection, known_number: int) -> None:
        self._connection = connection
        self.known_number = known_number
        self.changes: list[str] = []

    def write_meters(self, stored: Stored, catalogue: Catalogue) -> None:
        for name, meter in sorted(catalogue.meters.items()):
            if name not in stored.meters:
                self._put("insert_meter", {**_fields(meter), "aggregation": str(meter.aggregation)}, f"meter {name}")
        for event_type in catalogue.ignored_types:
            if event_type not in stored.ignored_types:
                self._put("insert_ignore_rule", {"event_type": event_type}, f"ignored type {event_type}")

    def queue_parked(self, stored: Stored, catalogue: Catalogue) -> None:
        """Have events that waited for what is new here decided about again."""
        event_types = {meter.event_type for name, meter in catalogue.meters.items() if name not in stored.meters}
        event_types |= set(catalogue.ignored_types) - stored.ignored_types
        if event_types:
            queued = self._connection.execute(QUERIES["queue_parked"], {"event_types": sorted(event_types)}).rowcount
            if queued:
                self.changes.append(f"{queued} parked events are decided about again")

    def write_prices(self, stored: Stored, catalogue: Catalogue) -> dict[str, int]:
        ids = {name: price.price_version_id for name, price in stored.prices.items()}
        for name, price in sorted(catalogue.prices.items()):
            if name not in ids:
                ids[name] = self._insert_price(price)
        return ids

    def _insert_price(self, price: Price) -> int:
        parameters = {
            **_fields(price),
            "parameters": Jsonb(dict(price.parameters)),
            "digest": price.digest,
            "known_number": self.known_number,
        }
        row = self._connection.execute(QUERIES["insert_price"], parameters).fetchone()
        if row is None:
            raise ConfigurationFault(f"price {price.price} was not stored", "price_not_stored")
        self.changes.append(f"price {price.price}")
        return int(row[0])

    def write_parties(self, stored: Stored, catalogue: Catalogue) -> None:
        for name, seller in sorted(catalogue.sellers.items()):
            if stored.sellers.get(name) != seller:
                self._put("put_seller", {**_fields(seller), "address": list(seller.address)}, f"seller {name}")
        for account_id, account in sorted(catalogue.accounts.items()):
            if stored.accounts.get(account_id) != account:
                values = {**_fields(account), "address": list(account.address)}
                self._put("put_account", values, f"account {account_id}")

    def write_subscriptions(self, stored: Stored, catalogue: Catalogue) -> None:
        for subscription_id, subscription in sorted(catalogue.subscriptions.items()):
            known = stored.subscriptions.get(subscription_id)
            if known is None:
                self._put("insert_subscription", _fields(subscription), f"subscription {subscription_id}")
            before, after = known.ends_at if known else None, subscription.ends_at
            if before == after:
                continue
            line = f"subscription {subscription_id} ends {after.isoformat() if after else 'no more'}"
            self._put("insert_subscription_end", {"subscription_id": subscription_id, "ends_at": after}, line)
            if known is not None:
                ends = [at for at in (before, after) if at is not None]
                self._mark(subscription_id, min(ends), max(ends) if len(ends) > 1 else None)

    def write_bindings(self, rows: list[BoundPrice], price_ids: Mapping[str, int], stored: Stored) -> None:
        earliest: dict[str, datetime] = {}
        for row in rows:
            values = {**_fields(row), "price_version_id": price_ids[row.price]}
            line = f"{row.subscription_id} {row.item}: {row.meter} at {row.price} from {row.effective_from.isoformat()}"
            self._put("insert_binding", values, line)
            earliest[row.subscription_id] = min(
                row.effective_from, earliest.get(row.subscription_id, row.effective_from)
            )
        for subscription_id, time_from in earliest.items():
            # Nothing can be assigned yet to a subscription that is new in this transaction.
            if subscription_id in stored.subscriptions:
                self._mark(subscription_id, time_from, None)

    def _put(self, query: str, values: dict[str, object], line: str) -> None:
        self._connection.execute(QUERIES[query], {**values, "known_number": self.known_number})
        self.changes.append(line)

    def _mark(self, subscription_id: str, time_from: datetime, time_to: datetime | None) -> None:
        self._connection.execute(
            QUERIES["mark_dirty"],
            {"subject": None, "subscription_id": subscription_id, "time_from": time_from, "time_to": time_to},
        )


def _fields(value: object) -> dict[str, object]:
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}  # type: ignore[arg-type]


# Left out of the digest where they say nothing, so that a document from before has the digest it had.
_ADDED_LATER = frozenset({"payment_customer", "payment_method"})


def _canonical(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _canonical({name: said for name, said in _fields(value).items() if said or name not in _ADDED_LATER})
    if isinstance(value, Mapping):
        return {str(key): _canonical(member) for key, member in value.items()}
    if isinstance(value, tuple | list):
        return [_canonical(member) for member in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return plain(value)
    return value
