"""How an agent runs, and what it is called."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.agent.cgroups import CGROUP_DIR, is_cgroup_v2
from pipeline.agent.host import LinuxProbe, parse_groups
from pipeline.domain.errors import ConfigurationFault
from pipeline.ingest.spool import SpoolLimits

EVENTS_TOPIC = "usage.events"
SOURCE_PREFIX = "urn:rackmeter:agent:"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """
    How an agent runs.

    Args:
        interval_seconds: From beat to beat.
        subject: The host's name in events; empty: its host name.
        source: Who emits, a URI; empty: SOURCE_PREFIX and the subject.
        groups: NAME=REGEX each.
        is_reading_containers: Whether containers are samples of their own.
        limits: Of the spool.
    """

    interval_seconds: int = 10
    subject: str = ""
    source: str = ""
    groups: Sequence[str] = ()
    is_reading_containers: bool = False
    limits: SpoolLimits = field(default_factory=SpoolLimits)

    def named(self) -> tuple[str, str]:
        """Source and subject, as they are in events."""
        subject = self.subject or socket.gethostname()
        return self.source or SOURCE_PREFIX + subject, subject


def source_of_this_host() -> str:
    """The source of an agent that is given no name."""
    return AgentOptions().named()[0]


def probe_of(options: AgentOptions) -> LinuxProbe:
    """
    The probe of this machine.

    Raises:
        ConfigurationFault: A group is malformed, or containers are asked for where there is no cgroup v2.
    """
    if options.is_reading_containers and not is_cgroup_v2():
        raise ConfigurationFault(f"{CGROUP_DIR} is not cgroup version 2: run without --containers")
    return LinuxProbe(parse_groups(options.groups), CGROUP_DIR if options.is_reading_containers else None)
