"""A rate worker as a process of its own, for tests: takes its settings as arguments, stops at SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

from pipeline.catalogue.store import load_prices
from pipeline.domain.errors import PipelineError
from pipeline.rate.store import PriceStore
from pipeline.rate.worker import Worker
from pipeline.runtime.logs import configure_logs
from pipeline.runtime.metrics import Health
from pipeline.runtime.postgres import connect


def main(bootstrap_servers: str, database_url: str, state_dir: str, totals_topic: str, charges_topic: str) -> None:
    """Rate until SIGTERM; exit 1 with the fault's sentence when it cannot go on."""
    configure_logs("INFO", "rate")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    prices = PriceStore(lambda: connect(database_url, application_name="rackmeter-rate-0"), load_prices)
    worker = Worker(
        bootstrap_servers,
        prices,
        Health("rate"),
        slot=0,
        state_dir=Path(state_dir),
        group=totals_topic,
        totals_topic=totals_topic,
        charges_topic=charges_topic,
    )
    try:
        worker.run(stop)
    except PipelineError as fault:
        raise SystemExit(fault.detail) from fault


if __name__ == "__main__":
    main(*sys.argv[1:])
