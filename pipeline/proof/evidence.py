"""Step one: is the archive whole, and is it what was listed?"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.proof.facts import ArchiveFile
from pipeline.proof.report import Findings

STEP = "evidence"
_BLOCK_BYTES = 1 << 20


def files_below(manifest: Sequence[ArchiveFile], offsets: Mapping[int, int]) -> list[ArchiveFile]:
    """Give the files that begin below the offsets."""
    return [file for file in manifest if file.offset_first < offsets.get(file.partition, 0)]


def check_files(
    archive_dir: Path,
    files: Sequence[ArchiveFile],
    began: Mapping[int, int],
    offsets: Mapping[int, int],
    findings: Findings,
) -> bool:
    """
    Compare files with the manifest: there, byte for byte as listed, as many rows, ranges without a gap.

    Args:
        archive_dir: The archive folder.
        files: Those that begin below the offsets.
        began: Where the reading of each partition began.
        offsets: Up to where there must be evidence.
        findings: Takes what differs.

    Returns:
        Whether the files can be read; if not, nothing more can be proven from them.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        readable = list(pool.map(lambda file: _check_file(archive_dir, file), files))
    problems = [problem for problem in readable if problem is not None]
    findings.add_listed(STEP, [(problem, None) for problem in problems])
    findings.compared["archive_files"] = max(findings.compared["archive_files"], len(files))
    for partition, wanted in sorted(offsets.items()):
        listed = [file for file in files if file.partition == partition]
        _check_ranges(partition, began.get(partition, 0), wanted, listed, findings)
    return not problems


def _check_file(archive_dir: Path, file: ArchiveFile) -> str | None:
    path = archive_dir / file.path
    name = f"archive file {file.path}"
    digest = hashlib.sha256()
    try:
        with path.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error}"
    if digest.hexdigest() != file.digest:
        return (
            f"{name}: an archive row was changed, added or removed; digest {digest.hexdigest()}, listed {file.digest}"
        )
    try:
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        return f"{name} is not Parquet: {error}"
    if rows != file.row_count:
        return f"{name} holds {rows} rows, listed {file.row_count}"
    return None


def _check_ranges(partition: int, began: int, wanted: int, files: Sequence[ArchiveFile], findings: Findings) -> None:
    reached = began
    for file in sorted(files, key=lambda file: file.offset_first):
        if file.offset_first != reached:
            findings.add(STEP, f"partition {partition}: offsets {reached} to {file.offset_first} are in no file")
        reached = max(reached, file.offset_next)
    if reached < wanted:
        findings.add(STEP, f"partition {partition} is archived up to offset {reached}, {wanted} is needed")
