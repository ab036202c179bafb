"""Serves the pages on loopback until told to stop."""

import logging
import socket

import uvicorn
from fastapi import FastAPI

LOOPBACK = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """
    Take a port of 127.0.0.1, and of no other address.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: It is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(64)
    except BaseException:
        listening.close()
        raise
    return listening


def make_server(app: FastAPI) -> uvicorn.Server:
    """Give a server; `serve` runs it, `should_exit` ends it."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    make_server(app).run(sockets=[listening])
