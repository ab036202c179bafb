"""A small billing world in a real database, ready to close: two accounts, a server each, June and July 2013."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from pipeline.domain.period import Period, calendar_month
from pipeline.invoice_batch.model import CloseRequest, Ports, ProofResult, Step
from pipeline.invoice_batch.worker import Worker
from pipeline.payments.attempts import request_payments
from pipeline.payments.gateway import Gateway
from pipeline.payments.manual import ManualGateway, creditor_reference
from pipeline.runtime.journal import Journal
from pipeline.runtime.postgres import Connection, connect

ZONE = "Europe/Amsterdam"
JUNE, JULY, AUGUST = (calendar_month(2013, month, ZONE) for month in (6, 7, 8))
NOW = datetime(2013, 9, 1, 12, tzinfo=UTC)
ISSUED_ON = date(2013, 8, 1)
ACCOUNTS = ("acme", "brick")

WORLD = """
INSERT INTO seller (seller, name, address, number_prefix, time_zone, known_number)
VALUES ('host', 'Host B.V.', '{Street 1}', 'RM', 'Europe/Amsterdam', 1);
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
    effective_from, known_number)
VALUES ('cpu', 1, 'sample', 'time_weighted', 'cpu', 'core-second', 300, 600, '2013-01-01Z', 1);
INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest, known_number)
VALUES ('cpu-hour', 1, 'per_unit', 'compute', 'EUR', 'core-hour', 3600, '{"unit_price": "0.01"}', 'd', 1);
UPDATE known_number SET last = 3;
INSERT INTO log (topic, log_id, kafka_topic_id, partition_count)
VALUES ('usage.events', '00000000-0000-0000-0000-000000000001', 'k', 1);
INSERT INTO consumer_offset (stage, topic, partition, log_id, offset_next, generation)
SELECT stage, topic, 0, log_id, 10, 1 FROM log, unnest('{aggregate,archive}'::text[]) AS stage;
INSERT INTO archive_file (topic, log_id, partition, offset_first, offset_next, log_day, path, row_count, byte_count,
    digest) SELECT topic, log_id, 0, 0, 10, '2013-07-01', 'a', 10, 10, 'f00d' FROM log;
INSERT INTO ledger_account (name, kind, product, currency) VALUES ('revenue:compute:EUR', 'revenue', 'compute', 'EUR');
"""
ACCOUNT = """
INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)
VALUES (%(account)s, %(account)s, 'EUR', 'Europe/Amsterdam', 'host', 1);
INSERT INTO subscription (subscription_id, account_id, plan, starts_at, known_number)
VALUES (%(account)s || '-main', %(account)s, 'standard', %(start)s, 1);
INSERT INTO price_binding SELECT 1, %(account)s || '-main', 'cpu', 'cpu', price_version_id, %(start)s
FROM price_version;
INSERT INTO assignment (known_number, subject, subscription_id, valid_from, said_by)
VALUES (%(number)s, 'vm-' || %(account)s, %(account)s || '-main', %(start)s, 'test');
INSERT INTO source_subject VALUES (%(source)s, 'vm-' || %(account)s, 'sample', %(start)s, '2013-09-01Z');
INSERT INTO identity_epoch (source, epoch, partition, first_seen_at, counted)
VALUES (%(source)s, '00000000000000aa', 0, %(start)s, int8multirange(int8range(1, 6)));
INSERT INTO source_completeness VALUES (%(source)s, '00000000000000aa', '', 'infinity', 5);
INSERT INTO ledger_account (name, kind, account_id, currency)
VALUES ('unbilled:' || %(account)s || ':EUR', 'unbilled', %(account)s, 'EUR');
"""
CHARGE = """
WITH item AS (
    INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)
    VALUES (%(account)s, %(account)s || '-main', 'cpu', %(start)s, %(end)s, '')
    ON CONFLICT (subscription_id, item, period_start, subject) DO UPDATE SET account_id = excluded.account_id
    RETURNING billed_item_id
), total AS (
    INSERT INTO usage_total (billed_item_id, generation, revision, segments)
    SELECT billed_item_id, 1, 1, %(segments)s FROM item
    ON CONFLICT (billed_item_id) DO UPDATE SET revision = usage_total.revision + 1, segments = excluded.segments
    RETURNING billed_item_id, revision
), charge AS (
    INSERT INTO booked_charge (billed_item_id, generation, revision, outcome, quantity, amounts, breakdown)
    SELECT billed_item_id, 1, revision, 'rated', 3600, %(amounts)s, %(breakdown)s FROM total
    ON CONFLICT (billed_item_id) DO UPDATE SET revision = excluded.revision, amounts = excluded.amounts
), posted AS (
    INSERT INTO ledger_transaction (key, kind, billed_item_id, revision)
    SELECT 'usage:' || billed_item_id || ':1:' || revision, 'usage', billed_item_id, revision FROM total
    RETURNING ledger_transaction_id
)
INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency, account_id, period_start)
SELECT ledger_transaction_id, ledger_account_id, sign * %(amount)s::numeric, 'EUR', %(account)s, %(start)s
FROM posted JOIN (VALUES (1, 'unbilled:' || %(account)s || ':EUR'), (-1, 'revenue:compute:EUR')) AS side (sign, name)
    ON true JOIN ledger_account USING (name)
"""


def passing_proof(connection: Connection, invoice_ids: Sequence[str]) -> Mapping[str, ProofResult]:
    return {invoice_id: ProofResult(ok=True, report={"events": 10}, differences=[]) for invoice_id in invoice_ids}


def no_proof(connection: Connection, invoice_ids: Sequence[str]) -> Mapping[str, ProofResult]:
    return {}


def nothing_owed(connection: Connection, periods: Sequence[tuple[str, Period]]) -> Mapping[str, ProofResult]:
    return {account_id: ProofResult(ok=True, report={}, differences=[]) for account_id, _ in periods}


def nobody(step: Step, name: str) -> None:
    """Listen to no step."""


@dataclass(slots=True)
class World:
    """The database and the folder of one test."""

    database_url: str
    documents_dir: Path
    admin: Connection
    journal: Journal
    prove: Callable[[Connection, Sequence[str]], Mapping[str, ProofResult]] = passing_proof
    prove_nothing_owed: Callable[[Connection, Sequence[tuple[str, Period]]], Mapping[str, ProofResult]] = nothing_owed
    log_ends: dict[int, int] = field(default_factory=lambda: {0: 10})
    gateways: dict[str, Gateway] = field(default_factory=lambda: {"manual": ManualGateway()})

    def connect(self) -> Connection:
        return connect(self.database_url, application_name="test-close")

    def ports(self) -> Ports:
        return Ports(
            prove=self.prove,
            prove_nothing_owed=self.prove_nothing_owed,
            log_ends=lambda: self.log_ends,
            request_payments=lambda conn, ids: request_payments(conn, self.gateways, ids),
            payment_reference=lambda gateway, number: creditor_reference(number) if gateway == "manual" else "",
            journal=self.journal,
        )

    def run(
        self,
        month: str = "2013-07",
        *,
        catch_up: bool = False,
        listener: Callable[[Step, str], None] = nobody,
    ) -> Any:
        connection = self.connect()
        try:
            worker = Worker(connection, self.ports(), self.documents_dir, listener=listener)
            return worker.close(CloseRequest(month, NOW, catch_up=catch_up, issued_on=ISSUED_ON))
        finally:
            connection.close()

    def charge(self, account: str, period: Period, amount: str) -> None:
        """Book so much more as the ledger sink does: in one transaction, under the account's lock in share mode."""
        price = self.value("SELECT price_version_id FROM price_version")
        posted = self.value(
            "SELECT coalesce(sum(amount), 0) FROM ledger_entry JOIN ledger_account USING (ledger_account_id)"
            " WHERE name = %s AND period_start = %s AND amount > 0",
            f"unbilled:{account}:EUR",
            period.start,
        )
        charged = {"product": "compute", "currency": "EUR", "amount": str(posted + Decimal(amount))}
        part = {"price_version_id": price, "from": "2013-07-01T00:00:00Z", "to": "2013-08-01T00:00:00Z"}
        breakdown = {"price": "cpu-hour", "unit": "core-hour", "quantity": "1", "steps": []}
        with (
            connect(self.database_url, application_name="test-sink", role=None) as connection,
            connection.transaction(),
        ):
            connection.execute(
                "SELECT pg_advisory_xact_lock_shared(hashtextextended('account:' || %s::text, 0))", (account,)
            )
            connection.execute(
                CHARGE,
                {
                    "account": account,
                    "start": period.start,
                    "end": period.end,
                    "amount": Decimal(amount),
                    "segments": psycopg.types.json.Jsonb([{**part, "quantity": "3600"}]),
                    "amounts": psycopg.types.json.Jsonb([charged]),
                    "breakdown": psycopg.types.json.Jsonb([{**part, **breakdown}]),
                },
            )

    def value(self, query: str, *parameters: object) -> Any:
        row = self.admin.execute(query, parameters).fetchone()
        return None if row is None else row[0]

    def all(self, query: str, *parameters: object) -> list[Any]:
        return self.admin.execute(query, parameters).fetchall()

    def books(self) -> dict[str, Decimal]:
        """Ledger account -> balance, zeros left out."""
        return dict(
            self.all(
                "SELECT name, sum(amount) FROM ledger_entry JOIN ledger_account USING (ledger_account_id)"
                " GROUP BY name HAVING sum(amount) <> 0"
            )
        )

    def documents(self) -> dict[str, bytes]:
        """File -> content of everything written."""
        return {
            str(path.relative_to(self.documents_dir)): path.read_bytes()
            for path in sorted(self.documents_dir.rglob("*"))
            if path.is_file()
        }


@contextmanager
def make_world(database_url: str, documents_dir: Path) -> Iterator[World]:
    admin = connect(database_url, application_name="test-admin", role=None)
    try:
        for statement in WORLD.split(";\n"):
            if statement.strip():
                admin.execute(statement)
        for number, account in enumerate(ACCOUNTS, start=1):
            about = {"account": account, "start": JUNE.start, "number": number + 1, "source": f"agent-{account}"}
            for statement in ACCOUNT.split(";\n"):
                if statement.strip():
                    admin.execute(statement, about)
        journal_dir = documents_dir.parent / "journal"
        journal_dir.mkdir(exist_ok=True)
        world = World(database_url, documents_dir, admin, Journal(journal_dir))
        for account in ACCOUNTS:
            world.charge(account, JULY, "12.345678901234")
        yield world
    finally:
        admin.close()
