"""The collector's doors to PostgreSQL: tokens and meters as of a moment ago, and a few connections for usage."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from pipeline.aggregate.rules import MeterBook
from pipeline.domain.errors import RejectedRecord, TransientFault
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection, is_transient
from pipeline.web import store
from pipeline.web.tokens import TokenBook

LOGGER = logging.getLogger("rackmeter.collector")
STAGE = "collector"

#: How soon a new, rotated or revoked token counts, and a new meter.
REFRESH_SECONDS = 2.0
#: Without the database, what was known last is good for this long.
KNOWN_SECONDS_MAX = 300.0

OpenDatabase = Callable[[], Connection]


@dataclass(frozen=True, slots=True)
class Known:
    """Tokens and meters as of one moment."""

    tokens: TokenBook
    book: MeterBook


class KnownView:
    """
    Tokens and meters, read again every few seconds by a thread; a request never waits for the database.

    Args:
        open_database: Gives a connection of the collector's role; TransientFault where it does not answer.
        load_book: Gives the meters in force, or the ones it is given where nothing changed.
        on_failure: Called where the thread ends by a fault of ours.
    """

    def __init__(
        self,
        open_database: OpenDatabase,
        load_book: Callable[[Connection, MeterBook | None], MeterBook],
        on_failure: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_database = open_database
        self._load_book = load_book
        self._on_failure = on_failure
        self._monotonic = monotonic
        self._connection: Connection | None = None
        self._known: Known | None = None
        self._read_at = 0.0
        self._used: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="known", daemon=True)

    def start(self) -> None:
        """Read once, so that nothing is answered before; TransientFault where the database does not answer."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._disconnect()

    def known(self) -> Known:
        """Give what is known; TransientFault where that is too old to be trusted."""
        if self._known is None or self._monotonic() - self._read_at > KNOWN_SECONDS_MAX:
            raise TransientFault("tokens and meters cannot be read: the database does not answer")
        return self._known

    def used(self, token_id: str) -> None:
        """Note that a token was used."""
        self._used.add(token_id)

    def refresh(self) -> None:
        """Read tokens and meters now, and write down which tokens were used; TransientFault where that fails."""
        try:
            if self._connection is None:
                self._connection = self._open_database()
            book = self._load_book(self._connection, self._known.book if self._known else None)
            self._known = Known(TokenBook(store.read_tokens(self._connection)), book)
            self._read_at = self._monotonic()
            used, self._used = self._used, set()
            if used:
                store.note_use(self._connection, used)
        except psycopg.Error as error:
            self._disconnect()
            if not is_transient(error):
                raise
            raise TransientFault(f"the database stopped answering: {str(error).strip()}") from error

    def _run(self) -> None:
        try:
            while not self._stop.wait(REFRESH_SECONDS):
                try:
                    self.refresh()
                except TransientFault as fault:
                    metrics.FAULTS.labels(STAGE, "transient").inc()
                    LOGGER.warning(fault.detail, extra={"action": "refresh_failed"})
        except BaseException as error:
            self._on_failure(f"tokens and meters cannot be read: {error}")
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class UsageReader:
    """A few connections that usage is read with; safe to call from several threads."""

    def __init__(self, open_database: OpenDatabase) -> None:
        self._open_database = open_database
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def read(self, question: store.UsageQuestion, limit: int) -> list[store.Row]:
        """Give at most so many rows; TransientFault where the database does not answer in time, RejectedRecord where
        it does not know what is asked, e.g. a time zone of other libraries."""
        with self._connection() as connection:
            return store.usage(connection, question, limit)

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._open_database()
        try:
            yield connection
        except psycopg.DataError as error:
            connection.close()
            raise RejectedRecord("query_invalid", error.diag.message_primary or "the database refuses it") from error
        except psycopg.Error as error:
            connection.close()
            if not is_transient(error):
                raise
            raise TransientFault(f"usage cannot be read now: {str(error).strip()}") from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
