"""Which broker to start on this machine, and why."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pipeline.domain.errors import ConfigurationFault
from pipeline.local import kafka_embedded
from pipeline.local.kafka_apache import ApacheKafka
from pipeline.local.kafka_embedded import EmbeddedKafka
from pipeline.local.kafka_jars import JAVA_VERSION_MIN, has_jars, java_version
from pipeline.runtime.settings import checkout_dir

BrokerName = Literal["apache", "embedded"]
_KIND_FILE = "kind"


class Broker(Protocol):
    """A broker of our own on this machine."""

    name: str
    #: '' where it is known only after the start.
    version: str
    #: How long a reader at a log's end should not ask it (Settings.fetch_rest_seconds).
    fetch_rest_seconds: float

    @property
    def bootstrap_servers(self) -> str:
        """host:port of the running broker; '' before the start."""
        ...

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        ...

    def start(self) -> str:
        """Start and wait until it answers; give host:port. A folder that was used before keeps its data."""
        ...

    def check(self) -> None:
        """Raise TransientFault when it ended though nobody stopped it."""
        ...

    def stop(self) -> None:
        """End cleanly within a bound. Fine when it does not run."""
        ...

    def kill(self) -> None:
        """End at once, as a crash would."""
        ...


@dataclass(frozen=True, slots=True)
class ChosenBroker:
    """A broker, not started yet, and a sentence that says why this one."""

    broker: Broker
    reason: str


def kept_broker(folder: Path, forced: str | None) -> str | None:
    """
    Give the broker to force for a run's folder: the one its log was made with, else what is forced anyway.

    Raises:
        ConfigurationFault: Another one is forced; it would not find the log.
    """
    path = folder / _KIND_FILE
    kept = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if kept and forced and forced != kept:
        raise ConfigurationFault(
            f"the log in {folder} was made by the {kept} broker, and RACKMETER_BROKER={forced} would not find it. "
            "Unset RACKMETER_BROKER, or take another folder."
        )
    return kept or forced


def keep_broker(folder: Path, name: str) -> None:
    """Note which broker a folder's log is made with."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _KIND_FILE).write_text(name + "\n", encoding="utf-8")


def default_jars_cache() -> Path:
    """Give the folder Kafka's jars are kept in: one a checkout."""
    return checkout_dir() / ".rackmeter" / "kafka-jars"


def choose_broker(folder: Path, force: str | None = None, jars_cache: Path | None = None) -> ChosenBroker:
    """
    Take Apache Kafka where Java 17 and Maven are there, else the embedded broker.

    Args:
        folder: The broker's own folder.
        force: 'apache' or 'embedded' takes that one (the setting RACKMETER_BROKER); None or '' chooses.
        jars_cache: Where Kafka's jars are kept; `default_jars_cache()` unless given.

    Raises:
        ConfigurationFault: The forced broker cannot run here, or none can; says what is missing.
    """
    cache = jars_cache or default_jars_cache()
    if force not in (None, "", "apache", "embedded"):
        raise ConfigurationFault(f"RACKMETER_BROKER={force!r}: apache or embedded is wanted, or nothing to choose")
    lacking = "" if force == "embedded" else _lacking_for_apache(cache)
    if force != "embedded" and not lacking:
        why = "RACKMETER_BROKER=apache" if force else f"Java {JAVA_VERSION_MIN} or newer and Maven are here"
        return ChosenBroker(ApacheKafka(folder, cache), f"Apache Kafka: {why}")
    if force == "apache":
        raise ConfigurationFault(f"RACKMETER_BROKER=apache cannot be had: {lacking}")
    if not kafka_embedded.is_installed():
        raise ConfigurationFault(
            f"no broker can be started: {lacking or 'the embedded one was asked for'}, "
            "and the embedded broker is not installed (pip install 'rackmeter[local]'). "
            "Or set KAFKA_BOOTSTRAP_SERVERS to a broker of yours."
        )
    why = "RACKMETER_BROKER=embedded" if force else lacking
    return ChosenBroker(
        EmbeddedKafka(folder), f"the embedded broker: {why} (for trying out; a crash may lose its last second)"
    )


def _lacking_for_apache(cache: Path) -> str:
    """Say what Apache Kafka lacks on this machine; '' when nothing."""
    found = java_version()
    if found is None:
        return "no Java on the path"
    if found < JAVA_VERSION_MIN:
        return f"Java {found} is too old, {JAVA_VERSION_MIN} is wanted"
    if not has_jars(cache) and shutil.which("mvn") is None:
        return "no Maven on the path"
    return ""
