"""The values of an event's data, exact: JSON numbers or decimal strings to whole 10^-9."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import msgspec

from pipeline.domain.decimals import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX, fraction_digits, parse_exact, to_nano
from pipeline.domain.errors import RejectedRecord

_VALUES_MAX = 65_536
_TEXT_CHARACTERS_MAX = 64


class _Nano(dict[bytes, int]):
    """A bounded memo from a value's JSON text to nano: servers repeat themselves (cores, sizes, zeros)."""

    def __missing__(self, text: bytes) -> int:
        nano = _parse_nano(text)
        if len(text) <= _TEXT_CHARACTERS_MAX:
            if len(self) >= _VALUES_MAX:
                self.clear()
            self[text] = nano
        return nano


def reading_decoder(fields: tuple[str, ...]) -> Callable[[msgspec.Raw], tuple[int, ...]]:
    """
    Compile a decoder for some members of an event type's data.

    Args:
        fields: Names of top-level members, at least one, without quotation marks, backslashes and control characters.

    Returns:
        A function from the data of an event to its values in the order of the fields, in 10^-9. It raises
        RejectedRecord, naming the field: value_missing, value_invalid (no number), value_negative,
        value_out_of_range (more than 18 integer digits), value_too_precise (more than 9 decimals).
    """
    # Positional names, since a member of JSON may be called anything and an attribute may not.
    names = {f"field_{index}": field for index, field in enumerate(fields)}
    struct = msgspec.defstruct(
        "Reading", [(name, msgspec.Raw) for name in names], rename=names, frozen=True, gc=False, kw_only=False
    )
    decode = msgspec.json.Decoder(struct).decode
    astuple = msgspec.structs.astuple
    nano_of = _Nano().__getitem__

    def read(data: msgspec.Raw) -> tuple[int, ...]:
        try:
            return tuple(map(nano_of, map(bytes, astuple(decode(data)))))
        except (RejectedRecord, msgspec.MsgspecError):
            raise _first_problem(data, fields) from None

    return read


def _first_problem(data: msgspec.Raw, fields: tuple[str, ...]) -> RejectedRecord:
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    for field in fields:
        if field not in members:
            return RejectedRecord("value_missing", f"data.{field} is missing")
        try:
            _parse_nano(bytes(members[field]))
        except RejectedRecord as problem:
            return RejectedRecord(problem.reason_code, f"data.{field} {problem.detail}")
    return RejectedRecord("value_invalid", "data cannot be read")


def _parse_nano(raw: bytes) -> int:
    # The common form first: digits, perhaps a dot and digits, perhaps in quotes.
    text = raw[1:-1] if raw[:1] == b'"' else raw
    whole, dot, fraction = text.partition(b".")
    if (
        whole.isdigit()
        and len(whole) <= INTEGER_DIGITS_MAX
        and (whole[:1] != b"0" or len(whole) == 1)
        and (not dot or (fraction.isdigit() and len(fraction) <= FRACTION_DIGITS_MAX))
    ):
        return int(whole + fraction.ljust(FRACTION_DIGITS_MAX, b"0"))
    return _parse_any(raw)


def _parse_any(raw: bytes) -> int:
    if raw[:1] in b"{[tfn":
        raise RejectedRecord("value_invalid", f"is {_shown(raw)}, not a number")
    text = msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode("ascii")
    try:
        value = parse_exact(text)
        if value < 0:
            raise RejectedRecord("value_negative", f"is {_shown(raw)}; usage is never negative")
        return to_nano(value)
    except ValueError as error:
        raise RejectedRecord(_reason(text), f"is out of bounds: {error}"[:200]) from None


def _reason(text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return "value_invalid"
    if not value.is_finite():
        return "value_invalid"
    if value and value.adjusted() >= INTEGER_DIGITS_MAX:
        return "value_out_of_range"
    # Fraction digits are counted on the digits as written, so this is bounded by the text.
    return "value_too_precise" if fraction_digits(value) > FRACTION_DIGITS_MAX else "value_invalid"


def _shown(raw: bytes) -> str:
    shown = raw[:_TEXT_CHARACTERS_MAX]
    return ascii(shown.decode("utf-8", "backslashreplace"))
