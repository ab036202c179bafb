"""Containers, read from their cgroups (version 2)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.agent.readings import ContainerReading

CGROUP_DIR = Path("/sys/fs/cgroup")
DEPTH_MAX = 8

#: Of docker, containerd, CRI-O and podman, with systemd or without: a scope or a folder named by 64 hex digits.
_CONTAINER = re.compile(r"(?:(?:docker|cri-containerd|crio|libpod)-)?([0-9a-f]{64})(?:\.scope)?")


def is_cgroup_v2(root: Path = CGROUP_DIR) -> bool:
    """Whether a folder is the root of cgroup v2."""
    return (root / "cgroup.controllers").is_file()


def read_containers(root: Path) -> tuple[ContainerReading, ...]:
    """Every container below a root, in order of its id; one that goes while it is read is left out."""
    found: dict[str, ContainerReading] = {}
    for container_id, folder in _containers(root, 0):
        try:
            found[container_id] = _read(container_id, folder)
        except OSError:
            # Its folder went with it, or the kernel answers ENODEV for one that is going.
            continue
    return tuple(found[name] for name in sorted(found))


def _containers(folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in names:
        match = _CONTAINER.fullmatch(name)
        if match is not None:
            yield match[1], folder / name
        elif depth < DEPTH_MAX:
            yield from _containers(folder / name, depth + 1)


def _read(container_id: str, folder: Path) -> ContainerReading:
    cpu = dict(line.split() for line in (folder / "cpu.stat").read_text(encoding="ascii").splitlines())
    return ContainerReading(
        container_id=container_id,
        cpu_us=int(cpu["usage_usec"]),
        memory_used_bytes=int(_text(folder / "memory.current") or 0),
        disk_read_bytes=_device_bytes(folder / "io.stat", "rbytes"),
        disk_write_bytes=_device_bytes(folder / "io.stat", "wbytes"),
    )


def _device_bytes(path: Path, key: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        device, *members = line.split()
        values = dict(member.split("=", 1) for member in members if "=" in member)
        if key in values:
            found[device] = int(values[key])
    return found


def _text(path: Path) -> str:
    """A controller's file; empty where the controller is not switched on."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
