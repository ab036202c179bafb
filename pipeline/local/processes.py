"""The supervisor of `rackmeter up`: starts the stages, starts crashed ones again, ends all of them in reverse order."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from pipeline.domain.errors import ConfigurationFault
from pipeline.local.server_process import ServerProcess

LOGGER = logging.getLogger("rackmeter.local")

# Exit codes by which a stage says that another start would not help (sysexits: EX_SOFTWARE, EX_CONFIG).
EXIT_HALTED = 70
EXIT_MISCONFIGURED = 78

BACK_OFF_SECONDS_MIN = 0.5
BACK_OFF_SECONDS_MAX = 30.0
# A child that lived this long starts the next back-off from its beginning.
STEADY_SECONDS = 60.0
POLL_SECONDS = 0.2


class ChildState(StrEnum):
    """What a child is doing."""

    RUNNING = "running"
    #: Crashed; started again when its back-off is over.
    BACKING_OFF = "backing_off"
    #: Ended by itself with 0.
    FINISHED = "finished"
    #: A law did not hold (exit code 70); stays down until a person has looked.
    HALTED = "halted"
    #: A setting or file is wrong (exit code 78); stays down.
    MISCONFIGURED = "misconfigured"
    #: Not started yet, or ended by us.
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child to run. `environment` is the whole of it; None hands on ours."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    stop_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class ChildReport:
    """How a child stands; `exit_code` is of its last end, -n when signal n ended it, None when it never ended."""

    name: str
    state: ChildState
    pid: int | None
    restarts: int
    exit_code: int | None
    log_file: Path


class _Child:
    """One child over all its lives."""

    def __init__(self, spec: ChildSpec, log_file: Path) -> None:
        self.spec = spec
        self.log_file = log_file
        self.process: ServerProcess | None = None
        self.state = ChildState.STOPPED
        self.restarts = 0
        self.exit_code: int | None = None
        self.back_off_seconds = 0.0
        self.started_at = 0.0
        self.due_at = 0.0

    def report(self) -> ChildReport:
        pid = self.process.pid if self.process is not None and self.state is ChildState.RUNNING else None
        return ChildReport(self.spec.name, self.state, pid, self.restarts, self.exit_code, self.log_file)


class Supervisor:
    """
    Runs children until told to stop, each with its output appended to `<folder>/<name>.log`.

    Not for threads: start, poll and stop it from the main thread, because children die with the thread that started
    them; that is how nothing stays behind when we are killed. As a context manager it stops all on the way out.
    """

    def __init__(
        self,
        folder: Path,
        specs: Sequence[ChildSpec],
        *,
        on_change: Callable[[ChildReport], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Prepare; nothing is started.

        Args:
            folder: For the log files.
            specs: In the order they are started; they are stopped in reverse.
            on_change: Called after each change of a child's state.
            monotonic: The clock of the back-off.
        """
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise ConfigurationFault(f"two children have one name: {', '.join(sorted(names))}")
        self._children = [_Child(spec, folder / f"{spec.name}.log") for spec in specs]
        self._on_change = on_change
        self._monotonic = monotonic

    def start(self) -> None:
        """Start every child that was not started yet."""
        for child in self._children:
            if child.state is ChildState.STOPPED:
                self._start(child)

    def poll(self) -> None:
        """Take note of children that ended, and start again those whose back-off is over."""
        for child in self._children:
            if child.state is ChildState.RUNNING and child.process is not None:
                code = child.process.exit_code
                if code is not None:
                    self._ended(child, code)
            elif child.state is ChildState.BACKING_OFF and self._monotonic() >= child.due_at:
                child.restarts += 1
                self._start(child)

    def run(self, stop: threading.Event, watch: Callable[[], None] = lambda: None) -> list[ChildReport]:
        """
        Start all, watch over them until `stop` is set or none is left to run, stop all, and report.

        Args:
            stop: Ends the run.
            watch: Called at each look at the children; what it raises ends the run too.
        """
        with self:
            self.start()
            while not stop.wait(POLL_SECONDS):
                watch()
                self.poll()
                if not any(child.state in (ChildState.RUNNING, ChildState.BACKING_OFF) for child in self._children):
                    break
        return self.report()

    def report(self) -> list[ChildReport]:
        """Tell how every child stands, in the order of their start."""
        return [child.report() for child in self._children]

    def restart(self, name: str) -> None:
        """End one child and start it again at once, whatever state it is in."""
        child = self._child(name)
        self._stop(child)
        child.back_off_seconds = 0.0
        child.restarts += 1
        self._start(child)

    def stop(self) -> None:
        """End all children in reverse order, each with SIGTERM and, after its time, SIGKILL. Twice is fine."""
        for child in reversed(self._children):
            self._stop(child)

    def kill(self) -> None:
        """End all children at once, as a crash of the machine would."""
        for child in self._children:
            self._stop(child, at_once=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException:
            # A second Ctrl-C: no more patience.
            self.kill()
            raise

    def _child(self, name: str) -> _Child:
        for child in self._children:
            if child.spec.name == name:
                return child
        raise ConfigurationFault(f"there is no child {name}")

    def _start(self, child: _Child) -> None:
        child.process = ServerProcess.start(
            child.spec.name, child.spec.command, child.log_file, environment=child.spec.environment
        )
        child.started_at = self._monotonic()
        self._change(child, ChildState.RUNNING)

    def _ended(self, child: _Child, code: int) -> None:
        if child.process is not None:
            child.process.kill()
        child.exit_code = code
        final = {0: ChildState.FINISHED, EXIT_HALTED: ChildState.HALTED, EXIT_MISCONFIGURED: ChildState.MISCONFIGURED}
        if code in final:
            self._change(child, final[code])
            return
        now = self._monotonic()
        steady = now - child.started_at >= STEADY_SECONDS
        doubled = min(BACK_OFF_SECONDS_MAX, child.back_off_seconds * 2)
        child.back_off_seconds = BACK_OFF_SECONDS_MIN if steady or not child.back_off_seconds else doubled
        child.due_at = now + child.back_off_seconds
        self._change(child, ChildState.BACKING_OFF)

    def _stop(self, child: _Child, *, at_once: bool = False) -> None:
        if child.process is not None and child.state is ChildState.RUNNING:
            if at_once:
                child.process.kill()
            else:
                child.process.stop(signal.SIGTERM, child.spec.stop_seconds)
            child.exit_code = child.process.exit_code
        if child.state in (ChildState.RUNNING, ChildState.BACKING_OFF):
            self._change(child, ChildState.STOPPED)

    def _change(self, child: _Child, state: ChildState) -> None:
        child.state = state
        report = child.report()
        is_bad = state in (ChildState.BACKING_OFF, ChildState.HALTED, ChildState.MISCONFIGURED)
        LOGGER.log(
            logging.WARNING if is_bad else logging.INFO,
            "%s is %s (exit code %s, log %s)",
            report.name,
            state,
            report.exit_code,
            report.log_file,
            extra={"action": f"child_{state}"},
        )
        if self._on_change is not None:
            self._on_change(report)


def exit_code_of(reports: Sequence[ChildReport]) -> int:
    """Give the exit code of a run: 70 where a child halted, else 78 where one is misconfigured, else 0."""
    # By exit code and not by state: a child may halt in the very moment in which it is stopped.
    codes = {report.exit_code for report in reports}
    return next((code for code in (EXIT_HALTED, EXIT_MISCONFIGURED) if code in codes), 0)


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """
    Give an event that SIGINT, SIGTERM and SIGHUP set; a second signal raises KeyboardInterrupt.

    Main thread only, as signals are; the handlers from before come back at the end.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
