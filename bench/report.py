"""From readings to figures: medians, ratios to R of the same run, cost an event by process."""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from bench.machine import Machine
from bench.measure import Reading

RAW_KINDS = ("raw_default", "raw_tuned")
PROCESSES = ("python", "broker", "database")


class Figure(msgspec.Struct, frozen=True):
    """
    One line: medians over the runs.

    ratio: To R of the same run; the raw consumers have one too, so that the slower is seen.
    cpu_us: Microseconds of processor time an event, by process.
    flush_share: Of the time, in commits.
    """

    name: str
    events_per_second: float
    events_per_second_each: list[float]
    ratio: float
    cpu_us: dict[str, float]
    memory_mib: dict[str, float]
    flushes: int
    flush_share: float


class PipelineReport(msgspec.Struct, frozen=True):
    """What the benchmark says; every sum behind it was right."""

    machine: Machine
    broker: str
    database: str
    server_count: int
    event_count: int
    message_count: int
    byte_count: int
    outcomes: dict[str, int]
    buckets: dict[str, int]
    figures: list[Figure]


def figures(readings: Mapping[str, Sequence[Reading]], event_count: int) -> list[Figure]:
    """
    Give a figure for each thing measured.

    Args:
        readings: By what was measured, each in the order of the runs; RAW_KINDS must be there.
        event_count: How many events the topic holds.
    """
    speeds = {name: [event_count * one.passes / one.seconds for one in each] for name, each in readings.items()}
    best_raw = [max(pair) for pair in zip(*(speeds[kind] for kind in RAW_KINDS), strict=True)]
    return [_figure(name, each, speeds[name], best_raw, event_count) for name, each in readings.items()]


def table(report: PipelineReport) -> str:
    """Give the report for people."""
    shown = [("", "events/s", "ratio to R", *(f"{name} us" for name in PROCESSES), "commits", "in commit", "MiB")]
    for figure in report.figures:
        is_raw = figure.name in RAW_KINDS
        shown.append((
            figure.name if is_raw else f"aggregate, {figure.name}",
            f"{figure.events_per_second:,.0f}",
            f"{figure.ratio:.3f}",
            *(f"{figure.cpu_us.get(name, 0.0):.2f}" for name in PROCESSES),
            "" if is_raw else str(figure.flushes),
            "" if is_raw else f"{figure.flush_share:.0%}",
            f"{figure.memory_mib.get('python', 0.0):,.0f}",
        ))  # fmt: skip
    widths = [max(len(row[place]) for row in shown) for place in range(len(shown[0]))]
    lines = [_aligned(row, widths) for row in shown]
    buckets = ", ".join(f"{count:,} ({name})" for name, count in report.buckets.items())
    outcomes = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items())
    return "\n".join([
        f"Kafka to committed buckets: {report.event_count:,} events of {report.server_count:,} servers",
        f"{report.message_count:,} messages of {report.byte_count // report.message_count:,} bytes; slots: {buckets}",
        outcomes,
        f"broker: {report.broker}; database: {report.database}, durable",
        "",
        *lines,
        "",
        "Medians; us: processor time an event by process; MiB: python's peak. R is the faster raw consumer of the run.",
        "Every sum was compared with the generator's truth and is right.",
        *report.machine.lines(),
    ])  # fmt: skip


def _figure(name: str, each: Sequence[Reading], speeds: list[float], best_raw: list[float], event_count: int) -> Figure:
    median = statistics.median
    return Figure(
        name=name,
        events_per_second=median(speeds),
        events_per_second_each=speeds,
        ratio=median(speed / raw for speed, raw in zip(speeds, best_raw, strict=True)),
        cpu_us={
            process: median(one.cpu_seconds[process] * 1e6 / (event_count * one.passes) for one in each)
            for process in each[0].cpu_seconds
        },
        memory_mib={process: median(one.memory_mib[process] for one in each) for process in each[0].memory_mib},
        flushes=int(median(one.flushes for one in each)),
        flush_share=median(one.flush_seconds / one.seconds for one in each),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        text.ljust(width) if place == 0 else text.rjust(width)
        for place, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()
