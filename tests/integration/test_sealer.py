"""The sealer chains what is committed, all of it, once; `ledger verify` finds and places whatever was changed since."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.domain.errors import InvariantViolation
from pipeline.runtime.journal import Journal
from tests.integration.books_world import Books, make_books

pytestmark = pytest.mark.real

KEYS = [f"usage:{number}" for number in range(1, 9)]


@pytest.fixture
def books(database_url: str, tmp_path: Path) -> Iterator[Books]:
    with make_books(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def sealed(books: Books) -> Books:
    """Eight transactions, sealed by three commits."""
    books.post(*KEYS)
    assert books.seal() == len(KEYS)
    return books


def test_everything_committed_is_sealed_once_and_verifies(sealed: Books) -> None:
    """In batches, over restarts; the proof recomputes the same hashes by its own."""
    assert sealed.seal() == 0
    sealed.post("later")
    assert sealed.seal() == 1

    report = sealed.verify()
    assert report.differences == ()
    assert (report.sealed, report.unsealed) == (9, 0)
    assert sealed.sealed() == [*KEYS, "later"]
    last = Journal(sealed.journal_dir).last("heads")
    assert last is not None
    assert (last.record["position"], last.record["hash"]) == (9, report.head)
    assert [line.record["position"] for line in Journal(sealed.journal_dir).backwards("heads")] == [9, 8, 6, 3, 0]


def test_a_slow_transaction_is_sealed_when_it_is_committed(books: Books) -> None:
    """Its row has a lower id than those committed before it; nothing that began after it is sealed ahead of it."""
    worker = books.worker()
    books.post("before")
    with contextlib.closing(books.connect()) as slow:
        with slow.transaction():
            books.post("slow", connection=slow)
            books.post("fast")
            assert worker.step() == 1
            assert books.sealed() == ["before"]
        assert worker.step() == 2
    worker.close()

    assert books.sealed() == ["before", "slow", "fast"]
    assert books.verify().differences == ()


def test_what_was_rolled_back_holds_nothing(books: Books) -> None:
    """A transaction that ended without a commit leaves a hole in the ids and none in the chain."""
    worker = books.worker()
    with contextlib.closing(books.connect()) as other, contextlib.suppress(ZeroDivisionError), other.transaction():
        books.post("never", connection=other)
        raise ZeroDivisionError
    books.post("after")

    assert worker.step() == 1
    worker.close()
    assert books.verify().differences == ()


def test_two_sealers_make_one_chain(books: Books) -> None:
    """One works, the other waits; it takes over when the first is gone."""
    first, second = books.worker(), books.worker()
    books.post("one")
    assert (first.step(), second.step()) == (1, 0)
    books.post("two")
    assert second.step() == 0
    first.close()
    # The server gives a lock back a moment after its holder went.
    give_up_at = time.monotonic() + 10
    while not second.step():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    second.close()
    assert books.verify().differences == ()


def test_a_head_that_a_crash_kept_inside_is_written_by_the_next_sealer(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the chain's commit and the journal's line a kill changes nothing that stays."""
    books.post("one")
    books.seal()
    before = (books.journal_dir / "heads.jsonl").read_bytes()
    books.post("two")
    books.seal()
    (books.journal_dir / "heads.jsonl").write_bytes(before)

    assert "it has no head for position 2" in books.verify().differences[0]
    books.seal()
    assert books.verify().differences == ()


CHANGES = {
    "an amount": "UPDATE ledger_entry SET amount = amount * 2 WHERE ledger_transaction_id = 4",
    "an account": (
        "UPDATE ledger_entry SET ledger_account_id = 3 - ledger_account_id, amount = -amount"
        " WHERE ledger_transaction_id = 4"
    ),
    "a service period": "UPDATE ledger_entry SET period_start = '2013-07-31T22:00Z' WHERE ledger_transaction_id = 4",
    "an entry taken away": "DELETE FROM ledger_entry WHERE ledger_entry_id = 7",
    "an entry added": (
        "INSERT INTO ledger_entry (ledger_transaction_id, ledger_account_id, amount, currency) VALUES (4, 1, 1, 'EUR')"
    ),
    "a key": "UPDATE ledger_transaction SET key = 'usage:400' WHERE ledger_transaction_id = 4",
    "a time": "UPDATE ledger_transaction SET booked_at = '2013-07-01Z' WHERE ledger_transaction_id = 4",
    "a transaction taken away": "DELETE FROM ledger_transaction WHERE ledger_transaction_id = 4",
    "a hash": "UPDATE ledger_chain SET hash = sha256('x') WHERE position = 4",
    "a position taken away": "DELETE FROM ledger_chain WHERE position = 4",
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_found_at_its_position(sealed: Books, what: str) -> None:
    """Whatever is changed, added or taken away in a sealed transaction or the chain is named by its position first."""
    sealed.tamper(CHANGES[what])

    first = sealed.verify().differences[0]
    assert "position 4:" in first or "positions 4 to 4 are missing" in first


def test_an_account_that_is_called_otherwise_is_found(sealed: Books) -> None:
    """Every posting to it says something else then."""
    sealed.tamper("UPDATE ledger_account SET name = 'revenue:other:EUR' WHERE kind = 'revenue'")
    assert "position 1:" in sealed.verify().differences[0]


def test_two_that_changed_places_are_found(sealed: Books) -> None:
    """The order of the chain is sealed too."""
    sealed.tamper(
        "UPDATE ledger_chain SET ledger_transaction_id = CASE position WHEN 4 THEN -4 ELSE -5 END"
        " WHERE position IN (4, 5)",
        "UPDATE ledger_chain SET ledger_transaction_id = 9 + ledger_transaction_id WHERE position IN (4, 5)",
    )
    assert "position 4:" in sealed.verify().differences[0]


def test_a_chain_made_anew_over_changed_books_is_found_by_what_is_outside(sealed: Books, tmp_path: Path) -> None:
    """Whoever owns the database can rewrite all hashes so that they fit; the heads in the journal stay."""
    sealed.tamper(
        "UPDATE ledger_entry SET amount = amount * 2 WHERE ledger_transaction_id = 4", "DELETE FROM ledger_chain"
    )
    forged = Books(sealed.database_url, tmp_path / "forged", sealed.owner)
    forged.journal_dir.mkdir()
    forged.seal()
    assert forged.verify().differences == ()

    assert "journal: position 6 has another hash than the journal's head 3" in sealed.verify().differences


def test_a_chain_cut_at_its_end_is_found_by_what_is_outside(sealed: Books) -> None:
    """With its transactions gone too, nothing inside says that there were more."""
    sealed.tamper(
        "DELETE FROM ledger_chain WHERE position > 6",
        "DELETE FROM ledger_entry WHERE ledger_transaction_id > 6",
        "DELETE FROM ledger_transaction WHERE ledger_transaction_id > 6",
    )

    assert sealed.verify().differences == ("journal: the chain ends at 6; the journal says it came to 8",)
    with pytest.raises(InvariantViolation, match="came to position 8"):
        sealed.seal()


def test_a_transaction_slipped_in_behind_the_sealer_is_found(sealed: Books) -> None:
    """Posted as if it had been there before what is sealed."""
    sealed.tamper("INSERT INTO ledger_transaction (key, kind, posted_xid) VALUES ('forged', 'usage', '3')")
    (first,) = sealed.verify().differences
    assert first.startswith("presence: transaction 9 (forged) is not in the chain")


def test_a_journal_cut_at_its_end_is_found(sealed: Books) -> None:
    """Every commit of the sealer has its head outside: also those that were followed by others."""
    file = sealed.journal_dir / "heads.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-2]))

    assert sealed.verify().differences == (
        "journal: it has no head for position 6",
        "journal: it has no head for position 8",
    )
    sealed.post("later")
    sealed.seal()
    assert sealed.verify().differences == ("journal: it has no head for position 6",)


def test_a_journal_that_was_altered_is_found(sealed: Books) -> None:
    """A line in its middle, and its last one too."""
    file = sealed.journal_dir / "heads.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*whole[:2], whole[2].replace(b'"position":6', b'"position":5'), *whole[3:]]))
    assert any("line 4 does not go on" in text for text in sealed.verify().differences)

    file.write_bytes(b"".join([*whole[:-1], whole[-1].replace(b'"position":8', b'"position":7')]))
    assert any("position 7 has another hash" in text for text in sealed.verify().differences)


def test_an_emptied_journal_stops_the_sealer(sealed: Books) -> None:
    """A chain without one head outside is no beginning; neither is the journal of another database."""
    shutil.rmtree(sealed.journal_dir)
    sealed.journal_dir.mkdir()
    with pytest.raises(InvariantViolation, match="not one head"):
        sealed.seal()

    sealed.owner.execute("UPDATE installation SET database_id = gen_random_uuid()")
    Journal(sealed.journal_dir).append(
        "heads", [{"database_id": "another", "generation": 1, "position": 0, "hash": "00"}]
    )
    with pytest.raises(InvariantViolation, match="belongs to the database another"):
        sealed.seal()


def test_a_restored_database_is_noticed_by_the_sealer(sealed: Books) -> None:
    """It lacks what the journal says, also where new postings have made the chain as long again."""
    sealed.tamper(
        "DELETE FROM ledger_chain WHERE position > 6",
        "DELETE FROM ledger_entry WHERE ledger_transaction_id > 6",
        "DELETE FROM ledger_transaction WHERE ledger_transaction_id > 6",
    )
    elsewhere = Books(sealed.database_url, sealed.journal_dir.parent / "elsewhere", sealed.owner)
    elsewhere.journal_dir.mkdir()
    heads = (sealed.journal_dir / "heads.jsonl").read_bytes().splitlines(keepends=True)
    (elsewhere.journal_dir / "heads.jsonl").write_bytes(b"".join(heads[:3]))
    elsewhere.post("new 1", "new 2")
    elsewhere.seal()

    with pytest.raises(InvariantViolation, match="does not have it"):
        sealed.seal()


def test_postings_copied_in_from_a_longer_life_are_sealed(books: Books) -> None:
    """A dump brings transaction ids that this server has not come to yet; they are committed all the same."""
    books.tamper("INSERT INTO ledger_transaction (key, kind, posted_xid) VALUES ('copied', 'usage', '99999999999')")
    books.post("new")
    worker = books.worker()
    assert worker.step() == 2
    books.post("newer")
    assert worker.step() == 1
    worker.close()
    assert books.verify().differences == ()


def test_a_head_kept_elsewhere_is_compared(sealed: Books) -> None:
    """The head that somebody printed or mailed needs no journal."""
    head = sealed.verify().head
    assert sealed.verify((8, head)).differences == ()
    assert sealed.verify((8, "00" * 32)).differences == (f"head: position 8 has the hash {head}, not the given",)
    assert "hash of nothing" in sealed.verify((9, head)).differences[0]
