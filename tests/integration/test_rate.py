"""The rate stage as a process, between a real broker and a real database."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from pipeline.contracts.charge import Charge, decode_charges
from pipeline.contracts.usage_total import Segment, Total, pack_totals
from pipeline.runtime.postgres import connect
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.topics import watermarks
from tests.conftest import FreshTopics

pytestmark = pytest.mark.real

PARTITIONS = 2
START, END = "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z"


@pytest.fixture
def topics(fresh_topics: FreshTopics) -> dict[str, str]:
    """Names of this test's topics."""
    return fresh_topics(PARTITIONS)


@pytest.fixture
def start_rating(
    bootstrap_servers: str, database_url: str, topics: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start a rate process; whatever is left of it is killed afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.integration.rate_process", bootstrap_servers, database_url]
        command += [str(tmp_path / "state"), topics["usage.totals"], topics["billing.charges"]]
        root = Path(__file__).resolve().parents[2]
        started.append(subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def add_price(database_url: str) -> int:
    """Store a price of 0.006 a core-hour and give its version's id."""
    with closing(connect(database_url, application_name="tests")) as connection:
        row = connection.execute(
            "INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest,"
            " known_number) VALUES ('core_hour', 1, 'per_unit', 'compute', 'EUR', 'core-hour', 3600,"
            """ '{"unit_price": "0.006"}', 'd', 1) RETURNING price_version_id"""
        ).fetchone()
    assert row is not None
    return int(row[0])


def total(item: int, price_version_id: int, revision: int = 1, quantity: str = "7200") -> Total:
    segment = Segment(price_version_id=price_version_id, start=START, end=END, quantity=quantity)
    return Total(
        billed_item_id=item,
        revision=revision,
        period_start=START,
        period_end=END,
        subject="",
        item="cpu",
        segments=(segment,),
    )


@contextmanager
def reading(bootstrap_servers: str, topic: str) -> Iterator[Callable[[int], list[Charge]]]:
    """Give a function that waits for so many further charges."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "tests", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def read(count: int) -> list[Charge]:
        charges: list[Charge] = []
        deadline = time.monotonic() + 30
        while len(charges) < count and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                charges += decode_charges(message.value() or b"").charges
        return charges

    yield read
    consumer.close()


def send(bootstrap_servers: str, topic: str, *messages: bytes) -> None:
    with LogProducer(bootstrap_servers) as producer:
        for message in messages:
            producer.send(topic, None, message)
        producer.flush()


def test_totals_become_charges_and_bad_ones_stop_nobody(
    bootstrap_servers: str,
    database_url: str,
    topics: dict[str, str],
    start_rating: Callable[[], "subprocess.Popen[str]"],
) -> None:
    """Prices come from the database, a missing one once it is there; what cannot be read is passed over, loudly."""
    totals_topic = topics["usage.totals"]
    send(bootstrap_servers, totals_topic, *pack_totals(3, [total(1, 1), total(2, 1, quantity="-5")]))
    process = start_rating()
    with reading(bootstrap_servers, topics["billing.charges"]) as read:
        first = {charge.billed_item_id: charge.outcome for charge in read(2)}
        assert first == {1: "no_price", 2: "failed"}

        price_version_id = add_price(database_url)
        send(bootstrap_servers, totals_topic, b"no json", b'{"generation":3,"totals":[{}]}')
        send(bootstrap_servers, totals_topic, *pack_totals(3, [total(1, price_version_id, revision=2)]))
        (charge,) = read(1)
    assert (charge.revision, charge.outcome, charge.amounts[0].amount) == (2, "rated", "0.012")

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert said.count("total_unreadable") == 2


def test_a_killed_worker_goes_on_where_it_was(
    bootstrap_servers: str,
    database_url: str,
    topics: dict[str, str],
    start_rating: Callable[[], "subprocess.Popen[str]"],
) -> None:
    """After kill -9 every total has its charge, some perhaps twice and then byte for byte the same."""
    price_version_id = add_price(database_url)
    totals = [total(item, price_version_id, quantity=str(item)) for item in range(1, 5001)]
    send(bootstrap_servers, topics["usage.totals"], *pack_totals(1, totals))
    with reading(bootstrap_servers, topics["billing.charges"]) as read:
        process = start_rating()
        seen = read(1)
        process.kill()
        process.communicate()
        start_rating()
        charges = {charge.billed_item_id: charge for charge in seen}
        while len(charges) < len(totals):
            further = read(1)
            assert further, f"{len(charges)} of {len(totals)} totals have a charge"
            for charge in further:
                assert charges.setdefault(charge.billed_item_id, charge) == charge


def test_what_was_rated_is_committed(
    bootstrap_servers: str,
    database_url: str,
    topics: dict[str, str],
    start_rating: Callable[[], "subprocess.Popen[str]"],
) -> None:
    """The group's lag goes to nought; the sweep waits for that before it sends anything again."""
    topic = topics["usage.totals"]
    price_version_id = add_price(database_url)
    send(bootstrap_servers, topic, *[pack_totals(1, [total(item, price_version_id)])[0] for item in range(1, 21)])
    start_rating()
    ends = {partition: high for partition, (_, high) in watermarks(bootstrap_servers, topic).items() if high}
    group = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": topic, "enable.auto.commit": False})
    deadline = time.monotonic() + 20
    committed: dict[int, int] = {}
    while committed != ends and time.monotonic() < deadline:
        time.sleep(0.2)
        positions = group.committed([TopicPartition(topic, partition) for partition in ends], timeout=10)
        committed = {position.partition: position.offset for position in positions}
    group.close()
    assert committed == ends


def test_without_a_broker_the_process_ends_and_says_so(database_url: str, tmp_path: Path) -> None:
    """It exits non-zero within seconds, with a sentence that names the address."""
    command = [sys.executable, "-m", "tests.integration.rate_process", "127.0.0.1:1", database_url, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([*command, "t", "c"], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "127.0.0.1:1" in ended.stderr.splitlines()[-1]
