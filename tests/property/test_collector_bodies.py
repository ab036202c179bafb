"""Whatever bytes are sent to the collector: never a 5xx, and a problem where they are refused."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.usage_event import encode_batch
from pipeline.web.content import BATCH, STRUCTURED
from tests.unit.web.desk import Client, Desk, client_of, event

CE = {"ce-specversion": "1.0", "ce-id": "00f3a1b2c3d4e5f6-000000000001", "ce-source": "rack-1", "ce-type": "t"}
MODES = ({"content-type": STRUCTURED}, {"content-type": BATCH}, {"content-type": "application/json"} | CE)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
PIECES = st.binary(max_size=5) | st.sampled_from([b"{", b"]", b'"', b"\\ud800", b",,", b"1e9"])
NAMES = st.sampled_from(["id", "source", "type", "time", "subject", "data", "specversion"])
RIGHT = st.sampled_from([event(1), encode_batch([event(1), event(2)]), b'{"calls":1}'])


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A right body with some of its bytes changed, cut out or doubled."""
    body = bytearray(draw(RIGHT))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        width = draw(st.integers(0, 5))
        body[at : at + width] = draw(PIECES)
    return bytes(body)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with client_of(Desk()) as client:
        yield client


def is_answered(client: Client, body: bytes, headers: dict[str, str]) -> None:
    response = client.post("/v1/events", content=body, headers=headers)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code
    else:
        assert response.json()["accepted"] >= 1


@given(body=st.binary(max_size=200), headers=st.sampled_from(MODES))
def test_any_bytes_are_refused_with_a_problem(client: Client, body: bytes, headers: dict[str, str]) -> None:
    """Bytes that are no events are a 4xx that says why."""
    response = client.post("/v1/events", content=body, headers=headers)
    assert 400 <= response.status_code < 500 or headers is MODES[2]
    is_answered(client, body, headers)


@given(body=broken(), headers=st.sampled_from(MODES))
def test_damaged_events_are_never_a_5xx(client: Client, body: bytes, headers: dict[str, str]) -> None:
    """A few wrong bytes in a right body."""
    is_answered(client, body, headers)


@given(members=st.dictionaries(NAMES, JSON))
def test_members_of_any_kind_are_never_a_5xx(client: Client, members: dict[str, object]) -> None:
    """Attributes may be of any type, and texts hold anything."""
    right = msgspec.json.decode(event())
    for body, headers in ((right | members, MODES[0]), ([members, right], MODES[1])):
        is_answered(client, msgspec.json.encode(body), headers)


@given(
    name=st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", max_size=10),
    value=st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30),
)
def test_headers_of_any_kind_are_never_a_5xx(client: Client, name: str, value: str) -> None:
    """In binary mode they are the event."""
    headers = {key.encode(): text.encode() for key, text in MODES[2].items()} | {
        f"ce-{name}".encode(): value.strip().encode("latin-1")
    }
    response = client.post("/v1/events", content=b'{"calls":1}', headers=headers)
    assert response.status_code < 500
