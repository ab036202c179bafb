"""The watch measures what the database, the broker and the disks say."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.domain.errors import TransientFault
from pipeline.reports.watch import Watch
from pipeline.runtime import metrics
from pipeline.runtime.known_log import open_log
from pipeline.runtime.metrics import Health
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.topics import begin_log
from tests.conftest import FreshTopics
from tests.integration.invoice_world import JULY, World, make_world

pytestmark = pytest.mark.real

TROUBLE = """
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, detail, subject, log_time,
    payload, settled)
VALUES ('usage.events', 0, 5, -1, 'quarantined', 'json_invalid', '', NULL, '2013-07-02Z', 'x', false),
    ('usage.events', 0, 6, 0, 'parked', 'unknown_meter', '', 'vm-acme', '2013-07-03Z', '{}', false),
    ('usage.events', 0, 7, 0, 'parked', 'unknown_meter', '', 'vm-acme', '2013-07-03Z', '{}', false),
    ('usage.events', 0, 8, 0, 'parked', 'unknown_meter', '', 'vm-acme', '2013-07-03Z', '{}', true);
INSERT INTO billing_period (account_id, period_start, period_end, state)
VALUES ('acme', '2013-06-30T22:00Z', '2013-07-31T22:00Z', 'open'),
    ('brick', '2013-06-30T22:00Z', '2013-07-31T22:00Z', 'closed');
INSERT INTO proof_failure (invoice_id, account_id, period_start, failed_at, differences)
VALUES ('i', 'acme', '2013-06-30T22:00Z', '2013-08-01Z', '{differs}'),
    ('i', 'acme', '2013-06-30T22:00Z', '2013-08-02Z', '{differs}'),
    ('j', 'brick', '2013-06-30T22:00Z', '2013-08-01Z', '{differs}');
UPDATE usage_total SET revision = revision + 1, computed_at = now() - interval '1 hour';
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with closing(connect(database_url, application_name="test-watch")) as opened:
        yield opened


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(database_url, tmp_path / "documents") as made:
        yield made


def value(name: str, **labels: str) -> float:
    found = metrics.REGISTRY.get_sample_value(name, labels)
    assert found is not None, name
    return found


def test_what_the_books_and_disks_say(world: World, database_url: str, connection: Connection, tmp_path: Path) -> None:
    """Open events, months that the proof refused and that are still open, the age of what is not booked, free disk."""
    world.charge("acme", JULY, "3.00")
    with closing(connect(database_url, application_name="test-owner", role=None)) as owner:
        owner.execute(TROUBLE)
    watch = Watch(connection, "127.0.0.1:1", {"archive": tmp_path / "not" / "there"}, Health("watch"))

    # The broker that is not there costs what is known of the logs, nothing else.
    watch.look()

    assert value("rackmeter_open_decisions", outcome="quarantined") == 1
    assert value("rackmeter_open_decisions", outcome="parked") == 2
    assert value("rackmeter_open_decisions", outcome="conflict") == 0
    assert value("rackmeter_unproven_periods") == 1
    assert value("rackmeter_periods", state="open") == 1
    assert value("rackmeter_periods", state="closed") == 1
    assert value("rackmeter_unrated_charges") == 0
    assert value("rackmeter_events_without_evidence") == 0
    assert 3599 < value("rackmeter_oldest_unbooked_seconds") < 4000
    assert (
        0 < value("rackmeter_disk_free_bytes", folder="archive") < value("rackmeter_disk_size_bytes", folder="archive")
    )


def test_a_changed_log_is_seen(
    connection: Connection, bootstrap_servers: str, fresh_topics: FreshTopics, tmp_path: Path
) -> None:
    """A topic that is not the log that was read before is measured as 1, and its stages need not run for that."""
    topic = fresh_topics(2)["usage.events"]
    open_log(connection, bootstrap_servers, topic, "aggregate")
    watch = Watch(connection, bootstrap_servers, {"state": tmp_path}, Health("watch"))
    watch.look()
    assert value("rackmeter_log_changed", topic=topic) == 0

    begin_log(bootstrap_servers, topic, "unclean_stop")
    watch.look()

    assert value("rackmeter_log_changed", topic=topic) == 1


def test_a_lost_database_ends_it(connection: Connection, bootstrap_servers: str, tmp_path: Path) -> None:
    """It is started again like a stage, and does not go on with what it knew."""
    watch = Watch(connection, bootstrap_servers, {"state": tmp_path}, Health("watch"))
    connection.close()

    with pytest.raises(TransientFault):
        watch.look()
