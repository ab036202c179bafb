"""Price versions from the database, the rate stage's only read of it."""

from collections.abc import Callable, Iterable, Mapping

import psycopg

from pipeline.catalogue.model import Price
from pipeline.domain.errors import TransientFault
from pipeline.runtime.postgres import Connection, is_transient

LoadPrices = Callable[[Connection, list[int]], Mapping[int, Price]]


class PriceStore:
    """Gives price versions by id, each read once: they never change. Not for several threads at once."""

    def __init__(self, connect: Callable[[], Connection], load_prices: LoadPrices) -> None:
        """
        Connect at the first question, not before.

        Args:
            connect: Opens a connection; called again after a lost one.
            load_prices: Reads the price versions with these ids, as far as they exist, by one query.
        """
        self._connect = connect
        self._load_prices = load_prices
        self._connection: Connection | None = None
        self._known: dict[int, Price] = {}

    def prices(self, price_version_ids: Iterable[int]) -> Mapping[int, Price]:
        """
        Give what is known, at least of these ids; one that does not exist is asked for again at its next sight.

        Raises:
            TransientFault: The database does not answer.
        """
        missing = sorted(set(price_version_ids) - self._known.keys())
        if missing:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._known.update(self._load_prices(self._connection, missing))
            except psycopg.Error as error:
                self.close()
                if is_transient(error):
                    raise TransientFault(f"prices cannot be read now: {str(error).strip()}") from error
                raise
        return self._known

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
