"""The machine as it is read: hardware only, groups by command line, containers of every runtime."""

import os
import sys
from pathlib import Path

import pytest

from pipeline.agent.cgroups import is_cgroup_v2, read_containers
from pipeline.agent.dry_run import dry_run
from pipeline.agent.host import LinuxProbe, boot_id, hardware, parse_groups
from pipeline.agent.options import AgentOptions, probe_of
from pipeline.contracts.usage_event import UsageEvent, decode_event
from pipeline.domain.errors import ConfigurationFault

NEEDS_PROC = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc here")
IDS = [digit * 64 for digit in "abcd"]


def make_cgroup(folder: Path, usage_usec: int) -> None:
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text(f"usage_usec {usage_usec}\nuser_usec 1\nsystem_usec 1\n")


def test_containers_of_every_runtime_are_found(tmp_path: Path) -> None:
    """Scopes of docker, containerd and podman, and folders named by an id, are containers; services are not."""
    make_cgroup(tmp_path / "system.slice" / f"docker-{IDS[0]}.scope", 1)
    make_cgroup(tmp_path / "kubepods.slice" / "pod1.slice" / f"cri-containerd-{IDS[1]}.scope", 2)
    make_cgroup(tmp_path / "machine.slice" / f"libpod-{IDS[2]}.scope", 3)
    make_cgroup(tmp_path / "docker" / IDS[3], 4)
    make_cgroup(tmp_path / "system.slice" / "ssh.service", 5)
    assert [(one.container_id, one.cpu_us) for one in read_containers(tmp_path)] == list(
        zip(IDS, (1, 2, 3, 4), strict=True)
    )


def test_a_containers_memory_and_devices_are_read(tmp_path: Path) -> None:
    """Bytes are kept by device; a controller that is off is no use, and one that is going is left out."""
    folder = tmp_path / f"docker-{IDS[0]}.scope"
    make_cgroup(folder, 7)
    (folder / "memory.current").write_text("4096\n")
    (folder / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:16 rbytes=1 wbytes=2\n9:9\n")
    (tmp_path / f"docker-{IDS[1]}.scope").mkdir()
    (found,) = read_containers(tmp_path)
    assert found.memory_used_bytes == 4096
    assert found.disk_read_bytes == {"8:0": 10, "8:16": 1}
    assert found.disk_write_bytes == {"8:0": 20, "8:16": 2}


def test_containers_are_refused_without_cgroup_v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for containers where there is no cgroup v2 is told, instead of getting none."""
    assert not is_cgroup_v2(tmp_path)
    monkeypatch.setattr("pipeline.agent.options.is_cgroup_v2", lambda: False)
    with pytest.raises(ConfigurationFault, match="not cgroup version 2"):
        probe_of(AgentOptions(is_reading_containers=True))


def test_what_is_layered_on_hardware_is_not_counted_twice(tmp_path: Path) -> None:
    """Bridges, tunnels, partitions and mapped disks have no device of their own; without any, all are taken."""
    for name in ("eth0", "br0", "veth1"):
        (tmp_path / name).mkdir()
    assert hardware(tmp_path, ["eth0", "br0", "vda1"]) == ["eth0", "br0"]
    (tmp_path / "eth0" / "device").mkdir()
    assert hardware(tmp_path, ["eth0", "br0", "veth1", "gone"]) == ["eth0"]


@pytest.mark.parametrize("text", ["web", "=x", "web=", "a/b=x", "web=(", "ä=x"])
def test_malformed_groups_are_refused(text: str) -> None:
    """A group is NAME=REGEX with a name that fits a subject."""
    with pytest.raises(ConfigurationFault, match="group"):
        parse_groups([text])


def test_a_group_stands_once() -> None:
    """Two groups of one name would be one subject with two counters."""
    with pytest.raises(ConfigurationFault, match="twice"):
        parse_groups(["web=a", "web=b"])
    assert parse_groups(["web=a=b"])["web"].pattern == "a=b"


def test_a_missing_boot_id_is_told(tmp_path: Path) -> None:
    """Where the kernel tells no boot, a fall of counters could not be explained."""
    with pytest.raises(ConfigurationFault, match="Linux"):
        boot_id(tmp_path / "boot_id")


@NEEDS_PROC
def test_this_machine_can_be_read() -> None:
    """The real probe gives whole numbers of this machine, and finds this process in its group."""
    probe = LinuxProbe(parse_groups([f"me={Path(sys.argv[0]).name}|{Path(sys.executable).name}", "none=^$x"]))
    first, second = probe.read(), probe.read()
    assert first.host.memory_total_bytes > first.host.memory_used_bytes > 0
    assert first.host.cpu_cores == os.cpu_count()
    assert sum(second.host.cpu_us.values()) >= sum(first.host.cpu_us.values()) > 0
    assert any(key.startswith(f"{os.getpid()}@") for key in first.groups[0].cpu_us)
    assert first.groups[0].memory_rss_bytes > 0
    assert not first.groups[1].cpu_us


@NEEDS_PROC
def test_a_dry_run_shows_events_the_decoder_takes() -> None:
    """What --dry-run prints are whole events, ending with completeness, and nothing is kept."""
    events = [decode_event(raw) for raw in dry_run(AgentOptions(subject="web-01", groups=("me=python",)))]
    assert all(isinstance(event, UsageEvent) for event in events)
    kinds = [event.type for event in events if isinstance(event, UsageEvent)]
    assert kinds == [
        "rackmeter.host.counters.v1",
        "rackmeter.group.counters.v1",
        "rackmeter.control.complete_until.v1",
    ]
