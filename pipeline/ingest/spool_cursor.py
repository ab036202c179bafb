"""The spool's cursor on disk: up to where the broker acknowledged. Losing it costs sending again, never an event."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

LOGGER = logging.getLogger("rackmeter.spool")

FILE_NAME = "acknowledged.json"
CURSOR_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    Everything before `offset` of segment `ordinal` was acknowledged or given up.

    `epoch` and `number` are the last event's that the broker acknowledged, at `acknowledged_us` (microseconds since
    1970); empty and 0 where there was none yet. `holes` are first and last of numbers of
    `holes_epoch` that will never be delivered and whose declaration was not acknowledged.
    """

    ordinal: int
    offset: int
    epoch: str = ""
    number: int = 0
    acknowledged_us: int = 0
    holes: tuple[tuple[int, int], ...] = ()
    holes_epoch: str = ""


def load_cursor(folder: Path) -> Cursor | None:
    """The stored cursor; None where there is none, or none that can be read (which is logged)."""
    path = folder / FILE_NAME
    try:
        members = json.loads(path.read_text(encoding="utf-8"))
        if members.pop("version") != CURSOR_VERSION:
            raise ValueError("of another version")
        cursor = msgspec.convert(members, Cursor)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        LOGGER.error(
            f"{path} cannot be read ({error}): everything in the spool is sent again; repeats count once",
            extra={"action": "spool_cursor_lost"},
        )
        return None
    return cursor


def store_cursor(folder: Path, cursor: Cursor) -> None:
    """Replace the stored cursor, without sync: an older one only sends again. OSError where it cannot be written."""
    path = folder / FILE_NAME
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"version": CURSOR_VERSION, **asdict(cursor)}), encoding="utf-8")
    temporary.replace(path)
