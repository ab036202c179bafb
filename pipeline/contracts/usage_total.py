"""The topic usage.totals: what an item used in a period, absolute and versioned; batches of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from pipeline.contracts.packing import Key, VersionKey, pack_items
from pipeline.domain.errors import RejectedRecord


class Segment(msgspec.Struct, frozen=True):
    """A stretch of the period at one price; quantity is a decimal string in the meter's unit."""

    price_version_id: VersionKey
    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    quantity: str


class Total(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    The whole total of a billed item at a revision.

    Times and quantities are text here and are read by the rating, so that one bad value fails its own item only.
    `subject` is '' where the price is not per server; `currency` is the account's, where totals know it. No segments
    means that nothing is left to bill: the charge is zero.
    """

    billed_item_id: Key
    revision: Key
    period_start: str
    period_end: str
    subject: str
    item: str
    segments: tuple[Segment, ...]
    currency: str | None = None


class _Batch(msgspec.Struct, frozen=True):
    generation: VersionKey
    totals: tuple[Total, ...]


class _LooseBatch(msgspec.Struct, frozen=True):
    generation: VersionKey
    totals: tuple[msgspec.Raw, ...]


@dataclass(frozen=True, slots=True)
class TotalsBatch:
    """A message of usage.totals; `refused` says what is wrong with each member that is no total."""

    generation: int
    totals: tuple[Total, ...]
    refused: tuple[str, ...] = ()


_BATCH = msgspec.json.Decoder(_Batch)
_LOOSE_BATCH = msgspec.json.Decoder(_LooseBatch)
_TOTAL = msgspec.json.Decoder(Total)
_ENCODER = msgspec.json.Encoder()
# Text that is no UTF-8 is found only when it is looked at, and then by Python.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


def decode_totals(value: bytes) -> TotalsBatch:
    """
    Read a message; a malformed total is left out and named in `refused`, its neighbours stay.

    Raises:
        RejectedRecord: totals_invalid, when the message as a whole cannot be read.
    """
    try:
        batch = _BATCH.decode(value)
    except _UNREADABLE:
        return _decode_loosely(value)
    return TotalsBatch(batch.generation, batch.totals)


def _decode_loosely(value: bytes) -> TotalsBatch:
    try:
        batch = _LOOSE_BATCH.decode(value)
    except _UNREADABLE as error:
        raise RejectedRecord("totals_invalid", str(error)) from error
    totals: list[Total] = []
    refused: list[str] = []
    for index, raw in enumerate(batch.totals):
        try:
            totals.append(_TOTAL.decode(raw))
        except _UNREADABLE as error:
            refused.append(f"totals[{index}]: {error}")
    return TotalsBatch(batch.generation, tuple(totals), tuple(refused))


def pack_totals(generation: int, totals: Iterable[Total]) -> list[bytes]:
    """Encode totals, in order, as messages of at most 500 totals and 512 KiB; one larger total goes alone."""
    return pack_items(generation, "totals", (_ENCODER.encode(total) for total in totals))


def price_version_ids(totals: Sequence[Total]) -> frozenset[int]:
    """Every price version the totals name."""
    return frozenset(segment.price_version_id for total in totals for segment in total.segments)
