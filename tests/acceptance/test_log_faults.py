"""A log that is not the one that was read halts its readers, and there is a way on that loses and doubles nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # public, see its manual

from pipeline.bootstrap import EVENTS_TOPIC
from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.ingest.emitter import Producer
from pipeline.ingest.replay import ReplayOptions
from pipeline.local.broker import Broker
from pipeline.local.kafka_embedded import EmbeddedKafka, is_installed
from pipeline.runtime.topics import ensure_topics, load_topics, read_log_identity, watermarks
from tests.acceptance.conftest import ClosedRun, MakeInstallation
from tests.support.fresh_logs import PARTITIONS, WAIT_SECONDS, delete_records, delete_topics, make_fresh_logs
from tests.support.installation import LOG_READERS, Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.real]

HALTED = 70
HALT_SECONDS_MAX = 60.0


def read_some(installation: Installation) -> None:
    """Have the whole trace read, then stop."""
    with installation.reading():
        installation.replay(ReplayOptions())
        installation.wait_until_read()


def make_events_again(bootstrap_servers: str, partitions: int = PARTITIONS) -> None:
    delete_topics(bootstrap_servers, [EVENTS_TOPIC])
    ensure_topics(bootstrap_servers, load_topics(), {EVENTS_TOPIC: partitions})


def assert_halts(installation: Installation, *reasons: str) -> None:
    """Each reader ends with 70, says why, and moves nothing; doctor says what to do."""
    before = installation.tally()
    for stage in LOG_READERS:
        code, said = installation.run("run", stage)
        assert code == HALTED, said
        for reason in reasons:
            assert reason in said
        assert "rackmeter doctor" in said
    assert installation.tally() == before


def assert_doctor_says(installation: Installation, *sentences: str) -> None:
    code, said = installation.run("doctor", "--format", "json")
    assert code == 1, said
    for sentence in sentences:
        assert sentence in said, said


def adopt_and_send_again(installation: Installation, closed_run: ClosedRun) -> None:
    """What doctor says: adopt the log, start the stages, send again. Nothing is lost, doubled or billed otherwise."""
    code, said = installation.run("log", "adopt", "--topic", EVENTS_TOPIC, "--yes")
    assert code == 0, said
    with installation.running():
        installation.replay()
        installation.wait_until_read()
        run = installation.close()
    _, buckets = installation.books()
    _, expected_buckets = closed_run.installation.books()
    assert buckets == expected_buckets
    assert set(installation.balances().values()) == {0}
    assert run.exit_code == 0, [reason.sentence for one in run.results for reason in one.reasons]
    assert installation.documents() == closed_run.documents
    assert installation.verify().differences == ()


def test_made_again(make_installation: MakeInstallation, own_broker: Broker, closed_run: ClosedRun) -> None:
    """A topic that was deleted and made again while nobody read halts both readers; adopted, it loses nothing."""
    installation = make_installation()
    read_some(installation)
    make_events_again(own_broker.bootstrap_servers)
    assert_halts(installation, "it is another log")
    assert_doctor_says(installation, "it is another log", f"rackmeter log adopt --topic {EVENTS_TOPIC} --yes")
    adopt_and_send_again(installation, closed_run)


def test_made_again_under_running_readers(make_installation: MakeInstallation, own_broker: Broker) -> None:
    """Readers that run while the topic is made again do not go on in the new one as if it were the old."""
    installation = make_installation()
    with installation.reading():
        installation.replay(ReplayOptions())
        installation.wait_until_read()
        before = installation.tally()
        make_events_again(own_broker.bootstrap_servers)
        # As many messages as before: no offset is out of range.
        installation.replay(ReplayOptions(shuffle_seed=1), is_watched=False)
        installation.await_halt(HALT_SECONDS_MAX)
    assert installation.tally() == before


def test_other_number_of_partitions(make_installation: MakeInstallation, own_broker: Broker) -> None:
    """A source's home is a hash modulo the number of partitions: one more is refused by everybody."""
    installation = make_installation()
    read_some(installation)
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap_servers})
    admin.create_partitions([NewPartitions(EVENTS_TOPIC, PARTITIONS + 1)])[EVENTS_TOPIC].result(WAIT_SECONDS)
    assert_halts(installation, f"it has {PARTITIONS + 1} partitions, it was adopted with {PARTITIONS}")
    assert_doctor_says(installation, f"make {EVENTS_TOPIC} again with {PARTITIONS} partitions")
    with pytest.raises(InvariantViolation, match="for life"):
        ensure_topics(own_broker.bootstrap_servers, load_topics(), {EVENTS_TOPIC: PARTITIONS})
    code, said = installation.run("log", "adopt", "--topic", EVENTS_TOPIC, "--yes")
    assert code == HALTED, said
    assert "for life" in said


def test_unread_records_deleted(make_installation: MakeInstallation, own_broker: Broker) -> None:
    """Records deleted before they were read are not skipped in silence."""
    installation = make_installation()
    read_some(installation)
    installation.replay(ReplayOptions())
    ends = {partition: high for partition, (_, high) in watermarks(own_broker.bootstrap_servers, EVENTS_TOPIC).items()}
    delete_records(own_broker.bootstrap_servers, EVENTS_TOPIC, ends)
    assert_halts(installation, "unread records were deleted")
    assert_doctor_says(installation, "unread records were deleted")


class CrashingProducer:
    """Sends like its producer until, after some was read, the broker is killed in the middle."""

    def __init__(self, producer: Producer, broker: EmbeddedKafka, installation: Installation) -> None:
        self._producer = producer
        self._broker = broker
        self._installation = installation
        self._sent = 0

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Send a message; kills the broker when it is time."""
        self._producer.send(topic, key, value)
        self._sent += 1
        if self._sent == 3000:
            self._producer.flush(WAIT_SECONDS)
            self._installation.wait_for(self._is_read, "something to be read and archived")
        if self._sent == 6000:
            pid = self._broker.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            raise TransientFault("the broker was killed")

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything is acknowledged."""
        self._producer.flush(timeout_seconds)

    def _is_read(self) -> bool:
        with self._installation.database() as connection:
            archived = connection.execute("SELECT count(*) > 0 FROM archive_file").fetchone()
        return self._installation.tally().received > 0 and archived == (True,)


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """The embedded broker, whichever one the other tests use."""
    if not is_installed():
        pytest.fail("the embedded broker is not installed: run `make install`", pytrace=False)
    broker = EmbeddedKafka(tmp_path / "embedded")
    broker.start()
    yield broker
    broker.stop()


def test_crash_of_the_embedded_broker(
    embedded_broker: EmbeddedKafka, database_url: str, small_trace: Path, tmp_path: Path, closed_run: ClosedRun
) -> None:
    """Killed while servers send, it may lose its last second: its log gets a new id, readers halt, nothing is lost."""
    make_fresh_logs(embedded_broker.bootstrap_servers)
    installation = Installation.make(tmp_path, embedded_broker, database_url, small_trace)
    before = read_log_identity(embedded_broker.bootstrap_servers, EVENTS_TOPIC)
    with installation.reading(), pytest.raises(TransientFault):
        installation.replay(wrap=lambda producer: CrashingProducer(producer, embedded_broker, installation))
    embedded_broker.kill()
    embedded_broker.start()
    assert read_log_identity(embedded_broker.bootstrap_servers, EVENTS_TOPIC).log_id != before.log_id
    installation.move_to(embedded_broker.bootstrap_servers)
    assert_halts(installation, "it is another log")
    assert_doctor_says(installation, f"rackmeter log adopt --topic {EVENTS_TOPIC} --yes")
    adopt_and_send_again(installation, closed_run)
