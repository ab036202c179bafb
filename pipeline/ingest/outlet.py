"""Where an emitter puts its events: the port, and the outlet that hands them to the log at once."""

from typing import Protocol

FLUSH_TIMEOUT_SECONDS = 30.0


class Outlet(Protocol):
    """Takes numbered events in order. The spool is one, DirectOutlet another."""

    @property
    def is_kept(self) -> bool:
        """Whether events are kept until they are delivered, so that a failure concerns only the one that met it."""

    def begin(self, epoch: str, unsure_from: int | None, number_next: int) -> None:
        """Say which numbers come, and from where on it is not known which were used."""

    def lost(self, number: int) -> tuple[int, int] | None:
        """The first and last number of a hole that is to be declared before `number` is put."""

    def declared(self, hole: tuple[int, int]) -> None:
        """Note that a hole's declaration was put."""

    def put(self, number: int, event: bytes) -> None:
        """Take an event; it is safe after the next `flush`. TransientFault where it cannot be taken."""

    def flush(self) -> None:
        """Return when everything put is safe; TransientFault where it is not."""

    def make_room(self) -> bool:
        """Give up what is oldest, because the disk is full; False where there is nothing to give up."""


class Producer(Protocol):
    """The port to the log: acks=all, idempotent, partitioned by murmur2 of the key."""

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Hand a message over; it is not durable yet."""

    def flush(self, timeout_seconds: float) -> None:
        """Return when everything is acknowledged; TransientFault where it is not."""


class DirectOutlet:
    """
    Hands events to the log without keeping them: what is not acknowledged is lost, and declared at the next start.

    Args:
        producer: The port to the log; stays the caller's.
        topic: Where to, usage.events.
        source: Who emits: the key.
    """

    def __init__(self, producer: Producer, topic: str, source: str) -> None:
        self._producer = producer
        self._topic = topic
        self._key = source.encode()
        self._hole: tuple[int, int] | None = None

    @property
    def is_kept(self) -> bool:
        """They are not."""
        return False

    def begin(self, epoch: str, unsure_from: int | None, number_next: int) -> None:
        """What the emitter's state is not sure of is a hole."""
        del epoch
        self._hole = None if unsure_from is None else (unsure_from, number_next - 1)

    def lost(self, number: int) -> tuple[int, int] | None:
        """The hole of an earlier crash, until it was declared."""
        del number
        return self._hole

    def declared(self, hole: tuple[int, int]) -> None:
        """Forget the hole."""
        del hole
        self._hole = None

    def put(self, number: int, event: bytes) -> None:
        """Hand an event over as a message of its own."""
        del number
        self._producer.send(self._topic, self._key, event)

    def flush(self) -> None:
        """Wait for the broker's acknowledgement."""
        self._producer.flush(FLUSH_TIMEOUT_SECONDS)

    def make_room(self) -> bool:
        """There is nothing on disk to give up."""
        return False
