"""The agent is small: it needs few packages, and no part of the pipeline that a host has no use for."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

#: What the agent's modules and its command import themselves.
DIRECT = ("confluent-kafka", "msgspec", "prometheus-client", "psutil", "rich", "typer", "tzdata")

LOADED = """
import sys
import pipeline.agent.service, pipeline.agent.dry_run, pipeline.agent.resend, pipeline.cli.main
import pipeline.ingest.spool_report, rich.table
print("\\n".join({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


def listed() -> tuple[str, ...]:
    path = ROOT / "deploy" / "agent" / "requirements.py"
    spec = importlib.util.spec_from_file_location("agent_requirements", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    packages: tuple[str, ...] = module.PACKAGES
    assert set(packages) <= set(module.locked((ROOT / "requirements.lock").read_text(encoding="utf-8")))
    return packages


def test_the_containers_packages_are_what_the_agent_needs() -> None:
    """The list is the direct packages and everything these ask for, each in the lock."""
    needed: set[str] = set()
    waiting = list(DIRECT)
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        for requirement in importlib.metadata.requires(name) or ():
            wanted, _, marker = requirement.partition(";")
            if "extra" in marker or "platform" in marker or 'python_version < "3.11"' in marker:
                continue
            waiting.append(re.split(r"[^A-Za-z0-9._-]", wanted.strip())[0].lower().replace("_", "-"))
    assert sorted(needed) == list(listed())


def test_the_agent_loads_nothing_else() -> None:
    """Neither the database's driver nor data frames nor the broker's test parts come into its process."""
    told = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    owners = importlib.metadata.packages_distributions()
    loaded = {
        distribution.lower().replace("_", "-") for top in told.stdout.split() for distribution in owners.get(top, ())
    }
    # An environment's setuptools hooks itself into every start of Python.
    assert loaded - {"rackmeter", "setuptools"} <= set(listed())
