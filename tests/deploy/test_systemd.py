"""The systemd units: what they start exists, their settings can be read, and systemd itself understands them."""

import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
import typer.main

from pipeline.bootstrap import STAGES
from pipeline.bootstrap.stages import EXIT_HALTED, EXIT_MISCONFIGURED
from pipeline.cli.main import app
from pipeline.runtime.settings import Settings, foreign_variables
from tests.deploy.files import DEPLOY, INSTALL

PROGRAM = "/opt/rackmeter/venv/bin/rackmeter"
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(
    path for path in SYSTEMD.iterdir() if path.suffix in (".service", ".timer", ".target") and "agent" not in path.name
)
SERVICES = [path for path in UNITS if path.suffix == ".service"]


def _environment(name: str) -> dict[str, str]:
    lines = (SYSTEMD / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    """Command and options are those of the program."""
    found = re.findall(rf"{PROGRAM} ([a-z-]+)((?: --[a-z-]+)*)", unit.read_text(encoding="utf-8"))
    commands = typer.main.get_command(app)

    assert found
    for name, options in found:
        command = commands.commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(options.split()) <= known


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_unit_is_not_root_and_sees_little(unit: Path) -> None:
    """Its own user, no privileges, a read-only system."""
    text = unit.read_text(encoding="utf-8")

    for line in (
        "User=rackmeter",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "UMask=0027",
    ):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize("name", ["rackmeter-stage@.service", "rackmeter-watch.service"])
def test_what_needs_a_person_is_not_started_again(name: str) -> None:
    """Whatever else ends is started again, as often as it takes."""
    text = (SYSTEMD / name).read_text(encoding="utf-8")

    assert "\nRestart=on-failure\n" in text
    assert f"\nRestartPreventExitStatus={EXIT_HALTED} {EXIT_MISCONFIGURED}\n" in text
    assert "\nStartLimitIntervalSec=0\n" in text


def test_the_target_has_every_stage() -> None:
    """One command starts all of them."""
    text = (SYSTEMD / "rackmeter.target").read_text(encoding="utf-8")
    wanted = set(re.findall(r"rackmeter-stage@([a-z_]+)\.service", text))

    assert wanted == set(STAGES)
    assert "rackmeter-watch.service" in text


def test_the_settings_of_the_example_can_be_read() -> None:
    """Only the passwords are left to be filled in."""
    environment = _environment("rackmeter.env.example")
    Settings.from_environment(environment)

    assert foreign_variables(environment) == []
    assert [name for name, value in environment.items() if not value] == ["PGPASSWORD"]
    assert _environment("owner.env.example").keys() == {"DATABASE_URL", "PGPASSWORD"}


def test_every_unit_is_installed_by_the_instructions() -> None:
    """docs/install.md names what is enabled, and each file by the pattern that copies all."""
    text = INSTALL.read_text(encoding="utf-8")

    assert "deploy/systemd/rackmeter" in text
    for name in ("rackmeter.target", "rackmeter-close.timer"):
        assert name in text


def _shell_line(unit: str, program: Path) -> str:
    """What a unit's `sh -c` runs, as the shell sees it, with another program in place of ours."""
    match = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", (SYSTEMD / unit).read_text(encoding="utf-8"), re.MULTILINE)
    assert match
    return match[1].replace("$$", "$").replace("%%", "%").replace(PROGRAM, str(program)).replace("sleep 5", "sleep 0")


def _stub(folder: Path, *lines: str) -> Path:
    program = folder / "rackmeter"
    program.write_text("\n".join(("#!/bin/sh", f'echo "$@" >> {folder}/calls', *lines, "")), encoding="utf-8")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("code", "calls"), [(0, ["migrate", "topics"]), (75, ["migrate"] * 4), (78, ["migrate"])])
def test_preparing_waits_for_services_and_for_nothing_else(tmp_path: Path, code: int, calls: list[str]) -> None:
    """Where a service does not answer it tries again, so that the stages' start is not given up; else it ends."""
    # After the fourth call it is a setting that is wrong, so that the test ends.
    lines = f"[ $(wc -l < {tmp_path}/calls) -ge 4 ] && exit 78", f"exit {code}"
    told = subprocess.run(
        ["/bin/sh", "-c", _shell_line("rackmeter-prepare.service", _stub(tmp_path, *lines))], check=False
    )

    assert told.returncode == (0 if code == 0 else 78)
    assert (tmp_path / "calls").read_text(encoding="utf-8").split() == calls


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the units ask GNU date")
def test_the_nightly_close_is_of_last_month(tmp_path: Path) -> None:
    """Also on the 31st, when a month ago is no day."""
    last = datetime.now(UTC).replace(day=1) - timedelta(days=1)
    subprocess.run(["/bin/sh", "-c", _shell_line("rackmeter-close.service", _stub(tmp_path))], check=True)

    assert (tmp_path / "calls").read_text(encoding="utf-8") == f"close --catch-up --period {last:%Y-%m}\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    """No unknown directive and no unit that is named and not there; the program itself need not be installed."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace(PROGRAM, "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    names = [unit.name.replace("@.", "@aggregate.") for unit in UNITS]
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
