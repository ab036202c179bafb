"""What the machine is, and what processes cost on it: facts and readings from /proc. Linux only."""

import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import msgspec
from confluent_kafka import libversion

from pipeline.local.server_process import descendants

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_FSYNC_PROBES = 25

#: A word of a server's command line, and what the process is to a benchmark.
_SERVERS = {"kafka.Kafka": "broker", "noida-db": "broker", "postgres": "database"}


class Machine(msgspec.Struct, frozen=True):
    """Where a figure was seen."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    librdkafka: str
    psycopg: str
    msgspec: str
    load_average: float
    filesystem: str
    fsync_milliseconds: float

    def lines(self) -> list[str]:
        """Give the facts as sentences for people."""
        return [
            f"{self.cores} cores, {self.processor}, {self.memory_gib:.0f} GiB, Linux {self.kernel}",
            f"load average before: {self.load_average:.1f}",
            f"{self.filesystem}, fsync of 8 KiB {self.fsync_milliseconds:.2f} ms",
            f"Python {self.python}, librdkafka {self.librdkafka}, psycopg {self.psycopg}, msgspec {self.msgspec}",
        ]


def facts(folder: Path) -> Machine:
    """Give the machine's facts; `folder` is where the data will lie."""
    return Machine(
        processor=_first_value("/proc/cpuinfo", "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=int(_first_value("/proc/meminfo", "MemTotal").split()[0]) / 2**20,
        kernel=platform.release(),
        python=platform.python_version(),
        librdkafka=libversion()[0],
        psycopg=version("psycopg"),
        msgspec=version("msgspec"),
        load_average=os.getloadavg()[0],
        filesystem=_filesystem(folder),
        fsync_milliseconds=_fsync_milliseconds(folder),
    )


def server_pids() -> dict[str, int]:
    """Give the process ids of the broker and the database that this process started, by 'broker' and 'database'."""
    found: dict[str, int] = {}
    for pid in descendants(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        for word, role in _SERVERS.items():
            # A server's own children come after it and do not replace it.
            if any(part == word or part.endswith("/" + word) for part in words):
                found.setdefault(role, pid)
    return found


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process and all below it so far, those that ended included."""
    return sum(_ticks(each) for each in (pid, *descendants(pid))) / _TICKS_PER_SECOND


def memory_mib(pid: int) -> float:
    """Give the memory of a process and all below it; what they share counts once."""
    return sum(_proportional_kib(each) for each in (pid, *descendants(pid))) / 1024


def peak_memory_mib(pid: int) -> float:
    """Give the most memory one process ever had resident."""
    return int(_first_value(f"/proc/{pid}/status", "VmHWM").split()[0]) / 1024


def ticks_of(stat: str) -> int:
    """Give the ticks in a line of /proc/PID/stat: its own and those of children it has waited for."""
    # The second field is the program's name in parentheses, and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15])


def _ticks(pid: int) -> int:
    try:
        return ticks_of(Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return 0


def _proportional_kib(pid: int) -> int:
    try:
        return int(_first_value(f"/proc/{pid}/smaps_rollup", "Pss").split()[0])
    except (OSError, IndexError):
        return 0


def _first_value(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _filesystem(folder: Path) -> str:
    """Give the type of the filesystem a folder lies in: fsync on tmpfs costs nothing, and a reader must know."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, found, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _fsync_milliseconds(folder: Path) -> float:
    probe = folder / "fsync-probe"
    taken = []
    with probe.open("wb", buffering=0) as file:
        for _ in range(_FSYNC_PROBES):
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - begun) * 1000)
    probe.unlink()
    return statistics.median(taken)
