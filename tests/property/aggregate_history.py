"""What happened at some servers, every way it may be delivered, and what it comes to, computed by hand."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from tests.unit.aggregate.sending import BASE_US, CALLS, CPU, GAP_US, HOURS, IGNORED, READS, SAMPLE, SLOT_US, event

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
NANO = Fraction(1, 10**9)
EPOCHS = ("00000000000000aa", "00000000000000bb")
COMPLETE_UNTIL = "rackmeter.control.complete_until.v1"

#: An hour before a midnight, so that days and slots of two days are crossed.
FIRST_US = BASE_US - 3_600 * SECOND_US


class Identity(NamedTuple):
    """Source and id of an event."""

    source: str
    epoch: str
    number: int


@dataclass(frozen=True)
class Happening:
    """What the event of an identity says; `twin` is delivered too and is malformed."""

    kind: Literal["sample", "bad", "unknown", "ignored", "complete"]
    subject: str
    at_us: int
    cpu: int
    reads: int
    calls: int
    has_bad_twin: bool

    def encode(self, identity: Identity, *, is_bad: bool) -> bytes:
        """The event as sent."""
        source, epoch, number = identity
        if self.kind == "complete":
            data: dict[str, int | str | None] = {"until": "2013-07-01T00:00:00Z"}
            return event(number, source=source, epoch=epoch, at_us=self.at_us, kind=COMPLETE_UNTIL, data=data)
        kind = {"unknown": "test.other.v1", "ignored": IGNORED}.get(self.kind, SAMPLE)
        readings = {"cpu": self.cpu, "reads": self.reads, "calls": self.calls}
        data = {name: f"{Decimal(value).scaleb(-9):f}" for name, value in readings.items()}
        if is_bad or self.kind == "bad":
            data["cpu"] = "-1"
        return event(number, source=source, epoch=epoch, subject=self.subject, at_us=self.at_us, kind=kind, data=data)


History = Mapping[Identity, Happening]

# Seconds on and around slot edges, gaps of exactly one and two intervals and a second more, and anything else.
_offsets = st.one_of(
    st.integers(0, 24).map(lambda slots: slots * 300 * SECOND_US),
    st.integers(0, 24).map(lambda slots: slots * 301 * SECOND_US),
    st.integers(0, 12).map(lambda gaps: gaps * 600 * SECOND_US + 1),
    st.integers(0, 7_200 * SECOND_US),
)
_values = st.one_of(st.integers(0, 3), st.integers(0, 10**12))


def histories(sources: tuple[str, ...] = ("urn:test:a", "urn:test:b")) -> st.SearchStrategy[History]:
    """Up to 24 events of some sources, two subjects each, in two epochs."""
    identities = st.builds(Identity, st.sampled_from(sources), st.sampled_from(EPOCHS), st.integers(1, 12))
    happenings = st.builds(
        Happening,
        kind=st.sampled_from(["sample"] * 8 + ["bad", "unknown", "ignored", "complete"]),
        subject=st.sampled_from(["vm-1", "vm-2"]),
        at_us=_offsets.map(lambda offset: FIRST_US + offset),
        cpu=_values,
        reads=_values,
        calls=_values,
        has_bad_twin=st.sampled_from([False, False, False, True]),
    )
    return st.dictionaries(identities, happenings, max_size=24)


@dataclass(frozen=True)
class Delivery:
    """Messages (source and bytes of each of its events), and after which of them the worker flushes."""

    messages: tuple[tuple[str, tuple[bytes, ...]], ...]
    is_flushed_after: tuple[bool, ...]


@st.composite
def deliveries(draw: st.DrawFn, history: History) -> Delivery:
    """Everything at least once, in any order, with duplicates, in messages and flushes of any size."""
    needed = [(identity, False) for identity in history]
    needed += [(identity, True) for identity, one in history.items() if one.kind == "sample" and one.has_bad_twin]
    again = draw(st.lists(st.sampled_from(needed), max_size=6)) if needed else []
    messages: list[tuple[str, tuple[bytes, ...]]] = []
    for identity, is_bad in draw(st.permutations(needed + again)):
        encoded = history[identity].encode(identity, is_bad=is_bad)
        if messages and messages[-1][0] == identity.source and draw(st.booleans()):
            messages[-1] = (identity.source, (*messages[-1][1], encoded))
        else:
            messages.append((identity.source, (encoded,)))
    flushes = tuple(draw(st.booleans()) for _ in messages)
    return Delivery(tuple(messages), flushes)


@st.composite
def delivered_histories(draw: st.DrawFn) -> tuple[History, Delivery]:
    """A history and one way it is delivered."""
    history = draw(histories())
    return history, draw(deliveries(history))


#: (meter version id, subject, source or ''), start of a slot -> quantity in the meter's unit; zeros left out.
Usage = dict[tuple[tuple[int, str, str], int], Fraction]


def usage_by_hand(history: History) -> Usage:
    """Each slot from its definition; no state, no windows, nothing shared with the pipeline but the numbers."""
    usage: Usage = defaultdict(Fraction)
    streams: dict[tuple[str, str], list[tuple[int, str, int, Happening]]] = {}
    for identity, one in history.items():
        if one.kind != "sample":
            continue
        slot = one.at_us // SLOT_US * SLOT_US
        usage[(CALLS.meter_version_id, one.subject, ""), slot] += one.calls * NANO
        usage[(HOURS.meter_version_id, one.subject, ""), slot] = Fraction(1)
        streams.setdefault((identity.source, one.subject), []).append((one.at_us, identity.epoch, identity.number, one))
    for (source, subject), found in streams.items():
        samples = [(at_us, one) for at_us, _, _, one in sorted(found, key=lambda sample: sample[:3])]
        for slot, quantity in _held(samples):
            usage[(CPU.meter_version_id, subject, source), slot] += quantity
        for (_, before), (at_us, one) in pairwise(samples):
            grown = one.reads - before.reads if one.reads >= before.reads else one.reads
            slot = at_us // SLOT_US * SLOT_US
            usage[(READS.meter_version_id, subject, source), slot] += grown * NANO
    return {key: quantity for key, quantity in usage.items() if quantity}


def _held(samples: list[tuple[int, Happening]]) -> Iterable[tuple[int, Fraction]]:
    ends = [at_us for at_us, _ in samples[1:]] + [2**62]
    for (at_us, one), following_us in zip(samples, ends, strict=True):
        end_us = min(following_us, at_us + GAP_US)
        for slot in range(at_us // SLOT_US * SLOT_US, end_us, SLOT_US):
            common = min(end_us, slot + SLOT_US) - max(at_us, slot)
            yield slot, one.cpu * NANO * Fraction(common, SECOND_US)


def days_by_hand(usage: Usage) -> Usage:
    """Sums over UTC days, of the meters that add up."""
    days: dict[tuple[tuple[int, str, str], int], Fraction] = {}
    for (key, slot), quantity in usage.items():
        if key[0] != HOURS.meter_version_id:
            day = slot // DAY_US * DAY_US
            days[key, day] = days.get((key, day), Fraction(0)) + quantity
    return days


def identities_by_hand(history: History) -> dict[tuple[str, str], dict[str, set[int]]]:
    """Which numbers of each (source, epoch) end up in which state, empty states left out."""
    states = {"bad": "quarantined", "unknown": "parked"}
    found: dict[tuple[str, str], dict[str, set[int]]] = {}
    for (source, epoch, number), one in history.items():
        state = states.get(one.kind, "counted")
        found.setdefault((source, epoch), {}).setdefault(state, set()).add(number)
    return found
