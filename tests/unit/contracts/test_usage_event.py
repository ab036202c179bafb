"""usage.events: what is decoded, what is rejected, and that both ways of decoding agree."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contracts import usage_event
from pipeline.contracts.usage_event import (
    HOST_SAMPLE_TYPE,
    Rejection,
    UsageEvent,
    Value,
    decode_event,
    encode_batch,
    encode_event,
    reading_decoder,
    split_message,
)
from pipeline.contracts.usage_event_check import check_event, instant_us
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.identity import SequencedId

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "00f3a1b2c3d4e5f6-000000000042",
    "source": "urn:rackmeter:host:web-01",
    "type": HOST_SAMPLE_TYPE,
    "subject": "web-01",
    "time": "2013-07-01T00:03:24Z",
    "data": {"cpu_cores": "1", "memory_provisioned_kb": "2097152"},
}


def event_bytes(**changes: object) -> bytes:
    return json.dumps({**EVENT, **changes}).encode()


def accepted(raw: bytes) -> UsageEvent:
    event = decode_event(raw)
    assert isinstance(event, UsageEvent), event
    return event


def rejected(raw: bytes) -> Rejection:
    event = decode_event(raw)
    assert isinstance(event, Rejection), event
    return event


def test_decoded_event_has_the_facts_as_sent() -> None:
    """A well-formed event gives its names, its number and its time in microseconds."""
    event = accepted(event_bytes())
    assert event.source == "urn:rackmeter:host:web-01"
    assert event.sequence == SequencedId("00f3a1b2c3d4e5f6", 42)
    assert event.subject == "web-01"
    assert event.occurred_us == 1372637004000000
    assert msgspec.json.decode(event.data) == EVENT["data"]


@pytest.mark.parametrize(
    "event_id",
    [
        "00F3a1b2c3d4e5f6-000000000042",
        "00f3a1b2c3d4e5f6-00000000042",
        "00f3a1b2c3d4e5f6-000000000000",
        "00f3a1b2c3d4e5f6_000000000042",
        "00f3a1b2c3d4e5f6-٠٠٠٠٠٠٠٠٠٠٤٢",
        "42",
    ],
)
def test_other_ids_have_no_number(event_id: str) -> None:
    """An id of any other form is taken and has no sequence."""
    assert accepted(event_bytes(id=event_id)).sequence is None


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2013-07-01T02:03:24+02:00", 1372637004000000),
        ("2013-06-30T18:33:24.5-05:30", 1372637004500000),
        ("2013-07-01t00:03:24.123456999z", 1372637004123456),
        ("9999-12-31T23:59:59.999999999Z", 253402300799999999),
    ],
)
def test_time_is_exact_and_floored(text: str, expected_us: int) -> None:
    """A time with any zone becomes microseconds; finer digits are cut, never rounded up."""
    assert accepted(event_bytes(time=text)).occurred_us == expected_us
    assert instant_us(text) == expected_us


@pytest.mark.parametrize(
    "text",
    [
        "2013-07-01T00:03:60Z",
        "2013-07-01T24:00:00Z",
        "2013-02-29T00:00:00Z",
        "2013-07-01 00:03:24Z",
        "2013-07-01T00:03:24",
        "2013-07-01T00:03:24+24:00",
        "0001-01-01T00:00:00+05:00",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "٢٠١٣-07-01T00:03:24Z",
        "2013-07-01T00:03:24Z\n",
        "",
    ],
)
def test_time_that_is_no_instant_is_rejected(text: str) -> None:
    """What is not exactly one instant between 1970 and 9999 is time_invalid."""
    assert rejected(event_bytes(time=text)).reason == "time_invalid"


def test_a_minute_already_met_does_not_loosen_the_check() -> None:
    """The memo of minutes takes only what the full check takes: the same minute with a wrong second is refused."""
    accepted(event_bytes())
    assert rejected(event_bytes(time="2013-07-01T00:03:60Z")).reason == "time_invalid"
    assert rejected(event_bytes(time="2013-07-01T00:03:2Z")).reason == "time_invalid"


def test_rejection_keeps_what_can_be_read() -> None:
    """A rejected event still says whose it is, so that the close of its account can wait for it."""
    rejection = rejected(event_bytes(time=None))
    assert rejection == Rejection(
        "time_missing", "time is missing", EVENT["source"], EVENT["id"], "web-01", HOST_SAMPLE_TYPE, None
    )


def test_rejection_of_broken_bytes_keeps_what_can_be_read() -> None:
    """Bytes that are not JSON give the facts that stand in them once."""
    rejection = rejected(event_bytes()[:-5])
    assert rejection.reason == "json_invalid"
    assert (rejection.source, rejection.subject, rejection.occurred_us) == (
        EVENT["source"],
        "web-01",
        1372637004000000,
    )


@pytest.mark.parametrize("name", ["source", "id", "type", "subject"])
@pytest.mark.parametrize("value", ["", "a\x00b", "a\nb", "a\x7f", "a\x85", "a" * 257])
def test_names_the_database_cannot_keep_are_rejected(name: str, value: str) -> None:
    """An empty or long name, or one with a control character, is name_invalid, and is not among the facts."""
    rejection = rejected(event_bytes(**{name: value}))
    assert rejection.reason == "name_invalid"
    assert name in rejection.detail
    assert value not in (rejection.source, rejection.event_id, rejection.event_type, rejection.subject)


@pytest.mark.parametrize("depth", [30, 33, 900, 1100, 200_000])
def test_deep_nesting_is_judged_by_its_depth(depth: int) -> None:
    """More than 32 levels are rejected, and no number of them stops the decoder."""
    raw = event_bytes().replace(b'"1"', b"[" * depth + b"]" * depth)
    event = decode_event(raw)
    if depth > 30:
        assert isinstance(event, Rejection)
        assert event.reason == "json_invalid"
    else:
        assert isinstance(event, UsageEvent)


def test_member_twice_is_rejected_however_it_is_written() -> None:
    """Two members of one name are rejected, also spaced, escaped, or where the one before was fine."""
    accepted(event_bytes())
    raw = event_bytes()
    for twin in (b'"source": "urn:x"', b'"source" : "urn:x"', b'"sour\\u0063e": "urn:x"', b'"source": null'):
        assert rejected(raw[:-1] + b"," + twin + b"}").reason == "json_invalid"
    accepted(event_bytes(data={"a1": 1, "a2": 2}))
    assert rejected(event_bytes(data={"a1": 1, "a2": 2}).replace(b"a2", b"a1")).reason == "json_invalid"


def test_control_events_need_no_subject_and_samples_do() -> None:
    """Only what speaks about the source may leave the subject out, whatever was decoded before."""
    control = {**EVENT, "type": "rackmeter.control.heartbeat.v1", "data": {}}
    del control["subject"]
    assert accepted(json.dumps(control).encode()).is_control
    # The same shape once hex letters are left out.
    sample = {**control, "type": "rackmeter.controla.heartbeat.v1"}
    assert rejected(json.dumps(sample).encode()).reason == "subject_missing"


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
members = names.filter(lambda name: not set(name) & {'"', "\\"})
values = st.one_of(
    st.integers(0, 10**18 - 1),
    st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=6),
    st.from_regex(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?", fullmatch=True).filter(str.isascii),
)


@given(names, names, names, names, st.datetimes(), st.dictionaries(members, values, min_size=1, max_size=9))
def test_round_trip(
    source: str, event_id: str, event_type: str, subject: str, time: Any, data: dict[str, Value]
) -> None:
    """What is encoded is decoded to the same names and to exactly the same values."""
    time = time.replace(year=max(1970, time.year))
    raw = encode_event(
        source=source,
        event_id=event_id,
        event_type=event_type,
        subject=subject,
        time=time.isoformat() + "Z",
        data=data,
    )
    event = accepted(raw)
    assert (event.source, event.id, event.type, event.subject) == (source, event_id, event_type, subject)
    readings = reading_decoder(tuple(data))(event.data)
    assert [Decimal(nano).scaleb(-9) for nano in readings] == [Decimal(value) for value in data.values()]


@pytest.mark.parametrize("value", [1.5, True, None, [1]])
def test_inexact_values_are_not_encoded(value: Any) -> None:
    """A float or anything that is no number cannot be sent."""
    with pytest.raises(TypeError):
        encode_event(
            source="s", event_id="1", event_type="t", subject="x", time="2013-07-01T00:00:00Z", data={"a": value}
        )


@given(st.binary(max_size=300))
def test_decoder_never_raises_on_bytes(raw: bytes) -> None:
    """Any bytes are an event or a rejection."""
    parts = split_message(raw)
    if not isinstance(parts, RejectedRecord):
        for part in parts:
            assert isinstance(decode_event(part), UsageEvent | Rejection)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(event_bytes()) - 1),
            st.integers(0, 3),
            st.sampled_from(
                [
                    b"",
                    b'"',
                    b"\\",
                    b"{",
                    b"}",
                    b",",
                    b":",
                    b"\x00",
                    b"\xff",
                    b"null",
                    b"9",
                    b"a",
                    b'"id":"x",',
                    b"\\ud800",
                ]
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_both_ways_of_decoding_agree(edits: list[tuple[int, int, bytes]]) -> None:
    """A mutated event is decoded to the same answer with and without remembered shapes."""
    raw = event_bytes()
    accepted(raw)
    for at, length, put in edits:
        raw = raw[:at] + put + raw[at + length :]
    warm = decode_event(raw)
    remembered = set(usage_event._shapes)
    usage_event._shapes.clear()
    cold = decode_event(raw)
    usage_event._shapes.update(remembered)
    assert type(warm) is type(cold)
    if isinstance(warm, Rejection):
        assert warm == cold
        "".join(filter(None, [warm.detail, warm.source, warm.event_id, warm.subject])).encode()
        assert "\x00" not in warm.detail
    assert isinstance(warm, UsageEvent) == (check_event(raw) is None)


def test_message_is_taken_apart_as_sent() -> None:
    """An array gives the bytes of each of its events; one event gives itself."""
    first, second = event_bytes(), event_bytes(id="x")
    assert split_message(encode_batch([first, second])) == [first, second]
    assert split_message(first) == [first]
    assert split_message(b" [ " + first + b" , 7 ] ") == [first, b"7"]


@pytest.mark.parametrize("value", [None, b"", b" "])
def test_message_without_content_is_one_broken_event(value: bytes | None) -> None:
    """A message without a value is quarantined like any other bytes that are not JSON."""
    parts = split_message(value)
    assert isinstance(parts, list)
    assert [rejected(part).reason for part in parts] == ["json_invalid"]


def test_broken_halves_do_not_make_an_event() -> None:
    """Two messages that would be one good event if they were joined are two bad ones."""
    raw = event_bytes()
    assert rejected(raw[:100]).reason == "json_invalid"
    assert rejected(raw[100:]).reason == "json_invalid"
