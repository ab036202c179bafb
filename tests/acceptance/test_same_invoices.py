"""The same events make the same invoices, to the byte, however they come, however many work, and whoever is killed."""

import subprocess
from collections.abc import Callable

import pytest

from pipeline.bootstrap import STAGES
from pipeline.ingest.replay import ReplayOptions, ReplayReport
from pipeline.invoice_batch.model import Step
from tests.acceptance.conftest import ClosedRun, MakeInstallation
from tests.support.installation import FAULTS_SEED, Installation, Tally, Workers
from tests.support.kills import KillingProducer

pytestmark = [pytest.mark.acceptance, pytest.mark.real]

CLOSE_SECONDS_MAX = 120.0
KILLED = -9


def close(installation: Installation) -> None:
    run = installation.close()
    assert run.exit_code == 0, run.results


def finish(installation: Installation, process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Watch over the stages until a process ends."""
    try:
        installation.wait_for(lambda: process.poll() is not None, "a close to end", CLOSE_SECONDS_MAX)
    finally:
        process.kill()
        said, _ = process.communicate()
    return process.returncode, said


def check_books(installation: Installation, sent: ReplayReport) -> None:
    """Nothing is lost, nothing is counted twice, debits are credits, and the second implementation agrees."""
    tally = installation.tally()
    quarantined, parked = sum(sent.quarantined.values()), sum(sent.parked.values())
    assert tally == Tally(
        received=sent.events_sent,
        counted=sent.sample_count,
        duplicate=sent.duplicate_count,
        conflict=0,
        quarantined=quarantined,
        parked=parked,
        control=sent.control_count,
    )
    assert set(installation.balances().values()) == {0}
    report = installation.verify()
    assert report.differences == ()
    assert report.lines_compared > 0


def check_again(installation: Installation, sent: ReplayReport, options: ReplayOptions) -> None:
    """Replayed again, everything is known: no bucket, no posting and no document changes."""
    before, books, documents = installation.tally(), installation.books(), installation.documents()
    installation.replay(options)
    installation.wait_until_read()
    close(installation)
    came = installation.tally().minus(before)
    assert came.received == sent.events_sent
    assert (came.counted, came.conflict, came.control) == (0, 0, 0)
    # What has no readable id cannot be known again.
    assert came.duplicate + came.quarantined + came.parked == sent.events_sent
    assert came.duplicate >= sent.sample_count + sent.control_count + sent.duplicate_count
    assert installation.books() == books
    assert installation.documents() == documents


def run_variant(
    installation: Installation,
    expected: dict[str, bytes],
    options: ReplayOptions | None = None,
    workers: Workers | None = None,
    close_it: Callable[[Installation], None] = close,
) -> None:
    """Replay, close, compare with the undisturbed run, and replay again."""
    options = options or ReplayOptions(faults_seed=FAULTS_SEED)
    with installation.running(workers):
        sent = installation.replay(options)
        installation.wait_until_read()
        close_it(installation)
        check_same(installation, expected)
        check_books(installation, sent)
        check_again(installation, sent, options)


def check_same(installation: Installation, expected: dict[str, bytes]) -> None:
    found = installation.documents()
    assert found.keys() == expected.keys()
    differing = [name for name in sorted(expected) if found[name] != expected[name]]
    assert differing == []


def test_undisturbed(closed_run: ClosedRun) -> None:
    """Ten customers get ten invoices, numbered without a gap, each as HTML and JSON."""
    numbers = sorted(name.rpartition("/")[2] for name in closed_run.documents if name.endswith(".json"))
    assert numbers == [f"RM-2013-{number:04d}.json" for number in range(1, 11)]
    assert {name.replace(".json", ".html") for name in closed_run.documents if name.endswith(".json")} <= set(
        closed_run.documents
    )
    check_books(closed_run.installation, closed_run.sent)
    assert closed_run.sent.duplicate_count > 20
    assert closed_run.sent.late_count > 20
    assert sum(closed_run.sent.quarantined.values()) > 20


def test_other_batch_sizes(make_installation: MakeInstallation, closed_run: ClosedRun) -> None:
    """How events are gathered into messages, flushes and files changes no byte."""
    installation = make_installation(flush_events_max=97, archive_bytes_max=50_001, flush_seconds=5.0)
    options = ReplayOptions(faults_seed=FAULTS_SEED, events_per_message=7)
    run_variant(installation, closed_run.documents, options)


def test_shuffled(make_installation: MakeInstallation, closed_run: ClosedRun) -> None:
    """The order of events within the cut changes no byte."""
    options = ReplayOptions(faults_seed=FAULTS_SEED, shuffle_seed=5)
    run_variant(make_installation(), closed_run.documents, options)


def test_killed_stages(make_installation: MakeInstallation, closed_run: ClosedRun) -> None:
    """Each stage is killed three times at work, and nothing is lost, doubled or changed."""
    installation = make_installation(flush_events_max=211, archive_bytes_max=100_000, totals_pace_seconds=0.0)
    options = ReplayOptions(faults_seed=FAULTS_SEED)
    with installation.running(), installation.database() as connection:
        wrapped: list[KillingProducer] = []

        def wrap(producer: object) -> KillingProducer:
            wrapped.append(
                KillingProducer(producer, installation, connection, messages=closed_run.sent.messages_sent)  # type: ignore[arg-type]
            )
            return wrapped[-1]

        sent = installation.replay(options, wrap)
        assert wrapped[0].killed == dict.fromkeys(STAGES, 3)
        installation.wait_until_read()
        close(installation)
        check_same(installation, closed_run.documents)
        check_books(installation, sent)
        check_again(installation, sent, options)


#: Step, its how many-eth time in that run, and how many seconds after it was committed the close is killed.
KILLS_OF_A_CLOSE = (
    (Step.CLOSING, 3, 0.0),
    (Step.CUT, 2, 0.0),
    # The last of the ten accounts is cut: in the middle of the proof.
    (Step.CUT, 6, 0.2),
    (Step.PROVEN, 4, 0.0),
    (Step.ISSUED, 1, 0.0),
    (Step.DOCUMENTS, 1, 0.0),
)


def close_killed(installation: Installation) -> None:
    """Kill one close after the other, each a step further on, and close at last."""
    for step, count, delay_seconds in KILLS_OF_A_CLOSE:
        arguments = (step, str(count), str(delay_seconds))
        code, said = finish(installation, installation.python("-m", "tests.support.dying_close", *arguments))
        assert code == KILLED, f"{arguments}: {said}"
    close(installation)


def close_twice_at_once(installation: Installation) -> None:
    """Two people close the same month at the same time: both succeed, and there is one set of invoices."""
    first, second = installation.close_command(), installation.close_command()
    for process in (first, second):
        code, said = finish(installation, process)
        assert code == 0, said


@pytest.mark.parametrize("close_it", [close_killed, close_twice_at_once])
def test_troubled_close(
    make_installation: MakeInstallation, closed_run: ClosedRun, close_it: Callable[[Installation], None]
) -> None:
    """A close that is killed goes on where it was; two at once issue each invoice once, under the same number."""
    run_variant(make_installation(), closed_run.documents, close_it=close_it)


def test_more_workers(make_installation: MakeInstallation, closed_run: ClosedRun) -> None:
    """Three aggregate and archive workers, two of each other stage, make the same invoices."""
    workers = Workers(aggregate=3, archive=3, totals=2, rate=2, ledger_sink=2)
    run_variant(make_installation(), closed_run.documents, workers=workers)
