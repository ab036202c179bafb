"""The demo's run folders: numbered, with a record in each that was finished, the oldest removed."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault
from pipeline.invoice_batch.documents.files import write_whole
from pipeline.local.folder_lock import LOCK_FILE, held

RECORD_FILE = "run.json"
SUMMARY_FILE = "summary.html"
RUNS_KEPT = 2
_NAME = "run-"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """
    What a run came to, for a later one in the same folder to be compared with.

    trace: Absolute path of the recorded trace; None where it was generated into the folder.
    digest: Of the trace's text.
    month: YYYY-MM that was closed.
    counted: How many events were counted.
    documents: sha256 by path below the documents' folder, without the summary page, which tells of its run.
    """

    trace: str | None
    digest: str
    month: str
    counted: int
    documents: Mapping[str, str]

    def changes(self, later: "RunRecord") -> list[str]:
        """Say what another replay of the same trace changed; it must change nothing."""
        found = []
        if later.counted != self.counted:
            found.append(f"{later.counted} events are counted, they were {self.counted} when the run was finished")
        for name in sorted(self.documents.keys() | later.documents.keys()):
            before, after = self.documents.get(name), later.documents.get(name)
            if before != after:
                change = "is new" if before is None else "is missing" if after is None else "has changed"
                found.append(f"the document {name} {change}")
        return found


def run_folders(root: Path) -> list[Path]:
    """Give the runs' folders, oldest first."""
    numbered = [
        (int(path.name.removeprefix(_NAME)), path)
        for path in root.glob(f"{_NAME}*")
        if path.is_dir() and path.name.removeprefix(_NAME).isdecimal()
    ]
    return [path for _, path in sorted(numbered)]


def make_folder(root: Path) -> Path:
    """Make the next run's folder."""
    root.mkdir(parents=True, exist_ok=True)
    runs = run_folders(root)
    number = int(runs[-1].name.removeprefix(_NAME)) if runs else 0
    while True:
        number += 1
        folder = root / f"{_NAME}{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            # Another demo, started at the same moment, has it.
            continue
        return folder


def newest_finished(root: Path) -> tuple[Path, RunRecord]:
    """
    Give the newest run that was finished.

    Raises:
        ConfigurationFault: There is none.
    """
    for folder in reversed(run_folders(root)):
        record = read_record(folder)
        if record is not None:
            return folder, record
    raise ConfigurationFault(
        f"no run in {root} was finished, so there is nothing to replay again; run `rackmeter demo` first"
    )


def read_record(folder: Path) -> RunRecord | None:
    """Give what a finished run wrote down; None for one that was not finished."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return RunRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigurationFault(f"{path} cannot be read ({error}); remove the folder") from error


def write_record(folder: Path, record: RunRecord) -> None:
    """Mark the run as finished."""
    write_whole(folder / RECORD_FILE, (json.dumps(asdict(record), indent=1, sort_keys=True) + "\n").encode())


def document_digests(documents_dir: Path) -> dict[str, str]:
    """Give sha256 of each document but the summary page, by its path below the folder."""
    return {
        str(path.relative_to(documents_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(documents_dir.rglob("*"))
        if path.is_file() and path.name != SUMMARY_FILE
    }


def remove_older(root: Path, say: Callable[[str], None], kept: int = RUNS_KEPT) -> None:
    """Remove runs beyond `kept`, unfinished ones first; never one that is in use, nor the newest finished one."""
    runs = run_folders(root)
    finished = [folder for folder in runs if (folder / RECORD_FILE).is_file()]
    candidates = [folder for folder in runs if folder not in finished] + finished[:-1]
    for folder in candidates[: max(0, len(runs) - kept)]:
        # One without a lock file is being made at this moment.
        if not (folder / LOCK_FILE).is_file():
            continue
        try:
            with held(folder):
                say(f"removing the older run {folder}")
                shutil.rmtree(folder, ignore_errors=True)
        except ConfigurationFault as fault:
            if fault.code not in ("folder_in_use", "folder_missing"):
                raise
