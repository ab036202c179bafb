"""The jars of Apache Kafka: fetched once through Maven by the checked-in pom, and the Java that runs them."""

import hashlib
import logging
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault
from pipeline.local.server_process import ServerProcess
from pipeline.runtime.settings import checkout_dir

LOGGER = logging.getLogger("rackmeter.local")

JAVA_VERSION_MIN = 17
MAVEN_TIMEOUT_SECONDS = 600.0

_VERSION = re.compile(r'version "(?P<major>\d+)(?:\.(?P<minor>\d+))?')
_KAFKA_JAR = re.compile(r"^kafka_[\d.]+-(?P<version>\d[\w.]*)\.jar$")


def parse_java_version(text: str) -> int | None:
    """Read the major version from what `java -version` says; None where it says none. 1.8 is 8."""
    match = _VERSION.search(text)
    if match is None:
        return None
    major = int(match["major"])
    return int(match["minor"] or 0) if major == 1 else major


def java_version() -> int | None:
    """Give the major version of the Java on the path, None without one."""
    java = shutil.which("java")
    if java is None:
        return None
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_java_version(told.stderr + told.stdout)


def deploy_dir() -> Path:
    """Give the folder of pom.xml and log4j2.properties: in the checkout, or inside the installed package."""
    shipped = Path(__file__).resolve().parents[1] / "_deploy" / "kafka"
    return shipped if shipped.is_dir() else checkout_dir() / "deploy" / "kafka"


def jars_dir(cache: Path) -> Path:
    """Give the folder the jars of this pom belong in; a changed pom has another one."""
    digest = hashlib.sha256((deploy_dir() / "pom.xml").read_bytes()).hexdigest()
    return cache / digest[:12]


def has_jars(cache: Path) -> bool:
    """Tell whether the jars were fetched before."""
    return jars_dir(cache).is_dir()


def fetch_jars(cache: Path) -> Path:
    """
    Give the folder of jars, fetching them on the first call. The folder appears whole or not at all.

    Raises:
        ConfigurationFault: Maven is missing or failed; says what to do.
    """
    wanted = jars_dir(cache)
    if wanted.is_dir():
        return wanted
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationFault("Maven (mvn) is not on the path. Install it, or set RACKMETER_BROKER=embedded.")
    cache.mkdir(parents=True, exist_ok=True)
    LOGGER.warning("fetching Apache Kafka's jars (43 MB, once) into %s", wanted, extra={"action": "jars_fetch"})
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as scratch:
        part = Path(scratch) / "jars"
        _run_maven(maven, part, cache / "maven.log")
        try:
            part.rename(wanted)
        except OSError:
            # Somebody else fetched them meanwhile; theirs are the same.
            if not wanted.is_dir():
                raise
    LOGGER.warning("Apache Kafka %s is there", kafka_version(wanted), extra={"action": "jars_fetched"})
    return wanted


def kafka_version(jars: Path) -> str:
    """Read the version off the broker's own jar."""
    for jar in jars.iterdir():
        match = _KAFKA_JAR.match(jar.name)
        if match is not None:
            return match["version"]
    raise ConfigurationFault(f"{jars} holds no Kafka broker: remove the folder, it is fetched again")


def _run_maven(maven: str, target: Path, log_file: Path) -> None:
    command = [
        maven, "-B", "-q", "-f", str(deploy_dir() / "pom.xml"), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={target}",
    ]  # fmt: skip
    process = ServerProcess.start("Maven", command, log_file)
    try:
        code = process.wait(MAVEN_TIMEOUT_SECONDS)
    finally:
        process.kill()
    if code != 0 or not target.is_dir():
        raise ConfigurationFault(
            "Maven could not fetch Apache Kafka. Is Maven Central, or your mirror of it, in reach? "
            f"RACKMETER_BROKER=embedded starts without it.\n{process.log_tail()}"
        )
