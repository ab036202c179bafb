"""What commands take from the environment, and what they show of it."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.environment import NOT_SET, masked, settings_for
from pipeline.cli.main import app
from pipeline.domain.errors import ConfigurationFault

SECRET = "s3cr/et@:x"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://rackmeter:{SECRET}@db:5432/rackmeter",
        f"postgresql://:{SECRET}@/rackmeter?host=/run",
        f"postgresql://rackmeter@db/rackmeter?sslmode=require&password={SECRET}",
        f"host=db user=rackmeter password={SECRET}",
        f"host=db password = '{SECRET} with a quote \\' in it' user=rackmeter",
    ],
)
def test_a_password_is_never_shown(text: str) -> None:
    """However a URL carries a password, it is masked; who and where stay readable."""
    assert SECRET not in masked(text)
    assert "***" in masked(text)
    assert "rackmeter" in masked(text)


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    """Text without a password stays as it is."""
    for text in ("broker-1:9092,broker-2:9092", "/var/lib/rackmeter", "postgresql://db/rackmeter", "2.5"):
        assert masked(text) == text


def test_check_config_names_value_and_source_of_every_setting() -> None:
    """What is set, what is by default, what is missing: each setting once, the password masked."""
    environment = {"DATABASE_URL": f"postgresql://u:{SECRET}@db/x", "RACKMETER_FLUSH_SECONDS": "5"}
    result = CliRunner().invoke(app, ["check-config", "--format", "json"], env=_only(environment))
    rows = {row["setting"]: row for row in json.loads(result.stdout)}
    assert SECRET not in result.output
    assert rows["DATABASE_URL"]["source"] == "environment"
    assert rows["RACKMETER_FLUSH_SECONDS"] == {
        "setting": "RACKMETER_FLUSH_SECONDS", "value": "5", "source": "environment",
    }  # fmt: skip
    assert rows["RACKMETER_SWEEP_SECONDS"]["source"] == "default"
    assert rows["KAFKA_BOOTSTRAP_SERVERS"]["source"] == "missing"
    assert isinstance(result.exception, ConfigurationFault)
    assert "RACKMETER_ARCHIVE_DIR" in result.exception.detail


def test_check_config_shows_that_there_is_a_key_and_not_which() -> None:
    """A secret key is masked whole."""
    environment = {"RACKMETER_STRIPE_API_KEY": "sk_live_4eC39HqLyj"}
    result = CliRunner().invoke(app, ["check-config", "--format", "json"], env=_only(environment))
    rows = {row["setting"]: row for row in json.loads(result.stdout)}
    assert rows["RACKMETER_STRIPE_API_KEY"]["value"] == "***"
    assert rows["RACKMETER_STRIPE_API_KEY_FILE"] == {
        "setting": "RACKMETER_STRIPE_API_KEY_FILE", "value": "", "source": "default",
    }  # fmt: skip
    assert "4eC39HqLyj" not in result.output


def test_check_config_names_every_problem_at_once() -> None:
    """Missing, malformed and misspelt settings in one go; the local broker's choice is listed."""
    environment = {"KAFKA_BOOTSTRAP_SERVERS": "kafka", "RACKMETER_SWEEP": "5", "RACKMETER_BROKER": "embedded"}
    result = CliRunner().invoke(app, ["check-config", "--format", "json"], env=_only(environment))
    rows = {row["setting"]: row for row in json.loads(result.stdout)}
    assert rows["RACKMETER_BROKER"]["value"] == "embedded"
    assert isinstance(result.exception, ConfigurationFault)
    for name in ("KAFKA_BOOTSTRAP_SERVERS='kafka'", "DATABASE_URL is not set", "RACKMETER_SWEEP is not a setting"):
        assert name in result.exception.detail


def test_a_command_asks_only_for_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the database needs no broker and no folders; a malformed setting is named all the same."""
    for name, value in _only({"DATABASE_URL": "postgresql://db/x"}).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert settings_for("database_url").kafka_bootstrap_servers == NOT_SET
    with pytest.raises(ConfigurationFault, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        settings_for("kafka_bootstrap_servers")
    monkeypatch.setenv("RACKMETER_FLUSH_SECONDS", "soon")
    with pytest.raises(ConfigurationFault, match="RACKMETER_FLUSH_SECONDS='soon'"):
        settings_for("database_url")


def _only(environment: dict[str, str]) -> dict[str, str | None]:
    """These variables and no other of ours."""
    ours = ["KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"]
    ours += [f"RACKMETER_{name}" for name in ("ARCHIVE_DIR", "DOCUMENTS_DIR", "STATE_DIR", "SWEEP_SECONDS")]
    return {**dict.fromkeys(ours), **environment}
