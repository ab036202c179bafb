"""The proof agrees with the pipeline to the last digit, and names what was tampered with."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline.aggregate.settling import Selection, drop
from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import parse_catalogue
from pipeline.catalogue.model import Assignment
from pipeline.catalogue.servers import assign
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.identity import home_partition
from pipeline.proof.report import Report
from pipeline.proof.seals import document_digest
from pipeline.proof.verify import owed_without_invoice, select_invoices, verify_invoices
from pipeline.runtime.postgres import Connection
from tests.integration import proof_world
from tests.integration.proof_tampering import BOOKS_CASES, DOCUMENT_CASES, USAGE_CASES
from tests.integration.proof_world import World

pytestmark = pytest.mark.real

NAMES = iter(range(1_000_000))
MAY, JUNE = datetime(2013, 4, 30, 22, tzinfo=UTC), datetime(2013, 5, 31, 22, tzinfo=UTC)


@contextlib.contextmanager
def copied_database(server_url: str, template: str) -> Iterator[tuple[str, str]]:
    """Give (name, URL) of a copy of a database."""
    name = f"{template}_{next(NAMES)}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield name, make_conninfo(server_url, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def built(
    server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World]]:
    with copied_database(server_url, migrated_template) as (name, url):
        yield name, proof_world.build(url, tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(built: tuple[str, World], server_url: str, tmp_path: Path) -> Iterator[World]:
    """A copy of the closed world that a test may tamper with."""
    name, original = built
    with copied_database(server_url, name) as (_, url):
        shutil.copytree(original.folder, tmp_path / "world")
        yield World(url, tmp_path / "world", original.log)


def prove(world: World) -> Report:
    with world.connect() as connection:
        return verify_invoices(connection, world.archive_dir, select_invoices(connection))


def tamper(world: World, *statements: str) -> None:
    """Do what no role of ours may: change rows that are never changed."""
    with world.admin() as admin:
        admin.execute("SET session_replication_role = replica")
        for statement in statements:
            assert admin.execute(statement.encode()).rowcount > 0, statement


def test_everything_is_proven(world: World) -> None:
    """All meters and price models, a price change, a moved server, bad, late and repeated events: no difference."""
    report = prove(world)
    assert report.differences == ()
    assert report.ok
    assert report.compared["lines"] > 6
    assert report.compared["events_quarantined"] == 19
    assert report.compared["events_parked"] == 3
    assert report.compared["events_duplicate"] == 8
    assert report.compared["events_control"] == 8
    assert report.compared["buckets"] > 1000
    assert report.compared["charges"] >= report.compared["lines"]
    assert all(proof.report["events"] for proof in report.invoices.values())
    with world.connect() as connection:
        states = connection.execute("SELECT state, total_minor > 0 FROM invoice").fetchall()
        assert states == [("issued", True), ("issued", True)]


def rewrite(world: World, change: Callable[[pa.Table], pa.Table]) -> str:
    path = sorted((world.archive_dir).rglob("*.parquet"))[1]
    pq.write_table(change(pq.read_table(path)), path, compression="zstd")
    return path.name


def changed_row(table: pa.Table) -> pa.Table:
    values = table.column("value").to_pylist()
    values[3] = values[3].replace(b'"requests": ', b'"requests": 1')
    return table.set_column(table.schema.get_field_index("value"), table.schema.field("value"), pa.array(values))


@pytest.mark.parametrize(
    "change",
    [changed_row, lambda table: table.slice(1), lambda table: pa.concat_tables([table, table.slice(0, 1)])],
    ids=["changed", "removed", "added"],
)
def test_tampered_archive(world: World, change: Callable[[pa.Table], pa.Table]) -> None:
    """A changed, removed or added archive row is named by its file."""
    name = rewrite(world, change)
    (difference,) = prove(world).differences
    assert name in difference
    assert "an archive row was changed, added or removed" in difference


@pytest.mark.parametrize(
    "change",
    [changed_row, lambda table: table.slice(1), lambda table: pa.concat_tables([table, table.slice(0, 1)])],
    ids=["changed", "removed", "added"],
)
def test_tampered_archive_and_manifest(world: World, change: Callable[[pa.Table], pa.Table]) -> None:
    """Whoever mends the manifest too is given away by the digest sealed into each invoice, and by the quantities."""
    name = rewrite(world, change)
    (path,) = world.archive_dir.rglob(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = pq.read_metadata(path).num_rows
    relative = path.relative_to(world.archive_dir).as_posix()
    tamper(world, f"UPDATE archive_file SET digest = '{digest}', row_count = {rows} WHERE path = '{relative}'")
    differences = prove(world).differences
    assert sum("manifest_digest" in text for text in differences) == 2
    assert any(not text.startswith("evidence") for text in differences)


def test_missing_file(world: World) -> None:
    """A file that is gone is named."""
    path = next(world.archive_dir.rglob("*.parquet"))
    path.unlink()
    assert [path.name in text and "missing" in text for text in prove(world).differences] == [True]


def test_unlisted_files_do_not_exist(world: World) -> None:
    """What no manifest row lists is not read."""
    path = next(world.archive_dir.rglob("*.parquet"))
    shutil.copy(path, path.with_name("stray.parquet"))
    assert prove(world).ok


TAMPERED = {
    "price": (
        ["UPDATE price_version SET parameters = '{\"unit_price\": \"0.018\"}' WHERE price = 'cores_a'"],
        ["a meter, price, binding or subscription was changed", "amount"],
    ),
    "binding": (
        ["UPDATE price_binding SET effective_from = '2013-07-14Z' WHERE effective_from > '2013-07-01'"],
        ["a meter, price, binding or subscription was changed", "amount"],
    ),
    "assignment": (
        ["UPDATE assignment SET valid_from = valid_from + interval '1 hour' WHERE valid_from > '2013-07-01'"],
        ["an assignment was changed", "quantity"],
    ),
    "end of a subscription": (
        ["INSERT INTO subscription_end VALUES (1, 'acme-main', '2013-07-20Z')"],
        ["a meter, price, binding or subscription was changed", "amount"],
    ),
    "bucket": (
        [
            ("UPDATE usage_bucket SET quantity = quantity + 0.000000000000001 WHERE ctid IN"
             " (SELECT ctid FROM usage_bucket ORDER BY slot_start, series_id LIMIT 1)"),
        ],
        ["usage: bucket of"],
    ),
    "bucket removed": (
        ["DELETE FROM usage_bucket WHERE ctid IN (SELECT ctid FROM usage_bucket WHERE quantity > 0 LIMIT 1)"],
        ["quantity missing"],
    ),
    "bucket added": (
        ["INSERT INTO usage_bucket SELECT series_id, '2013-07-25Z', 1 FROM series LIMIT 1"],
        ["recomputed nothing"],
    ),
    "decision": (
        ["DELETE FROM decision WHERE ctid IN (SELECT ctid FROM decision WHERE outcome = 'duplicate' LIMIT 1)"],
        ["is taken 2 times", "is tallied"],
    ),
    "decision of a good event": (
        [
            ("INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, log_time, payload)"
             " SELECT topic, partition, 1, 0, 'quarantined', 'time_invalid', now(), '' FROM decision LIMIT 1"),
        ],
        ["is quarantined, by its content it should be counted"],
    ),
    "conflict without twin": (
        ["UPDATE decision SET outcome = 'duplicate', reason = 'identity_seen' WHERE outcome = 'parked'"],
        ["of an event that was never taken"],
    ),
    "tally": (
        ["UPDATE partition_tally SET counted = counted + 1, received = received + 1 WHERE partition = 0"],
        ["counted is tallied"],
    ),
    "charge": (
        [
            ("UPDATE booked_charge SET amounts = jsonb_set(amounts, '{0,amount}', '\"0.01\"')"
             " WHERE billed_item_id = (SELECT min(billed_item_id) FROM booked_charge)"),
        ],
        ["booked charge of"],
    ),
    "posting": (
        [
            ("UPDATE ledger_entry SET amount = amount + 0.000000000001 WHERE ledger_entry_id ="
             " (SELECT min(ledger_entry_id) FROM invoice_entry)"),
        ],
        ["its postings sum to", "out of balance"],
    ),
    "posting of revenue": (
        ["UPDATE ledger_account SET product = 'other' WHERE product = 'compute'"],
        ["revenue of compute is posted 0"],
    ),
    "line": (
        ["UPDATE invoice_line SET quantity = quantity + 1 WHERE line_number = 1"],
        ["line 1 of invoice", "recomputed", "the lines of its document are not its lines"],
    ),
    "line amount": (
        [
            ("UPDATE invoice_line SET amount_exact = amount_exact + 1, amount_minor = amount_minor + 100"
             " WHERE line_number = 1"),
        ],
        ["line 1 of invoice", "its postings sum to", "total"],
    ),
    "line removed": (
        ["DELETE FROM invoice_entry WHERE line_number = 1", "DELETE FROM invoice_line WHERE line_number = 1"],
        ["is on no line"],
    ),
    "total": (["UPDATE invoice SET total_minor = total_minor + 1"], ["total", "receivable"]),
    "number": (
        ["UPDATE invoice SET number = 'RM-2013-0007' WHERE number = 'RM-2013-0002'"],
        ["number 2 of series 2013 of host is missing", "number 7"],
    ),
    "document": (
        ["UPDATE invoice SET document = jsonb_set(document, '{buyer,name}', '\"Nobody\"')"],
        ["its document was changed"],
    ),
}  # fmt: skip

CASES = TAMPERED | DOCUMENT_CASES | BOOKS_CASES | USAGE_CASES


@pytest.mark.parametrize("what", CASES)
def test_tampered_rows(world: World, what: str) -> None:
    """Each changed row makes the proof fail, and the differences name it."""
    statements, named = CASES[what]
    tamper(world, *statements)
    report = prove(world)
    for words in named:
        assert any(words in difference for difference in report.differences), report.differences
    assert not report.ok
    assert not all(proof.ok for proof in report.invoices.values())


def prove_with_journal(world: World) -> Report:
    with world.connect() as connection:
        return verify_invoices(
            connection, world.archive_dir, select_invoices(connection), journal_dir=world.journal_dir
        )


def test_a_document_changed_with_its_digest_is_not_the_journals(world: World) -> None:
    """Names stand in no other row; whoever writes document and digest anew is given away by what is outside."""
    assert prove_with_journal(world).compared["journalled"] == 2
    with world.connect() as connection:
        row = connection.execute("SELECT document, invoice_id FROM invoice WHERE account_id = 'acme'").fetchone()
    assert row is not None
    document, invoice_id = row
    document["buyer"]["name"] = document["seller"]["bank_account"] = "Nobody"
    digest = document_digest(document)
    said = json.dumps(document).replace("'", "''")
    tamper(
        world,
        f"UPDATE invoice SET document = '{said}', document_digest = '{digest}' WHERE invoice_id = '{invoice_id}'",
    )
    assert prove(world).ok
    report = prove_with_journal(world)
    (difference,) = report.differences
    assert difference.startswith(f"journal: invoice RM-2013-0001 ({invoice_id}): its document is not the one in")
    assert difference.endswith("; buyer.name, seller.bank_account differs")
    assert [proof.ok for proof in report.invoices.values()] == [False, True]


def test_an_invoice_is_in_the_journal(world: World) -> None:
    """An issued invoice whose document is nowhere outside is named."""
    for path in world.journal_dir.glob("documents-*.jsonl"):
        path.unlink()
    differences = prove_with_journal(world).differences
    assert ["is issued and not in the journal" in text for text in differences] == [True, True]


def test_an_older_invoices_slots_are_compared_after_a_later_close(world: World) -> None:
    """August was cut where everything stands now; what was kept of July is compared there too."""
    length = {partition: len(listed) for partition, listed in world.log.partitions.items()}
    try:
        with world.connect() as connection:
            late(world, connection)
            proof_world.close(world, connection, "2013-08")
        tamper(
            world,
            "UPDATE usage_bucket SET quantity = quantity + 1 WHERE ctid IN"
            " (SELECT ctid FROM usage_bucket ORDER BY slot_start LIMIT 1)",
        )
        assert any(text.startswith("usage: bucket of") for text in prove(world).differences)
    finally:
        for partition, count in length.items():
            del world.log.partitions[partition][count:]


def test_a_correction_that_is_booked_wrongly_is_named_before_an_invoice_takes_it(world: World) -> None:
    """What late usage adds to a closed month is compared with a recomputation as everything stands now."""
    length = {partition: len(listed) for partition, listed in world.log.partitions.items()}
    try:
        with world.connect() as connection:
            late(world, connection)
        assert prove(world).differences == ()
        tamper(world, *BOOKS_CASES["posting added and booked"][0])
        assert any("booked charge of" in text and "recomputed" in text for text in prove(world).differences)
    finally:
        for partition, count in length.items():
            del world.log.partitions[partition][count:]


def test_a_servers_bucket_concerns_its_customer_only(world: World) -> None:
    """A wrong bucket of one customer's server leaves the other's invoice proven."""
    tamper(
        world,
        "UPDATE usage_bucket SET quantity = quantity + 1 WHERE series_id IN"
        " (SELECT series_id FROM series WHERE subject = 'vm-1')",
    )
    report = prove(world)
    with world.connect() as connection:
        accounts = dict(connection.execute("SELECT account_id, invoice_id FROM invoice").fetchall())
    assert not report.is_proven(accounts["acme"])
    assert report.is_proven(accounts["brick"])


def late(world: World, connection: Connection) -> None:
    """A late sample of July arrives after July was issued, and usage of August."""
    source = proof_world.source_of("vm-1")
    home = home_partition(source, proof_world.PARTITIONS)
    for number, month in enumerate((7, 8), start=1):
        at = proof_world.START.replace(month=month, day=9)
        said = proof_world.event("vm-1", number, at, cpu=3, mem=5, sent=7, requests=9)
        value = json.dumps({**said, "id": f"00000000000000aa-{number:012d}"}).encode()
        world.log.append(home, value, key=source.encode(), at_ms=proof_world.LOG_TIME_MS)
    proof_world.read(world, connection)


def test_an_issued_invoice_stays_proven(world: World) -> None:
    """Later events and moves do not touch the proof of what was issued (trap 31); corrections are proven too."""
    length = {partition: len(listed) for partition, listed in world.log.partitions.items()}
    try:
        with world.connect() as connection:
            late(world, connection)
            assign(connection, [Assignment(0, "vm-2", "acme-main", proof_world.START, None)], "test")
            proof_world.book(connection)
        report = prove(world)
        assert report.differences == ()
        with world.connect() as connection:
            run = proof_world.close(world, connection, "2013-08")
            assert {result.outcome.value for result in run.results} <= {"issued", "nothing_to_bill"}, run.results
            corrections = connection.execute(
                "SELECT sum(amount_exact) FROM invoice_line WHERE description LIKE '%correction%'"
            ).fetchone()
            assert corrections is not None
            assert corrections[0] != Decimal(0)
        report = prove(world)
        assert report.differences == ()
        assert len(report.invoices) >= 3
    finally:
        for partition, count in length.items():
            del world.log.partitions[partition][count:]


def test_an_issued_invoice_outlives_an_end_of_its_subscription(world: World) -> None:
    """Said afterwards, an end is not known at the cut's horizon (trap 31); what it takes back is corrected."""
    length = {partition: len(listed) for partition, listed in world.log.partitions.items()}
    begins = "acme-main: {plan: metered, from: 2013-01-01"
    try:
        for end in ("2014-01-01", "2013-07-20"):
            text = proof_world.CATALOGUE.replace(begins, f"{begins}, to: {end}")
            with world.connect() as connection:
                assert apply(connection, parse_catalogue(text, "catalogue.yaml")).is_changed
            assert prove(world).differences == ()
        with world.connect() as connection:
            late(world, connection)
            run = proof_world.close(world, connection, "2013-08")
            assert {result.outcome.value for result in run.results} <= {"issued", "nothing_to_bill"}, run.results
            row = connection.execute(
                "SELECT sum(amount_exact) FROM invoice_line JOIN invoice USING (invoice_id)"
                " WHERE account_id = 'acme' AND description LIKE '%correction%'"
            ).fetchone()
            assert row is not None
            assert row[0] < 0
        assert prove(world).differences == ()
    finally:
        for partition, count in length.items():
            del world.log.partitions[partition][count:]


@pytest.mark.parametrize(
    "added",
    [
        "ignore: [unheard-of]\n",
        "meters:\n  other: {event_type: unheard-of, aggregation: sum, value: cpu, unit: x, slot_seconds: 900}\n",
    ],
)
def test_an_issued_invoice_outlives_new_rules_of_reading(world: World, added: str) -> None:
    """What was parked when nothing read it is no difference once a meter or an ignore rule does (trap 31)."""
    text = proof_world.CATALOGUE
    text = text.replace("meters:\n", added) if added.startswith("meters") else text + added
    with world.connect() as connection:
        assert apply(connection, parse_catalogue(text, "catalogue.yaml")).is_changed
        assert prove(world).differences == ()
        proof_world.read(world, connection)
        assert decided_again(connection) == [("counted",) if added.startswith("meters") else ("ignored",)]
        assert prove(world).differences == ()
        # By the catalogue as it is now it is no difference either.
        proof_world.close(world, connection, "2013-08")

    assert prove(world).differences == ()


def decided_again(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT to_outcome FROM decision_change ORDER BY 1").fetchall()


def test_what_was_let_go_is_no_difference(world: World) -> None:
    """Dropped events are still what they are: nothing of an invoice changes by it."""
    with world.connect() as connection:
        assert drop(connection, proof_world.TOPIC, Selection(reason="unknown_meter"), said_by="ann", note="a bench")
        assert drop(connection, proof_world.TOPIC, Selection(reason="value_negative"), said_by="ann", note="a bench")

    assert prove(world).differences == ()


def test_what_is_owed_is_seen_without_an_invoice(world: World) -> None:
    """An account that gets no invoice is looked at too: what its usage costs; a month without usage is free."""
    with world.connect() as connection:
        july = owed_without_invoice(
            connection, world.archive_dir, [("acme", proof_world.START, proof_world.END), ("brick", MAY, JUNE)]
        )

    assert any("acme-main cores" in sentence and "is owed" in sentence for sentence in july["acme"])
    assert july["brick"] == ()


def test_a_conflict_made_a_duplicate_is_seen(world: World) -> None:
    """A number used again for something else is a conflict; said to be a repeat, the proof names it (trap 2)."""
    server = "vm-1"
    home = home_partition(proof_world.source_of(server), proof_world.PARTITIONS)
    key = proof_world.source_of(server).encode()
    other = proof_world.event(server, 1, proof_world.START, cpu=500, mem=1, sent=1, requests=1)
    length = len(world.log.partitions[home])
    try:
        world.log.append(home, json.dumps(other).encode(), key=key, at_ms=proof_world.LOG_TIME_MS)
        with world.connect() as connection:
            proof_world.read(world, connection)
        assert prove(world).differences == ()
        tamper(
            world,
            "UPDATE decision SET outcome = 'duplicate', settled = true WHERE outcome = 'conflict'",
            "UPDATE partition_tally SET duplicate = duplicate + conflict, conflict = 0",
        )
        assert any(
            "says something else than the one that counted" in difference for difference in prove(world).differences
        )
    finally:
        del world.log.partitions[home][length:]


def test_an_event_without_a_time_may_be_sent_again(world: World) -> None:
    """The collector gives each sending a time of its own; they are one event all the same, and proven as one."""
    server = "vm-1"
    home = home_partition(proof_world.source_of(server), proof_world.PARTITIONS)
    key = proof_world.source_of(server).encode()
    length = len(world.log.partitions[home])
    try:
        for second in (1, 2):
            at = proof_world.START + timedelta(seconds=second)
            sent = proof_world.event(server, 900_000, at, cpu=500, mem=1, sent=1, requests=1)
            stamped = sent | {"type": "rackmeter.control.heartbeat.v1", "timestampedby": "collector"}
            world.log.append(home, json.dumps(stamped).encode(), key=key, at_ms=proof_world.LOG_TIME_MS)
        with world.connect() as connection:
            proof_world.read(world, connection)
            found = connection.execute("SELECT outcome, settled FROM decision WHERE event_id LIKE '%000900000'")
            assert sorted(found.fetchall()) == [("control", False), ("duplicate", True)]
        assert prove(world).differences == ()
    finally:
        del world.log.partitions[home][length:]


def test_unknown_invoice(world: World) -> None:
    """Asking for an invoice there is none of is an error, not a proof of nothing."""
    with world.connect() as connection:
        with pytest.raises(ConfigurationFault, match="no invoice RM-9"):
            select_invoices(connection, invoice="RM-9")
        assert len(select_invoices(connection, invoice="RM-2013-0001")) == 1
        assert len(select_invoices(connection, month=(2013, 7))) == 2
        assert select_invoices(connection, month=(2013, 6)) == []
