"""What is taken at once."""

import pytest

from pipeline.web.limits import Busy, EventRate, InFlight


class Clock:
    """Seconds, as told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_tokens_allowance_comes_back_with_time() -> None:
    """A second's worth is saved up; what is refused uses nothing; other tokens have their own."""
    clock = Clock()
    rate = EventRate(50, burst_min=100, clock=clock)
    rate.take("a", 100)
    with pytest.raises(Busy) as busy:
        rate.take("a", 100)
    assert busy.value.retry_after_seconds == 2
    rate.take("b", 100)
    clock.now = 2.0
    rate.take("a", 100)
    clock.now = 1000.0
    rate.take("a", 100)
    with pytest.raises(Busy):
        rate.take("a", 1)


def test_bytes_in_flight_are_bounded_and_given_back() -> None:
    """Also after a failure; one request always fits, or none would ever."""
    room = InFlight(10)
    with room.holding(8):
        with room.holding(2), pytest.raises(Busy), room.holding(1):
            pass
        assert room.bytes_taken == 8
    with pytest.raises(KeyError), room.holding(100):
        raise KeyError
    assert room.bytes_taken == 0
