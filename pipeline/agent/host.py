"""The machine, read through psutil and /sys: whole numbers, of hardware and not of what is layered on it."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from re import Pattern

import psutil

from pipeline.agent.cgroups import read_containers
from pipeline.agent.readings import GroupReading, HostReading, Reading
from pipeline.domain.errors import ConfigurationFault

SYS_DIR = Path("/sys")
BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")

#: Idle and iowait are no use; steal is somebody else's; guest time is in user time already.
CPU_MODES = ("user", "nice", "system", "irq", "softirq")

_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


def boot_id(path: Path = BOOT_ID_PATH) -> str:
    """
    The id of this boot of the machine.

    Raises:
        ConfigurationFault: The kernel does not tell.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationFault(f"{path} cannot be read ({error}): the agent runs on Linux, with /proc") from error


def parse_groups(texts: Iterable[str]) -> dict[str, Pattern[str]]:
    """
    Patterns by group's name, from NAME=REGEX.

    Raises:
        ConfigurationFault: One is not of that form, or a name stands twice.
    """
    groups: dict[str, Pattern[str]] = {}
    for text in texts:
        name, _, pattern = text.partition("=")
        if not pattern or not _GROUP_NAME.fullmatch(name):
            raise ConfigurationFault(f"group {text!r}: NAME=REGEX is wanted, the name of letters, digits and ._-")
        if name in groups:
            raise ConfigurationFault(f"group {name} stands twice")
        try:
            groups[name] = re.compile(pattern)
        except re.error as error:
            raise ConfigurationFault(f"group {name}: {pattern!r} is no regular expression: {error}") from error
    return groups


class LinuxProbe:
    """
    Reads this machine.

    Args:
        groups: Pattern of the command line by group's name.
        cgroup_dir: Root of cgroup v2, to read containers; None reads none.
        sys_dir: Where devices are told from what is layered on them.
    """

    def __init__(
        self, groups: Mapping[str, Pattern[str]], cgroup_dir: Path | None = None, sys_dir: Path = SYS_DIR
    ) -> None:
        self._groups = groups
        self._cgroup_dir = cgroup_dir
        self._sys_dir = sys_dir

    def read(self) -> Reading:
        """Read everything now."""
        containers = read_containers(self._cgroup_dir) if self._cgroup_dir is not None else ()
        return Reading(self._read_host(), self._read_groups(), containers)

    def _read_host(self) -> HostReading:
        times = psutil.cpu_times()
        memory = psutil.virtual_memory()
        nics = psutil.net_io_counters(pernic=True)
        disks = psutil.disk_io_counters(perdisk=True) or {}
        nic_names = hardware(self._sys_dir / "class" / "net", [name for name in nics if name != "lo"])
        disk_names = hardware(self._sys_dir / "block", disks)
        return HostReading(
            cpu_us={mode: _microseconds(getattr(times, mode, 0.0)) for mode in CPU_MODES},
            cpu_cores=psutil.cpu_count() or 1,
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            net_rx_bytes={name: nics[name].bytes_recv for name in nic_names},
            net_tx_bytes={name: nics[name].bytes_sent for name in nic_names},
            disk_read_bytes={name: disks[name].read_bytes for name in disk_names},
            disk_write_bytes={name: disks[name].write_bytes for name in disk_names},
        )

    def _read_groups(self) -> tuple[GroupReading, ...]:
        if not self._groups:
            return ()
        cpu_us: dict[str, dict[str, int]] = {name: {} for name in self._groups}
        started_us: dict[str, dict[str, int]] = {name: {} for name in self._groups}
        memory = dict.fromkeys(self._groups, 0)
        wanted = ["pid", "name", "cmdline", "create_time", "cpu_times", "memory_info"]
        for process in psutil.process_iter(wanted):
            info = process.info
            if info["cpu_times"] is None or info["memory_info"] is None or info["create_time"] is None:
                continue
            command = " ".join(info["cmdline"] or ()) or info["name"] or ""
            started = _microseconds(info["create_time"])
            for name, pattern in self._groups.items():
                if pattern.search(command):
                    # A process id is used again, but not with the same start.
                    key = f"{info['pid']}@{started}"
                    cpu_us[name][key] = _microseconds(info["cpu_times"].user) + _microseconds(info["cpu_times"].system)
                    started_us[name][key] = started
                    memory[name] += info["memory_info"].rss
        return tuple(GroupReading(name, cpu_us[name], started_us[name], memory[name]) for name in self._groups)


def hardware(folder: Path, names: Iterable[str]) -> Sequence[str]:
    """Those of /sys/block or /sys/class/net that are no bridges, tunnels, partitions or loops; all if none is left."""
    every = [name for name in names if (folder / name).exists()]
    # A device with a driver has a link to it; what is made by software has none.
    return [name for name in every if (folder / name / "device").exists()] or every


def _microseconds(seconds: float) -> int:
    # psutil divides the kernel's whole ticks (1/100 s); rounding gives back exactly what it had.
    return math.floor(seconds * 1_000_000 + 0.5)
