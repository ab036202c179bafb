"""Two events are the same when they say the same, to the last digit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.content import _elements, same_content, take_apart


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a":1,"b":"x"}', b'{ "b":"x", "a":1 }', True),
        (b'{"a":1.0}', b'{"a":1}', True),
        (b'{"a":1e2}', b'{"a":100}', True),
        (b'{"a":0.10000000000000000001}', b'{"a":0.1}', False),
        (b'{"a":"1"}', b'{"a":1}', False),
        (b'{"a":true}', b'{"a":1}', False),
        (b'{"a":1,"a":2}', b'{"a":2}', False),
        (b"\xff", b"\xff", True),
        (b"\xff", b"\xfe", False),
        (b'{"a":NaN}', b'{"a": NaN}', False),
        (b'{"time":"1","timestampedby":"collector"}', b'{"time":"2","timestampedby":"collector"}', True),
        (b'{"time":"1","timestampedby":"collector"}', b'{"time":"2"}', False),
        (b'{"time":"1","timestampedby":"me"}', b'{"time":"2","timestampedby":"me"}', False),
        (b'{"time":"1","a":1,"timestampedby":"collector"}', b'{"time":"1","timestampedby":"collector"}', False),
    ],
)
def test_content_is_compared_exactly(one: bytes, other: bytes, *, same: bool) -> None:
    """Spelling does not matter, values do; what cannot be read is the same only as its very bytes."""
    assert same_content(one, other) is same


def test_an_array_is_taken_apart_as_sent() -> None:
    """Events of a batch keep their bytes, white space inside included."""
    parts = take_apart(b' [ {"source":"s","id":"1", "v": 1.50} ,{"source":"s","id":"2"}]')
    assert [(part.index, part.value, part.source, part.event_id) for part in parts] == [
        (0, b'{"source":"s","id":"1", "v": 1.50}', "s", "1"),
        (1, b'{"source":"s","id":"2"}', "s", "2"),
    ]


@given(
    st.lists(st.dictionaries(st.sampled_from(["source", "id", "v"]), st.one_of(st.text(), st.integers(), st.floats())))
)
def test_both_ways_of_taking_apart_agree(events: list[dict[str, object]]) -> None:
    """What the quick way reads of an array is what the patient one reads."""
    value = json.dumps(events).encode("utf-8", "surrogatepass")
    assert take_apart(value) == list(_elements(value.decode()))


def test_bytes_that_are_no_json_are_one_event() -> None:
    """Nothing is thrown away: what cannot be read has no identity, but it is there."""
    assert [(part.index, part.source) for part in take_apart(b"\xff\xfe")] == [(0, None)]
    assert take_apart(b"[1, oops")[0].source is None
