"""What is read from /proc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the benchmarks read Linux's /proc")


def test_a_program_may_be_called_anything() -> None:
    """Spaces and parentheses in a program's name do not shift the fields behind it."""
    rest = " S 1 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0"

    assert machine.ticks_of("7 (postgres)" + rest) == 110
    assert machine.ticks_of("7 (a) b) (c)" + rest) == 110


def test_processor_time_includes_children_that_ended() -> None:
    """A session of the database that is over stays in the sum."""
    before = machine.cpu_seconds(os.getpid())
    spin = "import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-I", "-S", "-c", spin], check=True)

    assert machine.cpu_seconds(os.getpid()) - before >= 0.04


def test_facts_are_all_there(tmp_path: Path) -> None:
    """A figure never stands without the machine it was seen on."""
    facts = machine.facts(tmp_path)

    assert facts.cores >= 1
    assert facts.memory_gib > 0
    assert facts.filesystem != ""
    assert not list(tmp_path.iterdir())
    assert machine.peak_memory_mib(os.getpid()) > 1
    assert machine.memory_mib(os.getpid()) > 1
