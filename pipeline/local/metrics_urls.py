"""Where the stages serve their metrics: each takes a free port and writes it to its log."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.local.processes import ChildReport


class MetricsUrls:
    """Reads the logs of children from their present ends on; made before the children are started."""

    def __init__(self, children: Sequence[ChildReport]) -> None:
        self._files = {child.name: child.log_file for child in children}
        self._read_to = {name: _size(path) for name, path in self._files.items()}

    def found(self) -> list[tuple[str, str]]:
        """Give the child and URL of each start that was logged since the last time."""
        urls = []
        for name, path in self._files.items():
            for line in self._new_lines(name, path):
                # Looked at before it is parsed: a busy log has many lines.
                if b'"metrics_port"' in line and (port := _port_in(line)):
                    urls.append((name, f"http://127.0.0.1:{port}/metrics"))
        return urls

    def _new_lines(self, name: str, path: Path) -> list[bytes]:
        start = self._read_to[name]
        if _size(path) <= start:
            return []
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read_to[name] = start + len(whole)
        return whole.splitlines()


def last_said(logs: Path) -> dict[str, str]:
    """Give where each stage whose log is in the folder served its metrics when it was last started."""
    urls = {}
    for path in sorted(logs.glob("*.log")):
        ports = [
            port for line in path.read_bytes().splitlines() if b'"metrics_port"' in line and (port := _port_in(line))
        ]
        if ports:
            urls[path.stem] = f"http://127.0.0.1:{ports[-1]}/metrics"
    return urls


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _port_in(line: bytes) -> int:
    try:
        found = json.loads(line)
    except ValueError:
        return 0
    port = found.get("metrics_port") if isinstance(found, dict) else None
    return port if isinstance(port, int) else 0
