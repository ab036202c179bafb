"""The HTTP binding of CloudEvents, as its specification has it."""

import json

import pytest

from pipeline.web.content import BATCH, STRUCTURED, Refusal, events_of, header_text

BINARY = [
    ("content-type", "application/json"),
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "s"),
    ("ce-type", "t"),
]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41", "A"),
        ("%2541", "%41"),
        ('"a b"', "a b"),
        (r'"a \"b\" \\ %20"', 'a "b" \\  '),
        ('a"b', 'a"b'),
        ("", ""),
    ],
)
def test_a_header_is_unquoted_and_decoded_once(value: str, text: str) -> None:
    """Quotes first, then one round of percent-decoding."""
    assert header_text(value) == text


@pytest.mark.parametrize("value", ["%C0%A0", "%", "%4", "%zz", "é", "%FF"])
def test_a_header_that_says_nothing_is_refused(value: str) -> None:
    """Overlong or broken UTF-8, half an escape, bytes beyond ASCII."""
    with pytest.raises(ValueError, match=r"^(is|has) "):
        header_text(value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{},"source":"other"', b'{}}, {"a":1', b"\xff", b'{"a":1} x', b"[" * 100_000]
)
def test_no_body_reaches_around_its_envelope(body: bytes) -> None:
    """A body that is no JSON by itself is refused before an envelope is put around it."""
    refused = events_of(BINARY, body)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (400, "json_invalid")


@pytest.mark.parametrize(
    "extra",
    [("ce-id", "2"), ("ce-data", "{}"), ("ce-datacontenttype", "x"), ("ce-Upper", "x"), ("ce-", "x"), ("ce-a_b", "x")],
)
def test_headers_that_are_no_attributes_are_refused(extra: tuple[str, str]) -> None:
    """One that stands twice, that names the data, or that no attribute can be called."""
    refused = events_of([*BINARY, extra], b"{}")
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (400, "envelope_invalid")


def test_the_three_modes_are_told_by_content_type() -> None:
    """Structured, batch, else binary; parameters do not matter."""
    assert events_of([("content-type", f"{STRUCTURED}; charset=UTF-8")], b"x") == [b"x"]
    assert events_of([("content-type", BATCH.upper())], b'[ {"a":1} , 2]') == [b'{"a":1}', b"2"]
    [event] = events_of([*BINARY[1:], ("content-type", "application/vnd.acme+json")], b"{}")  # type: ignore[misc]
    assert json.loads(event)["datacontenttype"] == "application/vnd.acme+json"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"[1", b"[\xff]"])
def test_a_batch_is_an_array_with_events(body: bytes) -> None:
    """Anything else is refused as a whole."""
    refused = events_of([("content-type", BATCH)], body)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (400, "batch_invalid")
