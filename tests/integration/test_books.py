"""The books can be looked at, checked by other people's programs, and followed from a posting to events and back."""

import csv
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.reports.plain_text import ROOTS
from tests.integration.books_world import ODD_NAME, closed_world, data, run
from tests.integration.proof_world import World

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def world(server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closed_world(server_url, migrated_template, tmp_path_factory.mktemp("books")) as built:
        yield built


def scalar(world: World, query: str, *parameters: object) -> Any:
    with world.admin() as admin:
        row = admin.execute(query, parameters).fetchone()
    return None if row is None else row[0]


def test_accounts_sum_to_zero_and_can_be_picked(world: World) -> None:
    """Balances are exact decimal text; what is picked is part of the whole."""
    rows = data(world, "ledger", "accounts")
    assert sum(Decimal(row["balance"]) for row in rows) == 0
    assert data(world, "ledger", "accounts", "--kind", "revenue") == [row for row in rows if row["kind"] == "revenue"]
    assert data(world, "ledger", "accounts", "--account", "acme") == [row for row in rows if row["account"] == "acme"]


def test_every_statement_ends_at_the_balance(world: World) -> None:
    """Each entry stands with the balance behind it; the last is the account's."""
    for account in data(world, "ledger", "accounts"):
        rows = data(world, "ledger", "statement", account["name"])
        balance = Decimal(0)
        for row in rows:
            balance += Decimal(row["debit"]) - Decimal(row["credit"])
            assert Decimal(row["balance"]) == balance
        assert balance == Decimal(account["balance"])
        assert len(rows) == account["entries"]


def test_a_statement_can_be_cut(world: World) -> None:
    """By service month, and by when it was booked, with what was before."""
    name = "unbilled:acme:EUR"
    assert data(world, "ledger", "statement", name, "--period", "2013-07") == data(world, "ledger", "statement", name)
    assert data(world, "ledger", "statement", name, "--period", "2013-06") == []
    tomorrow = run(world, "ledger", "statement", name, "--from", "2100-01-01")
    assert (tomorrow.exit_code, "no entry" in tomorrow.stderr) == (0, True)
    first, second = data(world, "ledger", "statement", name)[:2]
    cut = run(world, "ledger", "statement", name, "--from", second["booked_at"], "--format", "csv")
    if first["booked_at"] != second["booked_at"]:
        assert f"before: {first['balance']} EUR" in cut.stderr
    with pytest.raises(ConfigurationFault, match="ledger accounts"):
        run(world, "ledger", "statement", "unbilled:nobody:EUR")


def test_a_posting_is_shown_with_line_and_place_in_the_chain(world: World) -> None:
    """By its number or its key; its entries say which line took them."""
    number = scalar(world, "SELECT min(ledger_transaction_id) FROM ledger_transaction WHERE kind = 'usage'")
    rows = data(world, "ledger", "show", str(number))
    assert data(world, "ledger", "show", rows[0]["key"]) == rows
    assert sum(Decimal(row["debit"]) - Decimal(row["credit"]) for row in rows) == 0
    assert {row["invoice"] for row in rows if row["ledger_account"].startswith("unbilled")} <= {
        "RM-2013-0001",
        "RM-2013-0002",
    }
    assert re.fullmatch("[0-9a-f]{64}", rows[0]["hash"])
    assert "position" in run(world, "ledger", "show", str(number)).stdout
    with pytest.raises(ConfigurationFault, match="no posting"):
        run(world, "ledger", "show", "9" * 18)


def test_verify_says_head_and_differences(world: World) -> None:
    """The head it prints is the one a later run takes; a wrong one is exit code 1."""
    (said,) = data(world, "ledger", "verify")
    assert (said["unsealed"], said["differences"]) == (0, [])
    assert run(world, "ledger", "verify", "--head", said["head"]).exit_code == 0
    assert run(world, "ledger", "verify", "--head", "1:" + "0" * 64).exit_code == 1
    assert run(world, "ledger", "verify", "--head", "1:abc").exit_code == 2


def exported(world: World, dialect: str, folder: Path) -> Path:
    file = folder / f"books.{dialect}"
    assert run(world, "ledger", "export", "--format", dialect, "--output", str(file)).exit_code == 0
    assert run(world, "ledger", "export", "--format", dialect).stdout == file.read_text(encoding="utf-8")
    return file


def bean_check(file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "bean-check"
    return subprocess.run([program, "--no-cache", file], capture_output=True, text=True, check=False)


def hledger(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("hledger") is None:
        pytest.fail("hledger is not here: apt-get install -y hledger", pytrace=False)
    command = ["hledger", "-f", str(file), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/usr/local/bin"}
    )


def test_beancount_accepts_the_books(world: World, tmp_path: Path) -> None:
    """Accounts, transactions and balances as bean-check reads them; a change of the last decimal is refused."""
    file = exported(world, "beancount", tmp_path)
    checked = bean_check(file)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

    assert bean_check(last_decimal_changed(file, "beancount")).returncode != 0


@pytest.mark.tools
def test_hledger_accepts_the_books(world: World, tmp_path: Path) -> None:
    """With every check of strict mode, and dates in order; a change of the last decimal is refused."""
    file = exported(world, "hledger", tmp_path)
    checked = hledger(file, "check", "--strict", "ordereddates")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

    assert hledger(last_decimal_changed(file, "hledger"), "check").returncode != 0


@pytest.mark.tools
def test_hledger_has_the_same_balances(world: World, tmp_path: Path) -> None:
    """Summed by somebody else's program, digit for digit, account by account."""
    answer = hledger(exported(world, "hledger", tmp_path), "bal", "--flat", "--empty", "--no-total", "-O", "csv")
    found = {row["account"]: Decimal(row["balance"].split()[0]) for row in csv.DictReader(io.StringIO(answer.stdout))}
    wanted = {
        re.sub("^[a-z]+:", "", name): Decimal(row["balance"])
        for row in data(world, "ledger", "accounts")
        for name in [f"x:{row['name']}"]
    }
    odd = next(name for name in found if "%3B" in name)
    found[f"income:revenue:{ODD_NAME}:EUR"] = found.pop(odd)

    assert {name.partition(":")[2]: balance for name, balance in found.items()} == wanted


def last_decimal_changed(file: Path, dialect: str) -> Path:
    """The same file with two entries of one transaction moved by 10^-12: it balances, and is not what was booked."""
    lines = file.read_text(encoding="utf-8").splitlines()
    places = [place for place, line in enumerate(lines) if re.match(r" +[Aa]ssets:[Uu]nbilled\S+  \d.*[0-8] EUR", line)]
    first = places[0]
    other = next(place for place in range(first + 1, first + 6) if re.match(r" +[Ii]ncome:", lines[place]))
    for place in (first, other):
        amount = re.search(r"  (-?[0-9.]+) EUR", lines[place])
        assert amount is not None
        moved = Decimal(amount[1]) + (Decimal("1E-12") if place == first else Decimal("-1E-12"))
        lines[place] = lines[place].replace(amount[1], f"{moved:f}")
    changed = file.with_name(f"changed.{dialect}")
    changed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return changed


def test_every_kind_of_account_can_be_exported(world: World) -> None:
    """A kind that the database knows and the export has no place for fails here first."""
    check = scalar(
        world, "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ledger_account_kind_ck'"
    )
    assert set(re.findall("'([a-z_]+)'", check)) == ROOTS.keys()
