"""A machine that says what a test wants."""

from dataclasses import dataclass, field, replace

from pipeline.agent.readings import ContainerReading, GroupReading, HostReading, Reading

HOST = HostReading(
    cpu_us={"user": 1_500_000, "system": 20_000},
    cpu_cores=4,
    memory_total_bytes=8_000,
    memory_used_bytes=5_000,
    net_rx_bytes={"eth0": 100},
    net_tx_bytes={"eth0": 200},
    disk_read_bytes={"vda": 300},
    disk_write_bytes={"vda": 400},
)
CONTAINER = ContainerReading("4d1a7c90b2ef" + "0" * 52, 120_004_511, 700, {"8:0": 10}, {"8:0": 0})
GROUP = GroupReading("php", {"7@1": 10_000}, {"7@1": 1}, 900)


@dataclass
class Machine:
    """Its processor time rises by a second a reading."""

    reading: Reading = field(default_factory=lambda: Reading(HOST, (GROUP,), (CONTAINER,)))
    is_silent: bool = False

    def read(self) -> Reading:
        if self.is_silent:
            raise OSError("the kernel does not tell")
        host = self.reading.host
        cpu_us = {**host.cpu_us, "user": host.cpu_us["user"] + 1_000_000}
        self.reading = replace(self.reading, host=replace(host, cpu_us=cpu_us))
        return self.reading
