"""Which version of a meter is in force when: each until the next one of its name begins."""

from collections.abc import Iterable
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from pipeline.catalogue.model import Meter


class EffectiveMeter(NamedTuple):
    """A version in force from its `effective_from` to `effective_to`, aware UTC; None means from then on."""

    meter: Meter
    effective_to: datetime | None


def effective_meters(meters: Iterable[Meter]) -> list[EffectiveMeter]:
    """All versions with their ends: names in the order given, the versions of each ascending."""
    by_name: dict[str, list[Meter]] = {}
    for meter in meters:
        by_name.setdefault(meter.meter, []).append(meter)
    found = []
    for versions in by_name.values():
        versions.sort(key=lambda meter: meter.version)
        ends = [following.effective_from for following in versions[1:]]
        found += [EffectiveMeter(meter, end) for meter, end in zip_longest(versions, ends)]
    return found
