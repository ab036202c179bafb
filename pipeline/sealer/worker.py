"""The sealer's loop: seal what is committed, write the chain's head to the journal."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.runtime.journal import Journal
from pipeline.runtime.metrics import FAULTS, FLUSH_SECONDS, RECORDS, Health
from pipeline.runtime.postgres import Connection
from pipeline.sealer import store
from pipeline.sealer.rules import Head, first_head, links

LOGGER = logging.getLogger("rackmeter.sealer")
STAGE = "sealer"
STREAM = "heads"

#: Bounds memory and the time of a commit.
BATCH_TRANSACTIONS = 5_000
PACE_SECONDS = 2.0
BACK_OFF_SECONDS = 0.5
BACK_OFF_SECONDS_MAX = 30.0

#: Before every transaction id of PostgreSQL.
_FROM_THE_START = "0"


class Worker:
    """A sealer. Any number may run; one of them works, the others wait for its lock."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        journal: Journal,
        health: Health,
        *,
        batch_transactions: int = BATCH_TRANSACTIONS,
    ) -> None:
        """
        Prepare; nothing is opened yet. `close` gives back what is.

        Args:
            connect: Opens a connection as rackmeter_app, in autocommit mode; called again after a lost one.
            journal: Takes the heads.
            health: Told of every step.
            batch_transactions: How many are sealed by one commit at most.
        """
        self._connect = connect
        self._journal = journal
        self._health = health
        self._batch_transactions = batch_transactions
        self._connection: Connection | None = None
        self._head: Head | None = None
        # Everything posted below it is sealed. Forgotten with the connection, and then everything is looked at again.
        self._sealed_below = _FROM_THE_START

    def run(self, stop: threading.Event) -> None:
        """
        Seal until told to stop, with back-off while database or disk do not answer.

        Raises:
            InvariantViolation: Chain and journal contradict each other: stop, a person must look.
        """
        delay_seconds = BACK_OFF_SECONDS
        while not stop.is_set():
            try:
                self.step()
                delay_seconds = BACK_OFF_SECONDS
                self._health.step()
                stop.wait(PACE_SECONDS)
            except TransientFault as fault:
                FAULTS.labels(STAGE, "transient").inc()
                LOGGER.warning("%s", fault.detail, extra={"action": "back_off", "delay_seconds": delay_seconds})
                self.close()
                self._health.step()
                stop.wait(delay_seconds)
                delay_seconds = min(2 * delay_seconds, BACK_OFF_SECONDS_MAX)

    def step(self) -> int:
        """
        Seal everything that is committed and not sealed, unless another sealer does.

        Returns:
            How many transactions were sealed.

        Raises:
            TransientFault: What was committed stays sealed; the next step goes on.
            InvariantViolation: Stop.
        """
        try:
            with store.faults_named():
                return self._seal()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget everything and close the connection; another sealer may take over."""
        self._head, self._sealed_below = None, _FROM_THE_START
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _seal(self) -> int:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        if self._head is None:
            if not store.take_lock(connection):
                return 0
            self._head = self._checked_head(connection)
        below, beyond = store.bounds(connection)
        rest, sealed = store.Stretch(self._sealed_below, 0, below, beyond), 0
        while True:
            started_at = time.monotonic()
            postings, rest = store.unsealed(connection, rest, self._batch_transactions)
            if not postings:
                self._sealed_below = below
                return sealed
            made = links(self._head, postings)
            with connection.transaction():
                store.add(connection, made)
            self._head = Head(made[-1].position, made[-1].hash)
            self._write_head(store.installation(connection), self._head)
            sealed += len(made)
            FLUSH_SECONDS.labels(STAGE).observe(time.monotonic() - started_at)
            RECORDS.labels(STAGE, "sealed").inc(len(made))

    def _checked_head(self, connection: Connection) -> Head:
        """Give the chain's end, after it and the journal were found to be of one database and one past."""
        mine, head = store.installation(connection), store.head(connection)
        line = self._journal.last(STREAM)
        if line is None:
            if head.position:
                raise InvariantViolation(
                    f"the chain has {head.position} positions and the journal not one head: it is another journal, or"
                    " it was emptied. Bring the journal's folder back",
                    "journal_emptied",
                )
            self._write_head(mine, head)
            return head
        said: Mapping[str, Any] = line.record
        if said["database_id"] != mine.database_id:
            raise InvariantViolation(
                f"the journal belongs to the database {said['database_id']}, this is {mine.database_id}",
                "journal_of_another_database",
            )
        at = int(said["position"])
        found = first_head(mine.database_id).hash if at == 0 else store.hash_at(connection, at)
        if said["generation"] > mine.generation or found is None or found.hex() != said["hash"]:
            raise InvariantViolation(
                f"the journal says that the chain came to position {at} in generation {said['generation']}, and this"
                f" database does not have it: it is an older state, or it was changed. Nothing is sealed. Bring the"
                " right database back; `rackmeter ledger verify` says what differs",
                "database_behind_journal",
            )
        if head.position > at:
            self._write_head(mine, head)
        return head

    def _write_head(self, mine: store.Installation, head: Head) -> None:
        record = {
            "database_id": mine.database_id,
            "generation": mine.generation,
            "position": head.position,
            "hash": head.hash.hex(),
        }
        self._journal.append(STREAM, [record])
