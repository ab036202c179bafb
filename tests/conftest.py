"""What every test may ask for: a broker, a database, fresh topics. Started once a session, and only when asked for."""

import contextlib
import itertools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline.domain.errors import PipelineError
from pipeline.local.broker import Broker, choose_broker
from pipeline.local.postgres import PostgresServer
from pipeline.runtime.migrations import migrate
from pipeline.runtime.postgres import connect
from pipeline.runtime.topics import TopicSpec, ensure_topics, load_topics

pytest_plugins = ["tests.support.sampling"]

FreshTopics = Callable[[int], dict[str, str]]

_NUMBERS = itertools.count(1)


def pytest_report_header() -> str:
    """Say which broker tests that ask for one will get."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS", ""):
        return f"broker: KAFKA_BOOTSTRAP_SERVERS={given}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            return f"broker: {choose_broker(Path(folder), os.environ.get('RACKMETER_BROKER')).reason}"
    except PipelineError as error:
        return f"broker: none; {error}"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of our own: Apache Kafka where it can be had, or as RACKMETER_BROKER says."""
    chosen = choose_broker(tmp_path_factory.mktemp("broker"), os.environ.get("RACKMETER_BROKER"))
    try:
        chosen.broker.start()
    except PipelineError as error:
        pytest.fail(f"no broker for the tests: {error}", pytrace=False)
    yield chosen.broker
    chosen.broker.stop()


@pytest.fixture(scope="session")
def bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """The broker's host:port: KAFKA_BOOTSTRAP_SERVERS when set, else our own broker's."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    if given:
        return given
    started: Broker = request.getfixturevalue("broker")
    return started.bootstrap_servers


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A database server of our own."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    try:
        server.start()
    except PipelineError as error:
        pytest.fail(f"no database for the tests: {error}", pytrace=False)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """A URL by which databases can be made: DATABASE_URL when set, else our own server's."""
    given = os.environ.get("DATABASE_URL", "")
    if given:
        return given
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.database_url()


@pytest.fixture(scope="session")
def migrated_template(server_url: str) -> Iterator[str]:
    """The name of a database with every migration applied and nothing else in it."""
    with _new_database(server_url, None) as name:
        with contextlib.closing(connect(_url_of(server_url, name), application_name="tests", role=None)) as connection:
            migrate(connection)
        yield name


@pytest.fixture
def database_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """A fresh, migrated database of this test's own; it is dropped afterwards, whoever is still connected."""
    with _new_database(server_url, migrated_template) as name:
        yield _url_of(server_url, name)


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A fresh database without any table."""
    with _new_database(server_url, None) as name:
        yield _url_of(server_url, name)


@pytest.fixture
def topic_prefix() -> str:
    """A text no other test's topics begin with."""
    return f"test-{uuid.uuid4().hex[:8]}."


@pytest.fixture
def fresh_topics(bootstrap_servers: str, topic_prefix: str) -> FreshTopics:
    """
    Make the pipeline's topics under names of this test's own: `fresh_topics(partitions)` gives {'usage.events': its
    name here, ...}, each with that many partitions and a log begun.
    """

    def make(partitions: int) -> dict[str, str]:
        names = {}
        specs: list[TopicSpec] = []
        for spec in load_topics():
            if spec.name != "rackmeter.log":
                names[spec.name] = topic_prefix + spec.name
                specs.append(_renamed(spec, names[spec.name], partitions))
        ensure_topics(bootstrap_servers, specs)
        return names

    return make


def _renamed(spec: TopicSpec, name: str, partitions: int) -> TopicSpec:
    values = {field: getattr(spec, field) for field in TopicSpec.__dataclass_fields__}
    return TopicSpec(**(values | {"name": name, "partitions": partitions}))


@contextlib.contextmanager
def _new_database(server_url: str, template: str | None) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        source = sql.Identifier(template or "template0")
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
    try:
        yield name
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _url_of(server_url: str, database: str) -> str:
    before, mark, query = server_url.partition("?")
    scheme, slashes, rest = before.partition("://")
    if not slashes:
        return make_conninfo(server_url, dbname=database)
    return f"{scheme}://{rest.partition('/')[0]}/{database}{mark}{query}"
