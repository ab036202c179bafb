"""The proof's own reading of well-formed events agrees with the examples and with its SQL twin."""

import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.proof.events import home_of, read_events
from pipeline.proof.judge import exact_nano, instant_us, judge_message
from pipeline.proof.report import Findings
from pipeline.proof.workspace import open_workspace

GOOD: Mapping[str, object] = {
    "specversion": "1.0",
    "id": "00f3a1b2c3d4e5f6-000000000042",
    "source": "urn:a",
    "type": "sample",
    "subject": "vm-5",
    "time": "2013-07-01T00:03:24Z",
    "data": {"cpu": 1.5, "mem": "2097152"},
}


def message(**changed: object) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


def test_a_good_event() -> None:
    """Everything of a good event is read exactly."""
    (judged,) = judge_message(message(), ["cpu", "mem", "none"])
    assert judged.fault is None
    assert (judged.source, judged.event_id, judged.subject) == ("urn:a", GOOD["id"], "vm-5")
    assert judged.at_us == 1372637004000000
    assert judged.nano == (1_500_000_000, 2097152 * 10**9, None)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf" + message(),
        message().replace(b"1.5", b"NaN"),
        message().replace(b'"mem"', b'"cpu"'),
        message(specversion="2.0"),
        message(specversion=1.0),
        message(id=""),
        message(id="x" * 257),
        message(source="a\x7fb"),
        message(type="\ud800"),
        message(time="2013-07-01T00:03:24"),
        message(time="2013-02-30T00:03:24Z"),
        message(time="2013-07-01T00:03:60Z"),
        message(time=None),
        message(subject=None),
        message(data=[1]),
        message(data={"deep": json.loads("[" * 40 + "]" * 40)}),
        message(type="rackmeter.control.unknown.v1"),
        message(type="rackmeter.control.complete_until.v1", data={"until": "tomorrow"}),
        message(type="rackmeter.control.dropped.v1", data={"first": 5, "last": 4}),
        b"[",
        b"[]",
        b"[" + b",".join([message()] * 101) + b"]",
        b"[" + message() + b"] more",
    ],
)
def test_bad_events(value: bytes) -> None:
    """Each is wrong in one way, and is found to be wrong."""
    assert all(judged.fault is not None for judged in judge_message(value, ["cpu"]))


def test_a_bad_neighbour_spoils_nobody() -> None:
    """In a batch each event is judged by itself (trap 8)."""
    judged = judge_message(b"[" + message() + b", " + message(time="x") + b",\n" + message(id="2") + b"]", [])
    assert [(one.index, one.fault is None) for one in judged] == [(0, True), (1, False), (2, True)]


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        ("0", 0),
        ("-0", 0),
        ("1e2", 100 * 10**9),
        ("1.000000000000000", 10**9),
        ("0.123456789", 123456789),
        ("999999999999999999.999999999", 10**27 - 1),
        ("1000000000000000000", None),
        ("0.0000000001", None),
        ("1e400", None),
        ("1E+999999999999999999999", None),
        ("1e-400", None),
        ("-1", None),
        ("01", None),
        ("+1", None),
        (" 1", None),
        ("1_000", None),
        ("NaN", None),
        ("", None),
        (None, None),
        (True, None),
    ],
)
def test_numbers_are_exact_or_none(value: object, nano: int | None) -> None:
    """At most 18 digits before and 9 after the point, never below zero, no float anywhere."""
    assert exact_nano(value) == nano


def test_times() -> None:
    """Zones are honoured; what is finer than a microsecond is cut off."""
    assert instant_us("2013-07-01T02:03:24.1234569+02:00") == 1372637004123456
    assert instant_us("1969-12-31T23:59:59Z") is None
    assert instant_us("9999-12-31T23:59:59.999999Z") is not None


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_homes_are_as_java_has_them(key: str, hashed: int) -> None:
    """The proof's own murmur2 agrees with Kafka's Java client."""
    assert home_of(key, 8) == (hashed & 0x7FFFFFFF) % 8


numbers = st.one_of(
    st.integers(-5, 10**19).map(str),
    st.decimals(min_value=0, max_value=10**10, places=4, allow_nan=False).map(lambda number: f"{number:f}"),
    st.sampled_from(["1e3", "0.5E-3", "1.0000000000", "00", "null", "true", '"7"', '" 7"', '"1e1"', "1.", "[1]", "{}"]),
)
texts = st.one_of(st.sampled_from(["vm-1", "", "é", "a\\u0062", "{", '\\"', "x" * 257]), st.text(max_size=4))
times = st.sampled_from(
    ["2013-07-01T00:03:24Z", "2013-07-01T00:03:24.5Z", "2013-07-01t00:03:24z", "2013-07-01T24:00:00Z",
     "2013-02-29T00:00:00Z", "2013-07-01T00:00:00+02:00", "1969-01-01T00:00:00Z", "2013-07-01T00:00:00.1234567Z", "x"]
)  # fmt: skip


@st.composite
def raw_messages(draw: st.DrawFn) -> bytes:
    members = [
        ('"specversion"', draw(st.sampled_from(['"1.0"', '"1.0"', "1.0", '"2"']))),
        ('"id"', json.dumps(draw(st.sampled_from(["00f3a1b2c3d4e5f6-000000000042", "other"])))),
        ('"source"', draw(st.sampled_from(['"urn:a"', '{"a":1}', "7"]))),
        ('"type"', draw(st.sampled_from(['"sample"', '"rackmeter.control.retired.v1"']))),
        ('"subject"', json.dumps(draw(texts), ensure_ascii=draw(st.booleans()))),
        ('"time"', json.dumps(draw(times))),
        ('"data"', '{"cpu":' + draw(numbers) + draw(st.sampled_from(["", ',"mem":2', ', "cpu" : 1', ","])) + "}"),
    ]
    if draw(st.booleans()):
        members.append(draw(st.sampled_from(members)))
    if draw(st.booleans()):
        members.pop(draw(st.integers(0, len(members) - 1)))
    text = draw(st.sampled_from(["{", " {\n"])) + ", ".join(f"{name}: {value}" for name, value in members) + "}"
    return text.encode("utf-8", "surrogatepass")


@st.composite
def raw_arrays(draw: st.DrawFn) -> bytes:
    """Events in an array, mostly good ones; some arrays are none."""
    one = st.one_of(
        st.just(message()), st.just(message(subject="vm-6", id="00f3a1b2c3d4e5f6-000000000043")), raw_messages()
    )
    events = draw(st.one_of(st.lists(one, max_size=5), st.sampled_from([[message()] * 100, [message()] * 101])))
    between = draw(st.sampled_from([b",", b", \n", b",", b"],[", b"]"]))
    return (
        draw(st.sampled_from([b"[", b" [ "]))
        + between.join(events)
        + draw(st.sampled_from([b"]", b"] ", b"]", b",]", b"]]"]))
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(raw_messages(), raw_arrays()), min_size=1, max_size=40))
def test_sql_and_python_judge_alike(tmp_path_factory: pytest.TempPathFactory, values: list[bytes]) -> None:
    """Whether a message is plain enough for SQL or not, what is read of it is the same."""
    path = tmp_path_factory.mktemp("judge") / "file.parquet"
    count = len(values)
    pq.write_table(
        pa.table(
            {
                "partition": pa.array([0] * count, pa.int32()),
                "log_offset": pa.array(range(count), pa.int64()),
                "log_time": pa.array([2_000_000_000_000_000] * count, pa.timestamp("us", tz="UTC")),
                "key": pa.array([b"urn:a"] * count, pa.binary()),
                "value": pa.array(values, pa.binary()),
            }
        ),
        path,
    )
    with open_workspace() as workspace:
        read_events(workspace, {0: [path]}, {0: count}, [], frozenset(), 1, Findings(), fields=["cpu", "mem"])
        found = workspace.rows(
            "SELECT source, event_id, event_type, subject, at_us, list_transform(nano, lambda n: n::VARCHAR),"
            " expected = 'quarantined', log_offset, index_in_message FROM verdict ORDER BY log_offset, index_in_message"
        )
    wanted = [
        (offset, value, judged)
        for offset, value in enumerate(values)
        for judged in judge_message(value, ["cpu", "mem"])
    ]
    for (offset, value, judged), row in zip(wanted, found, strict=True):
        assert row[7:] == (offset, judged.index), value
        nano = [None if number is None else str(number) for number in judged.nano]
        assert row[6] == (judged.fault is not None or judged.source != "urn:a"), value
        if judged.fault is None:
            assert row[:6] == (
                judged.source, judged.event_id, judged.event_type, judged.subject, judged.at_us, nano,
            ), value  # fmt: skip
