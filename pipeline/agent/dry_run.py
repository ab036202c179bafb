"""A beat that is only shown: the exact events, with nothing reserved, kept or sent."""

from datetime import UTC, datetime

from pipeline.agent.host import boot_id
from pipeline.agent.options import AgentOptions, probe_of
from pipeline.agent.samples import Sample, samples
from pipeline.agent.totals import Totals
from pipeline.contracts.control_event import COMPLETE_UNTIL_TYPE
from pipeline.contracts.usage_event import encode_event
from pipeline.domain.identity import format_sequenced_id
from pipeline.ingest.emitter import rfc3339

#: The epoch of a dry run's ids, since none is made for it.
DRY_EPOCH = "0" * 16


def dry_run(options: AgentOptions) -> list[bytes]:
    """The events of a first beat now, byte for byte but for the epoch of their ids."""
    source, subject = options.named()
    at = datetime.now(UTC).replace(microsecond=0)
    found: list[tuple[str | None, Sample]] = [
        (sample.subject, sample)
        for sample in samples(subject, probe_of(options).read(), Totals(boot_id()), int(at.timestamp()) * 1_000_000)
    ]
    found.append((None, Sample("", COMPLETE_UNTIL_TYPE, {"until": rfc3339(at)})))
    return [
        encode_event(
            source=source,
            event_id=format_sequenced_id(DRY_EPOCH, number),
            event_type=sample.event_type,
            subject=about,
            time=rfc3339(at),
            data=sample.data,
        )
        for number, (about, sample) in enumerate(found, start=1)
    ]
