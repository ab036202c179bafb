"""Apache Kafka on this machine: broker and controller in one JVM, on ports and in a folder of its own."""

import logging
import re
import shutil
import signal
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.local.kafka_jars import deploy_dir, fetch_jars, kafka_version
from pipeline.local.server_process import ServerProcess, free_ports, is_port_free

LOGGER = logging.getLogger("rackmeter.local")

START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 20.0
START_ATTEMPTS = 3
_HEAP = ("-Xms256m", "-Xmx768m")
_PORTS = re.compile(r"^listeners=PLAINTEXT://127\.0\.0\.1:(\d+),CONTROLLER://127\.0\.0\.1:(\d+)$", re.MULTILINE)


class ApacheKafka:
    """
    One broker in KRaft combined mode.

    What was written survives `kill`: the operating system has it. Started again in the same folder it has the same
    data and, unless somebody took it meanwhile, the same port.
    """

    name = "apache"
    fetch_rest_seconds = 0.0

    def __init__(self, folder: Path, jars_cache: Path) -> None:
        """
        Prepare a broker; nothing is started.

        Args:
            folder: For settings, data and log; made when missing.
            jars_cache: Where the jars lie or are to be fetched to.
        """
        self._folder = folder.resolve()
        self._jars_cache = jars_cache
        self._process: ServerProcess | None = None
        self._bootstrap_servers = ""
        self.version = ""

    @property
    def bootstrap_servers(self) -> str:
        """host:port of the running broker; '' before the start."""
        return self._bootstrap_servers

    @property
    def pid(self) -> int | None:
        """The JVM's process id, None when it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> str:
        """
        Start the broker and wait until it answers; give its host:port.

        Raises:
            ConfigurationFault: Java or the jars cannot be had.
            TransientFault: The broker does not come up; the message ends with the tail of its log.
        """
        jars = fetch_jars(self._jars_cache)
        self.version = kafka_version(jars)
        self._folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            ports = self._choose_ports(reuse=attempt == 1)
            self._write_properties(*ports)
            self._format(jars)
            try:
                return self._start_once(jars, ports[0])
            except TransientFault as fault:
                if attempt == START_ATTEMPTS or "Address already in use" not in fault.detail:
                    raise
                LOGGER.info("ports %s were taken meanwhile, trying others", ports, extra={"action": "broker_retry"})
        raise TransientFault("no free port was found")

    def check(self) -> None:
        """Raise TransientFault when it ended though nobody stopped it. Fine when it was not started."""
        if self._process is not None:
            self._process.check()

    def stop(self) -> None:
        """End the broker cleanly, or by force after a bound. Fine when it does not run."""
        process, self._process = self._process, None
        if process is not None and not process.stop(signal.SIGTERM, STOP_SECONDS_MAX):
            LOGGER.warning("Apache Kafka did not end in time and was killed", extra={"action": "broker_killed"})

    def kill(self) -> None:
        """End the broker at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    def _choose_ports(self, *, reuse: bool) -> tuple[int, int]:
        if reuse and self._properties.is_file():
            match = _PORTS.search(self._properties.read_text(encoding="utf-8"))
            if match is not None and is_port_free(int(match[1])) and is_port_free(int(match[2])):
                return int(match[1]), int(match[2])
        broker, controller = free_ports(2)
        return broker, controller

    def _write_properties(self, broker_port: int, controller_port: int) -> None:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": f"PLAINTEXT://127.0.0.1:{broker_port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker_port}",
            "log.dirs": str(self._folder / "data"),
            # After a crash the controller lets the broker back in only when its last session is over: 9 s unless said.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "default.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        self._properties.write_text(lines, encoding="utf-8")

    def _format(self, jars: Path) -> None:
        """Give the data folder a cluster id; one that has it is left alone."""
        if (self._folder / "data" / "meta.properties").is_file():
            return
        cluster_id = new_cluster_id()
        command = [
            *self._java(jars),
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster_id,
            "-c",
            str(self._properties),
        ]
        told = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False)
        if told.returncode != 0:
            raise ConfigurationFault(f"Kafka's data folder cannot be made: {(told.stdout + told.stderr).strip()}")

    def _start_once(self, jars: Path, port: int) -> str:
        log_file = self._folder / "kafka.log"
        log_file.unlink(missing_ok=True)
        process = ServerProcess.start(
            "Apache Kafka", [*self._java(jars), "kafka.Kafka", str(self._properties)], log_file, folder=self._folder
        )
        bootstrap_servers = f"127.0.0.1:{port}"
        try:
            process.wait_until(lambda: answers(bootstrap_servers, port), START_SECONDS_MAX)
        except BaseException:
            process.kill()
            raise
        self._process = process
        self._bootstrap_servers = bootstrap_servers
        return bootstrap_servers

    def _java(self, jars: Path) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise ConfigurationFault(
                "Java is not on the path. Install Java 17 or newer, or set RACKMETER_BROKER=embedded."
            )
        return [
            java, *_HEAP, "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={deploy_dir() / 'log4j2.properties'}",
            "-cp", f"{jars}/*",
        ]  # fmt: skip


def answers(bootstrap_servers: str, port: int) -> bool:
    """Tell whether a broker answers a metadata request; asks only once somebody listens on the port."""
    if is_port_free(port):
        return False
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0, "socket.timeout.ms": 5000})
    try:
        return bool(admin.list_topics(timeout=5).brokers)
    except KafkaException:
        return False


def new_cluster_id() -> str:
    """Make a cluster id as Kafka does; one that begins with a dash is an option to its tools, and they refuse it."""
    while True:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not cluster_id.startswith("-"):
            return cluster_id
