"""The catalogue in the database, read: versions, bindings and assignments as values; and the statements to write it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from pipeline.catalogue.model import (
    Account,
    Aggregation,
    Assignment,
    Binding,
    Meter,
    Price,
    Seller,
    Subscription,
)
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)


def load_meters(connection: Connection) -> list[Meter]:
    """All meter versions, by event type, name and version."""
    return [
        Meter(**{**row, "aggregation": Aggregation(row["aggregation"])}) for row in _rows(connection, "load_meters")
    ]


def load_ignore_rules(connection: Connection) -> list[str]:
    """Event types that are received and not metered, ascending."""
    return [row["event_type"] for row in _rows(connection, "load_ignore_rules")]


def load_prices(connection: Connection, price_version_ids: Sequence[int] | None = None) -> dict[int, Price]:
    """Price versions by id, in one query; None asks for all, unknown ids are left out."""
    ids = None if price_version_ids is None else list(price_version_ids)
    return {
        row["price_version_id"]: Price(**row) for row in _rows(connection, "load_prices", {"price_version_ids": ids})
    }


def load_bindings(
    connection: Connection, subscription_ids: Sequence[str] | None = None, known_number_max: int | None = None
) -> dict[str, list[Binding]]:
    """Rows of price_binding by subscription id, of some subscriptions or all, known up to a number or now."""
    ids = None if subscription_ids is None else list(subscription_ids)
    parameters = {"subscription_ids": ids, "known_number_max": known_number_max}
    found: dict[str, list[Binding]] = {}
    for row in _rows(connection, "load_bindings", parameters):
        found.setdefault(row["subscription_id"], []).append(Binding(**row))
    return found


def load_assignments(
    connection: Connection, subjects: Sequence[str] | None = None, known_number_max: int | None = None
) -> dict[str, list[Assignment]]:
    """Assignments by subject, in the order they became known; of some subjects or all, up to a known number or now."""
    names = None if subjects is None else list(subjects)
    parameters = {"subjects": names, "known_number_max": known_number_max}
    found: dict[str, list[Assignment]] = {}
    for row in _rows(connection, "load_assignments", parameters):
        found.setdefault(row["subject"], []).append(Assignment(**row))
    return found


def load_sellers(connection: Connection) -> dict[str, Seller]:
    """Legal entities by name."""
    return {row["seller"]: Seller(**_with_address(row)) for row in _rows(connection, "load_sellers")}


def load_accounts(connection: Connection) -> dict[str, Account]:
    """Billing accounts by id."""
    return {row["account_id"]: Account(**_with_address(row)) for row in _rows(connection, "load_accounts")}


def load_subscriptions(connection: Connection) -> dict[str, Subscription]:
    """Subscriptions by id; contract prices are in the bindings, so `contract` is empty."""
    return {row["subscription_id"]: Subscription(**row, contract=()) for row in _rows(connection, "load_subscriptions")}


def load_counted_until(connection: Connection) -> dict[str, datetime]:
    """The latest event time that was counted, by event type; aware UTC."""
    return {row["event_type"]: row["max"] for row in _rows(connection, "counted_until")}


def subscription_zones(connection: Connection) -> dict[str, str]:
    """The time zone of each subscription's account, by subscription id."""
    return {row["subscription_id"]: row["time_zone"] for row in _rows(connection, "subscription_zones")}


def _rows(connection: Connection, query: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[query], parameters).fetchall()


def _with_address(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "address": tuple(row["address"])}
