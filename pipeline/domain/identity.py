"""Event identity: sequenced ids, the partition a source lives in, and sets of numbers already seen."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

_SEQUENCED_ID = re.compile(r"([0-9a-f]{16})-([0-9]{12})")
_MASK_32 = 0xFFFFFFFF
NUMBER_MAX = 999_999_999_999


# A NamedTuple, not a dataclass: one is made for every event, and it must order by (epoch, number).
class SequencedId(NamedTuple):
    """An id of our own form: `epoch` is 16 lower-case hex digits, `number` counts from 1."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return format_sequenced_id(self.epoch, self.number)


def parse_sequenced_id(text: str) -> SequencedId | None:
    """Read 'EEEEEEEEEEEEEEEE-NNNNNNNNNNNN'; None for any other form, and for number 0."""
    match = _SEQUENCED_ID.fullmatch(text)
    if match is None:
        return None
    number = int(match[2])
    return SequencedId(match[1], number) if number else None


def format_sequenced_id(epoch: str, number: int) -> str:
    """The text of an id; ValueError where the number does not fit 12 digits or is below 1."""
    if not 1 <= number <= NUMBER_MAX:
        raise ValueError(f"number {number} is not between 1 and {NUMBER_MAX}")
    return f"{epoch}-{number:012d}"


def murmur2(data: bytes) -> int:
    """The 32-bit signed hash Java's Kafka client partitions by."""
    length = len(data)
    multiplier = 0x5BD1E995
    state = 0x9747B28C ^ length
    whole = length & ~3
    for index in range(0, whole, 4):
        word = int.from_bytes(data[index : index + 4], "little") * multiplier & _MASK_32
        word = (word ^ word >> 24) * multiplier & _MASK_32
        state = state * multiplier & _MASK_32 ^ word
    if length > whole:
        state = (state ^ int.from_bytes(data[whole:], "little")) * multiplier & _MASK_32
    state = (state ^ state >> 13) * multiplier & _MASK_32
    state ^= state >> 15
    return state - (1 << 32) if state >> 31 else state


def home_partition(source: str, partition_count: int) -> int:
    """The partition that owns a source: what Java clients compute for the source as key."""
    return (murmur2(source.encode()) & 0x7FFFFFFF) % partition_count


class IntervalSet:
    """A set of integers kept as sorted, disjoint, non-touching half-open intervals.

    Membership is O(log intervals); adding the number after the largest one is O(1).
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[int, int]]) -> "IntervalSet":
        """From half-open (start, stop) pairs in any order, which may overlap."""
        made = cls()
        for start, stop in pairs:
            made.add_range(start, stop)
        return made

    def to_pairs(self) -> list[tuple[int, int]]:
        """The half-open (start, stop) pairs, ascending."""
        return list(zip(self._starts, self._stops, strict=True))

    def copy(self) -> "IntervalSet":
        """An independent set with the same numbers."""
        made = IntervalSet()
        made._starts, made._stops = self._starts.copy(), self._stops.copy()
        return made

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._starts, number) - 1
        return index >= 0 and number < self._stops[index]

    def contains(self, number: int) -> bool:
        """Whether the number is in the set."""
        return number in self

    def covers(self, first: int, last: int) -> bool:
        """Whether every number from first to last, both included, is in the set; true where last < first."""
        if last < first:
            return True
        index = bisect_right(self._starts, first) - 1
        return index >= 0 and last < self._stops[index]

    def add(self, number: int) -> bool:
        """Put one number in; False where it was there."""
        stops = self._stops
        if stops and number == stops[-1]:
            stops[-1] = number + 1
            return True
        if number in self:
            return False
        self.add_range(number, number + 1)
        return True

    def add_range(self, start: int, stop: int) -> None:
        """Put [start, stop) in; what is there already stays."""
        if start >= stop:
            return
        left = bisect_left(self._stops, start)
        right = bisect_right(self._starts, stop)
        if left < right:
            start = min(start, self._starts[left])
            stop = max(stop, self._stops[right - 1])
        self._starts[left:right] = [start]
        self._stops[left:right] = [stop]

    def remove(self, number: int) -> bool:
        """Take one number out; False where it was not there."""
        index = bisect_right(self._starts, number) - 1
        if index < 0 or number >= self._stops[index]:
            return False
        start, stop = self._starts[index], self._stops[index]
        pieces = [piece for piece in ((start, number), (number + 1, stop)) if piece[0] < piece[1]]
        self._starts[index : index + 1] = [piece[0] for piece in pieces]
        self._stops[index : index + 1] = [piece[1] for piece in pieces]
        return True

    @property
    def largest(self) -> int | None:
        """The largest number, or None where the set is empty."""
        return self._stops[-1] - 1 if self._stops else None

    @property
    def count(self) -> int:
        """How many numbers are in the set."""
        return sum(self._stops) - sum(self._starts)

    @property
    def interval_count(self) -> int:
        """How many intervals hold them."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"IntervalSet({self.to_pairs()})"
