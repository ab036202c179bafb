"""The journal: whatever crashes, what was acknowledged is there, once, in order; what was altered is noticed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault, InvariantViolation
from pipeline.proof.outside_lines import read_stream
from pipeline.proof.report import Findings
from pipeline.runtime.journal import Journal

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def open_journal(folder: Path) -> Journal:
    return Journal(folder, lambda: NOW)


def numbers_read(folder: Path) -> list[int]:
    """As the journal gives them, first to last; the proof's own reading must say the same and find nothing."""
    findings = Findings()
    by_proof = [line.record["n"] for line in read_stream(folder / "s.jsonl", findings)]
    by_journal = [line.record["n"] for line in open_journal(folder).backwards("s")][::-1]
    assert by_proof == by_journal
    assert findings.differences == []
    return by_journal


def differences(folder: Path) -> list[str]:
    findings = Findings()
    read_stream(folder / "s.jsonl", findings)
    return [difference.text for difference in findings.differences]


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    """Over several appends and journals; lines longer than a block too."""
    open_journal(tmp_path).append("s", [{"n": 1}, {"n": 2, "text": "x" * 200_000}])
    open_journal(tmp_path).append("s", [])
    open_journal(tmp_path).append("s", [{"n": 3, "text": "é\n"}])

    last = open_journal(tmp_path).last("s")
    assert last is not None
    assert (last.number, last.record["text"]) == (3, "é\n")
    assert numbers_read(tmp_path) == [1, 2, 3]
    assert open_journal(tmp_path).last("other") is None
    assert open_journal(tmp_path).streams() == ["s"]


def test_a_line_cut_anywhere_by_a_crash_is_left_behind(tmp_path: Path) -> None:
    """Every length of what a crash leaves of the last line: those before stay, those after go on from them."""
    file = tmp_path / "s.jsonl"
    open_journal(tmp_path).append("s", [{"n": 1}, {"n": 2}])
    whole = file.read_bytes()
    second_at = whole.index(b"\n") + 1
    for length in range(second_at, len(whole)):
        file.write_bytes(whole[:length])
        assert numbers_read(tmp_path) == [1]
        open_journal(tmp_path).append("s", [{"n": 3}])
        open_journal(tmp_path).append("s", [{"n": 4}])
        assert numbers_read(tmp_path) == [1, 3, 4], length


def test_a_first_line_that_was_cut_is_left_behind_too(tmp_path: Path) -> None:
    """A stream of nothing but what a crash left has no last line."""
    (tmp_path / "s.jsonl").write_bytes(b'{"number":1')
    assert open_journal(tmp_path).last("s") is None
    open_journal(tmp_path).append("s", [{"n": 1}])
    assert numbers_read(tmp_path) == [1]


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("how", ["changed", "removed", "garbled", "doubled", "swapped"])
def test_what_was_altered_before_the_last_line_is_found(tmp_path: Path, line: int, how: str) -> None:
    """A line that was changed, removed, garbled, doubled or moved breaks the line that goes on from it."""
    open_journal(tmp_path).append("s", [{"n": n} for n in range(1, 5)])
    file = tmp_path / "s.jsonl"
    lines = file.read_bytes().splitlines()
    if how == "changed":
        lines[line] = lines[line].replace(b'"n":', b'"n":1')
    elif how == "removed":
        del lines[line]
    elif how == "garbled":
        lines[line] = lines[line][:-9]
    elif how == "swapped":
        lines[line], lines[line + 1] = lines[line + 1], lines[line]
    else:
        lines.insert(line, lines[line])
    file.write_bytes(b"\n".join(lines) + b"\n")

    assert len(differences(tmp_path)) == 1
    with pytest.raises(InvariantViolation, match="not as it was written"):
        list(open_journal(tmp_path).backwards("s"))


def test_nothing_is_added_behind_a_line_that_is_none_of_ours(tmp_path: Path) -> None:
    """Going on from it would make it look like one."""
    (tmp_path / "s.jsonl").write_bytes(json.dumps(["other"]).encode() + b"\n")
    with pytest.raises(InvariantViolation, match="not as it was written"):
        open_journal(tmp_path).append("s", [{"n": 1}])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A disk that is not mounted must not look like an empty journal."""
    with pytest.raises(ConfigurationFault, match="mkdir -p"):
        Journal(tmp_path / "missing")


@pytest.mark.parametrize("stream", ["", "../s", "a/b", "a b"])
def test_a_stream_is_a_file_in_the_folder(tmp_path: Path, stream: str) -> None:
    """No name reaches out of it."""
    with pytest.raises(ValueError, match="no name of a stream"):
        open_journal(tmp_path).append(stream, [{"n": 1}])
