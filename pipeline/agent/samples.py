"""Readings to samples: which events a beat gives, and what is in them. Pure, but for the totals it advances."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pipeline.agent.readings import ContainerReading, GroupReading, HostReading, Reading
from pipeline.agent.totals import Totals
from pipeline.contracts.usage_event import Value

HOST_TYPE = "rackmeter.host.counters.v1"
GROUP_TYPE = "rackmeter.group.counters.v1"
CONTAINER_TYPE = "rackmeter.container.counters.v1"

#: As container runtimes show them; the whole id would not fit beside a long host's name.
CONTAINER_ID_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """An event to be: whom it is about, its type and its data."""

    subject: str
    event_type: str
    data: Mapping[str, Value]


def samples(subject: str, reading: Reading, totals: Totals, read_us: int) -> list[Sample]:
    """
    A beat's samples, the host's first.

    Args:
        subject: The host; groups and containers are named below it.
        reading: What was read.
        totals: Advanced by the reading.
        read_us: When it was read, microseconds since 1970.
    """
    found = [Sample(subject, HOST_TYPE, _host(reading.host, totals))]
    found += [Sample(f"{subject}/{group.name}", GROUP_TYPE, _group(group, totals)) for group in reading.groups]
    found += [
        Sample(f"{subject}/{one.container_id[:CONTAINER_ID_CHARACTERS]}", CONTAINER_TYPE, _container(one, totals))
        for one in reading.containers
    ]
    totals.keep_only("container/", {name for one in reading.containers for name in _container_totals(one)})
    totals.read_us = read_us
    return found


def _host(host: HostReading, totals: Totals) -> dict[str, Value]:
    return {
        # Processor time does not begin anew while a machine is up; a processor taken offline may take some back.
        "cpu_seconds": _seconds(totals.advance("host/cpu", host.cpu_us, restarts=False)),
        "cpu_cores": host.cpu_cores,
        "memory_total_bytes": host.memory_total_bytes,
        "memory_used_bytes": host.memory_used_bytes,
        "net_rx_bytes": totals.advance("host/net_rx", host.net_rx_bytes, restarts=True),
        "net_tx_bytes": totals.advance("host/net_tx", host.net_tx_bytes, restarts=True),
        "disk_read_bytes": totals.advance("host/disk_read", host.disk_read_bytes, restarts=True),
        "disk_write_bytes": totals.advance("host/disk_write", host.disk_write_bytes, restarts=True),
        "boot_id": totals.boot_id,
    }


def _group(group: GroupReading, totals: Totals) -> dict[str, Value]:
    # A process that ran before and joins the group, because its pattern changed, brings none of its past with it.
    joined = {process for process, started_us in group.started_us.items() if started_us < totals.read_us}
    cpu_us = totals.advance(f"group/{group.name}/cpu", group.cpu_us, restarts=False, forget=True, joined=joined)
    return {
        "cpu_seconds": _seconds(cpu_us),
        "memory_rss_bytes": group.memory_rss_bytes,
        "process_count": len(group.cpu_us),
        "boot_id": totals.boot_id,
    }


def _container(container: ContainerReading, totals: Totals) -> dict[str, Value]:
    cpu, disk_read, disk_write = _container_totals(container)
    return {
        # A container that is started again has its id and a new cgroup, whose counters begin at nothing.
        "cpu_seconds": _seconds(totals.advance(cpu, {"": container.cpu_us}, restarts=True)),
        "memory_used_bytes": container.memory_used_bytes,
        "disk_read_bytes": totals.advance(disk_read, container.disk_read_bytes, restarts=True),
        "disk_write_bytes": totals.advance(disk_write, container.disk_write_bytes, restarts=True),
        "boot_id": totals.boot_id,
    }


def _container_totals(container: ContainerReading) -> list[str]:
    return [f"container/{container.container_id}/{what}" for what in ("cpu", "disk_read", "disk_write")]


def _seconds(microseconds: int) -> Decimal:
    return Decimal(microseconds).scaleb(-6)
