"""The image: pinned, locked, not root, and without anything that production must not have."""

import re
import tomllib

from deploy.runtime_requirements import direct, lock_entries, normalised, runtime
from tests.tidy.source import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def _instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def _extras() -> set[str]:
    named = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    return {normalised(re.split(r"[^A-Za-z0-9._-]", text)[0]) for texts in named.values() for text in texts}


def _chosen() -> dict[str, str]:
    return runtime(lock_entries(LOCK), direct(PYPROJECT))


def test_every_base_is_pinned_to_one_digest() -> None:
    """The image of a commit can be built again, and both of its halves have one Python."""
    bases = {line.split()[0] for line in _instructions("FROM")}

    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.[0-9]+-slim-bookworm@sha256:[0-9a-f]{64}", bases.pop())


def test_it_does_not_run_as_root() -> None:
    """The last user is a number that is not zero, as orchestrators can check it, and is that of the compose file."""
    assert _instructions("USER") == ["10001:10001"]


def test_packages_are_installed_by_hash_and_nothing_else_is() -> None:
    """No package comes in beside the lock, and no tool is fetched."""
    installs = [line for line in _instructions("RUN") if "pip install" in line]

    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert not re.search(r"\b(curl|wget|apt-get|ADD)\b", DOCKERFILE)


def test_what_is_copied_is_sent_to_the_build() -> None:
    """What .dockerignore holds back cannot be copied."""
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {source for line in _instructions("COPY") if not line.startswith("--from") for source in line.split()[:-1]}

    assert copied == sent
    assert all((ROOT / path).exists() for path in copied)


def test_the_program_runs_on_what_is_chosen() -> None:
    """Everything the program names is there, with its hashes."""
    chosen = _chosen()

    assert direct(PYPROJECT) <= chosen.keys()
    assert all("--hash=sha256:" in entry for entry in chosen.values())


def test_no_tool_of_the_developers_is_chosen() -> None:
    """Neither the tests' packages nor the embedded broker and database get into production."""
    assert _extras() & _chosen().keys() == set()
    assert len(_chosen()) < len(lock_entries(LOCK))


def test_a_package_with_a_version_for_each_python_keeps_both() -> None:
    """Markers choose between them when they are installed."""
    pins = re.findall(r"^([a-z0-9._-]+)==", "".join(_chosen().values()), re.MULTILINE)
    locked = [name for name in re.findall(r"^([a-z0-9._-]+)==", LOCK, re.MULTILINE) if normalised(name) in _chosen()]

    assert pins == locked


def test_what_a_chosen_package_needs_is_chosen() -> None:
    """`httpx` is a developer's tool, `h11` is needed by uvicorn too: what several need stays."""
    lock = "\n".join(
        (
            "# made by hand",
            "h11==1 \\",
            "    --hash=sha256:aa",
            "    # via",
            "    #   httpx",
            "    #   Uvi_corn",
            "httpx[http2]==1 ; python_version > '3' \\",
            "    --hash=sha256:bb",
            "    # via rackmeter (pyproject.toml)",
            "sniffio==1 \\",
            "    --hash=sha256:cc",
            "    # via httpx",
            "uvi-corn==1 \\",
            "    --hash=sha256:dd",
            "    # via rackmeter (pyproject.toml)",
            "",
        )
    )

    assert list(runtime(lock_entries(lock), {"uvi-corn"})) == ["h11", "uvi-corn"]
