"""Named queries: SQL lives in `queries.sql` beside the module that runs it."""

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import LiteralString

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)$")


class Queries(Mapping[str, LiteralString]):
    """The statements of one file by name; an unknown name is a KeyError that says which file."""

    def __init__(self, origin: str, statements: Mapping[str, LiteralString]) -> None:
        self._origin = origin
        self._statements = statements

    def __getitem__(self, name: str) -> LiteralString:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"{self._origin} has no query named {name}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load_queries(package: str, file_name: str = "queries.sql") -> Queries:
    """
    Read the named statements of a package's SQL file.

    Args:
        package: The importing package, as `__package__`.
        file_name: A file beside the package's modules.

    Returns:
        Statements by name, comments kept (they show in pg_stat_activity).

    Raises:
        ValueError: Two statements share a name, or text stands before the first name.

    Shape: `-- name: take_marks`, then comment lines (purpose, locks), then the statement up to the next name.
    """
    origin = f"{package}/{file_name}"
    text = resources.files(package).joinpath(file_name).read_text(encoding="utf-8")
    blocks: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        if match := _NAME.match(line):
            name = match["name"]
            if name in blocks:
                raise ValueError(f"{origin} names {name} twice")
            current = blocks[name] = []
        elif current is not None:
            current.append(line)
        elif line.strip() and not line.startswith("--"):
            raise ValueError(f"{origin}: a statement stands before the first name")
    return Queries(origin, {name: "\n".join(lines).strip() for name, lines in blocks.items()})
