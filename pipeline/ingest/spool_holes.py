"""Holes of a spool: numbers that will never be delivered, each kept until its declaration was acknowledged."""

from collections.abc import Iterable

import msgspec

from pipeline.contracts.usage_event import CONTROL_PREFIX
from pipeline.domain.identity import IntervalSet
from pipeline.ingest.spool_segment import Record

DROPPED_TYPE = f"{CONTROL_PREFIX}dropped.v1"

#: First and last number, both included.
Hole = tuple[int, int]


class _Range(msgspec.Struct):
    first: int
    last: int


class _Declaration(msgspec.Struct):
    type: str
    data: _Range


class Holes:
    """
    What is lost from the middle or the front of a spool.

    Args:
        known: Holes whose declaration may not have been acknowledged; they are declared again.
    """

    def __init__(self, known: Iterable[Hole] = ()) -> None:
        self._open = _merged(known)
        self._undeclared = self._open.copy()

    @property
    def unacknowledged(self) -> tuple[Hole, ...]:
        """Holes whose declaration was not acknowledged yet."""
        return _holes(self._open)

    @property
    def next(self) -> Hole | None:
        """A hole that no event in the spool declares; None where there is none."""
        undeclared = _holes(self._undeclared)
        return undeclared[0] if undeclared else None

    def add(self, first: int, last: int) -> None:
        """Note that these numbers will never be delivered; nothing where last < first."""
        self._open.add_range(first, last + 1)
        self._undeclared.add_range(first, last + 1)

    def give_up(self, records: Iterable[Record]) -> None:
        """Note that these records are dropped, and that what they declare is not declared any more."""
        for record in records:
            self.add(record.number, record.number)
            if (declared := declared_by(record)) is not None:
                self.add(*declared)

    def declared(self, hole: Hole) -> None:
        """A declaration of this hole is in the spool."""
        self._undeclared = _without(self._undeclared, hole)

    def acknowledge(self, records: Iterable[Record]) -> None:
        """The broker has these records, and so what they declare."""
        for record in records:
            if (declared := declared_by(record)) is not None:
                still_undeclared = self._undeclared.copy()
                self._open = _without(self._open, declared)
                for hole in _holes(still_undeclared):
                    self._open.add_range(hole[0], hole[1] + 1)


def declared_by(record: Record) -> Hole | None:
    """The hole that a record declares; None for any other record."""
    if DROPPED_TYPE.encode() not in record.event:
        return None
    try:
        declaration = msgspec.json.decode(record.event, type=_Declaration)
    except msgspec.MsgspecError:
        return None
    return (declaration.data.first, declaration.data.last) if declaration.type == DROPPED_TYPE else None


def _merged(holes: Iterable[Hole]) -> IntervalSet:
    return IntervalSet.from_pairs((first, last + 1) for first, last in holes)


def _holes(numbers: IntervalSet) -> tuple[Hole, ...]:
    return tuple((start, stop - 1) for start, stop in numbers.to_pairs())


def _without(numbers: IntervalSet, hole: Hole) -> IntervalSet:
    first, stop = hole[0], hole[1] + 1
    pairs = numbers.to_pairs()
    left = [(start, min(end, first)) for start, end in pairs if start < first]
    right = [(max(start, stop), end) for start, end in pairs if end > stop]
    return IntervalSet.from_pairs(left + right)
