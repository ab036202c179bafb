"""Typed reading of one mapping of a document: each reader reports what is wrong and goes on with a stand-in."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TypeVar, overload

from pipeline.catalogue.marked_yaml import Report, Tree
from pipeline.catalogue.model import SLOT_EDGE_SECONDS, Moment
from pipeline.domain.decimals import parse_exact
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.period import local_midnight
from pipeline.domain.slots import US_PER_SECOND, to_us

TEXT_LENGTH_MAX = 256
YEARS = range(1970, 9999)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})")
_INTEGER = re.compile(r"[0-9]{1,9}")
_Choice = TypeVar("_Choice", bound=str)


class Section:
    """A mapping at a path."""

    def __init__(self, tree: Tree, path: str, report: Report) -> None:
        self.path = path
        self.report = report
        self._read: set[str] = set()
        self._tree: Mapping[str, Tree] = {}
        if isinstance(tree, dict):
            self._tree = tree
        elif tree is not None:
            self.problem("", "is not a mapping")

    def problem(self, key: str, message: str) -> None:
        """Report something wrong with a field, or with the section itself where key is ''."""
        self.report.add(self.at(key), message)

    def at(self, key: str) -> str:
        """The path of a field."""
        return ".".join(part for part in (self.path, key) if part)

    def has(self, key: str) -> bool:
        """Whether the field is there and not empty."""
        return self._tree.get(key) is not None

    def tree(self, key: str) -> Tree:
        """The field as it stands."""
        self._read.add(key)
        return self._tree.get(key)

    def rest(self) -> dict[str, Tree]:
        """The fields not read so far; they count as read."""
        found = {key: value for key, value in self._tree.items() if key not in self._read}
        self._read.update(found)
        return found

    def finish(self) -> None:
        """Report fields that nobody read."""
        for key in self._tree:
            if key not in self._read:
                self.problem(key, f"is not known here; known: {', '.join(sorted(self._read))}")

    def _missing(self, key: str) -> None:
        self.problem(key, "is missing")

    @overload
    def text(self, key: str) -> str: ...
    @overload
    def text(self, key: str, default: str) -> str: ...
    @overload
    def text(self, key: str, default: None) -> str | None: ...
    def text(self, key: str, default: str | None = "\0") -> str | None:
        """Text of at most 256 characters without control characters; missing is a problem unless there is a default."""
        value = self.tree(key)
        if value is None:
            if default != "\0":
                return default
            self._missing(key)
        elif not isinstance(value, str):
            self.problem(key, "is not text")
        elif not value.strip() or len(value) > TEXT_LENGTH_MAX or not value.isprintable():
            self.problem(key, f"is empty, longer than {TEXT_LENGTH_MAX} characters, or holds control characters")
        else:
            return value
        return ""

    def name(self, key: str) -> str:
        """A name: letters, digits, - and _."""
        value = self.text(key)
        if value and not is_name(value):
            self.problem(key, not_a_name(value))
            return ""
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of text, empty where the field is missing; a bad member is reported and left as ''."""
        value = self.tree(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.problem(key, "is not a list of text")
            return ()
        found = []
        for index, member in enumerate(value):
            is_text = isinstance(member, str) and member != "" and member.isprintable()
            if not is_text:
                self.problem(f"{key}[{index}]", "is not text, is empty, or holds control characters")
            found.append(str(member) if is_text else "")
        return tuple(found)

    def choice(self, key: str, choices: Iterable[_Choice], default: _Choice | None = None) -> _Choice | None:
        """One of some words."""
        value = self.tree(key)
        if value is None and default is not None:
            return default
        words = {str(one): one for one in choices}
        if isinstance(value, str) and value in words:
            return words[value]
        if value is None:
            self._missing(key)
        else:
            self.problem(key, f"{value!r} is not one of {', '.join(words)}")
        return None

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number, at least 1."""
        value = self.tree(key)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and _INTEGER.fullmatch(value) and int(value) > 0:
            return int(value)
        if value is None:
            self._missing(key)
        else:
            self.problem(key, f"{value!r} is not a whole number of at least 1")
        return 1

    def decimal_above_zero(self, key: str) -> Decimal:
        """A decimal number above zero, exact from its text."""
        value = self.tree(key)
        if value is None:
            self._missing(key)
            return Decimal(1)
        try:
            number = parse_exact(value if isinstance(value, str) else repr(value))
        except ValueError as error:
            self.problem(key, str(error))
            return Decimal(1)
        if number <= 0:
            self.problem(key, f"is {value}, not above zero")
            return Decimal(1)
        return number

    def moment(self, key: str, *, is_required: bool = False) -> Moment | None:
        """A date, or a time with its zone; None if it is missing or wrong."""
        value = self.tree(key)
        if value is None:
            if is_required:
                self._missing(key)
            return None
        try:
            return parse_moment(value if isinstance(value, str) else repr(value))
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def time(self, key: str, zone_name: str, *, is_required: bool = False) -> datetime | None:
        """A moment in UTC, a date being its local midnight in the zone; None if it is missing or wrong."""
        moment = self.moment(key, is_required=is_required)
        try:
            return None if moment is None else place(moment, zone_name)
        except (ValueError, ConfigurationFault) as error:
            self.problem(key, str(error))
            return None

    def sections(self, key: str) -> Iterator[tuple[str, "Section"]]:
        """The members of a mapping of mappings, by name; reports bad names."""
        for name, tree in Section(self.tree(key), self.at(key), self.report).rest().items():
            section = Section(tree, f"{self.at(key)}.{name}", self.report)
            if not is_name(name):
                section.problem("", not_a_name(name))
            elif tree is None:
                section.problem("", "is empty")
            yield name, section

    def items(self, key: str) -> Iterator["Section"]:
        """The members of a list of mappings."""
        tree = self.tree(key)
        if tree is None:
            return
        if not isinstance(tree, list):
            self.problem(key, "is not a list")
            return
        for index, member in enumerate(tree):
            section = Section(member, f"{self.at(key)}[{index}]", self.report)
            if member is None:
                section.problem("", "is empty")
            yield section


def is_name(text: str) -> bool:
    """Whether the text may name something: letters, digits, - and _, at most 63."""
    return _NAME.fullmatch(text) is not None


def not_a_name(text: str) -> str:
    """The message about a text that may not name anything."""
    return f"{text!r} is not a name (letters, digits, - and _, at most 63)"


def parse_moment(text: str) -> Moment:
    """A date "2026-06-16", or a time with its zone "2026-06-16T12:00+02:00"; anything else is a ValueError."""
    try:
        if _DATE.fullmatch(text):
            found: Moment = date.fromisoformat(text)
        elif _TIME.fullmatch(text):
            found = datetime.fromisoformat(text)
            place(found, "UTC")
        else:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a date (2026-06-16) nor a time with its zone on a 15-minute mark "
            "(2026-06-16T12:00+02:00)"
        ) from None
    if found.year not in YEARS:
        raise ValueError(f"{text!r} is not between the years {YEARS.start} and {YEARS.stop}")
    return found


def place(moment: Moment, zone_name: str) -> datetime:
    """The moment in UTC, a date being its local midnight; ValueError where it is not on a 15-minute mark."""
    if isinstance(moment, datetime):
        at = moment.astimezone(UTC)
    else:
        at = local_midnight(moment.year, moment.month, moment.day, zone_name)
    if to_us(at) % (SLOT_EDGE_SECONDS * US_PER_SECOND):
        raise ValueError(f"{at.isoformat()} is not on a 15-minute mark")
    return at
