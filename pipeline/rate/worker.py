"""The Faust app: a message of totals in, its charges out, done when the broker has them."""

import asyncio
import importlib
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pipeline.contracts.charge import Charge, pack_charges
from pipeline.contracts.usage_total import decode_totals, price_version_ids
from pipeline.domain.errors import ConfigurationFault, RejectedRecord, TransientFault
from pipeline.rate.patience import rest_between_empty_fetches
from pipeline.rate.rules import rate_total
from pipeline.rate.store import PriceStore
from pipeline.runtime.metrics import FAULTS, RECORDS, Health

LOGGER = logging.getLogger("rackmeter.rate")
STAGE = "rate"
TOTALS_TOPIC = "usage.totals"
CHARGES_TOPIC = "billing.charges"

# A message is bounded at 512 KiB, unless one item alone is larger.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
ACK_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5.0
BACK_OFF_SECONDS = 0.2
BACK_OFF_SECONDS_MAX = 10.0
TICK_SECONDS = 0.1


class Worker:
    """A rate worker: reads its share of usage.totals, whatever that is at the moment."""

    def __init__(
        self,
        bootstrap_servers: str,
        prices: PriceStore,
        health: Health,
        *,
        slot: int,
        state_dir: Path,
        group: str = STAGE,
        totals_topic: str = TOTALS_TOPIC,
        charges_topic: str = CHARGES_TOPIC,
        fetch_rest_seconds: float = 0.0,
    ) -> None:
        """
        Keep what `run` needs; connects to nothing.

        Args:
            bootstrap_servers: The broker, host:port, several with commas.
            prices: Closed by `run`.
            health: Told of every turn of the loop.
            slot: Different for each worker, the same at every start of one: its static membership.
            state_dir: Where Faust may put its files; nothing of worth is in them.
            group: The consumer group.
            totals_topic: Must exist.
            charges_topic: Must exist.
            fetch_rest_seconds: See Settings.
        """
        self._bootstrap_servers = bootstrap_servers
        self._prices = prices
        self._health = health
        self._slot = slot
        self._state_dir = state_dir
        self._group = group
        self._totals_topic = totals_topic
        self._charges_topic = charges_topic
        self._fetch_rest_seconds = fetch_rest_seconds
        self._stop = threading.Event()
        self._fault: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """
        Rate until told to stop; call it once, in any thread.

        Raises:
            TransientFault: The broker does not answer or refused charges; start the process again.
            ConfigurationFault: A library that reads the topic's compression is missing.
        """
        self._stop = stop
        self._state_dir.mkdir(parents=True, exist_ok=True)
        try:
            asyncio.run(self._run())
        finally:
            self._prices.close()
        if self._fault is not None:
            raise self._fault

    async def _run(self) -> None:
        app = self._app()
        starting = asyncio.ensure_future(app.start())
        try:
            while not self._stop.is_set() and self._fault is None and not app.crashed:
                if starting.done() and (error := starting.exception()) is not None:
                    self._fault = self._named(error)
                self._health.step()
                await asyncio.sleep(TICK_SECONDS)
            if app.crashed and self._fault is None and not self._stop.is_set():
                self._fault = self._named(app.crash_reason)
        finally:
            if not starting.done():
                starting.cancel()
            await asyncio.wait([starting, asyncio.ensure_future(app.stop())], timeout=STOP_SECONDS_MAX)

    def _named(self, error: BaseException | None) -> BaseException:
        if isinstance(error, TransientFault | ConfigurationFault):
            return error
        fault = TransientFault(
            f"the rate app ended: {error!r}. Does a broker answer at {self._bootstrap_servers}, and do "
            f"{self._totals_topic} and {self._charges_topic} exist? `rackmeter doctor` tells."
        )
        fault.__cause__ = error
        return fault

    def _app(self) -> Any:
        # Faust and its parts read the environment and set up logging when they are imported, so only a process that
        # rates imports them.
        faust = importlib.import_module("faust")
        if not importlib.import_module("aiokafka.codec").has_lz4():
            raise ConfigurationFault(
                "usage.totals is compressed with lz4, which aiokafka reads with cramjam: install it"
            )
        if self._fetch_rest_seconds:
            rest_between_empty_fetches(self._fetch_rest_seconds)
        for noisy in ("faust", "mode", "aiokafka"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        app = faust.App(
            self._group,
            broker=[f"kafka://{server.strip()}" for server in self._bootstrap_servers.split(",")],
            store="memory://",
            datadir=str(self._state_dir / f"{STAGE}-{self._slot}"),
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            key_serializer="raw",
            value_serializer="raw",
            consumer_group_instance_id=f"{self._group}-{self._slot}",
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=MESSAGE_BYTES_MAX,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=3.0,
            broker_request_timeout=15.0,
            broker_commit_interval=1.0,
            producer_acks=-1,
            producer_compression_type="lz4",
            producer_max_request_size=MESSAGE_BYTES_MAX,
            stream_wait_empty=False,
        )
        charges = app.topic(self._charges_topic, value_type=bytes, value_serializer="raw", key_serializer="raw")
        totals = app.topic(self._totals_topic, value_type=bytes, value_serializer="raw", key_serializer="raw")

        async def rate(values: AsyncIterator[bytes | None]) -> None:
            async for value in values:
                try:
                    await self._rate_message(value, charges)
                except Exception as error:
                    # Faust would log it and go on behind the message; nothing may be passed over in silence.
                    self._fault = self._fault or self._named(error)
                    raise

        app.agent(totals, name=STAGE)(rate)
        return app

    async def _rate_message(self, value: bytes | None, charges: Any) -> None:
        try:
            batch = decode_totals(value or b"")
        except RejectedRecord as rejection:
            _log_unreadable(rejection.detail)
            return
        for refused in batch.refused:
            _log_unreadable(refused)
        prices = await self._known_prices(price_version_ids(batch.totals))
        rated: list[Charge] = [rate_total(total, prices) for total in batch.totals]
        sent = [await charges.send(value=message) for message in pack_charges(batch.generation, rated)]
        await asyncio.wait_for(asyncio.gather(*sent), ACK_SECONDS_MAX)
        for charge in rated:
            RECORDS.labels(STAGE, charge.outcome).inc()

    async def _known_prices(self, ids: frozenset[int]) -> Any:
        delay_seconds = BACK_OFF_SECONDS
        while True:
            try:
                # In a thread, so that a slow database does not cost us our membership.
                return await asyncio.to_thread(self._prices.prices, ids)
            except TransientFault as fault:
                FAULTS.labels(STAGE, "transient").inc()
                LOGGER.warning("%s", fault.detail, extra={"action": "back_off", "delay_seconds": delay_seconds})
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(2 * delay_seconds, BACK_OFF_SECONDS_MAX)


def _log_unreadable(why: str) -> None:
    LOGGER.error(
        "a total cannot be read and is skipped; it stays unbooked and the sweep sends it again: %s",
        why,
        extra={"action": "total_unreadable"},
    )
    RECORDS.labels(STAGE, "unreadable").inc()
