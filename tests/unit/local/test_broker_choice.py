"""Which broker is taken follows from what the machine has, and the reason is said."""

from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.local import broker
from pipeline.local.broker import choose_broker
from pipeline.local.kafka_jars import fetch_jars, has_jars, jars_dir, kafka_version, parse_java_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21-ea" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25" 2025-09-16', 25),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_javas_version_is_read(text: str, version: int | None) -> None:
    """The major version counts, also where Java says 1.8 for 8."""
    assert parse_java_version(text) == version


@pytest.mark.parametrize(("java", "lacking"), [(None, "no Java on the path"), (11, "Java 11 is too old, 17 is wanted")])
def test_without_a_fit_java_the_embedded_broker_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, java: int | None, lacking: str
) -> None:
    """The reason names what is missing; forcing Apache Kafka is refused with it."""
    monkeypatch.setattr(broker, "java_version", lambda: java)
    chosen = choose_broker(tmp_path)
    assert chosen.broker.name == "embedded"
    assert lacking in chosen.reason
    with pytest.raises(ConfigurationFault, match=lacking):
        choose_broker(tmp_path, "apache")


def test_apache_kafka_is_taken_where_java_and_maven_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either can be forced."""
    monkeypatch.setattr(broker, "java_version", lambda: 17)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert choose_broker(tmp_path, jars_cache=tmp_path).broker.name == "apache"
    assert choose_broker(tmp_path, "apache", jars_cache=tmp_path).broker.name == "apache"
    assert choose_broker(tmp_path, "embedded").broker.name == "embedded"


def test_without_any_broker_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing service is a clear error with the next step."""
    monkeypatch.setattr(broker, "java_version", lambda: None)
    monkeypatch.setattr("pipeline.local.kafka_embedded.is_installed", lambda: False)
    with pytest.raises(ConfigurationFault, match="KAFKA_BOOTSTRAP_SERVERS"):
        choose_broker(tmp_path)


def test_an_unknown_broker_is_refused(tmp_path: Path) -> None:
    """RACKMETER_BROKER has two values."""
    with pytest.raises(ConfigurationFault, match="apache or embedded"):
        choose_broker(tmp_path, "rabbit")


def test_jars_that_are_there_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the jars in the cache Maven is not needed."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not has_jars(tmp_path)
    with pytest.raises(ConfigurationFault, match="Install it"):
        fetch_jars(tmp_path)
    folder = jars_dir(tmp_path)
    folder.mkdir()
    (folder / "kafka_2.13-4.1.0.jar").touch()
    assert fetch_jars(tmp_path) == folder
    assert kafka_version(folder) == "4.1.0"


def test_a_failed_fetch_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jars appear whole or not at all, and the error says what to do."""
    maven = tmp_path / "mvn"
    maven.write_text(
        '#!/bin/sh\nfor word; do case "$word" in -DoutputDirectory=*) mkdir -p "${word#*=}";; esac; done\nexit 1\n'
    )
    maven.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(maven))
    cache = tmp_path / "cache"
    with pytest.raises(ConfigurationFault, match="RACKMETER_BROKER=embedded"):
        fetch_jars(cache)
    assert not has_jars(cache)
    assert [path.name for path in cache.iterdir()] == ["maven.log"]
