"""The ledger sink on a real database: whatever comes, the books hold the price of the last total, once, balanced."""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal

import psycopg
import pytest

from pipeline.contracts.charge import Amount, BreakdownPart, Charge, Outcome, pack_charges
from pipeline.domain.errors import InvariantViolation, RejectedRecord, TransientFault
from pipeline.ledger_sink import posting, store
from pipeline.ledger_sink.accounts import revenue, unbilled
from pipeline.ledger_sink.posting import Result, book_charges
from pipeline.ledger_sink.worker import Worker
from pipeline.runtime.consumer import LogConsumer
from pipeline.runtime.metrics import Health
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.topics import watermarks
from tests.conftest import FreshTopics

pytestmark = pytest.mark.real

ACCOUNTS = ("acme", "beta", "coda")
ITEMS_EACH = 3


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The application's connection to a database with three accounts of three billed items, totals at revision 9."""
    with closing(connect(database_url, application_name="tests", role=None)) as owner:
        for account in ACCOUNTS:
            owner.execute(
                "INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)"
                " VALUES (%s, %s, 'EUR', 'Europe/Amsterdam', 'us', 1)",
                (account, account),
            )
            owner.execute(
                "INSERT INTO subscription (subscription_id, account_id, plan, starts_at, known_number)"
                " VALUES (%s, %s, 'standard', '2010-01-01Z', 1)",
                (f"{account}-1", account),
            )
            owner.execute(
                "INSERT INTO billed_item (account_id, subscription_id, item, period_start, period_end, subject)"
                " SELECT %s, %s, 'item' || n, '2026-06-01Z', '2026-07-01Z', '' FROM generate_series(1, %s) AS n",
                (account, f"{account}-1", ITEMS_EACH),
            )
        owner.execute("INSERT INTO usage_total SELECT billed_item_id, 1, 9, '[]' FROM billed_item")
    with closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def charge(item: int, revision: int, outcome: Outcome = "rated", **amounts: str) -> Charge:
    return Charge(
        billed_item_id=item,
        revision=revision,
        outcome=outcome,
        reason="" if outcome == "rated" else f"{outcome}: for a reason",
        quantity="12.5",
        amounts=tuple(Amount(product=name, currency="EUR", amount=text) for name, text in amounts.items()),
        price_version_ids=(7,),
        breakdown=(
            BreakdownPart(
                price_version_id=7, price="p", unit="core-hour", quantity="1", start="2026-06-01Z", end="x", steps=()
            ),
        ),
    )


def balances(connection: Connection) -> dict[str, Decimal]:
    """Ledger accounts by name, those at zero left out."""
    rows = store.trial_balance(connection)
    assert sum((row.balance for row in rows), Decimal(0)) == 0
    return {row.name: row.balance for row in rows if row.balance}


def booked_revisions(connection: Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT billed_item_id, revision FROM booked_charge").fetchall())


def count(connection: Connection, table: str) -> int:
    row = connection.execute(
        psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_charge_is_booked_with_its_entries_and_its_row(connection: Connection) -> None:
    """Debit unbilled, credit revenue, for the item's account and service period; the row has all of the charge."""
    assert book_charges(connection, 1, [charge(1, 3, compute="8.64")]) == {Result.BOOKED: 1}
    assert balances(connection) == {"unbilled:acme:EUR": Decimal("8.64"), "revenue:compute:EUR": Decimal("-8.64")}
    entries = connection.execute("SELECT DISTINCT account_id, period_start::date::text FROM ledger_entry").fetchall()
    assert entries == [("acme", "2026-06-01")]
    row = connection.execute("SELECT generation, revision, outcome, quantity, amounts FROM booked_charge").fetchone()
    amounts = [{"product": "compute", "currency": "EUR", "amount": "8.64"}]
    assert row == (1, 3, "rated", Decimal("12.5"), amounts)
    assert connection.execute("SELECT key FROM ledger_transaction").fetchall() == [("usage:1:1:3",)]


def test_any_order_repeats_and_losses_book_the_last_charge(connection: Connection) -> None:
    """Shuffled, doubled and partly lost deliveries of revisions 1 to 9, then the last one: its amounts are booked."""
    dice = random.Random(55)
    products = ("compute", "disk", "premium")
    history = [
        charge(
            item, revision, "rated", **{dice.choice(products): f"{dice.randrange(10**9)}.{dice.randrange(10**12):012}"}
        )
        for item in range(1, 10)
        for revision in range(1, 10)
    ]
    deliveries = [one for one in history for _ in range(dice.randrange(3))]
    dice.shuffle(deliveries)
    while deliveries:
        size = dice.randrange(1, 12)
        book_charges(connection, 1, deliveries[:size])
        deliveries = deliveries[size:]
    last = [one for one in history if one.revision == 9]
    book_charges(connection, 1, last)

    expected: dict[str, Decimal] = {}
    for one in last:
        account = ACCOUNTS[(one.billed_item_id - 1) // ITEMS_EACH]
        for amount in one.amounts:
            for name, signed in (
                (f"unbilled:{account}:EUR", Decimal(amount.amount)),
                (f"revenue:{amount.product}:EUR", -Decimal(amount.amount)),
            ):
                expected[name] = expected.get(name, Decimal(0)) + signed
    assert balances(connection) == expected
    assert set(booked_revisions(connection).values()) == {9}


def test_a_repeat_changes_nothing(connection: Connection) -> None:
    """What the sweep sends again is stale: no entry, no change of a row."""
    once = [charge(1, 3, compute="8.64"), charge(4, 2, disk="1")]
    book_charges(connection, 1, once)
    before = connection.execute("SELECT * FROM booked_charge ORDER BY 1").fetchall()
    assert book_charges(connection, 1, [*once, *once]) == {Result.STALE: 4}
    assert connection.execute("SELECT * FROM booked_charge ORDER BY 1").fetchall() == before
    assert count(connection, "ledger_entry") == 4


def test_a_new_revision_with_the_same_amount_moves_only_the_row(connection: Connection) -> None:
    """No entry of zero, yet the row says which revision is booked."""
    book_charges(connection, 1, [charge(1, 3, compute="8.64")])
    assert book_charges(connection, 1, [charge(1, 4, compute="8.640")]) == {Result.UNCHANGED: 1}
    assert booked_revisions(connection) == {1: 4}
    assert count(connection, "ledger_transaction") == 1


def test_a_charge_behind_the_current_total_is_booked(connection: Connection) -> None:
    """Trap 55: booked < charge <= current is enough, or a lagging stage would never book anything."""
    assert book_charges(connection, 1, [charge(1, 5, compute="1")]) == {Result.BOOKED: 1}
    assert book_charges(connection, 1, [charge(1, 4, compute="2")]) == {Result.STALE: 1}
    assert booked_revisions(connection) == {1: 5}


def test_a_charge_newer_than_the_current_total_waits(connection: Connection) -> None:
    """A revision that no total has cannot be right; nothing is left behind of it."""
    assert book_charges(connection, 1, [charge(1, 10, compute="1")]) == {Result.AHEAD: 1}
    assert booked_revisions(connection) == {}


def test_a_charge_of_another_generation_is_left_aside(connection: Connection, database_url: str) -> None:
    """Trap 38: after a restore old charges cannot win, and new ones win over any revision booked before."""
    book_charges(connection, 1, [charge(1, 9, compute="9")])
    with closing(connect(database_url, application_name="tests", role=None)) as owner:
        owner.execute("UPDATE installation SET generation = 2")
        owner.execute("UPDATE usage_total SET generation = 2, revision = 1")
    assert book_charges(connection, 1, [charge(2, 1, compute="5")]) == {Result.WRONG_GENERATION: 1}
    assert book_charges(connection, 2, [charge(1, 1, compute="4")]) == {Result.BOOKED: 1}
    assert balances(connection) == {"unbilled:acme:EUR": Decimal(4), "revenue:compute:EUR": Decimal(-4)}


@pytest.mark.parametrize("outcome", ["no_price", "failed"])
def test_an_unrated_item_leaves_its_neighbours_and_what_is_posted(connection: Connection, outcome: Outcome) -> None:
    """Trap 36: the others are booked; its own postings stay, its row says why, and a rated charge mends it."""
    book_charges(connection, 1, [charge(1, 1, compute="8")])
    results = book_charges(connection, 1, [charge(1, 2, outcome), charge(2, 1, disk="3")])
    assert results == {Result.UNRATED: 1, Result.BOOKED: 1}
    assert balances(connection)["unbilled:acme:EUR"] == 11
    row = connection.execute("SELECT outcome, reason FROM booked_charge WHERE billed_item_id = 1").fetchone()
    assert row == (outcome, f"{outcome}: for a reason")
    book_charges(connection, 1, [charge(1, 3, compute="9")])
    assert balances(connection)["unbilled:acme:EUR"] == 12


def test_a_charge_that_fits_no_column_leaves_its_neighbours(connection: Connection) -> None:
    """Trap 36: refused by our rules or by the database, it is left aside alone."""
    batch = [charge(item, 1, compute="1") for item in range(1, 10)]
    batch[3] = charge(4, 1, compute="0.0000000000001")
    batch[6] = charge(7, 1, "rated", **{"nul\0": "1"})
    batch.append(charge(999, 1, compute="1"))
    assert book_charges(connection, 1, batch) == {Result.BOOKED: 7, Result.FAILED: 2, Result.UNKNOWN: 1}
    assert set(booked_revisions(connection)) == {1, 2, 3, 5, 6, 8, 9}


def test_an_account_that_is_closing_is_left_aside(connection: Connection) -> None:
    """Traps 26 and 47: nothing is posted to it; other accounts are booked; afterwards the same charge is."""
    connection.execute("INSERT INTO billing_period VALUES ('acme', '2026-05-01Z', '2026-06-01Z', 'closing')")
    batch = [charge(1, 1, compute="1"), charge(4, 1, compute="2")]
    assert book_charges(connection, 1, batch) == {Result.DEFERRED: 1, Result.BOOKED: 1}
    assert booked_revisions(connection) == {4: 1}
    connection.execute("UPDATE billing_period SET state = 'cut'")
    assert book_charges(connection, 1, batch) == {Result.BOOKED: 1, Result.STALE: 1}


def test_the_sink_waits_for_the_closer_and_then_sees_its_mark(connection: Connection, database_url: str) -> None:
    """Trap 26: state is looked at after the lock is had, in a snapshot of its own."""
    results: list[posting.Results] = []
    with closing(connect(database_url, application_name="closer")) as closer:
        closer.execute("SELECT pg_advisory_lock(hashtextextended('account:acme', 0))")
        thread = threading.Thread(target=lambda: results.append(book_charges(connection, 1, [charge(1, 1, a="1")])))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        closer.execute("INSERT INTO billing_period VALUES ('acme', '2026-06-01Z', '2026-07-01Z', 'closing')")
        closer.execute("SELECT pg_advisory_unlock(hashtextextended('account:acme', 0))")
        thread.join(10)
    assert results == [{Result.DEFERRED: 1}]


def test_sinks_side_by_side_book_once(connection: Connection, database_url: str) -> None:
    """Trap 45: four sinks with the same charges, new items and new ledger accounts, in different orders."""
    history = [
        charge(item, revision, compute=f"{item}.{revision}") for item in range(1, 10) for revision in range(1, 10)
    ]
    start = threading.Barrier(4)
    faults: list[BaseException] = []

    def sink(seed: int) -> None:
        mine = history.copy()
        random.Random(seed).shuffle(mine)
        try:
            with closing(connect(database_url, application_name=f"sink-{seed}")) as own:
                start.wait()
                for few in _batches(mine, 9):
                    book_charges(own, 1, few)
        except BaseException as fault:
            faults.append(fault)
            raise

    threads = [threading.Thread(target=sink, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    expected = sum(Decimal(f"{item}.9") for item in range(1, 10))
    assert -balances(connection)["revenue:compute:EUR"] == expected
    assert set(booked_revisions(connection).values()) == {9}


def test_many_accounts_are_booked_in_several_transactions(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is cut by accounts and items; nothing is lost at the cuts."""
    monkeypatch.setattr(posting, "ACCOUNTS_MAX", 2)
    monkeypatch.setattr(posting, "ITEMS_MAX", 4)
    assert book_charges(connection, 1, [charge(item, 1, a="1") for item in range(1, 10)]) == {Result.BOOKED: 9}
    assert count(connection, "ledger_transaction") == 9


@dataclass
class Message:
    """A message of billing.charges."""

    content: bytes
    at: int

    def value(self) -> bytes:
        return self.content

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at


@dataclass
class Log:
    """A consumer over a list of messages; begins again where the hint says, as the broker would."""

    messages: list[Message]
    committed: int = 0
    at: int = 0
    hints_lost: bool = field(default=False)

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        batch = self.messages[self.at : self.at + messages_max]
        self.at += len(batch)
        return batch

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        if self.hints_lost:
            raise KeyboardInterrupt
        self.committed = offsets_next[0]

    def close(self) -> None:
        self.at = self.committed


def test_a_kill_between_commit_and_hint_changes_nothing(connection: Connection, database_url: str) -> None:
    """The messages come again and are stale."""
    packed = pack_charges(1, [charge(item, 2, compute="1") for item in range(1, 10)])
    log = Log([Message(packed[0], 0)], hints_lost=True)

    def connect_again() -> Connection:
        return connect(database_url, application_name="sink")

    killed = Worker(connect_again, log, Health("ledger_sink"))
    with pytest.raises(KeyboardInterrupt):
        killed.step()
    killed.close()
    before = balances(connection)
    log.hints_lost = False
    with closing(Worker(connect_again, log, Health("ledger_sink"))) as worker:
        assert worker.step() == 9
    assert (
        balances(connection)
        == before
        == {
            **{f"unbilled:{account}:EUR": Decimal(3) for account in ACCOUNTS},
            "revenue:compute:EUR": Decimal(-9),
        }
    )


def test_a_lost_connection_loses_no_charge(connection: Connection, database_url: str) -> None:
    """The step fails as transient, the same messages are booked by the next, on a new connection."""
    bad = b'{"generation":1,"charges":[{"revision":0}]}'
    good = pack_charges(1, [charge(1, 2, compute="1")])[0]
    log = Log([Message(good, 0), Message(b"no json", 1), Message(bad, 2)])
    health = Health("ledger_sink")
    with closing(Worker(lambda: connect(database_url, application_name="doomed-sink"), log, health)) as worker:
        with closing(connect(database_url, application_name="killer", role=None)) as killer:
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed-sink'"
            )
        with pytest.raises(TransientFault):
            worker.step()
        stop = threading.Event()
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        while log.committed < 3 and thread.is_alive():
            stop.wait(0.02)
        stop.set()
        thread.join(10)
    assert booked_revisions(connection) == {1: 2}


def test_a_fault_of_the_consumer_ends_the_worker(connection: Connection, database_url: str) -> None:
    """A consumer that lost its place stands still: the process ends and is started again, it does not wait for ever."""

    class Broken(Log):
        def poll_batch(self, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
            raise TransientFault("the broker does not tell the group's offsets")

    worker = Worker(lambda: connect(database_url, application_name="sink"), Broken([]), Health("ledger_sink"))
    with closing(worker), pytest.raises(TransientFault):
        worker.run(threading.Event())


def test_charges_come_from_kafka_into_the_books(
    connection: Connection, database_url: str, bootstrap_servers: str, fresh_topics: FreshTopics
) -> None:
    """The sink reads the topic from where it is told to begin and books what is in it, also the second time."""
    topic = fresh_topics(3)["billing.charges"]
    with LogProducer(bootstrap_servers) as producer:
        for item in range(1, 10):
            for message in pack_charges(1, [charge(item, 2, compute="1")]):
                producer.send(topic, None, message)
        producer.flush()

    def begin(partitions: Sequence[int]) -> dict[int, int]:
        lows = watermarks(bootstrap_servers, topic)
        return {partition: lows[partition][0] for partition in partitions}

    for _ in range(2):
        consumer = LogConsumer(bootstrap_servers, topic, topic, 0, on_assign=begin, on_revoke=lambda _: None)
        with closing(Worker(lambda: connect(database_url, application_name="sink"), consumer, Health("x"))) as worker:
            seen = 0
            while seen < 9:
                seen += worker.step()
    assert -balances(connection)["revenue:compute:EUR"] == 9


def _insert_entries(connection: Connection, *amounts: str) -> None:
    accounts = store.get_or_create(connection, [unbilled("acme", "EUR"), revenue("compute", "EUR")])
    (row,) = connection.execute(
        "INSERT INTO ledger_transaction (key, kind) VALUES ('by hand', 'usage') RETURNING ledger_transaction_id"
    ).fetchall()
    connection.execute(
        "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency)"
        " SELECT %s, account, amount, 'EUR' FROM unnest(%s::bigint[], %s::numeric[]) AS e (account, amount)",
        (row[0], list(accounts.values()), list(amounts)),
    )


@pytest.mark.parametrize("role", [None, "rackmeter_app"])
def test_the_database_refuses_unbalanced_entries(connection: Connection, database_url: str, role: str | None) -> None:
    """Law 5, said by the database to everybody; the sink calls it a broken invariant, not a bad charge."""
    with closing(connect(database_url, application_name="tests", role=role)) as own:
        with pytest.raises(InvariantViolation, match="out of balance"), store.booking_transaction(own):
            _insert_entries(own, "1", "-1.000000000001")
        with store.booking_transaction(own):
            _insert_entries(own, "1", "-1")


@pytest.mark.parametrize("role", [None, "rackmeter_app"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entry SET amount = -amount",
        "DELETE FROM ledger_entry",
        "TRUNCATE ledger_entry CASCADE",
        "UPDATE ledger_transaction SET key = key || '!'",
        "DELETE FROM ledger_transaction",
    ],
)
def test_the_database_refuses_to_change_what_is_posted(
    connection: Connection, database_url: str, role: str | None, statement: str
) -> None:
    """Law 5: posted entries never change, whoever asks."""
    book_charges(connection, 1, [charge(1, 3, compute="8.64")])
    refusals = (psycopg.errors.RestrictViolation, psycopg.errors.InsufficientPrivilege)
    with closing(connect(database_url, application_name="tests", role=role)) as own, pytest.raises(refusals):
        own.execute(statement.encode())
    assert balances(connection)["unbilled:acme:EUR"] == Decimal("8.64")


def test_a_value_no_column_takes_is_a_rejected_record(connection: Connection) -> None:
    """The sink tells a bad value from a lost connection, so that it splits the batch instead of waiting."""
    with pytest.raises(RejectedRecord), store.booking_transaction(connection):
        store.get_or_create(connection, [unbilled("nobody", "EUR")])


def _batches(charges: Sequence[Charge], size: int) -> Iterator[Sequence[Charge]]:
    for at in range(0, len(charges), size):
        yield charges[at : at + size]
