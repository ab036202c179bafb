"""What the Kafka client complains of is told once, with the next step."""

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.domain.errors import TransientFault
from pipeline.runtime import topics
from pipeline.runtime.client_errors import REPEAT_SECONDS, ErrorLog, sentence
from pipeline.runtime.consumer import LogConsumer

NOWHERE = "127.0.0.1:1"


def refused(milliseconds: int, more: str = "") -> KafkaError:
    return KafkaError(KafkaError._TRANSPORT, f"Connection refused (after {milliseconds}ms in state CONNECT{more})")


def test_a_complaint_is_written_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """The same text is not repeated, however long each attempt took; another one is told, and the same one later."""
    now = 100.0
    errors = ErrorLog(logging.getLogger("rackmeter.test"), "consumer", lambda: now)
    with caplog.at_level(logging.WARNING):
        for milliseconds in range(50):
            errors.write(refused(milliseconds))
            errors.write(refused(milliseconds, f", {milliseconds} identical error(s) suppressed"))
        errors.write(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        assert len(caplog.messages) == 2
        now += REPEAT_SECONDS
        errors.write(refused(0))
    assert len(caplog.messages) == 3
    assert caplog.messages[2] == "the consumer met: Connection refused; it tries again"


def test_an_error_is_words_without_codes() -> None:
    """Neither a type's name nor a code of the client reaches a person."""
    error = refused(3)
    assert sentence(error) == sentence(KafkaException(error)) == "Connection refused (after 3ms in state CONNECT)"


def test_a_missing_broker_is_named_with_the_next_step() -> None:
    """Where nothing listens, waiting ends with the address and what to do."""
    with pytest.raises(TransientFault, match=rf"no broker answers at {NOWHERE}; start it .* `rackmeter doctor`"):
        topics.await_broker(NOWHERE, 0.05)


def test_a_consumer_is_not_made_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is started without a broker ends with a sentence instead of waiting for ever."""
    monkeypatch.setattr(topics._admin, "__defaults__", (0.05,))
    monkeypatch.setattr(topics.await_broker, "__defaults__", (0.05,))
    with pytest.raises(TransientFault, match="no broker answers"):
        LogConsumer(NOWHERE, "stage", "topic", 0, on_assign=lambda _: {}, on_revoke=lambda _: None)
