"""Who may ask and what a page may do: loopback names only, GET only, nothing from elsewhere, nothing inline."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A page of elsewhere that had its name point to us (DNS rebinding) comes under its own name.
HOST_NAMES = ("127.0.0.1", "localhost")
METHODS = ("GET", "HEAD")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Answers what it refuses itself, and puts its headers on everything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        if not _is_loopback_name(scope):
            await _refuse(send, 421, "This page answers to 127.0.0.1 and localhost only.")
        elif scope["method"] not in METHODS:
            await _refuse(send, 405, "This page only shows; it changes nothing.")
        else:
            await self._app(scope, receive, _with_headers(send))


def _is_loopback_name(scope: Scope) -> bool:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1:
        return False
    name, _, port = hosts[0].partition(":")
    return name.lower() in HOST_NAMES and (port == "" or (port.isascii() and port.isdecimal()))


def _with_headers(send: Send) -> Send:
    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_raw_headers()]}
        await send(message)

    return send_guarded


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    about = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        about.append((b"allow", ", ".join(METHODS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*about, *_raw_headers()]})
    await send({"type": "http.response.body", "body": body})


def _raw_headers() -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
