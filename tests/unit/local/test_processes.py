"""The supervisor starts crashed children again, leaves halted ones down, and ends all in reverse order."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.local.processes import ChildReport, ChildSpec, ChildState, Supervisor, exit_code_of, stopping_on_signals
from pipeline.local.server_process import ServerProcess, is_running


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def child(name: str, script: str) -> ChildSpec:
    return ChildSpec(name, ("sh", "-c", script), stop_seconds=2.0)


def poll_until(supervisor: Supervisor, state: ChildState) -> ChildReport:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        supervisor.poll()
        report = supervisor.report()[0]
        if report.state is state:
            return report
        time.sleep(0.01)
    raise AssertionError(f"never {state}: {supervisor.report()}")


@pytest.mark.parametrize(
    ("code", "state"),
    [(70, ChildState.HALTED), (78, ChildState.MISCONFIGURED), (0, ChildState.FINISHED)],
)
def test_a_child_that_must_not_be_started_again_stays_down(tmp_path: Path, code: int, state: ChildState) -> None:
    """Exit codes 70, 78 and 0 are final."""
    with Supervisor(tmp_path, [child("stage", f"exit {code}")]) as supervisor:
        supervisor.start()
        report = poll_until(supervisor, state)
        supervisor.poll()
        assert (report.exit_code, report.restarts, report.pid) == (code, 0, None)
        assert supervisor.report() == [report]


def test_a_crashed_child_is_started_again_later_each_time(tmp_path: Path) -> None:
    """The back-off doubles; nothing is started before it is over."""
    clock = Clock()
    with Supervisor(tmp_path, [child("stage", "echo once more; exit 1")], monotonic=clock) as supervisor:
        supervisor.start()
        for restarts, wait_seconds in enumerate([0.5, 1.0, 2.0]):
            assert poll_until(supervisor, ChildState.BACKING_OFF).restarts == restarts
            clock.now += wait_seconds - 0.01
            supervisor.poll()
            assert supervisor.report()[0].state is ChildState.BACKING_OFF
            clock.now += 0.02
            supervisor.poll()
            assert supervisor.report()[0].restarts == restarts + 1
        poll_until(supervisor, ChildState.BACKING_OFF)
    assert (tmp_path / "stage.log").read_text() == "once more\n" * 4


def test_children_end_in_reverse_order_with_their_own_children(tmp_path: Path) -> None:
    """The last started ends first; one that ignores SIGTERM is killed, and what it started too."""
    changes: list[tuple[str, ChildState]] = []
    specs = [
        child("first", "exec sleep 60"),
        ChildSpec("stubborn", ("sh", "-c", "trap '' TERM; sleep 60 & echo $! ; wait; wait"), stop_seconds=0.2),
    ]
    supervisor = Supervisor(tmp_path, specs, on_change=lambda report: changes.append((report.name, report.state)))
    supervisor.start()
    log_file = tmp_path / "stubborn.log"
    deadline = time.monotonic() + 10
    while not log_file.read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.01)
    grandchild = int(log_file.read_text())
    pids = [report.pid for report in supervisor.report()]
    supervisor.stop()
    supervisor.stop()
    assert changes[2:] == [("stubborn", ChildState.STOPPED), ("first", ChildState.STOPPED)]
    assert not [pid for pid in [*pids, grandchild] if pid is not None and is_running(pid)]


def test_a_signal_stops_the_run(tmp_path: Path) -> None:
    """SIGTERM and SIGINT end the loop, which ends the children."""
    supervisor = Supervisor(tmp_path, [child("stage", "exec sleep 60")])
    with stopping_on_signals() as stop:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        reports = supervisor.run(stop)
    assert [(report.state, report.exit_code) for report in reports] == [(ChildState.STOPPED, -signal.SIGTERM)]


def test_the_run_ends_when_nothing_is_left_to_run(tmp_path: Path) -> None:
    """Children that are all down for good end the supervisor."""
    supervisor = Supervisor(tmp_path, [child("stage", "exit 78")])
    assert supervisor.run(threading.Event())[0].state is ChildState.MISCONFIGURED


def test_a_child_can_be_started_again_by_name(tmp_path: Path) -> None:
    """A restart gives a new process at once."""
    with Supervisor(tmp_path, [child("stage", "exec sleep 60")]) as supervisor:
        supervisor.start()
        before = supervisor.report()[0].pid
        supervisor.restart("stage")
        after = supervisor.report()[0]
        assert after.pid != before
        assert (after.state, after.restarts) == (ChildState.RUNNING, 1)


def test_a_child_that_cannot_be_run_is_reported(tmp_path: Path) -> None:
    """A program that is not there ends the child with its error in the log."""
    with Supervisor(tmp_path, [ChildSpec("stage", (str(tmp_path / "missing"),))]) as supervisor:
        supervisor.start()
        assert poll_until(supervisor, ChildState.BACKING_OFF).exit_code == 1
    assert "No such file" in (tmp_path / "stage.log").read_text()


def test_two_children_of_one_name_are_refused(tmp_path: Path) -> None:
    """Names are unique: they name log files."""
    with pytest.raises(ConfigurationFault, match="one name"):
        Supervisor(tmp_path, [child("stage", "true"), child("stage", "true")])


def test_ignored_signals_are_not_handed_on(tmp_path: Path) -> None:
    """A child ends when its reader does: SIGPIPE is what it is for any program."""
    script = "import signal; print(signal.getsignal(signal.SIGPIPE))"
    spec = ChildSpec("stage", ("sh", "-c", f"yes | head -1; {sys.executable} -c '{script}' >/dev/null; exit 70"))
    with Supervisor(tmp_path, [spec]) as supervisor:
        supervisor.start()
        poll_until(supervisor, ChildState.HALTED)
    assert (tmp_path / "stage.log").read_text() == "y\n"


@pytest.mark.parametrize(("codes", "wanted"), [((0, 1), 0), ((78, 0), 78), ((78, 70), 70)])
def test_the_run_ends_as_its_worst_child(tmp_path: Path, codes: tuple[int, int], wanted: int) -> None:
    """A halt goes before a wrong setting; a crash is no reason to complain, for it was started again."""
    specs = [child("one", f"exit {codes[0]}"), child("two", f"exit {codes[1]}")]
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    assert exit_code_of(Supervisor(tmp_path, specs).run(stop)) == wanted
    timer.join()


def test_what_the_watch_raises_ends_the_run(tmp_path: Path) -> None:
    """A service that died ends everything, loudly."""
    service = ServerProcess.start("the database", ["sh", "-c", "echo disk full; exit 3"], tmp_path / "service.log")
    supervisor = Supervisor(tmp_path, [child("stage", "exec sleep 60")])
    with pytest.raises(TransientFault, match="the database ended with 3:\ndisk full"):
        supervisor.run(threading.Event(), service.check)
    assert supervisor.report()[0].state is ChildState.STOPPED
