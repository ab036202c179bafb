"""
The embedded broker (`noida-db`) on this machine: for trying out where there is no Java.

It keeps its log in memory and saves it about once a second, so a crash may lose the last second, committed offsets
included. After an unclean stop every topic therefore gets a new log id, and readers of the old one halt.
"""

import importlib.metadata
import importlib.util
import logging
import signal
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.local.kafka_apache import answers
from pipeline.local.server_process import ServerProcess, free_ports, is_port_free
from pipeline.runtime.topics import begin_logs_again

LOGGER = logging.getLogger("rackmeter.local")

START_SECONDS_MAX = 60.0
# It writes its whole log once more at the end: 9 s were seen at 1.5 million records.
STOP_SECONDS_MAX = 60.0
START_ATTEMPTS = 3


class EmbeddedKafka:
    """One `noida-db` process that serves Kafka alone. Same interface as `ApacheKafka`."""

    name = "embedded"
    #: It answers an empty fetch at once: unrested readers asked it 11,000 times a second and took a core and a half.
    fetch_rest_seconds = 0.05

    def __init__(self, folder: Path) -> None:
        """Prepare a broker with data and log in `folder`; nothing is started."""
        self._folder = folder.resolve()
        self._process: ServerProcess | None = None
        self._bootstrap_servers = ""
        self.version = _version()

    @property
    def bootstrap_servers(self) -> str:
        """host:port of the running broker; '' before the start."""
        return self._bootstrap_servers

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> str:
        """
        Start the broker and wait until it answers; give its host:port.

        Raises:
            ConfigurationFault: The package is not installed.
            TransientFault: It does not come up.
        """
        binary = _binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        was_unclean = self._marker.exists()
        for attempt in range(1, START_ATTEMPTS + 1):
            port = self._choose_port(reuse=attempt == 1)
            try:
                self._start_once(binary, port)
                break
            except TransientFault:
                if attempt == START_ATTEMPTS or is_port_free(port):
                    raise
        if was_unclean:
            self._begin_logs_again()
        self._marker.touch()
        return self._bootstrap_servers

    def check(self) -> None:
        """Raise TransientFault when it ended though nobody stopped it. Fine when it was not started."""
        if self._process is not None:
            self._process.check()

    def stop(self) -> None:
        """End the broker cleanly, all of its log saved. Fine when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        was_running = process.exit_code is None
        if process.stop(signal.SIGTERM, STOP_SECONDS_MAX) and was_running:
            self._marker.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the broker at once, as a crash would; its last second is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    @property
    def _marker(self) -> Path:
        return self._folder / "running"

    def _choose_port(self, *, reuse: bool) -> int:
        kept = self._folder / "port"
        if reuse and kept.is_file() and is_port_free(int(kept.read_text())):
            return int(kept.read_text())
        port = free_ports(1)[0]
        kept.write_text(str(port))
        return port

    def _start_once(self, binary: Path, port: int) -> None:
        command = [
            str(binary), "start", "--data-dir", str(self._folder / "data"), "--host", "127.0.0.1",
            "--only", "kafka", "--kafka-port", str(port),
        ]  # fmt: skip
        log_file = self._folder / "kafka.log"
        # SIGTERM, not SIGKILL, at our death: it saves its log then.
        process = ServerProcess.start(
            "the embedded broker", command, log_file, death_signal=signal.SIGTERM, folder=self._folder
        )
        bootstrap_servers = f"127.0.0.1:{port}"
        try:
            process.wait_until(lambda: answers(bootstrap_servers, port), START_SECONDS_MAX)
        except BaseException:
            process.kill()
            raise
        self._process = process
        self._bootstrap_servers = bootstrap_servers

    def _begin_logs_again(self) -> None:
        try:
            again = begin_logs_again(self._bootstrap_servers, "unclean_stop")
        except BaseException:
            self.stop()
            self._marker.touch()
            raise
        if again:
            LOGGER.warning(
                "the embedded broker was not stopped cleanly and may have lost its last second: new log ids for %s",
                ", ".join(again),
                extra={"action": "log_begun_again"},
            )


def is_installed() -> bool:
    """Tell whether the embedded broker's package is there."""
    return importlib.util.find_spec("noida_db") is not None


def _binary() -> Path:
    spec = importlib.util.find_spec("noida_db")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationFault("the embedded broker is not installed: pip install 'rackmeter[local]'")
    binary = Path(next(iter(spec.submodule_search_locations))) / "noida-db"
    if not binary.is_file():
        raise ConfigurationFault(f"the embedded broker has no program for this machine: {binary} is missing")
    binary.chmod(0o755)
    return binary


def _version() -> str:
    try:
        return importlib.metadata.version("noida-db")
    except importlib.metadata.PackageNotFoundError:
        return ""
