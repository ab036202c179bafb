"""What `doctor` looks at: each check gives what it found and, where something is wrong, the next step."""

import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from pipeline.cli.environment import REQUIRED, settings_for
from pipeline.domain.errors import ConfigurationFault, InvariantViolation, PipelineError
from pipeline.reports import store
from pipeline.runtime import migrations, topics
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.settings import Settings, variable_name

CLOCK_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it found, and what to do where that is a problem ('' where it is not)."""

    check: str
    found: str
    what_to_do: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether there is nothing to do."""
        return not self.what_to_do


def diagnose() -> list[Finding]:
    """Every check that can be made, in an order in which an earlier problem explains a later one."""
    try:
        settings = settings_for()
    except ConfigurationFault as error:
        found = [Finding("settings", line, "set it; `rackmeter check-config` shows all") for line in lines(error)]
        try:
            # With the service addresses alone, the rest can still be looked at.
            settings = settings_for("kafka_bootstrap_servers", "database_url")
        except ConfigurationFault:
            return found
        return [*found, *_services(settings)]
    folders = [folder(variable_name(name), getattr(settings, name)) for name in REQUIRED if name.endswith("_dir")]
    return [Finding("settings", "all can be read"), *folders, *_services(settings)]


def lines(error: PipelineError) -> list[str]:
    """The sentences of an error that names several things."""
    return error.detail.splitlines()


def folder(variable: str, path: Path) -> Finding:
    """Whether a folder can be written to, or made."""
    nearest = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(variable, f"{path} cannot be written to", f"give this login the right to write to {nearest}")
    return Finding(variable, str(path) if nearest == path.absolute() else f"{path} will be made when first used")


def _services(settings: Settings) -> list[Finding]:
    found, stored = database_findings(settings.database_url)
    return [*found, *broker_findings(settings.kafka_bootstrap_servers, stored)]


@dataclass(frozen=True, slots=True)
class StoredLogs:
    """The logs as the database knows them, and each stage's next offsets by (stage, topic)."""

    logs: dict[str, topics.LogIdentity]
    offsets: dict[tuple[str, str], dict[int, int]]


def database_findings(database_url: str) -> tuple[list[Finding], StoredLogs | None]:
    """Checks of the database; and what it says of the logs, where it can be asked."""
    try:
        connection = connect(database_url, application_name="rackmeter-doctor", role=None)
    except PipelineError as error:
        return [Finding("database", " ".join(error.detail.split()), "start it, or correct DATABASE_URL")], None
    with closing(connection):
        version = connection.info.parameter_status("server_version") or "?"
        found = [Finding("database", f"PostgreSQL {version} answers"), clock(connection)]
        schema = schema_finding(connection)
        found.append(schema)
        if not schema.is_ok:
            return found, None
        try:
            found.append(role_finding(connection))
            return found, _stored_logs(connection)
        except psycopg.errors.InsufficientPrivilege as error:
            what = "make the login of DATABASE_URL a member of rackmeter_app: GRANT rackmeter_app TO <login>"
            return [*found, Finding("rights", str(error).strip(), what)], None


def clock(connection: Connection) -> Finding:
    """How far the database's clock is from this machine's."""
    before = datetime.now(UTC)
    there = store.clock(connection)
    after = datetime.now(UTC)
    # The answer was made at some time between; only what lies outside is a difference.
    apart = max((before - there).total_seconds(), (there - after).total_seconds(), 0.0)
    if apart > CLOCK_SECONDS_MAX:
        what = "set both clocks by NTP; a close decides by this machine's clock"
        return Finding("clock", f"the database is {apart:.1f} s away from this machine", what)
    return Finding("clock", f"database and machine agree within {CLOCK_SECONDS_MAX:.0f} s")


def schema_finding(connection: Connection) -> Finding:
    """Whether every migration was applied, unedited."""
    try:
        shipped = migrations.load_migrations()
        waiting = migrations.pending(connection, shipped)
    except ConfigurationFault as error:
        return Finding("migrations", error.detail, "install the program that made this schema, or a newer one")
    if waiting:
        names = ", ".join(f"{one.version:04d}_{one.name}" for one in waiting)
        return Finding("migrations", f"not applied: {names}", "run `rackmeter migrate`")
    return Finding("migrations", f"all {len(shipped)} applied")


def role_finding(connection: Connection) -> Finding:
    """Whether the login may act as the application, and the application may not change the books."""
    role = store.application_role(connection)
    if not role["is_member"]:
        return Finding("rights", "the login is not a member of rackmeter_app", "GRANT rackmeter_app TO <login>")
    if role["may_change_books"]:
        what = "REVOKE UPDATE ON ledger_entry FROM rackmeter_app"
        return Finding("rights", "rackmeter_app may change posted entries", what)
    return Finding("rights", "the application adds to the books and cannot change them")


def _stored_logs(connection: Connection) -> StoredLogs:

    logs = {
        row["topic"]: topics.LogIdentity(
            row["topic"], uuid.UUID(row["log_id"]), row["kafka_topic_id"], row["partition_count"]
        )
        for row in store.known_logs(connection)
    }
    offsets: dict[tuple[str, str], dict[int, int]] = {}
    for row in store.stage_offsets(connection):
        offsets.setdefault((row["stage"], row["topic"]), {})[row["partition"]] = row["offset_next"]
    return StoredLogs(logs, offsets)


def broker_findings(bootstrap_servers: str, stored: StoredLogs | None) -> Iterator[Finding]:
    """Checks of the broker, of each topic, and of each log the database has been reading."""
    for spec in topics.load_topics():
        if spec.name == topics.IDENTITY_TOPIC:
            continue
        try:
            now = topics.read_log_identity(bootstrap_servers, spec.name)
            available = topics.watermarks(bootstrap_servers, spec.name)
        except InvariantViolation as error:
            yield Finding(f"topic {spec.name}", error.detail, _mend_topic(spec.name, stored))
            continue
        except PipelineError as error:
            # The rest of the sentence is what stands in the next column, and names this command.
            yield Finding("broker", error.detail.partition(";")[0], "start it, or correct KAFKA_BOOTSTRAP_SERVERS")
            return
        messages = sum(high - low for low, high in available.values())
        yield Finding(f"topic {spec.name}", f"{now.partition_count} partitions, {messages} messages")
        if stored is not None and spec.name in stored.logs:
            yield from log_findings(now, available, stored)


def log_findings(
    now: topics.LogIdentity, available: dict[int, tuple[int, int]], stored: StoredLogs
) -> Iterator[Finding]:
    """Whether the log at the broker is the one each stage has been reading."""
    stages = sorted(stage for stage, topic in stored.offsets if topic == now.topic)
    for stage in stages or ["database"]:
        try:
            topics.verify_log(now, stored.logs[now.topic], stored.offsets.get((stage, now.topic), {}), available)
        except InvariantViolation as error:
            yield Finding(f"log {now.topic} ({stage})", error.detail, _mend_log(now, stored))
        else:
            yield Finding(f"log {now.topic} ({stage})", "is the one that was read before")


def _mend_topic(topic: str, stored: StoredLogs | None) -> str:
    if stored is not None and topic in stored.logs:
        count = stored.logs[topic].partition_count
        return (
            f"bring the broker's data back; if it is lost: stop the stages, `rackmeter topics --partitions {topic}="
            f"{count}`, then `rackmeter log adopt --topic {topic} --yes`"
        )
    return "run `rackmeter topics`"


def _mend_log(now: topics.LogIdentity, stored: StoredLogs) -> str:
    count = stored.logs[now.topic].partition_count
    if now.partition_count != count:
        return f"point KAFKA_BOOTSTRAP_SERVERS at the right broker, or make {now.topic} again with {count} partitions"
    return (
        "if this is the right broker and its records are lost: stop the stages, "
        f"`rackmeter log adopt --topic {now.topic} --yes`, start them; then let the sources it names send again"
    )
