"""`rackmeter demo` as a newcomer runs it: with a trace of theirs, again, and stopped whenever they like."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.runtime.settings import checkout_dir
from tests.support.leftovers import await_none

pytestmark = [pytest.mark.acceptance, pytest.mark.real]

DEMO_SECONDS_MAX = 150.0
STOP_SECONDS_MAX = 60.0
INTERRUPTED = 130
MISCONFIGURED = 78
LINK = re.compile(r'(?:href|src)="([^"#]+)"')


def start(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the demo with its own broker and database, whatever this machine's environment says."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", "--root", str(root), *arguments],
        cwd=checkout_dir(),
        env=environment | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(root: Path, *arguments: str) -> tuple[int, str]:
    process = start(root, *arguments)
    try:
        said, _ = process.communicate(timeout=DEMO_SECONDS_MAX)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


@dataclass(frozen=True, slots=True)
class DemoRun:
    """The demo's folder and what it said, run to its end."""

    root: Path
    code: int
    said: str

    @property
    def documents(self) -> Path:
        """Where the invoices are."""
        return self.root / "run-0001" / "documents"

    def invoices(self) -> dict[str, bytes]:
        """Every document but the summary page, which tells of its run."""
        return {
            str(path.relative_to(self.documents)): path.read_bytes()
            for path in self.documents.rglob("*")
            if path.is_file() and path.name != "summary.html"
        }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, small_trace: Path) -> Iterator[DemoRun]:
    """One demo of the small trace."""
    root = tmp_path_factory.mktemp("demo")
    yield DemoRun(root, *run(root, "--trace", str(small_trace)))
    assert await_none(root) == []


def count_of(said: str, name: str) -> int:
    match = re.search(rf"^ *{name} +([0-9,]+) *$", said, re.MULTILINE)
    assert match is not None, f"{name} is not told:\n{said}"
    return int(match[1].replace(",", ""))


def test_to_proven_invoices(demo: DemoRun, small_trace: Path) -> None:
    """It tells every count, every invoice, a trial balance of zero, the proof, and where the documents lie."""
    assert demo.code == 0, demo.said
    samples = len(small_trace.read_text().splitlines()) - 1
    assert count_of(demo.said, "sent now") == count_of(demo.said, "received in all") == samples + 20
    assert count_of(demo.said, "counted") == samples
    assert count_of(demo.said, "duplicate") == 0
    assert len(re.findall(r"^ *RM-2013-\d{4} .*issued", demo.said, re.MULTILINE)) == 10
    assert re.search(r"^trial balance: 0 EUR over [0-9]+ ledger accounts$", demo.said, re.MULTILINE)
    assert re.search(r"^proof: [1-9][0-9]* invoice lines recomputed .*every one proven$", demo.said, re.MULTILINE)
    assert f"documents: {demo.documents}" in demo.said
    assert f"summary page: {demo.documents / 'summary.html'}" in demo.said


def test_documents(demo: DemoRun) -> None:
    """There is a page, a JSON file and CSV rows for every invoice, and no link of the summary page leads nowhere."""
    names = sorted(path.name for path in (demo.documents / "2013-07").iterdir())
    numbers = [f"RM-2013-{number:04d}" for number in range(1, 11)]
    wanted = [f"{number}.{kind}" for number in numbers for kind in ("html", "json")]
    assert names == sorted([*wanted, "invoices.csv", "lines.csv"])
    summary = demo.documents / "summary.html"
    links = LINK.findall(summary.read_text(encoding="utf-8"))
    assert len(links) >= 2 * len(numbers) + 2
    missing = [link for link in links if not (summary.parent / link).is_file()]
    assert missing == []


def test_same_invoices_as_the_stages_alone(demo: DemoRun, closed_run_invoices: dict[str, bytes]) -> None:
    """What is injected besides, and how it is run, makes no difference to an invoice."""
    invoices = {name: content for name, content in demo.invoices().items() if name.endswith((".html", ".json"))}
    assert invoices == closed_run_invoices


def test_again(demo: DemoRun, small_trace: Path) -> None:
    """Replayed into the same folder, every event is a duplicate and no document changes."""
    before = demo.invoices()
    code, said = run(demo.root, "--trace", str(small_trace), "--again")
    assert code == 0, said
    sent = count_of(demo.said, "sent now")
    assert count_of(said, "duplicate") == sent
    assert count_of(said, "counted") == count_of(demo.said, "counted")
    assert len(re.findall(r"^ *RM-2013-\d{4} .*already_issued", said, re.MULTILINE)) == 10
    assert demo.invoices() == before
    assert [path.name for path in demo.root.iterdir()] == ["run-0001"]


#: After which words Ctrl-C comes, and how many seconds later.
MOMENTS = {
    "as the database is made": ("trace:", 0.4),
    "as the broker starts": ("broker:", 0.5),
    "as events are sent": ("sending events", 0.0),
    "in the close": ("closing 2013-07", 0.7),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted(tmp_path: Path, small_trace: Path, moment: str) -> None:
    """Ctrl-C at any point ends it with 130 and leaves nothing running."""
    words, delay_seconds = MOMENTS[moment]
    process = start(tmp_path, "--trace", str(small_trace))
    lines: list[str] = []
    seen = threading.Event()

    def listen() -> None:
        for line in process.stdout or ():
            lines.append(line)
            if words in line:
                seen.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert seen.wait(DEMO_SECONDS_MAX), lines
        seen.clear()
        seen.wait(delay_seconds)
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS_MAX)
    finally:
        process.kill()
        process.wait()
        listener.join()
        if process.stdout is not None:
            process.stdout.close()
    assert process.returncode == INTERRUPTED, "".join(lines)
    assert lines[-1] == "rackmeter: stopped\n", "".join(lines)
    assert await_none(tmp_path) == []


def test_bad_trace(tmp_path: Path, small_trace: Path) -> None:
    """A bad trace is refused whole with file, line and column of each problem, before anything is started."""
    rows = small_trace.read_text().splitlines()[:6]
    cells = rows[2].split(",")
    rows[2] = ",".join([*cells[:4], "12,5", *cells[5:]])
    cells = rows[4].split(",")
    rows[4] = ",".join([cells[0], "yesterday", "-1", *cells[3:]])
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(rows) + "\n")
    code, said = run(tmp_path / "root", "--trace", str(bad))
    assert code == MISCONFIGURED, said
    assert f"{bad}:3: row: has 12 columns, not 11" in said
    assert f"{bad}:5: timestamp: 'yesterday' is not Unix seconds" in said
    assert f"{bad}:5: cpu_cores: -1 is negative" in said
    assert "broker" not in said
    assert not list((tmp_path / "root").rglob("kafka*"))


def test_trace_with_wrong_columns(tmp_path: Path, small_trace: Path) -> None:
    """Every column that is missing or unknown is named, on line 1."""
    header, row = small_trace.read_text().splitlines()[:2]
    bad = tmp_path / "bad.csv"
    bad.write_text(f"{header.replace('cpu_cores', 'cores').replace('net_tx_kb_s', 'net')}\n{row}\n")
    code, said = run(tmp_path / "root", "--trace", str(bad))
    assert code == MISCONFIGURED, said
    for name, message in (
        ("cpu_cores", "the column is missing"),
        ("net_tx_kb_s", "the column is missing"),
        ("cores", "is no column of a trace"),
        ("net", "is no column of a trace"),
    ):
        assert f"{bad}:1: {name}: {message}" in said
