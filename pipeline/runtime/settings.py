"""Settings: read once from the environment, checked all at once, frozen."""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from pipeline.domain.errors import ConfigurationFault

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

#: Stands for a required setting that is missing and that the process can do without.
NOT_SET = "not-set"

#: Variables of ours that are no settings of a process, with what may be in them; empty: anything.
OTHER_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "RACKMETER_BROKER": ("apache", "embedded"),  # which broker `rackmeter demo` and `up` start
    "RACKMETER_APPROVE": (),  # the tests' golden documents are written anew
    "RACKMETER_REAL_TRACE": (),  # the tests' recorded trace
}

#: Settings that are or may hold a secret: no message repeats them.
SECRETS = frozenset({"database_url", "stripe_api_key"})


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How this process runs. Each field is the environment variable of the same name in capitals with RACKMETER_ before
    it; broker and database keep the names everybody uses.
    """

    #: KAFKA_BOOTSTRAP_SERVERS: host:port, several with commas.
    kafka_bootstrap_servers: str
    #: DATABASE_URL: a libpq URL; the login must be a member of rackmeter_app.
    database_url: str
    #: Folder of the evidence; on a disk that is backed up.
    archive_dir: Path
    #: Folder the issued documents are written to.
    documents_dir: Path
    #: Folder of the journal; on another disk than the database, and never restored with it.
    journal_dir: Path
    #: Folder for what may be lost: state of the rate app, emitters' state of replays.
    state_dir: Path
    #: Port of /metrics and /healthz; 0 takes a free one and says which.
    metrics_port: int = 0
    #: Address /metrics and /healthz are served on; 0.0.0.0 where Prometheus asks from another machine or container.
    metrics_host: str = "127.0.0.1"
    #: Which worker of its stage this process is; workers of one stage have different slots.
    worker_slot: int = 0
    #: How long aggregate and archive gather before they commit; less when idle.
    flush_seconds: float = 2.0
    #: How many events aggregate gathers at most before it commits; bounds its memory.
    flush_events_max: int = 50_000
    #: How many bytes of messages archive gathers at most before it writes files.
    archive_bytes_max: int = 64_000_000
    #: An item's total is computed at most this often, unless asked.
    totals_pace_seconds: float = 3600.0
    #: A total that is not booked after this long is sent again, later each time.
    sweep_seconds: float = 30.0
    #: How long a reader at a log's end waits before it asks again. For brokers that answer an empty fetch at once (the
    #: embedded one); Kafka holds it, and 0 is right.
    fetch_rest_seconds: float = 0.0
    #: How long after a period's end it may close.
    close_grace_seconds: int = 0
    #: Stripe's secret key, for accounts that pay by stripe. Better in a file: other processes cannot read it there.
    stripe_api_key: str = field(default="", repr=False)
    #: File with Stripe's secret key, instead of the variable.
    stripe_api_key_file: Path | None = None
    #: Another server that speaks Stripe's API, for tests.
    stripe_base_url: str = ""
    #: Where the collector listens. TLS and the outside world are a reverse proxy's.
    collector_host: str = "127.0.0.1"
    #: Port of the collector; 0 takes a free one and says which.
    collector_port: int = 8080
    #: A request to the collector has at most this many bytes; the broker takes no larger message anyway.
    collector_body_bytes_max: int = 1_000_000
    #: Bytes of requests the collector holds at once; beyond it senders are told to come back.
    collector_in_flight_bytes_max: int = 64_000_000
    #: Events a second that each token may send to one collector.
    collector_events_per_second_max: int = 10_000
    #: How long the collector waits for the broker's acknowledgement before it says that it has none.
    collector_ack_seconds: float = 10.0
    log_level: LogLevel = "INFO"

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, not_needed: Collection[str] = ()
    ) -> "Settings":
        """
        Read and check every setting.

        Args:
            environment: Defaults to this process's.
            not_needed: Names of required fields that may be missing; they are NOT_SET then.

        Raises:
            ConfigurationFault: Names every missing or malformed variable, one a line.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, object] = {}
        problems: list[str] = []
        for setting in fields(cls):
            name = variable_name(setting.name)
            text = environment.get(name, "").strip()
            if not text:
                if setting.name in not_needed:
                    values[setting.name] = Path(NOT_SET) if setting.name.endswith("_dir") else NOT_SET
                elif setting.name in _REQUIRED:
                    problems.append(f"{name} is not set: {_REQUIRED[setting.name]}")
                continue
            try:
                values[setting.name] = _parser(setting.name)(text)
            except ValueError as error:
                # A database's address may hold a password, also a malformed one.
                problems.append(f"{name}: {error}" if setting.name in SECRETS else f"{name}={text!r}: {error}")
        if "stripe_api_key" in values and "stripe_api_key_file" in values:
            problems.append("RACKMETER_STRIPE_API_KEY and RACKMETER_STRIPE_API_KEY_FILE are both set: keep one")
        if problems:
            raise ConfigurationFault("\n".join(problems))
        return cls(**values)  # type: ignore[arg-type]  # each value came through its field's parser

    def to_environment(self) -> dict[str, str]:
        """Give the variables that make a child process read these same settings."""
        values = {variable_name(setting.name): getattr(self, setting.name) for setting in fields(self)}
        return {name: "" if value is None else str(value) for name, value in values.items()}


def variable_name(field_name: str) -> str:
    """Give the environment variable of a setting."""
    if field_name in ("kafka_bootstrap_servers", "database_url"):
        return field_name.upper()
    return f"RACKMETER_{field_name.upper()}"


_REQUIRED = {
    "kafka_bootstrap_servers": "the broker's host:port. `rackmeter up` starts both and prints the settings",
    "database_url": "a PostgreSQL URL. `rackmeter up` starts both and prints the settings",
    "archive_dir": "the folder for the archive, e.g. /var/lib/rackmeter/archive",
    "documents_dir": "the folder for invoices, e.g. /var/lib/rackmeter/documents",
    "journal_dir": "the folder for the journal, on another disk than the database, e.g. /mnt/journal/rackmeter",
    "state_dir": "a folder for working state, e.g. /var/lib/rackmeter/state",
}


def foreign_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Give a sentence for each RACKMETER_ variable that nothing reads, or that has a value nothing understands."""
    environment = os.environ if environment is None else environment
    settings = [variable_name(setting.name) for setting in fields(Settings)]
    found: list[str] = []
    for name in sorted(name for name in environment if name.startswith("RACKMETER_") and name not in settings):
        if name not in OTHER_VARIABLES:
            near = difflib.get_close_matches(name, [*settings, *OTHER_VARIABLES], 1)
            found.append(f"{name} is not a setting" + (f"; is {near[0]} meant?" if near else ""))
        elif OTHER_VARIABLES[name] and environment[name].strip() not in ("", *OTHER_VARIABLES[name]):
            found.append(f"{name}={environment[name]!r}: {' or '.join(OTHER_VARIABLES[name])} is wanted")
    return found


_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
_DATABASE = re.compile(r"postgres(?:ql)?://|\s*\w+\s*=")


def _addresses(text: str) -> str:
    for address in text.split(","):
        match = _ADDRESS.fullmatch(address.strip())
        if match is None or not 1 <= int(match[1]) <= 65_535:
            raise ValueError("host:port is wanted, e.g. kafka:9092, several with commas")
    return text


def _database(text: str) -> str:
    if not _DATABASE.match(text):
        raise ValueError("postgresql://user@host/database is wanted, or words like host=db dbname=rackmeter")
    return text


def _host(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an IP address of this machine is wanted: 127.0.0.1, or 0.0.0.0 for all of them") from None
    return text


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("a whole number, zero or more, is wanted")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65_535:
        raise ValueError("a port from 0 to 65535 is wanted")
    return int(text)


def _positive(text: str) -> int:
    value = _whole(text)
    if not value:
        raise ValueError("a whole number above zero is wanted")
    return value


def _wait(text: str) -> float:
    value = _seconds(text)
    if value < 0.1:
        raise ValueError("a number of seconds from 0.1 is wanted")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("a number of seconds is wanted") from None
    if not 0 <= value <= 10_000_000:
        raise ValueError("a number of seconds from 0 to 10,000,000 is wanted")
    return value


def _level(text: str) -> str:
    if text.upper() not in get_args(LogLevel):
        raise ValueError(f"one of {', '.join(get_args(LogLevel))} is wanted")
    return text.upper()


def _stripe_key(text: str) -> str:
    if not re.fullmatch(r"(?:sk|rk)_[A-Za-z0-9_]+", text):
        raise ValueError("a secret or restricted key of Stripe's, sk_... or rk_..., is wanted")
    return text


def _http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+/?", text):
        raise ValueError("http://host:port is wanted")
    return text.rstrip("/")


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "kafka_bootstrap_servers": _addresses,
    "database_url": _database,
    "log_level": _level,
    "metrics_host": _host,
    "metrics_port": _port,
    "stripe_api_key": _stripe_key,
    "stripe_api_key_file": Path,
    "stripe_base_url": _http_url,
    "collector_host": _host,
    "collector_port": _port,
    "collector_body_bytes_max": _positive,
    "collector_in_flight_bytes_max": _positive,
    "collector_events_per_second_max": _positive,
    "collector_ack_seconds": _wait,
}


def _parser(field_name: str) -> Callable[[str], object]:
    if field_name in _PARSERS:
        return _PARSERS[field_name]
    if field_name.endswith("_dir"):
        return Path
    if field_name.endswith("_seconds") and field_name != "close_grace_seconds":
        return _seconds
    return _whole


def checkout_dir() -> Path:
    """Give the folder the package lies in: the checkout, or site-packages."""
    return Path(__file__).resolve().parents[2]


def schemas_dir() -> Path:
    """Give the folder of schemas: beside the package in a checkout, inside it when installed from a wheel."""
    shipped = Path(__file__).resolve().parents[1] / "_schemas"
    return shipped if shipped.is_dir() else checkout_dir() / "schemas"
