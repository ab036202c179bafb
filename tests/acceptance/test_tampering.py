"""Whatever is changed behind a closed month's back, `verify` fails and names it."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import ClosedRun
from tests.support.databases import copied_database
from tests.support.installation import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.real]

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture
def closed(closed_run: ClosedRun, server_url: str) -> Iterator[Installation]:
    """The closed run with a copy of its database, to be tampered with."""
    original = closed_run.installation
    with copied_database(server_url, closed_run.database_name) as (_, url):
        yield replace(original, settings=replace(original.settings, database_url=url))


@pytest.fixture
def closed_with_archive(closed: Installation, tmp_path: Path) -> Installation:
    """The same with a copy of its archive."""
    shutil.copytree(closed.settings.archive_dir, tmp_path / "archive")
    return replace(closed, settings=replace(closed.settings, archive_dir=tmp_path / "archive"))


def tamper(installation: Installation, *statements: str) -> None:
    """Change rows as only a superuser can who has switched the triggers off."""
    with psycopg.connect(installation.settings.database_url, autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")
        for statement in statements:
            assert admin.execute(statement.encode()).rowcount > 0, statement


def largest_file(archive_dir: Path) -> Path:
    return max(archive_dir.rglob("*.parquet"), key=lambda path: (path.stat().st_size, path.name))


def changed(table: pa.Table) -> pa.Table:
    values = table.column("value").to_pylist()
    index = next(index for index, value in enumerate(values) if b'"cpu_cores":"' in value)
    values[index] = values[index].replace(b'"cpu_cores":"', b'"cpu_cores":"1')
    return table.set_column(table.schema.get_field_index("value"), table.schema.field("value"), pa.array(values))


def removed(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 5), table.slice(6)])


def added(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def rewrite(path: Path, change: Change) -> None:
    pq.write_table(change(pq.read_table(path)), path, compression="zstd")


@pytest.mark.parametrize("change", [changed, removed, added])
def test_archive_row(closed_with_archive: Installation, change: Change) -> None:
    """A changed, removed or added row of the archive is found by its file's digest."""
    path = largest_file(closed_with_archive.settings.archive_dir)
    rewrite(path, change)
    (difference,) = closed_with_archive.verify().differences
    assert path.name in difference
    assert "an archive row was changed, added or removed" in difference


@pytest.mark.parametrize("change", [changed, removed, added])
def test_archive_row_with_manifest(closed_with_archive: Installation, change: Change) -> None:
    """Whoever corrects the manifest too is given away by the seal in every invoice, and by what the events say."""
    archive_dir = closed_with_archive.settings.archive_dir
    path = largest_file(archive_dir)
    rewrite(path, change)
    digest, row_count = hashlib.sha256(path.read_bytes()).hexdigest(), pq.read_metadata(path).num_rows
    tamper(
        closed_with_archive,
        f"UPDATE archive_file SET digest = '{digest}', row_count = {row_count}, byte_count = {path.stat().st_size}"
        f" WHERE path = '{path.relative_to(archive_dir).as_posix()}'",
    )
    report = closed_with_archive.verify()
    assert sum("manifest_digest" in difference for difference in report.differences) == len(report.invoices)
    assert any("manifest_digest" not in difference for difference in report.differences)


TAMPERED = {
    "price": (
        """UPDATE price_version SET parameters = jsonb_set(parameters, '{unit_price}', '"0.0061"')
        WHERE price = 'cpu_standard'""",
        ["a meter, price, binding or subscription was changed", "amount"],
    ),
    "assignment": (
        """UPDATE assignment SET valid_from = valid_from + interval '1 hour'
        WHERE valid_from > '2013-07-02Z'""",
        ["an assignment was changed", "quantity"],
    ),
    "bucket": (
        """UPDATE usage_bucket SET quantity = quantity + 0.000000000000001
        WHERE ctid = (SELECT ctid FROM usage_bucket WHERE quantity > 0 ORDER BY slot_start, series_id LIMIT 1)""",
        ["usage: bucket of"],
    ),
    "charge": (
        """UPDATE booked_charge SET amounts = jsonb_set(amounts, '{0,amount}', '"0.01"')
        WHERE billed_item_id = (SELECT min(billed_item_id) FROM booked_charge WHERE amounts <> '[]')""",
        ["booked charge of"],
    ),
    "posting": (
        """UPDATE ledger_entry SET amount = amount + 0.000000000001
        WHERE ledger_entry_id = (SELECT min(ledger_entry_id) FROM invoice_entry)""",
        ["its postings sum to", "out of balance"],
    ),
    "posting and its counterpart": (
        """UPDATE ledger_entry SET amount = amount * 2 WHERE ledger_transaction_id =
        (SELECT min(ledger_transaction_id) FROM ledger_entry JOIN invoice_entry USING (ledger_entry_id))""",
        ["its postings sum to"],
    ),
    "line": (
        """UPDATE invoice_line SET amount_exact = amount_exact + 0.01, amount_minor = amount_minor + 1
        WHERE (invoice_id, line_number) = (SELECT invoice_id, line_number FROM invoice_line ORDER BY 1, 2 LIMIT 1)""",
        ["line 1 of invoice", "its postings sum to"],
    ),
    "number": (
        "UPDATE invoice SET number = 'RM-2013-0011' WHERE number = 'RM-2013-0004'",
        ["number 4 of series 2013 of rackmeter-hosting is missing"],
    ),
    "document": (
        """UPDATE invoice SET document = jsonb_set(document, '{total}', '"0.01"') WHERE number = 'RM-2013-0004'""",
        ["its document was changed"],
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_row(closed: Installation, what: str) -> None:
    """A changed price, assignment, bucket, charge, posting, line, number or document is named."""
    statement, named = TAMPERED[what]
    tamper(closed, statement)
    report = closed.verify()
    assert not report.ok
    for words in named:
        assert any(words in difference for difference in report.differences), report.differences


def test_the_command_says_so(closed: Installation) -> None:
    """`rackmeter verify` ends with 0 where nothing was changed, and with 1 and the difference where something was."""
    process = closed.command("verify")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "10 invoices proven" in said
    statement, (words,) = TAMPERED["bucket"]
    tamper(closed, statement)
    process = closed.command("verify", "--period", "2013-07")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert words in said
