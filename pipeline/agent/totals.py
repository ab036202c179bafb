"""Totals that only rise: sums of counters whose owners (devices, processes) come, go and begin anew."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOTALS_VERSION = 1


@dataclass(slots=True)
class Total:
    """A sum so far, and the last reading of each of its members; whole numbers of whatever is counted."""

    value: int = 0
    last: dict[str, int] = field(default_factory=dict)


class Totals:
    """
    Every total of a host, by name, for one boot of the machine.

    Args:
        boot_id: Of this boot; with another one everything begins anew, as the kernel's counters do.
        totals: As they were.
        read_us: When the last readings were made, microseconds since 1970; 0 where there were none.
    """

    def __init__(self, boot_id: str, totals: dict[str, Total] | None = None, read_us: int = 0) -> None:
        self.boot_id = boot_id
        self.read_us = read_us
        self._totals = totals or {}

    def advance(
        self,
        name: str,
        readings: Mapping[str, int],
        *,
        restarts: bool,
        forget: bool = False,
        joined: Collection[str] = (),
    ) -> int:
        """
        Take readings in and give the total.

        Args:
            name: Which total.
            readings: By member; one that is new counts whole, since it began after the boot or the last reading.
            restarts: Whether a reading below the last one is a counter that began anew and counts whole; else it adds
                nothing.
            forget: Whether a member that is not read is gone for good, as a process is. A device may come back.
            joined: Members that are older than the last reading; where they are new they count from now on.

        Returns:
            The total; never less than before in this boot.
        """
        total = self._totals.setdefault(name, Total())
        for member, reading in readings.items():
            before = total.last.get(member)
            if before is None:
                total.value += 0 if member in joined else reading
            elif reading >= before:
                total.value += reading - before
            elif restarts:
                total.value += reading
        total.last = dict(readings) if forget else {**total.last, **readings}
        return total.value

    def keep_only(self, prefix: str, names: Collection[str]) -> None:
        """Forget totals whose name begins so and is not among these: their subject is gone."""
        for name in [name for name in self._totals if name.startswith(prefix) and name not in names]:
            del self._totals[name]

    def store(self, path: Path) -> None:
        """
        Replace the stored totals. Without sync: a machine that crashes boots, and begins anew.

        Raises:
            OSError: They cannot be written.
        """
        content = {
            "version": TOTALS_VERSION,
            "boot_id": self.boot_id,
            "read_us": self.read_us,
            "totals": {name: [total.value, total.last] for name, total in self._totals.items()},
        }
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)


def load_totals(path: Path, boot_id: str) -> Totals:
    """
    The stored totals of this boot; new ones where there are none, or only of another boot.

    Raises:
        ValueError: The file is not what `store` writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Totals(boot_id)
    try:
        if content["version"] != TOTALS_VERSION or content["boot_id"] != boot_id:
            return Totals(boot_id)
        totals = {name: Total(int(value), dict(last)) for name, (value, last) in content["totals"].items()}
        return Totals(boot_id, totals, int(content["read_us"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no totals: {error!r}") from error
