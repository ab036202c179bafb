"""Serves the pages on loopback until told to stop."""

import logging
import socket
import threading

import uvicorn
from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
STOP_LOOK_SECONDS = 0.5


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


def serve(app: FastAPI, listening: socket.socket, stop: threading.Event) -> None:
    """Serve until told to stop."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = make_server(app)
    # In a thread of its own: in the main one it would take the signals over.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="pages")
    thread.start()
    try:
        while thread.is_alive() and not stop.wait(STOP_LOOK_SECONDS):
            pass
    finally:
        server.should_exit = True
        thread.join()
