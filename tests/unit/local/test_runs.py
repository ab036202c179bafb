"""Run folders: good ones are kept, and a finished one knows what it came to."""

from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.local import runs
from pipeline.local.demo import Demo, DemoRequest
from pipeline.local.folder_lock import LOCK_FILE, held
from pipeline.local.runs import RunRecord
from pipeline.local.trace import HEADER

RECORD = RunRecord(trace="/a/trace.csv", digest="d", month="2026-06", counted=7, documents={"a.html": "1", "b": "2"})


def make(root: Path, *finished: bool) -> list[Path]:
    """Make a run folder each, as one that was finished or not."""
    folders = []
    for is_finished in finished:
        folder = runs.make_folder(root)
        (folder / LOCK_FILE).touch()
        if is_finished:
            runs.write_record(folder, RECORD)
        folders.append(folder)
    return folders


def ignore(_: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize(
    ("finished", "left"),
    [
        ((True, True, True), [2, 3]),
        ((True, False, True), [1, 3]),
        ((True, False, False), [1, 3]),
        ((False, False, False), [2, 3]),
        ((True, True), [1, 2]),
    ],
)
def test_unfinished_runs_go_first(tmp_path: Path, finished: tuple[bool, ...], left: list[int]) -> None:
    """Two are kept, the newest finished one always among them."""
    make(tmp_path, *finished)
    runs.remove_older(tmp_path, ignore)
    assert [folder.name for folder in runs.run_folders(tmp_path)] == [f"run-{number:04d}" for number in left]


def test_a_run_in_use_stays(tmp_path: Path) -> None:
    """A held folder, and one that was made this moment, are not removed."""
    folders = make(tmp_path, False, False, True)
    (folders[1] / LOCK_FILE).unlink()
    with held(folders[0]):
        runs.remove_older(tmp_path, ignore, kept=0)
    assert runs.run_folders(tmp_path) == folders


def test_numbers_go_up(tmp_path: Path) -> None:
    """The next number follows the highest, by value and not by text."""
    (tmp_path / "run-9999").mkdir(parents=True)
    (tmp_path / "run-10000").mkdir()
    (tmp_path / "run-notes").mkdir()
    assert runs.make_folder(tmp_path).name == "run-10001"


def test_the_newest_finished_run_is_found(tmp_path: Path) -> None:
    """What a run wrote down is read again; an unfinished newer one is passed over."""
    with pytest.raises(ConfigurationFault, match="nothing to replay again"):
        runs.newest_finished(tmp_path)
    folders = make(tmp_path, True, True, False)
    assert runs.newest_finished(tmp_path) == (folders[1], RECORD)


def test_every_change_is_named() -> None:
    """A second replay changes neither what is counted nor a document."""
    later = RunRecord(RECORD.trace, RECORD.digest, RECORD.month, 8, {"a.html": "9", "c": "3"})
    assert RECORD.changes(RECORD) == []
    assert RECORD.changes(later) == [
        "8 events are counted, they were 7 when the run was finished",
        "the document a.html has changed",
        "the document b is missing",
        "the document c is new",
    ]


def demo(request: DemoRequest) -> Demo:
    return Demo(request, {}, ignore, lambda _step, _done, _total: None)


def test_a_bad_trace_touches_nothing(tmp_path: Path) -> None:
    """It is read before a folder is made, and no older run is removed."""
    folders = make(tmp_path, True, True)
    bad = tmp_path / "bad.csv"
    bad.write_text("vm\n")
    with pytest.raises(ConfigurationFault):
        demo(DemoRequest(tmp_path, trace=bad)).run()
    assert runs.run_folders(tmp_path) == folders


def test_again_needs_the_same_trace(tmp_path: Path) -> None:
    """A recorded trace that is gone, or has another content, is refused before anything is started."""
    folder = runs.make_folder(tmp_path)
    trace = tmp_path / "trace.csv"
    runs.write_record(folder, RunRecord(str(trace), "another", "2013-07", 1, {}))
    with pytest.raises(ConfigurationFault, match="cannot be read"):
        demo(DemoRequest(tmp_path, again=True)).run()
    trace.write_text(f"{HEADER}vm-1,1372629600,1,2600,100,1024,512,1,1,1,1\n")
    with pytest.raises(ConfigurationFault, match="its content differs"):
        demo(DemoRequest(tmp_path, again=True)).run()
    assert [path.name for path in folder.iterdir()] == [runs.RECORD_FILE]
