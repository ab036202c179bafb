"""What was read of a host at an instant: whole numbers, before anything is decided about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class HostReading:
    """
    A whole machine.

    `cpu_us` is microseconds of processor time by mode (idle, waiting and stolen time left out); the rest is bytes,
    network and disk by device.
    """

    cpu_us: Mapping[str, int]
    cpu_cores: int
    memory_total_bytes: int
    memory_used_bytes: int
    net_rx_bytes: Mapping[str, int]
    net_tx_bytes: Mapping[str, int]
    disk_read_bytes: Mapping[str, int]
    disk_write_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GroupReading:
    """
    Processes that match a pattern.

    Microseconds of processor time, and of the process's start since 1970, by process; the memory of all in bytes.
    """

    name: str
    cpu_us: Mapping[str, int]
    started_us: Mapping[str, int]
    memory_rss_bytes: int


@dataclass(frozen=True, slots=True)
class ContainerReading:
    """A container's cgroup: microseconds of processor time, memory, and what each device read and wrote in bytes."""

    container_id: str
    cpu_us: int
    memory_used_bytes: int
    disk_read_bytes: Mapping[str, int]
    disk_write_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that was read in one beat."""

    host: HostReading
    groups: tuple[GroupReading, ...] = ()
    containers: tuple[ContainerReading, ...] = ()


class Probe(Protocol):
    """The port to the machine."""

    def read(self) -> Reading:
        """Read everything now. OSError where the kernel does not tell."""
