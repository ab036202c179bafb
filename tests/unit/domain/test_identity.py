"""Identity: sequenced ids, Java's partitioner, sets of numbers."""

import pytest

from pipeline.domain.identity import (
    IntervalSet,
    SequencedId,
    format_sequenced_id,
    home_partition,
    murmur2,
    parse_sequenced_id,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_hash_is_that_of_javas_client(text: str, expected: int) -> None:
    """A source's home is the same for Java producers, librdkafka's murmur2_random and us."""
    assert murmur2(text.encode()) == expected
    assert home_partition(text, 48) == (expected & 0x7FFFFFFF) % 48


def test_a_sequenced_id_is_read_and_written() -> None:
    """Reading an id and writing it gives the same text."""
    text = "00f3a1b2c3d4e5f6-000000000042"
    parsed = parse_sequenced_id(text)
    assert parsed == SequencedId("00f3a1b2c3d4e5f6", 42)
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00f3a1b2c3d4e5f6-000000000000",
        "00F3A1B2C3D4E5F6-000000000042",
        "00f3a1b2c3d4e5f6-42",
        "00f3a1b2c3d4e5f6_000000000042",
        "00f3a1b2c3d4e5f6-000000000042\n",
        "00f3a1b2c3d4e5f6-00000000004٢",
    ],
)
def test_any_other_form_is_no_sequenced_id(text: str) -> None:
    """Only 16 lower-case hex digits, a dash and 12 digits from 1 on are of our form."""
    assert parse_sequenced_id(text) is None


@pytest.mark.parametrize("number", [0, -1, 10**12])
def test_a_number_outside_twelve_digits_is_refused(number: int) -> None:
    """No id is made that could not be read back."""
    with pytest.raises(ValueError, match="is not between"):
        format_sequenced_id("0" * 16, number)


def test_a_hole_is_seen_until_it_is_filled() -> None:
    """A missing number shows in `covers`, and filling it joins the intervals."""
    seen = IntervalSet()
    for number in (1, 2, 4, 5):
        assert seen.add(number)
    assert not seen.covers(1, 5)
    assert seen.to_pairs() == [(1, 3), (4, 6)]
    assert seen.add(3)
    assert seen.covers(1, 5)
    assert seen.to_pairs() == [(1, 6)]
    assert not seen.add(3)
