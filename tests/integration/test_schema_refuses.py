"""The database itself refuses what the code promises never to do: every constraint, trigger and missing grant."""

import contextlib
import re
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from pipeline.runtime.postgres import Connection, connect, constraint_of
from pipeline.runtime.settings import schemas_dir

pytestmark = pytest.mark.real

JULY: LiteralString = "'2013-06-30T22:00Z', '2013-07-31T22:00Z'"

# A small, lawful world to break: one account with a subscription, an item, a posting, a draft and an issued invoice.
WORLD: LiteralString = f"""
INSERT INTO log VALUES ('usage.events', gen_random_uuid(), 'topic-id', 8);
INSERT INTO seller VALUES ('host', 'A host', '{{}}', '', '', 'INV-', 'Europe/Amsterdam', 1);
INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)
    VALUES ('acme', 'Acme', 'EUR', 'Europe/Amsterdam', 'host', 1);
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
        effective_from, known_number)
    VALUES ('cpu', 1, 'sample', 'time_weighted', 'cores', 'core-second', 300, 600, '2013-01-01Z', 1);
INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest, known_number)
    VALUES ('cpu', 1, 'per_unit', 'compute', 'EUR', 'core-hour', 3600, '{{}}', 'digest', 1);
INSERT INTO subscription VALUES ('s1', 'acme', 'basic', '2013-01-01Z', 1);
INSERT INTO subscription_end VALUES (1, 's1', '2014-01-01Z');
INSERT INTO price_binding VALUES (1, 's1', 'cpu', 'cpu', 1, '2013-01-01Z');
INSERT INTO assignment (known_number, subject, subscription_id, valid_from, said_by)
    VALUES (1, 'vm-1', 's1', '2013-06-30T22:00Z', 'test');
INSERT INTO catalogue_version (known_number, digest, document) VALUES (1, 'digest', 'document');
INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)
    VALUES ('acme', 's1', 'cpu', {JULY}, '');
INSERT INTO ledger_account (name, kind, account_id, product, currency) VALUES
    ('unbilled:acme:EUR', 'unbilled', 'acme', NULL, 'EUR'), ('revenue:compute:EUR', 'revenue', NULL, 'compute', 'EUR'),
    ('rounding:USD', 'rounding', NULL, NULL, 'USD');
INSERT INTO ledger_transaction (key, kind, billed_item_id, revision) VALUES ('usage:1:1', 'usage', 1, 1);
INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)
    VALUES (1, 1, 5, 'EUR'), (1, 2, -5, 'EUR');
INSERT INTO billing_period (account_id, period_start, period_end) VALUES ('acme', {JULY}), ('acme', '2013-05-31T22:00Z',
    '2013-06-30T22:00Z');
INSERT INTO invoice (invoice_id, account_id, period_start, period_end, currency, cut, total_minor, seller)
    VALUES ('draft', 'acme', {JULY}, 'EUR', '{{}}', 500, 'host');
INSERT INTO invoice (invoice_id, account_id, period_start, period_end, currency, cut, total_minor, seller)
    VALUES ('issued', 'acme', '2013-05-31T22:00Z', '2013-06-30T22:00Z', 'EUR', '{{}}', 500, 'host');
INSERT INTO invoice_line
    SELECT invoice_id, 1, 's1', 'cpu', 'compute', {JULY}, '', 'CPU', 1, 5, 500, '[]' FROM invoice;
INSERT INTO invoice_entry VALUES (1, 'issued', 1), (2, 'draft', 1);
UPDATE invoice SET state = 'issued', number = 'INV-1', issued_on = '2013-07-01', due_on = '2013-07-15',
    proven_at = now(), proof = '{{}}', document = '{{}}', document_digest = 'digest' WHERE invoice_id = 'issued';
INSERT INTO retention_edge (known_number, edge_at, dropped_before) VALUES (1, '2012-03-01Z', '2012-01-01Z');
INSERT INTO proof_failure VALUES ('draft', 'acme', '2013-05-31T22:00Z', now(), '{{}}', NULL);
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, log_time, payload)
    VALUES ('usage.events', 0, 80, 0, 'parked', 'unknown_meter', now(), 'x');
INSERT INTO decision_queue (topic, partition, log_offset, index_in_message, said_by)
    VALUES ('usage.events', 0, 80, 0, 'x');
INSERT INTO decision_change (log_id, partition, log_offset, index_in_message, from_outcome, from_reason,
    to_outcome, to_reason, said_by)
    VALUES (gen_random_uuid(), 0, 81, 0, 'parked', '', 'counted', '', 'x');
INSERT INTO number_series (seller, series) VALUES ('host', '2013');
INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency)
    VALUES ('issued', 1, 'manual', 'issued:1', 500, 'EUR');
"""

# Constraint -> a statement that breaks it and nothing else.
BREAKS: dict[str, LiteralString] = {
    "collector_token_id_ck": (
        "INSERT INTO collector_token (token_id, secret_digest, scope) VALUES ('0123', sha256('a'), 'read')"
    ),
    "collector_token_digest_ck": (
        "INSERT INTO collector_token (token_id, secret_digest, scope) VALUES ('0123456789abcdef', 'secret', 'read')"
    ),
    "collector_token_scope_ck": (
        "INSERT INTO collector_token (token_id, secret_digest, scope) VALUES ('0123456789abcdef', sha256('a'), 'write')"
    ),
    "collector_token_bound_ck": (
        "INSERT INTO collector_token (token_id, secret_digest, scope, source_prefix)"
        " VALUES ('0123456789abcdef', sha256('a'), 'ingest', '')"
    ),
    "collector_token_span_ck": (
        "INSERT INTO collector_token (token_id, secret_digest, scope, expires_at)"
        " VALUES ('0123456789abcdef', sha256('a'), 'read', now())"
    ),
    "collector_token_replaces_key": (
        "INSERT INTO collector_token (token_id, secret_digest, scope, replaces) VALUES"
        " ('0000000000000001', sha256('a'), 'read', NULL),"
        " ('0000000000000002', sha256('b'), 'read', '0000000000000001'),"
        " ('0000000000000003', sha256('c'), 'read', '0000000000000001')"
    ),
    "retention_edge_span_ck": (
        "INSERT INTO retention_edge (known_number, edge_at, dropped_before) VALUES (2, '2012-03-02Z', '2012-03-01Z')"
    ),
    "retention_edge_midnight_ck": (
        "INSERT INTO retention_edge (known_number, edge_at, dropped_before) VALUES"
        " (2, '2012-06-01T01:00Z', '2012-03-01Z')"
    ),
    "retention_edge_rises_ck": (
        "INSERT INTO retention_edge (known_number, edge_at, dropped_before) VALUES (2, '2012-02-01Z', '2011-12-01Z')"
    ),
    "dirty_mark_retention_ck": (
        "INSERT INTO dirty_mark (subject, time_from, time_to) VALUES ('vm-1', '2011-12-31T23:55Z', '2012-02-01Z')"
    ),
    "installation_one_row_ck": "INSERT INTO installation (only_row) VALUES (false)",
    "installation_pkey": "INSERT INTO installation (only_row) VALUES (true)",
    "installation_generation_ck": "UPDATE installation SET generation = 0",
    "log_partition_count_ck": "INSERT INTO log VALUES ('other', gen_random_uuid(), '', 0)",
    "log_name_ck": (
        "INSERT INTO log (topic, log_id, kafka_topic_id, partition_count, set_aside_from)"
        " VALUES ('usage.events@1', gen_random_uuid(), '', 8, 'usage.events')"
    ),
    "lost_number_found_ck": (
        "INSERT INTO lost_number VALUES ('usage.events', 's', '00f3a1b2c3d4e5f6', '{[1,5)}', '{[4,6)}')"
    ),
    "consumer_offset_position_ck": (
        "INSERT INTO consumer_offset (stage, topic, partition, log_id, offset_next, generation)"
        " VALUES ('aggregate', 'usage.events', 0, gen_random_uuid(), -1, 1)"
    ),
    "partition_tally_adds_up_ck": (
        "INSERT INTO partition_tally (topic, partition, received, counted) VALUES ('usage.events', 0, 2, 1)"
    ),
    "identity_epoch_epoch_ck": (
        "INSERT INTO identity_epoch (source, epoch, partition, first_seen_at)"
        " VALUES ('s', '00F3A1B2C3D4E5F6', 0, '2013-07-01Z')"
    ),
    "identity_epoch_one_state_ck": (
        "INSERT INTO identity_epoch (source, epoch, partition, first_seen_at, counted, parked)"
        " VALUES ('s', '00f3a1b2c3d4e5f6', 0, '2013-07-01Z', '{[1,5)}', '{[4,6)}')"
    ),
    "decision_outcome_ck": (
        "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, log_time)"
        " VALUES ('usage.events', 0, 0, 0, 'skipped', 'x', now())"
    ),
    "decision_dropped_ck": (
        "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, log_time, payload,"
        " dropped) VALUES ('usage.events', 0, 90, 0, 'parked', 'unknown_meter', now(), 'x', true)"
    ),
    "decision_queue_pkey": (
        "INSERT INTO decision_queue (queue_number, topic, partition, log_offset, index_in_message, said_by)"
        " OVERRIDING SYSTEM VALUE SELECT queue_number, topic, partition, 91, index_in_message, 'x' FROM decision_queue"
    ),
    "decision_queue_once_key": (
        "INSERT INTO decision_queue (topic, partition, log_offset, index_in_message, said_by)"
        " SELECT topic, partition, log_offset, index_in_message, 'x' FROM decision_queue"
    ),
    "decision_queue_decision_fk": (
        "INSERT INTO decision_queue (topic, partition, log_offset, index_in_message, said_by)"
        " VALUES ('usage.events', 0, 99999, 0, 'x')"
    ),
    "decision_change_pkey": ("INSERT INTO decision_change OVERRIDING SYSTEM VALUE SELECT * FROM decision_change"),
    "decision_change_outcome_ck": (
        "INSERT INTO decision_change (log_id, partition, log_offset, index_in_message, from_outcome,"
        " from_reason, to_outcome, to_reason, said_by)"
        " VALUES (gen_random_uuid(), 0, 1, 0, 'counted', '', 'parked', '', 'x')"
    ),
    "decision_change_note_ck": (
        "INSERT INTO decision_change (log_id, partition, log_offset, index_in_message, from_outcome,"
        " from_reason, to_outcome, to_reason, said_by)"
        " VALUES (gen_random_uuid(), 0, 1, 0, 'parked', '', 'dropped', '', 'x')"
    ),
    "decision_bytes_kept_ck": (
        "INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, log_time)"
        " VALUES ('usage.events', 0, 0, 0, 'quarantined', 'x', now())"
    ),
    "archive_file_range_ck": (
        "INSERT INTO archive_file VALUES ('usage.events', gen_random_uuid(), 0, 5, 5, '2013-07-01', 'p', 1, 1, 'd')"
    ),
    "known_number_only_row_check": "INSERT INTO known_number (only_row) VALUES (false)",
    "meter_version_aggregation_ck": (
        "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
        " effective_from, known_number) VALUES ('m', 1, 't', 'average', 'v', 'u', 300, now(), 1)"
    ),
    "meter_version_slot_ck": (
        "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
        " effective_from, known_number) VALUES ('m', 1, 't', 'sum', 'v', 'u', 420, now(), 1)"
    ),
    "meter_version_value_ck": (
        "INSERT INTO meter_version (meter, version, event_type, aggregation, unit, slot_seconds,"
        " effective_from, known_number) VALUES ('m', 1, 't', 'sum', 'u', 300, now(), 1)"
    ),
    "meter_version_gap_ck": (
        "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
        " effective_from, known_number) VALUES ('m', 1, 't', 'time_weighted', 'v', 'u', 300, now(), 1)"
    ),
    "meter_version_meter_version_key": (
        "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
        " effective_from, known_number) VALUES ('cpu', 1, 't', 'sum', 'v', 'u', 300, now(), 1)"
    ),
    "price_version_base_units_ck": (
        "INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest,"
        " known_number) VALUES ('p', 1, 'per_unit', 'x', 'EUR', 'u', 0, '{}', 'd', 1)"
    ),
    "price_version_currency_ck": (
        "INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest,"
        " known_number) VALUES ('p', 1, 'per_unit', 'x', 'euro', 'u', 1, '{}', 'd', 1)"
    ),
    "price_version_price_version_key": (
        "INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest,"
        " known_number) VALUES ('cpu', 1, 'per_unit', 'x', 'EUR', 'u', 1, '{}', 'd', 1)"
    ),
    "billing_account_policy_ck": "UPDATE billing_account SET gate_policy = 'guess'",
    "billing_account_payment_ck": (
        "UPDATE billing_account SET payment_gateway = 'stripe', payment_customer = 'cus_1',"
        " payment_method = '4242424242424242'"
    ),
    "subscription_end_span_ck": "INSERT INTO subscription_end VALUES (2, 's1', '2013-01-01Z')",
    "assignment_span_ck": (
        "INSERT INTO assignment (known_number, subject, valid_from, valid_to, said_by)"
        " VALUES (2, 'vm-1', '2013-07-01Z', '2013-07-01Z', 'test')"
    ),
    "assignment_edge_ck": (
        "INSERT INTO assignment (known_number, subject, valid_from, said_by)"
        " VALUES (2, 'vm-1', '2013-07-01T00:05Z', 'test')"
    ),
    "assignment_pkey": (
        "INSERT INTO assignment (known_number, subject, valid_from, said_by) VALUES (1, 'vm-2', '2013-07-01Z', 'test')"
    ),
    "dirty_mark_names_something_ck": (
        "INSERT INTO dirty_mark (meter, time_from, time_to) VALUES ('cpu', '2013-07-01Z', '2013-07-02Z')"
    ),
    "dirty_mark_span_ck": (
        "INSERT INTO dirty_mark (subject, time_from, time_to) VALUES ('vm-1', '2013-07-02Z', '2013-07-02Z')"
    ),
    "billed_item_period_ck": (
        "INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)"
        " VALUES ('acme', 's1', 'cpu', '2013-08-01Z', '2013-07-01Z', '')"
    ),
    "billed_item_subscription_id_item_period_start_subject_key": (
        "INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)"
        f" VALUES ('acme', 's1', 'cpu', {JULY}, '')"
    ),
    "usage_total_revision_ck": "INSERT INTO usage_total VALUES (1, 1, 0, '[]')",
    "ledger_account_kind_ck": (
        "INSERT INTO ledger_account (name, kind, currency) VALUES ('suspense', 'suspense', 'EUR')"
    ),
    "ledger_account_owner_ck": (
        "INSERT INTO ledger_account (name, kind, currency) VALUES ('unbilled:nobody', 'unbilled', 'EUR')"
    ),
    "ledger_account_product_ck": (
        "INSERT INTO ledger_account (name, kind, currency) VALUES ('revenue:nothing', 'revenue', 'EUR')"
    ),
    "ledger_transaction_kind_ck": "INSERT INTO ledger_transaction (key, kind) VALUES ('k', 'adjustment')",
    "ledger_transaction_key_key": "INSERT INTO ledger_transaction (key, kind) VALUES ('usage:1:1', 'usage')",
    "ledger_entry_amount_ck": (
        "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency) VALUES (1, 1, 0, 'EUR')"
    ),
    "ledger_entry_balance_ck": (
        "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)"
        " VALUES (1, 1, 5, 'EUR'), (1, 2, -4.999999999999, 'EUR')"
    ),
    "ledger_entry_currency_ck": (
        "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)"
        " VALUES (1, 3, 5, 'EUR'), (1, 2, -5, 'EUR')"
    ),
    "ledger_entry_posted_ck": (
        "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)"
        " VALUES (1, 1, 5, 'EUR'), (1, 2, -5, 'EUR')"
    ),
    "ledger_chain_position_ck": (
        "INSERT INTO ledger_chain (position, ledger_transaction_id, hash) VALUES (0, 1, sha256('x'))"
    ),
    "ledger_chain_hash_ck": (
        "INSERT INTO ledger_chain (position, ledger_transaction_id, hash) VALUES (1, 1, 'too short')"
    ),
    "ledger_chain_gap_ck": (
        "INSERT INTO ledger_chain (position, ledger_transaction_id, hash) VALUES (2, 1, sha256('x'))"
    ),
    "booked_charge_outcome_ck": (
        "INSERT INTO booked_charge (billed_item_id, generation, revision, outcome, quantity, amounts, breakdown)"
        " VALUES (1, 1, 1, 'guessed', 0, '[]', '[]')"
    ),
    "billing_period_span_ck": (
        "INSERT INTO billing_period (account_id, period_start, period_end)"
        " VALUES ('acme', '2014-01-01Z', '2014-01-01Z')"
    ),
    "billing_period_state_ck": "UPDATE billing_period SET state = 'reopened'",
    "invoice_state_ck": "UPDATE invoice SET state = 'sent', proven_at = now(), proof = '{}' WHERE invoice_id = 'draft'",
    "invoice_proven_ck": "UPDATE invoice SET state = 'proven' WHERE invoice_id = 'draft'",
    "invoice_issued_ck": (
        "UPDATE invoice SET state = 'issued', proven_at = now(), proof = '{}' WHERE invoice_id = 'draft'"
    ),
    "invoice_number_key": (
        "UPDATE invoice SET state = 'issued', number = 'INV-1', issued_on = '2013-08-01', due_on = '2013-08-15',"
        " proven_at = now(), proof = '{}', document = '{}', document_digest = 'd' WHERE invoice_id = 'draft'"
    ),
    "invoice_account_id_period_start_key": (
        "INSERT INTO invoice (invoice_id, account_id, period_start, period_end, currency, cut, total_minor, seller)"
        f" VALUES ('second', 'acme', {JULY}, 'EUR', '{{}}', 0, 'host')"
    ),
    "invoice_entry_pkey": "INSERT INTO invoice_entry VALUES (1, 'draft', 1)",
    "payment_attempt_idempotency_key_key": (
        "INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency)"
        " VALUES ('issued', 2, 'manual', 'issued:1', 500, 'EUR')"
    ),
    "payment_attempt_open_key": (
        "INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency)"
        " VALUES ('issued', 2, 'manual', 'issued:2', 500, 'EUR')"
    ),
    "payment_attempt_amount_ck": (
        "INSERT INTO payment_attempt (invoice_id, attempt_number, gateway, idempotency_key, amount_minor, currency)"
        " VALUES ('draft', 1, 'manual', 'draft:1', 0, 'EUR')"
    ),
    "payment_attempt_settled_ck": "UPDATE payment_attempt SET settled_at = now()",
    "payment_attempt_posted_ck": "UPDATE payment_attempt SET state = 'succeeded', settled_at = now()",
    "payment_attempt_state_ck": "UPDATE payment_attempt SET state = 'maybe'",
}

APPEND_ONLY = (
    "catalogue_version", "meter_version", "price_version", "subscription", "subscription_end", "price_binding",
    "assignment", "decision_change", "ledger_entry", "ledger_transaction", "ledger_chain", "proof_failure",
    "retention_edge",
)  # fmt: skip

# What a stage may do beyond reading and adding. Everything that is not here it may not.
MAY_UPDATE = {
    "log", "consumer_offset", "partition_tally", "identity_epoch", "source_completeness", "source_subject", "decision",
    "lost_number", "known_number", "billing_account", "seller", "usage_bucket", "usage_day", "usage_total",
    "booked_charge", "billing_period", "invoice", "number_series", "payment_attempt",
}  # fmt: skip
MAY_DELETE = {"decision_queue", "dirty_mark", "dirty_item", "invoice", "invoice_line", "invoice_entry"}
MAY_ONLY_READ = {"schema_migration", "installation", "retention_edge"}
# Stages know no tokens: neither whose they are nor how to make one.
MAY_NOTHING = {"collector_token"}
# The collector reads usage, whose it is, and tokens; what is not here it cannot reach.
COLLECTOR_READS = {
    "collector_token", "meter_version", "ignore_rule", "series", "usage_bucket", "assignment", "retention_edge"
}  # fmt: skip


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    """The owner's connection to a migrated database with the small world in it."""
    with contextlib.closing(connect(database_url, application_name="tests", role=None)) as connection:
        connection.execute(WORLD)
        yield connection


@pytest.fixture
def stage(owner: Connection, database_url: str) -> Iterator[Connection]:
    """A stage's connection to the same database."""
    with contextlib.closing(connect(database_url, application_name="tests")) as connection:
        yield connection


def test_every_broken_law_is_refused_by_its_own_constraint(owner: Connection) -> None:
    """Each statement fails, and by the constraint that stands for the law, not by another one on its way."""
    refused_by = {}
    for constraint, statement in BREAKS.items():
        try:
            owner.execute(statement)
        except psycopg.errors.IntegrityError as error:
            refused_by[constraint] = constraint_of(error)
        else:
            refused_by[constraint] = "nothing"

    assert refused_by == {constraint: constraint for constraint in BREAKS}


def test_every_check_of_the_schema_is_broken_here() -> None:
    """A constraint that is added without a statement that breaks it fails this test."""
    migrations = sorted((schemas_dir() / "sql" / "migrations").glob("*.sql"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in migrations)
    named = set(re.findall(r"\b([a-z_]+_ck)\b", text))

    assert named - BREAKS.keys() == set()


def test_what_is_append_only_refuses_its_owner_too(owner: Connection) -> None:
    """UPDATE, DELETE and TRUNCATE are refused by trigger, even where rights would allow them."""
    for table in APPEND_ONLY:
        name = sql.Identifier(table)
        columns = owner.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(name)).description or []
        last = sql.Identifier(columns[-1].name)
        for statement in (
            sql.SQL("UPDATE {0} SET {1} = {1}").format(name, last),
            sql.SQL("DELETE FROM {}").format(name),
            sql.SQL("TRUNCATE {} CASCADE").format(name),
        ):
            with pytest.raises(psycopg.errors.RestrictViolation, match="never changed or deleted"):
                owner.execute(statement)


def test_an_issued_invoice_never_changes(owner: Connection, stage: Connection) -> None:
    """No column of it, by nobody; a draft still may."""
    statements: tuple[LiteralString, ...] = (
        "UPDATE invoice SET total_minor = 501 WHERE invoice_id = 'issued'",
        "UPDATE invoice SET state = 'draft' WHERE invoice_id = 'issued'",
        "UPDATE invoice SET number = 'INV-2' WHERE invoice_id = 'issued'",
        "DELETE FROM invoice WHERE invoice_id = 'issued'",
    )
    for statement in statements:
        with pytest.raises(psycopg.errors.RestrictViolation, match="is issued and never changes"):
            owner.execute(statement)
    with pytest.raises(psycopg.errors.RestrictViolation):
        stage.execute(statements[0])
    owner.execute("UPDATE invoice SET total_minor = 501 WHERE invoice_id = 'draft'")


ADD_LINE: LiteralString = (
    "INSERT INTO invoice_line VALUES (%s, 2, 's1', 'cpu', 'compute', now(), now(), '', 'CPU', 1, 5, 500, '[]')"
)
ADD_ENTRY: LiteralString = "INSERT INTO invoice_entry VALUES (3, %s, 1)"


def test_an_attempt_only_takes_its_outcome_and_keeps_a_definite_one(owner: Connection) -> None:
    """Amount, key and card stay as they were sent; declined stays declined; nothing is removed."""
    for statement in (
        "UPDATE payment_attempt SET amount_minor = 501",
        "UPDATE payment_attempt SET payment_method = 'pm_2'",
        "UPDATE payment_attempt SET idempotency_key = 'issued:9'",
        "DELETE FROM payment_attempt",
        "TRUNCATE payment_attempt",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement)
    owner.execute("UPDATE payment_attempt SET state = 'declined', detail = 'no money', settled_at = now()")
    with pytest.raises(psycopg.errors.RestrictViolation, match="has its outcome"):
        owner.execute("UPDATE payment_attempt SET state = 'intended', settled_at = NULL")


@pytest.mark.parametrize("state", ["proven", "issued"])
def test_lines_and_entries_are_settled_with_their_invoice(owner: Connection, stage: Connection, state: str) -> None:
    """Once it is proven nothing is added, changed or taken away, by nobody; nor does it become a draft again."""
    invoice_id = "issued" if state == "issued" else "draft"
    if state == "proven":
        owner.execute("UPDATE invoice SET state = 'proven', proven_at = now(), proof = '{}' WHERE invoice_id = 'draft'")
    statements: tuple[LiteralString, ...] = (
        ADD_LINE,
        ADD_ENTRY,
        "UPDATE invoice_line SET amount_minor = 0 WHERE invoice_id = %s",
        "UPDATE invoice_entry SET line_number = 1 WHERE invoice_id = %s",
        "DELETE FROM invoice_line WHERE invoice_id = %s",
        "DELETE FROM invoice_entry WHERE invoice_id = %s",
        "DELETE FROM invoice WHERE invoice_id = %s",
        "UPDATE invoice SET total_minor = 501 WHERE invoice_id = %s",
        "UPDATE invoice SET cut = '{\"offsets\": {}}' WHERE invoice_id = %s",
        (
            "UPDATE invoice SET state = 'draft', proven_at = NULL, proof = NULL, number = NULL, issued_on = NULL,"
            " due_on = NULL, document = NULL, document_digest = NULL WHERE invoice_id = %s"
        ),
    )
    for statement in statements:
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement, (invoice_id,))
        with pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.InsufficientPrivilege)):
            stage.execute(statement, (invoice_id,))


def test_a_draft_may_be_withdrawn_and_not_edited(owner: Connection, stage: Connection) -> None:
    """Its lines come and go, and are never changed; its tables are never emptied."""
    refused: tuple[LiteralString, ...] = (
        "UPDATE invoice_line SET amount_minor = 0 WHERE invoice_id = 'draft'",
        "UPDATE invoice_entry SET line_number = 1 WHERE invoice_id = 'draft'",
        "TRUNCATE invoice_entry",
        "TRUNCATE invoice_line CASCADE",
        "TRUNCATE invoice CASCADE",
        (
            "INSERT INTO invoice (invoice_id, account_id, period_start, period_end, currency, cut, total_minor,"
            " seller, state, proven_at, proof) VALUES ('born', 'acme', '2013-05-31T22:00Z', '2013-06-30T22:00Z', 'EUR',"
            " '{}', 500, 'host', 'proven', now(), '{}')"
        ),
    )
    for statement in refused:
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement)
    with stage.transaction():
        stage.execute(ADD_LINE, ("draft",))
        stage.execute("DELETE FROM invoice_entry WHERE invoice_id = 'draft'")
        stage.execute("DELETE FROM invoice_line WHERE invoice_id = 'draft'")
        stage.execute("DELETE FROM invoice WHERE invoice_id = 'draft'")
    assert owner.execute("SELECT invoice_id FROM invoice").fetchall() == [("issued",)]


def test_a_line_cannot_slip_under_a_draft_that_is_being_proven(stage: Connection, database_url: str) -> None:
    """Who adds a line holds the draft a draft until then; the proof's commit waits."""
    with contextlib.closing(connect(database_url, application_name="tests")) as other, stage.transaction():
        stage.execute(ADD_LINE, ("draft",))
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(
                "UPDATE invoice SET state = 'proven', proven_at = now(), proof = '{}' WHERE invoice_id = 'draft'"
            )


def test_a_balance_that_two_statements_would_make_is_refused(stage: Connection) -> None:
    """Both sides of a posting come in one statement; half a posting never exists, not even inside a transaction."""
    with pytest.raises(psycopg.errors.CheckViolation, match="out of balance by 5"), stage.transaction():
        stage.execute(
            "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)"
            " VALUES (1, 1, 5, 'EUR')"
        )


def test_transactions_of_one_statement_balance_each_by_itself(stage: Connection) -> None:
    """Two wrong transactions that cancel out are two wrong transactions."""
    stage.execute("INSERT INTO ledger_transaction (key, kind) VALUES ('usage:1:2', 'usage'), ('usage:1:3', 'usage')")
    with pytest.raises(psycopg.errors.CheckViolation, match="out of balance"):
        stage.execute(
            "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)"
            " VALUES (2, 1, 5, 'EUR'), (3, 2, -5, 'EUR')"
        )


def test_a_stage_may_do_what_it_must_and_nothing_else(owner: Connection) -> None:
    """The rights of rackmeter_app are exactly the stated ones, on every table there is."""
    rows = owner.execute(
        """
        SELECT table_name, array_agg(right_name) FILTER (WHERE has_table_privilege('rackmeter_app', oid, right_name))
        FROM (SELECT c.oid, c.relname AS table_name FROM pg_class c
              WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')) AS tables,
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS right_name
        GROUP BY table_name
        """
    ).fetchall()
    found: dict[str, set[str]] = {table: set(rights or ()) for table, rights in rows}
    wanted = {
        table: set()
        if table in MAY_NOTHING
        else {"SELECT"}
        | ({"INSERT"} if table not in MAY_ONLY_READ else set())
        | ({"UPDATE"} if table in MAY_UPDATE else set())
        | ({"DELETE"} if table in MAY_DELETE else set())
        for table in found
    }

    assert found == wanted
    assert found.keys() >= MAY_UPDATE | MAY_DELETE | MAY_ONLY_READ


def test_the_collector_reads_what_it_answers_and_nothing_else(owner: Connection, database_url: str) -> None:
    """The rights of rackmeter_collector are exactly the stated ones; of accounts it sees key and time zone."""
    rows = owner.execute(
        """
        SELECT c.relname, right_name
        FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS right_name
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND has_table_privilege('rackmeter_collector', c.oid, right_name)
        """
    ).fetchall()
    assert set(rows) == {(table, "SELECT") for table in COLLECTOR_READS | {"subscription_span"}}
    columns = owner.execute(
        """
        SELECT c.relname, a.attname, right_name
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0,
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS right_name
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND has_column_privilege('rackmeter_collector', c.oid, a.attnum, right_name)
            AND NOT has_table_privilege('rackmeter_collector', c.oid, right_name)
        """
    ).fetchall()
    assert set(columns) == {
        ("billing_account", "account_id", "SELECT"),
        ("billing_account", "time_zone", "SELECT"),
        ("collector_token", "last_used_at", "UPDATE"),
    }
    statements: tuple[LiteralString, ...] = (
        "INSERT INTO collector_token (token_id, secret_digest, scope) VALUES ('0123456789abcdef', '', 'read')",
        "UPDATE collector_token SET expires_at = 'infinity'",
        "UPDATE collector_token SET revoked_at = NULL",
        "SELECT name FROM billing_account",
        "SELECT * FROM invoice",
        "SELECT * FROM ledger_entry",
        "INSERT INTO usage_bucket VALUES (1, now(), 1)",
    )
    with contextlib.closing(connect(database_url, application_name="tests", role="rackmeter_collector")) as collector:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                collector.execute(statement)


def test_a_token_is_only_ever_ended(owner: Connection) -> None:
    """What it may do, and whose secret it is, never changes; nor does it come back, not even for its owner."""
    owner.execute(
        "INSERT INTO collector_token (token_id, secret_digest, scope, source_prefix, expires_at, revoked_at)"
        " VALUES ('0123456789abcdef', sha256('a'), 'ingest', 'rack-1', now() + interval '1 day', now())"
    )
    refused: tuple[LiteralString, ...] = (
        "UPDATE collector_token SET source_prefix = 'rack'",
        "UPDATE collector_token SET secret_digest = sha256('b')",
        "UPDATE collector_token SET scope = 'read', source_prefix = NULL",
        "UPDATE collector_token SET expires_at = 'infinity'",
        "UPDATE collector_token SET revoked_at = NULL",
        "UPDATE collector_token SET revoked_at = now() + interval '1 day'",
        "DELETE FROM collector_token",
        "TRUNCATE collector_token CASCADE",
    )
    for statement in refused:
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement)
    owner.execute("UPDATE collector_token SET last_used_at = now(), note = 'x', expires_at = now() + interval '1 hour'")


def test_a_stage_cannot_reach_around_the_books(stage: Connection) -> None:
    """What is evidence or law for a stage, it has no right to change."""
    statements: tuple[LiteralString, ...] = (
        "UPDATE ledger_entry SET amount = 0",
        "DELETE FROM ledger_transaction",
        "TRUNCATE decision",
        "UPDATE installation SET generation = 2",
        "INSERT INTO schema_migration (version, name, checksum) VALUES (9999, 'x', 'x')",
        "DELETE FROM archive_file",
        "UPDATE archive_file SET digest = ''",
        "DROP TABLE ledger_entry",
        "ALTER TABLE ledger_entry DISABLE TRIGGER ALL",
        "CREATE TABLE public.own (number integer)",
    )
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stage.execute(statement)


def test_a_hole_keeps_a_source_incomplete(owner: Connection) -> None:
    """A source is complete until what its newest epoch said, behind no hole of it, and with no hole in earlier ones."""
    owner.execute(
        """
        INSERT INTO identity_epoch
            (source, epoch, partition, first_seen_at, counted, quarantined, parked, dropped)
        VALUES
            ('whole', '0000000000000001', 0, '2013-07-01Z', '{[1,5)}', '{}', '{}', '{}'),
            ('pieced', '0000000000000001', 0, '2013-07-01Z', '{[1,3),[6,7)}', '{[3,4)}', '{[4,5)}', '{[5,6)}'),
            ('holed', '0000000000000001', 0, '2013-07-01Z', '{[1,3),[4,5)}', '{}', '{}', '{}'),
            ('holed-later', '0000000000000001', 0, '2013-07-01Z', '{[1,5),[7,8)}', '{}', '{}', '{}'),
            ('headless', '0000000000000001', 0, '2013-07-01Z', '{[2,5)}', '{}', '{}', '{}'),
            ('silent', '0000000000000001', 0, '2013-07-01Z', '{}', '{}', '{}', '{}'),
            ('reinstalled', '0000000000000009', 0, '2013-07-01Z', '{[1,5)}', '{}', '{}', '{}'),
            ('reinstalled', '0000000000000002', 0, '2013-07-02Z', '{[1,3)}', '{}', '{}', '{}'),
            ('lost-before', '0000000000000009', 0, '2013-07-01Z', '{[1,5),[6,7)}', '{}', '{}', '{}'),
            ('lost-before', '0000000000000002', 0, '2013-07-02Z', '{[1,3)}', '{}', '{}', '{}');
        INSERT INTO source_completeness VALUES
            ('whole', '0000000000000001', '', '2013-08-01Z', 4),
            ('holed-later', '0000000000000001', '', '2013-08-01Z', 4),
            ('reinstalled', '0000000000000009', '', 'infinity', 4),
            ('lost-before', '0000000000000009', '', '2013-08-01Z', 4),
            ('lost-before', '0000000000000002', '', '2013-08-01Z', 2);
        """
    )
    rows = owner.execute("SELECT source, complete_until IS NOT NULL, has_no_hole FROM source_complete").fetchall()

    assert {source: (said, whole) for source, said, whole in rows} == {
        "whole": (True, True),
        "pieced": (False, True),
        "holed": (False, False),
        "holed-later": (True, True),
        "headless": (False, False),
        "silent": (False, True),
        "reinstalled": (False, True),
        "lost-before": (True, False),
    }
