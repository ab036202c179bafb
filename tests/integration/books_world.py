"""Books to seal and to look at: a database with some postings, a journal, a sealer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.proof.chain import ChainReport, verify_chain
from pipeline.runtime.journal import Journal
from pipeline.runtime.metrics import Health
from pipeline.runtime.postgres import Connection, connect
from pipeline.sealer.worker import Worker
from tests.integration import proof_world
from tests.integration.proof_world import World
from tests.integration.test_proof import copied_database

ODD_NAME = "a:b  ;c (d) é"

ACCOUNTS = """
INSERT INTO seller VALUES ('host', 'A host', '{}', '', '', 'INV-', 'Europe/Amsterdam', 1);
INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)
    VALUES ('acme', 'Acme', 'EUR', 'Europe/Amsterdam', 'host', 1);
INSERT INTO ledger_account (name, kind, account_id, product, currency) VALUES
    ('unbilled:acme:EUR', 'unbilled', 'acme', NULL, 'EUR'), ('revenue:compute:EUR', 'revenue', NULL, 'compute', 'EUR');
"""
POSTING = """
WITH posted AS (
    INSERT INTO ledger_transaction (key, kind) VALUES (%(key)s, 'usage') RETURNING ledger_transaction_id
)
INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)
SELECT ledger_transaction_id, ledger_account_id, CASE kind WHEN 'unbilled' THEN 1 ELSE -1 END * %(amount)s::numeric,
    'EUR', 'acme', '2013-06-30T22:00Z'
FROM posted, ledger_account ORDER BY ledger_account_id
"""


@dataclass(slots=True)
class Books:
    """The database and journal of one test; `owner` may change what nobody may, once triggers are off."""

    database_url: str
    journal_dir: Path
    owner: Connection

    def connect(self) -> Connection:
        return connect(self.database_url, application_name="test-sealer")

    def worker(self, batch_transactions: int = 3) -> Worker:
        return Worker(self.connect, Journal(self.journal_dir), Health("sealer"), batch_transactions=batch_transactions)

    def seal(self, batch_transactions: int = 3) -> int:
        worker = self.worker(batch_transactions)
        try:
            return worker.step()
        finally:
            worker.close()

    def post(self, *keys: str, connection: Connection | None = None) -> None:
        for key in keys:
            (connection or self.owner).execute(POSTING, {"key": key, "amount": f"{len(key)}.5"})

    def sealed(self) -> list[str]:
        """Keys in the order of the chain."""
        return [
            row[0]
            for row in self.owner.execute(
                "SELECT key FROM ledger_chain JOIN ledger_transaction USING (ledger_transaction_id) ORDER BY position"
            )
        ]

    def verify(self, expected: tuple[int, str] | None = None) -> ChainReport:
        connection = self.connect()
        try:
            return verify_chain(connection, self.journal_dir, expected)
        finally:
            connection.close()

    def tamper(self, *statements: str) -> None:
        """Do as the database's owner can: switch the triggers off."""
        with self.owner.transaction():
            self.owner.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                self.owner.execute(statement)


@contextmanager
def make_books(database_url: str, folder: Path) -> Iterator[Books]:
    """Make an empty journal and a database with two ledger accounts."""
    owner = connect(database_url, application_name="test-owner", role=None)
    journal_dir = folder / "journal"
    journal_dir.mkdir()
    try:
        owner.execute(ACCOUNTS)
        yield Books(database_url, journal_dir, owner)
    finally:
        owner.close()


@contextmanager
def closed_world(server_url: str, template: str, folder: Path) -> Iterator[World]:
    """July 2013 of two accounts, closed and sealed; nobody changes it."""
    with copied_database(server_url, template) as (_, url):
        built = proof_world.build(url, folder)
        with built.admin() as admin:
            admin.execute(
                "INSERT INTO ledger_account (name, kind, product, currency) VALUES (%s, 'revenue', %s, 'EUR')",
                (f"revenue:{ODD_NAME}:EUR", ODD_NAME),
            )
        worker = Worker(built.connect, Journal(built.journal_dir), Health("sealer"))
        worker.step()
        worker.close()
        yield built


def run(world: World, *arguments: str) -> Result:
    """A command in the settings of a world; our errors come as they are."""
    environment = {
        "DATABASE_URL": world.database_url,
        "RACKMETER_ARCHIVE_DIR": str(world.archive_dir),
        "RACKMETER_JOURNAL_DIR": str(world.journal_dir),
        "KAFKA_BOOTSTRAP_SERVERS": None,
    }
    return CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)


def data(world: World, *arguments: str) -> Any:
    """What a command that succeeds prints as JSON."""
    result = run(world, *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
