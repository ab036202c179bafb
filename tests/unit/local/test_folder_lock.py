"""A folder belongs to one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.local.folder_lock import held
from pipeline.local.stack import running_services

HOLDER = """
import sys
from pathlib import Path
from pipeline.local.folder_lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    """Before anything is started, the second one is refused with the process to stop; afterwards it may have it."""
    with held(tmp_path):
        with pytest.raises(ConfigurationFault, match=f"process {os.getpid()} uses this folder"):
            running_services(tmp_path, {}, lambda _: None, 1).__enter__()
        assert [path.name for path in tmp_path.iterdir()] == ["rackmeter.lock"]
    with held(tmp_path):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """The kernel gives the lock back however the process ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ConfigurationFault, match=f"process {holder.pid} "), held(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with held(tmp_path):
            pass


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Whoever removed it meanwhile had a reason."""
    with pytest.raises(ConfigurationFault, match="is not there"), held(tmp_path / "run-0001"):
        pass
