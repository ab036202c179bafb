"""The price store: a price version is asked for once, a missing one again and again."""

from collections.abc import Mapping
from typing import cast

import psycopg
import pytest

from pipeline.catalogue.model import Price
from pipeline.domain.errors import TransientFault
from pipeline.rate.store import PriceStore
from pipeline.runtime.postgres import Connection
from tests.unit.rate.test_rules import price


class Database:
    """Prices by id; counts the questions; a question may fail first."""

    def __init__(self, *known: int, fails: int = 0) -> None:
        self.known = set(known)
        self.asked: list[list[int]] = []
        self.connected = 0
        self._fails = fails

    def connect(self) -> Connection:
        self.connected += 1
        return cast(Connection, self)

    def close(self) -> None:
        pass

    def load(self, connection: Connection, ids: list[int]) -> Mapping[int, Price]:
        if self._fails:
            self._fails -= 1
            raise psycopg.OperationalError("the server closed the connection")
        self.asked.append(ids)
        return {number: price(number) for number in ids if number in self.known}


def test_all_unknown_prices_are_read_by_one_query_and_only_once() -> None:
    """Price versions never change, so a known one is not asked for again."""
    database = Database(1, 2)
    prices = PriceStore(database.connect, database.load)
    assert set(prices.prices({2, 1})) == {1, 2}
    prices.prices({1})
    assert database.asked == [[1, 2]]


def test_a_price_that_was_not_there_is_asked_for_again() -> None:
    """A miss is not remembered: the price may have been applied meanwhile."""
    database = Database(1)
    prices = PriceStore(database.connect, database.load)
    assert 7 not in prices.prices({1, 7})
    database.known.add(7)
    assert 7 in prices.prices({7})


def test_a_lost_connection_is_opened_anew() -> None:
    """The fault is transient, and the next question works."""
    database = Database(1, fails=1)
    prices = PriceStore(database.connect, database.load)
    with pytest.raises(TransientFault):
        prices.prices({1})
    assert set(prices.prices({1})) == {1}
    assert database.connected == 2
