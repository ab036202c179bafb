"""The emitter's memory on disk: which numbers may be in use. Written before a number is used, never after."""

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from pipeline.domain.errors import ConfigurationFault
from pipeline.ingest.file_lock import take_lock

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class EmitterState:
    """
    What the state file says.

    Numbers below `block_first` are acknowledged or declared; those in [block_first, block_stop) may be in use; the
    rest is free. A clean close leaves the block empty. `undeclared_from` starts a hole up to `block_first` that is
    not known to be declared.
    """

    version: int
    source: str
    machine_id: str
    epoch: str
    block_first: int
    block_stop: int
    undeclared_from: int | None


def file_stem(source: str) -> str:
    """What the files of a source are called in a folder of emitters' states."""
    return hashlib.sha256(source.encode()).hexdigest()[:20]


class StateFile:
    """
    The state of one source, held by one process at a time.

    Args:
        state_dir: Folder of the emitters' states; made where it is missing.
        source: The emitter's source.
        machine_id: Where it runs.

    Raises:
        ConfigurationFault: Another process holds the source, or the state belongs to another machine or source, or
            cannot be read.
    """

    def __init__(self, state_dir: Path, source: str, machine_id: str) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        name = file_stem(source)
        self.path = state_dir / f"{name}.json"
        self._lock_fd: int | None = take_lock(state_dir / f"{name}.lock", source)
        try:
            self.state = self._load(source, machine_id)
        except BaseException:
            self.release()
            raise

    def reserve(self, size: int) -> EmitterState:
        """Take the next block of numbers; the caller has seen everything below it acknowledged."""
        stop = self.state.block_stop
        return self._store(replace(self.state, block_first=stop, block_stop=stop + size))

    def forget_hole(self) -> EmitterState:
        """The hole's declaration is acknowledged."""
        return self._store(replace(self.state, undeclared_from=None))

    def settle(self, number_next: int) -> EmitterState:
        """Everything below `number_next` is acknowledged and nothing else was used."""
        return self._store(replace(self.state, block_first=number_next, block_stop=number_next))

    def release(self) -> None:
        """Let another process have the source."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> "StateFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _load(self, source: str, machine_id: str) -> EmitterState:
        if not self.path.exists():
            return self._store(EmitterState(STATE_VERSION, source, machine_id, secrets.token_hex(8), 1, 1, None))
        try:
            state = EmitterState(**json.loads(self.path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigurationFault(
                f"{self.path} is no emitter state ({error}): move it away; the source then begins a new epoch"
            ) from error
        for name, stored, given in (
            ("version", state.version, STATE_VERSION),
            ("source", state.source, source),
            ("machine id", state.machine_id, machine_id),
        ):
            if stored != given:
                raise ConfigurationFault(
                    f"{self.path} belongs to {name} {stored}, not {given}: two machines must not share an epoch. "
                    "On a clone or a new machine, move the file away; the source then begins a new epoch"
                )
        if state.block_stop > state.block_first:
            # Not closed cleanly: any number of the block may or may not have been sent.
            first = state.block_first if state.undeclared_from is None else state.undeclared_from
            return self._store(replace(state, block_first=state.block_stop, undeclared_from=first))
        return state

    def _store(self, state: EmitterState) -> EmitterState:
        temporary = self.path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.state = state
        return state
