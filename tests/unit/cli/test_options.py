"""How texts on the command line become times."""

from datetime import UTC, datetime

import pytest
import typer

from pipeline.cli.options import moment_of
from pipeline.domain.errors import ConfigurationFault


def test_a_date_is_the_first_instant_of_that_day_in_the_zone() -> None:
    """A date means local midnight, in summer and in winter."""
    assert moment_of("2013-07-01", "Europe/Amsterdam") == datetime(2013, 6, 30, 22, tzinfo=UTC)
    assert moment_of("2013-12-01", "Europe/Amsterdam") == datetime(2013, 11, 30, 23, tzinfo=UTC)


def test_a_time_keeps_its_own_zone() -> None:
    """A time says its zone itself."""
    assert moment_of("2013-07-01T06:00:00+02:00", "Asia/Tokyo") == datetime(2013, 7, 1, 4, tzinfo=UTC)
    assert moment_of("2013-07-01T06:00:00Z", "Asia/Tokyo") == datetime(2013, 7, 1, 6, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2013-07-01T06:00:00", "2013-02-30", "yesterday", ""])
def test_a_time_that_could_mean_two_things_is_refused(text: str) -> None:
    """Without a zone, or without a meaning, it is a usage error."""
    with pytest.raises(typer.BadParameter):
        moment_of(text, "UTC")


def test_an_unknown_zone_is_named() -> None:
    """A zone that is none is a configuration fault that names it."""
    with pytest.raises(ConfigurationFault, match="Mars/Olympus"):
        moment_of("2013-07-01", "Mars/Olympus")
