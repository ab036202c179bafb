"""Makes a plausible month of server samples, the same for the same seed, for demo and tests."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline.domain.period import calendar_month, parse_month

HEADER = (
    "vm,timestamp,cpu_cores,cpu_capacity_mhz,cpu_usage_mhz,memory_provisioned_kb,memory_usage_kb,"
    "disk_read_kb_s,disk_write_kb_s,net_rx_kb_s,net_tx_kb_s\n"
)
INTERVAL_SECONDS = 300
DAY_SECONDS = 86_400

#: role: (cores, GiB of memory, disk KB/s, network KB/s, daily swing in per cent)
_ROLES = {
    "web": (2, 4, 60, 900, 80),
    "db": (8, 32, 2400, 500, 50),
    "app": (4, 8, 120, 600, 70),
    "cache": (2, 16, 10, 1200, 60),
    "mail": (2, 4, 200, 150, 40),
    "batch": (8, 16, 1800, 200, 10),
    "ci": (4, 8, 900, 300, 90),
    "vpn": (1, 1, 5, 400, 50),
}
#: Per cent of the day's peak at each full hour (UTC).
_DAY = (22, 18, 15, 14, 15, 20, 34, 55, 78, 92, 98, 100, 94, 96, 99, 97, 90, 82, 74, 70, 64, 52, 40, 29)


@dataclass(frozen=True, slots=True)
class _Server:
    name: str
    cores: int
    memory_kb: int
    disk: int
    network: int
    swing: int
    created: int
    removed: int


def generate(
    path: Path, *, seed: int = 1, month: str = "2026-06", servers: int = 50, zone_name: str = "Europe/Amsterdam"
) -> int:
    """
    Write a trace of five-minute samples; compressed where the name ends in .gz.

    Load follows the day; some servers are made or removed within the month, some miss samples for a while, intervals
    of 301 s occur, and a few rows stand twice. Values are exact decimals. The text depends on the arguments alone.

    Args:
        path: File to write.
        seed: Another seed, another month.
        month: YYYY-MM, in the zone.
        servers: How many.
        zone_name: IANA zone in which the month begins and ends.

    Returns:
        The number of rows.
    """
    year, month_number = parse_month(month)
    period = calendar_month(year, month_number, zone_name)
    start, end = int(period.start.timestamp()), int(period.end.timestamp())
    random = Random(seed)  # noqa: S311  # made-up load, no secret
    parts = [HEADER]
    row_count = 0
    for server in _servers(random, servers, start, end):
        rows = _rows(random, server)
        row_count += len(rows)
        parts.extend(rows)
    content = "".join(parts).encode("ascii")
    # No time stamp in the file, so that the same trace makes the same file.
    path.write_bytes(gzip.compress(content, compresslevel=3, mtime=0) if path.suffix == ".gz" else content)
    return row_count


def _below(random: Random, bound: int) -> int:
    # getrandbits is the same in every Python version; randrange is not promised to be.
    return random.getrandbits(32) % bound


def _servers(random: Random, count: int, start: int, end: int) -> list[_Server]:
    made: list[_Server] = []
    roles = list(_ROLES)
    for index in range(count):
        role = roles[index % len(roles)]
        cores, memory_gib, disk, network, swing = _ROLES[role]
        size = (1, 1, 2, 2, 4)[_below(random, 5)]
        created, removed = start, end
        day_count = (end - start) // DAY_SECONDS
        if index % 9 == 4:
            created = start + (3 + _below(random, day_count - 9)) * DAY_SECONDS + _below(random, DAY_SECONDS)
        elif index % 11 == 7:
            removed = end - (3 + _below(random, day_count - 9)) * DAY_SECONDS - _below(random, DAY_SECONDS)
        made.append(
            _Server(
                name=f"{role}-{index // len(roles) + 1:02d}",
                cores=cores * size,
                memory_kb=memory_gib * size * 1_048_576,
                disk=disk * size,
                network=network * size,
                swing=swing,
                created=created,
                removed=removed,
            )
        )
    return made


def _rows(random: Random, server: _Server) -> list[str]:
    getrandbits = random.getrandbits
    capacity = server.cores * 26_000_000  # 2600 MHz a core, in 10^-4 MHz
    head = f"{server.name},"
    fixed = f",{server.cores},{capacity // 10_000},"
    memory = f",{server.memory_kb},"
    day = _day_of(server.swing)
    # 10^-4 KB/s at full load, spread by up to one half by chance.
    disk, network = server.disk * 10_000, server.network * 10_000
    rows: list[str] = []
    at = server.created + 5 + getrandbits(8)
    while at < server.removed:
        bits = getrandbits(64)
        load = day[at % DAY_SECONDS // INTERVAL_SECONDS] + (bits & 127)  # per 1024, from 0 to 1023
        usage = capacity * load >> 10
        used = server.memory_kb * (5000 + load * 3 + (bits >> 7 & 1023)) // 1000
        read = disk * load * (512 + (bits >> 17 & 1023)) >> 20
        write = disk * load * (256 + (bits >> 27 & 511)) >> 20
        received = network * load * (512 + (bits >> 36 & 1023)) >> 20
        sent = network * load * (768 + (bits >> 46 & 511)) >> 20
        row = (
            f"{head}{at}{fixed}{usage // 10000}.{usage % 10000:04d}{memory}{used // 10}.{used % 10}"
            f",{read // 10000}.{read % 10000:04d},{write // 10000}.{write % 10000:04d}"
            f",{received // 10000}.{received % 10000:04d},{sent // 10000}.{sent % 10000:04d}\n"
        )
        rows.append(row)
        chance = bits >> 55  # 9 bits
        if chance < 3:
            rows.append(row)
        at += INTERVAL_SECONDS + (chance & 31 == 31)
        if chance == 511:
            at += _gap_seconds(getrandbits(16))
    return rows


def _gap_seconds(bits: int) -> int:
    """Now and then a server is silent: mostly a quarter of an hour, at times half a day."""
    return 43_200 if bits % 16 == 0 else 900 + bits % 2700


def _day_of(swing: int) -> list[int]:
    """The load, per 1024 and below 896, of every five minutes of the day."""
    slots: list[int] = []
    for slot in range(DAY_SECONDS // INTERVAL_SECONDS):
        hour, part = divmod(slot, 12)
        per_cent = (_DAY[hour] * (12 - part) + _DAY[(hour + 1) % 24] * part) // 12
        slots.append((100 - swing + swing * per_cent // 100) * 895 // 100)
    return slots
