"""What the Kafka client complains of: put into a sentence, and into the log only so often."""

import logging
import re
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException

#: The client tries again many times a second, and complains each time.
REPEAT_SECONDS = 30.0
_TEXTS_MAX = 100
# How long an attempt took, and how often it was tried, makes no other complaint of it.
_VARYING = re.compile(r"\s*\(after \d+ms.*\)")


def sentence(error: KafkaException | KafkaError) -> str:
    """Give the client's words without its codes and type names."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)


class ErrorLog:
    """Writes each distinct complaint of one client as a warning, at most once in REPEAT_SECONDS."""

    def __init__(self, logger: logging.Logger, client: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`client` is 'consumer' or 'producer'; `clock` gives seconds."""
        self._logger = logger
        self._client = client
        self._clock = clock
        self._written_at: dict[str, float] = {}

    def write(self, error: KafkaException | KafkaError) -> None:
        """Write the complaint unless the same one was written just now."""
        text = _VARYING.sub("", sentence(error))
        now = self._clock()
        if now - self._written_at.get(text, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        if len(self._written_at) >= _TEXTS_MAX:
            self._written_at.clear()
        self._written_at[text] = now
        self._logger.warning(
            f"the {self._client} met: {text}; it tries again", extra={"action": f"{self._client}_error"}
        )
