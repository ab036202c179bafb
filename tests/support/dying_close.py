"""Run as a program: closes the small trace's month and dies by SIGKILL when a step was committed."""

import os
import signal
import sys
import threading
from datetime import UTC, date, datetime

from pipeline import bootstrap
from pipeline.invoice_batch.model import CloseRequest, Step
from pipeline.runtime.settings import Settings
from tests.support.small_trace import ISSUED_ON, MONTH


def main(step: Step, count: int, delay_seconds: float) -> None:
    """Die so many seconds after the step's n-th time."""
    left = {"count": count}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def listen(committed: Step, name: str) -> None:
        left["count"] -= committed is step
        if committed is step and left["count"] == 0:
            threading.Timer(delay_seconds, die).start() if delay_seconds else die()

    request = CloseRequest(MONTH, datetime.now(UTC), issued_on=date.fromisoformat(ISSUED_ON))
    bootstrap.close_periods(Settings.from_environment(), request, listener=listen)


if __name__ == "__main__":
    main(Step(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
