"""Runs the collector until it is told to stop: listens, answers, and ends without losing what it took."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.web.app import build_app
from pipeline.web.sender import Sender
from pipeline.web.services import Services
from pipeline.web.views import KnownView

LOGGER = logging.getLogger("rackmeter.collector")

BACKLOG = 2048
#: Beyond the broker's time, for what is left of a request.
GRACE_SECONDS = 5.0
WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Parts:
    """The threads beside the server; `problem` says why the process should end, or ''."""

    sender: Sender
    view: KnownView
    problem: Callable[[], str]


def listen(host: str, port: int) -> socket.socket:
    """
    Open the listening socket.

    Raises:
        ConfigurationFault: The address is taken, or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationFault(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Choose RACKMETER_COLLECTOR_HOST and _PORT."
        ) from None


def serve(services: Services, parts: Parts, listening: socket.socket) -> None:
    """
    Answer requests until SIGTERM or SIGINT, then finish those in flight.

    Raises:
        TransientFault: The database did not answer at the start, or a part of ours failed; start it again.
    """
    server: uvicorn.Server | None = None

    async def watch() -> None:
        while not parts.problem():
            await asyncio.sleep(WATCH_SECONDS)
        if server is not None:
            server.should_exit = True

    config = uvicorn.Config(
        build_app(services, watch),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=int(services.ack_seconds + GRACE_SECONDS),
    )
    server = uvicorn.Server(config)
    try:
        parts.view.start()
        parts.sender.start()
        try:
            server.run(sockets=[listening])
        finally:
            parts.sender.close()
    finally:
        parts.view.close()
        listening.close()
    if problem := parts.problem():
        raise TransientFault(problem)
