"""Sending again what a broker had acknowledged and lost: the spool keeps it for a while."""

from datetime import datetime

from pipeline.agent.options import EVENTS_TOPIC
from pipeline.agent.status import spool_folder
from pipeline.domain.errors import ConfigurationFault
from pipeline.ingest.delivery import messages
from pipeline.ingest.spool_report import acknowledged_since
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.settings import Settings


def resend(settings: Settings, source: str, since: datetime) -> int:
    """
    Send again what the broker acknowledged since a time, under the same ids; give the number of events.

    Raises:
        TransientFault: The broker does not take it.
        ConfigurationFault: There is no spool.
    """
    folder = spool_folder(settings.state_dir, source)
    if not folder.is_dir():
        raise ConfigurationFault(f"{folder} does not exist: no agent of {source} has run with this RACKMETER_STATE_DIR")
    count = 0
    with LogProducer(settings.kafka_bootstrap_servers) as producer:
        for records in acknowledged_since(folder, int(since.timestamp()) * 1_000_000):
            for message in messages(records):
                producer.send(EVENTS_TOPIC, source.encode(), message)
            producer.flush()
            count += len(records)
    return count
