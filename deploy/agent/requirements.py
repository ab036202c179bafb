"""Prints the part of requirements.lock that an agent needs: versions and hashes, without the rest of the pipeline's."""

import re
import sys
from pathlib import Path

#: What the agent imports, and what that needs; a test compares the list with the packages' own metadata.
PACKAGES = (
    "annotated-doc",
    "annotated-types",
    "confluent-kafka",
    "markdown-it-py",
    "mdurl",
    "msgspec",
    "prometheus-client",
    "psutil",
    "pydantic",
    "pydantic-core",
    "pygments",
    "rich",
    "shellingham",
    "typer",
    "typing-extensions",
    "typing-inspection",
    "tzdata",
)


def locked(text: str) -> dict[str, str]:
    """The lock's entries by package: the pinned line and its hashes."""
    entries = re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries if "==" in entry.partition("\n")[0]}


def main() -> None:
    """Print the agent's part of the lock given as argument; exit code 1 where a package is missing in it."""
    entries = locked(Path(sys.argv[1]).read_text(encoding="utf-8"))
    missing = [name for name in PACKAGES if name not in entries]
    if missing:
        raise SystemExit(f"{sys.argv[1]} lacks {', '.join(missing)}")
    sys.stdout.write("".join(entries[name] for name in PACKAGES))


if __name__ == "__main__":
    main()
