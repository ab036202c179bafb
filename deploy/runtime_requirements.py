"""Print the part of requirements.lock that the installed program needs: no test tools, no embedded parts."""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_VIA = re.compile(r"^ {4}#(?: via| {3}) *(.*)$", re.MULTILINE)


def normalised(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_entries(lock: str) -> dict[str, str]:
    """The lock's entries by package, each with its hashes and the comment that says who needs it."""
    entries: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#")) and "==" in line:
            name = normalised(line.partition("==")[0].partition("[")[0])
            # Twice where versions of Python get different ones.
            entries.setdefault(name, "")
        if name:
            entries[name] += line
    return entries


def needed_by(entry: str) -> set[str]:
    """Who needs an entry, by its `via` comment: packages, or 'rackmeter' for what the project names itself."""
    return {normalised(match[0]) for text in _VIA.findall(entry) if (match := _NAME.match(text))}


def direct(pyproject: str) -> set[str]:
    """What the project itself needs to run."""
    named: list[str] = tomllib.loads(pyproject)["project"]["dependencies"]
    return {normalised(match[0]) for text in named if (match := _NAME.match(text))}


def runtime(entries: Mapping[str, str], roots: Iterable[str]) -> dict[str, str]:
    """
    The entries that the roots need, themselves included.

    Raises:
        SystemExit: A root is not in the lock.
    """
    chosen = set(roots)
    if missing := sorted(chosen - entries.keys()):
        raise SystemExit(f"not in the lock: {', '.join(missing)}; run `make lock`")
    users = {name: needed_by(entry) for name, entry in entries.items()}
    while more := {name for name, by in users.items() if by & chosen} - chosen:
        chosen |= more
    return {name: entries[name] for name in entries if name in chosen}


def main() -> None:
    """Read both files from the folder given, or from the checkout, and print what is needed."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    lock = (folder / "requirements.lock").read_text(encoding="utf-8")
    roots = direct((folder / "pyproject.toml").read_text(encoding="utf-8"))
    sys.stdout.write("".join(runtime(lock_entries(lock), roots).values()))


if __name__ == "__main__":
    main()
