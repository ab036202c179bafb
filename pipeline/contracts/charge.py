"""The topic billing.charges: what a total costs, absolute and versioned, with how it came about; batches of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from pipeline.contracts.packing import Key, VersionKey, pack_items
from pipeline.domain.errors import RejectedRecord

Outcome = Literal["rated", "no_price", "failed"]


class Amount(msgspec.Struct, frozen=True):
    """What goes to one product's revenue: a decimal string with at most 12 decimals, in major units."""

    product: str
    currency: str
    amount: str


class BreakdownStep(msgspec.Struct, frozen=True):
    """One step of a price, e.g. a tier; decimal strings, cut to 12 decimals where they do not end."""

    label: str
    quantity: str
    unit_price: str
    amount: str


class BreakdownPart(msgspec.Struct, frozen=True):
    """How one segment was priced; `quantity` in the price's unit."""

    price_version_id: VersionKey
    price: str
    unit: str
    quantity: str
    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    steps: tuple[BreakdownStep, ...]


class Charge(msgspec.Struct, frozen=True):
    """
    The whole charge of a billed item at a revision of its total.

    `quantity` is that of all segments, in the meter's unit. Unless the outcome is rated, `reason` says why and there
    are no amounts.
    """

    billed_item_id: Key
    revision: Key
    outcome: Outcome
    reason: str
    quantity: str
    amounts: tuple[Amount, ...]
    price_version_ids: tuple[VersionKey, ...]
    breakdown: tuple[BreakdownPart, ...]


class _Batch(msgspec.Struct, frozen=True):
    generation: VersionKey
    charges: tuple[Charge, ...]


class _LooseBatch(msgspec.Struct, frozen=True):
    generation: VersionKey
    charges: tuple[msgspec.Raw, ...]


@dataclass(frozen=True, slots=True)
class ChargesBatch:
    """A message of billing.charges; `refused` says what is wrong with each member that is no charge."""

    generation: int
    charges: tuple[Charge, ...]
    refused: tuple[str, ...] = ()


_BATCH = msgspec.json.Decoder(_Batch)
_LOOSE_BATCH = msgspec.json.Decoder(_LooseBatch)
_CHARGE = msgspec.json.Decoder(Charge)
_ENCODER = msgspec.json.Encoder()
# Text that is no UTF-8 is found only when it is looked at, and then by Python.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


def decode_charges(value: bytes) -> ChargesBatch:
    """
    Read a message; a malformed charge is left out and named in `refused`, its neighbours stay.

    Raises:
        RejectedRecord: charges_invalid, when the message as a whole cannot be read.
    """
    try:
        batch = _BATCH.decode(value)
    except _UNREADABLE:
        return _decode_loosely(value)
    return ChargesBatch(batch.generation, batch.charges)


def _decode_loosely(value: bytes) -> ChargesBatch:
    try:
        batch = _LOOSE_BATCH.decode(value)
    except _UNREADABLE as error:
        raise RejectedRecord("charges_invalid", str(error)) from error
    charges: list[Charge] = []
    refused: list[str] = []
    for index, raw in enumerate(batch.charges):
        try:
            charges.append(_CHARGE.decode(raw))
        except _UNREADABLE as error:
            refused.append(f"charges[{index}]: {error}")
    return ChargesBatch(batch.generation, tuple(charges), tuple(refused))


def pack_charges(generation: int, charges: Iterable[Charge]) -> list[bytes]:
    """Encode charges, in order, as messages of at most 500 charges and 512 KiB; one larger charge goes alone."""
    return pack_items(generation, "charges", (_ENCODER.encode(charge) for charge in charges))


def encode_amounts(amounts: Iterable[Amount]) -> str:
    """Give amounts as the JSON text stored in booked_charge.amounts."""
    return _ENCODER.encode(tuple(amounts)).decode()


def encode_breakdown(breakdown: Iterable[BreakdownPart]) -> str:
    """Give a breakdown as the JSON text stored in booked_charge.breakdown."""
    return _ENCODER.encode(tuple(breakdown)).decode()
