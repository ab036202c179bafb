"""
Kafka to committed buckets: the aggregate stage against R, one raw consumer of the same topic in the same run.

R takes every value and drops it; it is the faster of librdkafka's default fetch and a tuned one. The worker is the one
that production runs, built by `pipeline.bootstrap`, on a fresh database each time. What it stored is compared with the
generator's truth in whole numbers; if anything differs, no figure is printed and the exit code is 1.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bench import machine
from bench.check import differences
from bench.events import SAMPLES_PER_SERVER_MAX, WORKLOADS, Load, Truth, Workload, generate, source_of
from bench.measure import Reading, Request, measure
from bench.report import RAW_KINDS, PipelineReport, figures, table
from pipeline.bootstrap import EVENTS_TOPIC
from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import read_catalogue
from pipeline.contracts.usage_event import EVENTS_PER_MESSAGE_MAX, encode_batch
from pipeline.domain.errors import PipelineError
from pipeline.local.stack import Services, local_settings, running_services
from pipeline.runtime.postgres import connect
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.settings import Settings, checkout_dir
from pipeline.runtime.sql import load_queries

QUERIES = load_queries("bench")

PARTITIONS = 4
RUNS_MIN = 3
FLUSH_TIMEOUT_SECONDS = 300.0
QUICK_EVENTS, QUICK_SERVERS = 20_000, 500


class WrongResult(Exception):
    """What was stored is not the generator's truth; each line is a difference."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run, as the command line says it."""

    load: Load
    events_per_message: int
    runs: int
    workloads: tuple[Workload, ...]
    flush_events: int
    profile: Path | None


@dataclass(frozen=True, slots=True)
class Topic:
    """What lies in the topic."""

    message_count: int
    byte_count: int
    truth: Truth


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; 0 where every sum was right, 1 where one was wrong or a part failed."""
    parsed = _parser().parse_args(arguments)
    try:
        report = run(_options(parsed))
    except (PipelineError, WrongResult) as error:
        print(f"no figure: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("no figure: stopped", file=sys.stderr)
        return 130
    print(msgspec.json.format(msgspec.json.encode(report)).decode() if parsed.format == "json" else table(report))
    return 0


def run(options: Options) -> PipelineReport:
    """
    Generate, send, measure and check.

    Raises:
        WrongResult: A run stored something else than the truth.
        PipelineError: A part is missing or stopped.
    """
    # Everything is cleaned up when we are asked to end, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = checkout_dir() / ".rackmeter"
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    try:
        facts = machine.facts(folder)
        # Whatever broker and database the environment names, this fills parts of its own.
        environment = {"RACKMETER_BROKER": os.environ.get("RACKMETER_BROKER", "")}
        with running_services(folder, environment, _say, PARTITIONS) as services:
            topic = _send(options, services)
            bench = _Bench(options, folder, services, topic)
            bench.make_templates()
            readings = bench.measure_all()
            if options.profile is not None:
                bench.write_profiles(options.profile)
            return PipelineReport(
                machine=facts,
                broker=services.broker_name,
                database=bench.database_version(),
                server_count=options.load.servers,
                event_count=topic.truth.event_count,
                message_count=topic.message_count,
                byte_count=topic.byte_count,
                outcomes={str(outcome): count for outcome, count in sorted(topic.truth.outcomes.items())},
                buckets=bench.bucket_counts,
                figures=figures(readings, topic.truth.event_count),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Bench:
    """One topic, read again and again: by raw consumers, and by the worker into fresh databases."""

    def __init__(self, options: Options, folder: Path, services: Services, topic: Topic) -> None:
        self._options = options
        self._folder = folder
        self._services = services
        self._topic = topic
        self._server_pids = machine.server_pids()
        self._numbers = itertools.count(1)
        self.bucket_counts: dict[str, int] = {}

    def make_templates(self) -> None:
        """Make a database for each workload with its meters and nothing else, to copy fresh ones from."""
        for workload in self._options.workloads:
            self._copy_database(_name_in(self._services.database_url), _template(workload))
            with contextlib.closing(connect(self._url(_template(workload)), application_name="bench")) as connection:
                apply(connection, read_catalogue(workload.catalogue))

    def measure_all(self) -> dict[str, list[Reading]]:
        """Measure in turns, so that what the machine does meanwhile hits all alike; by kind and workload."""
        readings: dict[str, list[Reading]] = {}
        for turn in range(1, self._options.runs + 1):
            for kind in RAW_KINDS:
                _say(f"run {turn} of {self._options.runs}: {kind}")
                readings.setdefault(kind, []).append(measure(self._request(kind), os.environ))
            for workload in self._options.workloads:
                _say(f"run {turn} of {self._options.runs}: aggregate, {workload.name}")
                readings.setdefault(workload.name, []).append(self._aggregate(workload, None))
        return readings

    def write_profiles(self, file: Path) -> None:
        """Run each workload once more under cProfile, beside the measured runs."""
        for workload in self._options.workloads:
            path = file.with_name(f"{file.stem}-{workload.name}{file.suffix or '.pstats'}").absolute()
            self._aggregate(workload, path)
            _say(f"profile: python -m pstats {path}")

    def database_version(self) -> str:
        """Give the database server's version."""
        with psycopg.connect(self._services.database_url) as connection:
            return f"PostgreSQL {connection.info.server_version // 10_000}.{connection.info.server_version % 10_000}"

    def _aggregate(self, workload: Workload, profile: Path | None) -> Reading:
        with self._fresh_database(workload) as database_url:
            settings = replace(
                local_settings(self._folder, replace(self._services, database_url=database_url)),
                flush_events_max=self._options.flush_events,
                log_level="WARNING",
            )
            request = msgspec.structs.replace(self._request("aggregate"), profile=str(profile) if profile else None)
            reading = measure(request, os.environ | settings.to_environment())
            with contextlib.closing(connect(database_url, application_name="bench")) as connection:
                found = differences(connection, self._topic.truth, workload, self._topic.message_count)
                if found:
                    raise WrongResult("\n".join((f"aggregate, {workload.name}:", *found)))
                row = connection.execute(QUERIES["bucket_count"]).fetchone()
                self.bucket_counts[workload.name] = int(row[0]) if row else 0
        return reading

    def _request(self, kind: str) -> Request:
        return msgspec.convert(
            {
                "kind": kind,
                "bootstrap_servers": self._services.kafka_bootstrap_servers,
                "message_count": self._topic.message_count,
                "byte_count": self._topic.byte_count,
                "server_pids": self._server_pids,
            },
            Request,
        )

    @contextlib.contextmanager
    def _fresh_database(self, workload: Workload) -> Iterator[str]:
        name = f"run_{next(self._numbers)}"
        self._copy_database(_template(workload), name)
        try:
            yield self._url(name)
        finally:
            with psycopg.connect(self._services.database_url, autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _copy_database(self, template: str, name: str) -> None:
        # From another database than the template: nobody may be connected to that.
        with psycopg.connect(make_conninfo(self._services.database_url, dbname="postgres"), autocommit=True) as admin:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
            admin.execute(QUERIES["checkpoint"])

    def _url(self, name: str) -> str:
        return make_conninfo(self._services.database_url, dbname=name)


def _send(options: Options, services: Services) -> Topic:
    """Fill the topic and wait until it is durable."""
    truth = Truth()
    messages = size = 0
    _say(f"sending {options.load.events} new events of {options.load.servers} servers")
    with LogProducer(services.kafka_bootstrap_servers) as producer:
        for source, value in _messages(options, truth):
            producer.send(EVENTS_TOPIC, source, value)
            messages += 1
            size += len(value)
        producer.flush(FLUSH_TIMEOUT_SECONDS)
    return Topic(messages, size, truth)


def _messages(options: Options, truth: Truth) -> Iterator[tuple[bytes, bytes]]:
    """Give (source, value) of each message; events of one source travel together where that is asked for."""
    sources = [source_of(server).encode() for server in range(options.load.servers)]
    gathered: dict[int, list[bytes]] = {}
    for server, value, is_bad in generate(options.load, truth):
        if is_bad or options.events_per_message == 1:
            yield sources[server], value
            continue
        batch = gathered.setdefault(server, [])
        batch.append(value)
        if len(batch) == options.events_per_message:
            yield sources[server], encode_batch(gathered.pop(server))
    for server, batch in gathered.items():
        yield sources[server], encode_batch(batch)


def _template(workload: Workload) -> str:
    return f"template_{workload.name}"


def _name_in(database_url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(database_url)["dbname"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench pipeline", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--events", type=int, default=300_000, help="new events to generate (default: %(default)s)")
    parser.add_argument("--servers", type=int, default=2_000, help="servers that send them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other events (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=RUNS_MIN, help="runs of each; at least %(default)s, the default")
    parser.add_argument("--events-per-message", type=int, default=1, help="1 to 100 (default: %(default)s)")
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], default="all", help="which meters (default: all)")
    parser.add_argument(
        "--flush-events",
        type=int,
        default=Settings.__dataclass_fields__["flush_events_max"].default,
        help="events of a commit, at most (default: what production has, %(default)s)",
    )
    quick = f"{QUICK_EVENTS} events of {QUICK_SERVERS} servers: are the sums right?"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--profile", type=Path, help="run each workload once more under cProfile and write FILE")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="(default: %(default)s)")
    return parser


def _options(parsed: argparse.Namespace) -> Options:
    load = Load(parsed.events, parsed.servers, parsed.seed)
    if parsed.quick:
        load = Load(QUICK_EVENTS, QUICK_SERVERS, parsed.seed)
    problems = [
        (parsed.runs < RUNS_MIN, f"--runs is at least {RUNS_MIN}: fewer have no median"),
        (not 1 <= parsed.events_per_message <= EVENTS_PER_MESSAGE_MAX, "--events-per-message is 1 to 100"),
        (load.servers < 1 or load.events < load.servers, "--events is at least --servers, and --servers at least 1"),
        (parsed.flush_events < 1, "--flush-events is at least 1"),
        (load.events > load.servers * SAMPLES_PER_SERVER_MAX, "so many events of so few servers lie in the future"),
    ]
    if told := [text for is_wrong, text in problems if is_wrong]:
        _parser().error("; ".join(told))
    workloads = tuple(WORKLOADS.values()) if parsed.workload == "all" else (WORKLOADS[parsed.workload],)
    return Options(load, parsed.events_per_message, parsed.runs, workloads, parsed.flush_events, parsed.profile)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
