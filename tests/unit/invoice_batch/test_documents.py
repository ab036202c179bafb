"""The documents of an invoice: the same content gives the same bytes, and they say what finance looks for."""

import csv
import io
import os
from pathlib import Path

import pytest

from pipeline.domain.keys import canonical_json
from pipeline.invoice_batch.documents.files import write_documents, write_whole
from pipeline.invoice_batch.documents.render import (
    BalanceRow,
    SummaryFacts,
    grouped,
    render_invoice,
    render_summary,
    shown_money,
    shown_quantity,
)
from pipeline.invoice_batch.frames import invoices_csv, lines_csv
from tests.unit.invoice_batch.samples import document

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("name", ["invoice.html", "invoice.json", "invoices.csv", "lines.csv"])
def test_documents_are_byte_for_byte_what_was_approved(name: str) -> None:
    """A change of any document shows in review; RACKMETER_APPROVE=1 writes the new ones."""
    made = {
        "invoice.html": lambda: render_invoice(document()).encode(),
        "invoice.json": lambda: canonical_json(document()) + b"\n",
        "invoices.csv": lambda: invoices_csv([document()]).encode(),
        "lines.csv": lambda: lines_csv([document()]).encode(),
    }[name]()
    if os.environ.get("RACKMETER_APPROVE"):
        (GOLDEN / name).write_bytes(made)
    assert made == (GOLDEN / name).read_bytes()


def test_an_invoice_loads_nothing_from_elsewhere() -> None:
    """A document reads the same without a network."""
    page = render_invoice(document())
    assert "http" not in page
    assert "src=" not in page
    assert "<script" not in page


def test_text_of_customers_is_never_markup() -> None:
    """A customer named like a tag cannot change the page."""
    bad = document()
    bad["buyer"]["name"] = "<script>alert(1)</script>"
    assert "<script>" not in render_invoice(bad)


def test_the_document_keeps_out_what_depends_on_the_run() -> None:
    """Ids the database dealt out and positions in the log would differ between runs of the same usage."""
    text = canonical_json(document()).decode()
    for word in ("price_version_id", "offsets", "billed_item_id", "manifest_digest", "proven_at"):
        assert word not in text


def test_the_last_day_is_shown_inclusive() -> None:
    """July ends on the 31st, though its period ends when August begins."""
    assert document()["service_period"]["last_day"] == "2013-07-31"
    assert "1 July 2013 – 31 July 2013" in render_invoice(document())


def test_a_correction_shows_what_was_charged_before_and_what_now() -> None:
    """Before plus this line is the charge of that period now."""
    late = document()["lines"][-1]
    assert (late["charged_before"], late["amount_exact"], late["charged_now"]) == (
        "1.604403744853",
        "-1.004403744853",
        "0.6",
    )


def test_numbers_read_well() -> None:
    """Thousands stand apart, minus is a minus, and a shortened quantity says so."""
    assert grouped("-1234567.50") == "−1\u202f234\u202f567.50"
    assert grouped("12") == "12"
    assert shown_quantity("0.0000004") == "≈ 0"
    assert shown_quantity("744.000") == "744"
    assert shown_money("5") == "5.00"
    assert shown_money("0.0025") == "0.0025"


def test_csv_amounts_stay_text() -> None:
    """pandas makes no floats of amounts: every digit of the document is in the CSV."""
    rows = list(csv.DictReader(io.StringIO(lines_csv([document()]))))
    assert [row["amount_exact"] for row in rows] == [line["amount_exact"] for line in document()["lines"]]
    assert list(csv.DictReader(io.StringIO(invoices_csv([]))))[0:] == []


def test_files_are_written_whole_and_made_again_when_missing(tmp_path: Path) -> None:
    """A lost or damaged file is restored from the document; one that is right is not touched."""
    paths = [Path(path) for path in write_documents([document()], tmp_path)]
    assert [path.name for path in paths] == ["RM-2013-0001.html", "RM-2013-0001.json", "invoices.csv", "lines.csv"]
    first, second = (path.read_bytes() for path in paths[:2])
    paths[0].unlink()
    paths[1].write_bytes(b"half")
    write_documents([document()], tmp_path)
    assert (paths[0].read_bytes(), paths[1].read_bytes()) == (first, second)
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    stamp = paths[2].stat().st_mtime_ns
    write_whole(paths[2], paths[2].read_bytes())
    assert paths[2].stat().st_mtime_ns == stamp


def test_the_summary_says_when_something_is_wrong() -> None:
    """Books that do not sum to zero and a failed proof are named in words."""
    page = render_summary(
        SummaryFacts(
            title="Close",
            period="July 2013",
            counts=[("sent", 1000)],
            invoices=[],
            trial_balance=[BalanceRow("rounding:EUR", "EUR", "0.01")],
            balance_sums={"EUR": "0.01"},
            proof_ok=False,
            proof_sentence="line 3: quantity 12.5, recomputed 12.6",
            held=["acme: server vm-1 never reported cpu"],
        )
    )
    assert "Out of balance." in page
    assert "Not proven." in page
    assert "server vm-1 never reported cpu" in page
