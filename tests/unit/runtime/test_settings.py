"""Settings are read once, checked all at once, and frozen."""

import dataclasses
import re
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.settings import NOT_SET, Settings, foreign_variables, schemas_dir, variable_name

GIVEN = {
    "KAFKA_BOOTSTRAP_SERVERS": "broker:9092",
    "DATABASE_URL": "postgresql://rackmeter@database/rackmeter",
    "RACKMETER_ARCHIVE_DIR": "/archive",
    "RACKMETER_DOCUMENTS_DIR": "/documents",
    "RACKMETER_JOURNAL_DIR": "/journal",
    "RACKMETER_STATE_DIR": "/state",
}


def test_what_is_given_is_taken_and_the_rest_has_its_default() -> None:
    """Only where to find broker, database and folders must be said."""
    settings = Settings.from_environment(GIVEN | {"RACKMETER_WORKER_SLOT": "3", "RACKMETER_FLUSH_SECONDS": "0.5"})

    assert settings.kafka_bootstrap_servers == "broker:9092"
    assert settings.archive_dir == Path("/archive")
    assert (settings.worker_slot, settings.flush_seconds) == (3, 0.5)
    assert settings.metrics_port == 0


def test_every_missing_variable_is_named_at_once() -> None:
    """An empty environment is told all that it lacks, not the first of it."""
    with pytest.raises(ConfigurationFault) as caught:
        Settings.from_environment({})

    lines = caught.value.detail.splitlines()
    assert [line.split()[0] for line in lines] == list(GIVEN)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RACKMETER_METRICS_PORT", "-1"),
        ("RACKMETER_METRICS_PORT", "65536"),
        ("RACKMETER_WORKER_SLOT", "one"),
        ("RACKMETER_WORKER_SLOT", "١"),
        ("RACKMETER_FLUSH_SECONDS", "nan"),
        ("RACKMETER_FLUSH_SECONDS", "inf"),
        ("RACKMETER_FLUSH_SECONDS", "-1"),
        ("RACKMETER_SWEEP_SECONDS", "soon"),
        ("RACKMETER_LOG_LEVEL", "LOUD"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092,other"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://broker:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:99999"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value(name: str, text: str) -> None:
    """The message says variable, value and what is wanted."""
    with pytest.raises(ConfigurationFault, match="is wanted") as caught:
        Settings.from_environment(GIVEN | {name: text})

    assert caught.value.detail.startswith(f"{name}={text!r}: ")


def test_missing_and_malformed_variables_are_named_together() -> None:
    """One reading tells everything that is wrong with the environment."""
    with pytest.raises(ConfigurationFault) as caught:
        Settings.from_environment({"KAFKA_BOOTSTRAP_SERVERS": "x", "DATABASE_URL": "x", "RACKMETER_WORKER_SLOT": "x"})

    names = [re.split("[ =:]", line)[0] for line in caught.value.detail.splitlines()]
    assert names == [*GIVEN, "RACKMETER_WORKER_SLOT"]


@pytest.mark.parametrize("url", ["mysql://u:s3cret@db/x", "db.example.com", "/run/postgres", "http://u:s3cret@db"])
def test_what_is_no_postgresql_address_is_refused_unseen(url: str) -> None:
    """The message says what is wanted and not what was given: it may hold a password."""
    with pytest.raises(ConfigurationFault, match=r"DATABASE_URL: postgresql://.* is wanted") as caught:
        Settings.from_environment(GIVEN | {"DATABASE_URL": url})

    assert "s3cret" not in caught.value.detail


@pytest.mark.parametrize("url", ["postgres://db/x", "postgresql:///x?host=/run", "host=db dbname = x", " host=/run"])
def test_every_form_of_libpq_address_is_taken(url: str) -> None:
    """A URL of either scheme, or words."""
    assert Settings.from_environment(GIVEN | {"DATABASE_URL": url}).database_url == url.strip()


@pytest.mark.parametrize("servers", ["a-1.example.com:9092,a-2:9092", "[::1]:9092", "127.0.0.1:1", "a:1, b:2"])
def test_every_form_of_broker_address_is_taken(servers: str) -> None:
    """Names and addresses with a port, one or several."""
    assert Settings.from_environment(GIVEN | {"KAFKA_BOOTSTRAP_SERVERS": servers}).kafka_bootstrap_servers == servers


def test_a_misspelt_setting_is_named_with_the_right_one() -> None:
    """What nothing reads is a problem; what only the tests and local runs read is none."""
    given = {"RACKMETER_FLUSH_SECOND": "3", "RACKMETER_BROKER": "embedded", "RACKMETER_REAL_TRACE": "/t", "PATH": "/"}

    assert foreign_variables(GIVEN | given) == [
        "RACKMETER_FLUSH_SECOND is not a setting; is RACKMETER_FLUSH_SECONDS meant?"
    ]
    assert foreign_variables({"RACKMETER_BROKER": "kafka"}) == [
        "RACKMETER_BROKER='kafka': apache or embedded is wanted"
    ]


def test_what_is_not_needed_may_be_missing() -> None:
    """It has a value that says so; what is needed must be there all the same."""
    settings = Settings.from_environment(
        {"DATABASE_URL": "postgresql://db/x"},
        not_needed=("kafka_bootstrap_servers", "archive_dir", "documents_dir", "journal_dir", "state_dir"),
    )

    assert (settings.kafka_bootstrap_servers, settings.archive_dir) == (NOT_SET, Path(NOT_SET))


def test_blank_is_as_good_as_missing() -> None:
    """A variable of spaces does not become a path or address of spaces."""
    with pytest.raises(ConfigurationFault, match="DATABASE_URL is not set"):
        Settings.from_environment(GIVEN | {"DATABASE_URL": "  "})


def test_a_child_reads_the_settings_it_was_handed() -> None:
    """Writing settings as an environment and reading that gives the same settings, whatever they are."""
    settings = Settings.from_environment(
        GIVEN
        | {"RACKMETER_LOG_LEVEL": "debug", "RACKMETER_CLOSE_GRACE_SECONDS": "60", "RACKMETER_METRICS_PORT": "9100"}
    )

    assert Settings.from_environment(settings.to_environment()) == settings


SECRET = "4eC39HqLyjWDarjtT1zdp7dc"


@pytest.mark.parametrize("text", [f"pk_live_{SECRET}", SECRET, f"sk_live_{SECRET} "[3:], f"sk live {SECRET}"])
def test_what_is_no_secret_key_is_refused_unseen(text: str) -> None:
    """A mistyped key is still most of a key: the message says what is wanted and not what was given."""
    with pytest.raises(ConfigurationFault, match=r"RACKMETER_STRIPE_API_KEY: .* is wanted") as caught:
        Settings.from_environment(GIVEN | {"RACKMETER_STRIPE_API_KEY": text})

    assert SECRET not in caught.value.detail


def test_a_secret_key_is_read_and_never_printed() -> None:
    """Settings in a log or a traceback do not hold it; a child still gets it."""
    settings = Settings.from_environment(GIVEN | {"RACKMETER_STRIPE_API_KEY": f"sk_live_{SECRET}"})

    assert settings.stripe_api_key == f"sk_live_{SECRET}"
    assert SECRET not in repr(settings)
    assert Settings.from_environment(settings.to_environment()) == settings


def test_a_key_stands_in_one_place() -> None:
    """Of two keys nobody could say which one is used."""
    both = {"RACKMETER_STRIPE_API_KEY": f"sk_live_{SECRET}", "RACKMETER_STRIPE_API_KEY_FILE": "/run/secrets/stripe"}
    with pytest.raises(ConfigurationFault, match="both set"):
        Settings.from_environment(GIVEN | both)


@pytest.mark.parametrize("text", ["localhost:1", "ftp://host", "http://user:secret@host", "http://host/v1?x=1"])
def test_the_other_server_of_stripe_is_an_http_address(text: str) -> None:
    """Scheme, host and port, nothing else."""
    with pytest.raises(ConfigurationFault, match="http://host:port is wanted"):
        Settings.from_environment(GIVEN | {"RACKMETER_STRIPE_BASE_URL": text})


def test_settings_never_change() -> None:
    """What was checked is what runs."""
    settings = Settings.from_environment(GIVEN)

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.worker_slot = 1  # type: ignore[misc]


def test_every_number_with_a_unit_says_it() -> None:
    """A duration is named in seconds and a size in bytes or events."""
    units = ("_seconds", "_max", "_port", "_slot")
    numbers = [field.name for field in dataclasses.fields(Settings) if field.type in (int, float, "int", "float")]

    assert [name for name in numbers if not name.endswith(units)] == []
    assert variable_name("flush_seconds") == "RACKMETER_FLUSH_SECONDS"


def test_the_schemas_are_found() -> None:
    """The folder of schemas is the checkout's."""
    assert (schemas_dir() / "topics.yaml").is_file()
