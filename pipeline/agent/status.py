"""What an agent says about itself: a small file, written each beat, that `agent status` reads."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.domain.errors import ConfigurationFault
from pipeline.ingest.emitter_state import file_stem

STATUS_VERSION = 1


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """
    As of `beat_us`; times in microseconds since 1970.

    `cpu_us` is the processor time this process used since `started_us`; `skew_ms` and `fault` are those of
    ingest.delivery, `beat_fault` is why the last beat gave nothing, None after a good one.
    """

    source: str
    subject: str
    pid: int
    interval_seconds: int
    started_us: int
    beat_us: int
    beat_count: int
    failed_beat_count: int
    cpu_us: int
    rss_bytes: int
    skew_ms: int | None
    fault: str | None
    beat_fault: str | None
    version: int = STATUS_VERSION


def spool_folder(state_dir: Path, source: str) -> Path:
    """Where a source's spool lies."""
    return state_dir / f"{file_stem(source)}.spool"


def totals_path(state_dir: Path, source: str) -> Path:
    """Where a source's totals lie."""
    return state_dir / f"{file_stem(source)}.totals.json"


def status_path(state_dir: Path, source: str) -> Path:
    """Where a source's status lies."""
    return state_dir / f"{file_stem(source)}.status.json"


def store_status(path: Path, status: AgentStatus) -> None:
    """Replace the stored status; OSError where it cannot be written."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(status))
    temporary.replace(path)


def load_status(path: Path) -> AgentStatus | None:
    """
    The stored status; None where no agent has run.

    Raises:
        ConfigurationFault: The file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=AgentStatus)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationFault(f"{path} cannot be read: {error}") from error
