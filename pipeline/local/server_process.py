"""One server process of ours: started with its output in a file, tethered to us, ended within a bound."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from pipeline.domain.errors import TransientFault
from pipeline.local import tether

LOG_TAIL_BYTES = 2000


class ServerProcess:
    """
    A child in a session of its own, so that Ctrl-C reaches only us and we end children in our order.

    It dies with the thread that started it (Linux: PR_SET_PDEATHSIG), also when we are killed. So start it from a
    thread that lives as long as the process, the main thread.
    """

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._process = process

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        log_file: Path,
        *,
        death_signal: signal.Signals = signal.SIGKILL,
        prefix: Sequence[str] = (),
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Self:
        """
        Start a command.

        Args:
            name: For messages.
            command: Program and arguments.
            log_file: Standard output and error are appended to it.
            death_signal: What the child gets when we die.
            prefix: A program that runs the rest in its own place (exec, not fork), e.g. unshare.
            folder: Working folder.
            environment: The whole environment; None hands on ours.
            user: The account to run as; needs root.
        """
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *tethered(death_signal), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=None if environment is None else dict(environment),
                start_new_session=True,
                user=user,
            )
        return cls(name, process, log_file)

    @property
    def pid(self) -> int:
        """The process id; also the id of its session and process group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -n when signal n ended it."""
        return self._process.poll()

    def send(self, wanted: signal.Signals) -> None:
        """Send a signal; a process that has ended is left alone."""
        if self._process.poll() is None:
            self._process.send_signal(wanted)

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait for its end; None when it still runs after the time."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, wanted: signal.Signals = signal.SIGTERM, timeout_seconds: float = 20.0) -> bool:
        """Ask it to end, and kill its whole group after the time; tell whether it ended by itself."""
        self.send(wanted)
        if self.wait(timeout_seconds) is not None:
            return True
        self.kill()
        return False

    def kill(self) -> None:
        """Kill it and every process it started, and wait until they are gone."""
        family = [self.pid, *descendants(self.pid)] if self._process.poll() is None else []
        for pid in family:
            _kill(pid)
        self._process.wait()
        deadline = time.monotonic() + 10
        while any(is_running(pid) for pid in family[1:]) and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait_until(self, is_ready: Callable[[], bool], timeout_seconds: float) -> None:
        """
        Ask until `is_ready` says yes.

        Raises:
            TransientFault: It ended, or took longer; the message ends with the tail of its log. It is killed then.
        """
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if self.exit_code is not None:
                raise TransientFault(f"{self.name} ended with {self.exit_code} at its start:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise TransientFault(f"{self.name} is not ready after {timeout_seconds:g} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raise TransientFault, with the tail of its log, when it has ended though nobody stopped it."""
        if self.exit_code is not None:
            raise TransientFault(f"{self.name} ended with {self.exit_code}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Give the end of its log, and where the rest is."""
        if not self.log_file.is_file():
            return f"(no log in {self.log_file})"
        tail = self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
        return f"{tail.rstrip()}\n(all of it: {self.log_file})"


def tethered(death_signal: signal.Signals) -> tuple[str, ...]:
    """Give what to put before a command so that it gets the signal when this process dies."""
    return (sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()), str(int(death_signal)))


def free_ports(count: int) -> list[int]:
    """Find loopback ports nobody has at this moment; they may be taken before they are used, so be ready to retry."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Give the processes below `pid` now, parents before children; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for child in found:
        found.extend(children.get(child, []))
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
