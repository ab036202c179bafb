"""The pages answer on loopback names only, show only, and run nothing that is not ours."""

import asyncio
from collections.abc import Sequence

import pytest
from fastapi.routing import APIRoute
from starlette.types import Message

from pipeline.web.ui.app import create_app
from pipeline.web.ui.look import Look

APP = create_app(Look("test", "postgresql://nobody@127.0.0.1:1/none"))


def ask(
    path: str = "/static/ui.css", method: str = "GET", hosts: Sequence[str] = ("127.0.0.1:8080",)
) -> tuple[int, dict[str, str], str]:
    """Give (status, headers, body) of a request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    plain, _, query = path.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": plain,
        "raw_path": plain.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", host.encode()) for host in hosts],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
    }  # fmt: skip
    asyncio.run(APP(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]).decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST"])
def test_loopback_names_are_answered(host: str) -> None:
    """A browser on this machine gets its page."""
    assert ask(hosts=[host])[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [], ["evil.example"], ["evil.example:8080"], ["127.0.0.1.evil.example"], ["localhost:8080@evil.example"],
        ["127.0.0.1", "evil.example"], ["[::1]:8080"], ["0.0.0.0:8080"], ["127.0.0.1:٣"],
    ],
)  # fmt: skip
def test_other_names_are_refused(hosts: list[str]) -> None:
    """A name of elsewhere that was made to lead here shows nothing (DNS rebinding)."""
    assert ask(hosts=hosts)[0] == 421


def test_no_route_changes_anything() -> None:
    """Every route takes GET, or HEAD, and nothing else."""
    routes = [route for route in APP.routes if isinstance(route, APIRoute)]
    assert len(routes) == len(APP.routes) >= 15
    assert {method for route in routes for method in route.methods or {"none"}} <= {"GET", "HEAD"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/invoices", "/nowhere"])
def test_other_methods_are_refused(method: str, path: str) -> None:
    """Whatever the path, nothing but asking is allowed."""
    assert ask(path, method)[0] == 405


@pytest.mark.parametrize("path", ["/static/ui.js", "/nowhere", "/usage/slots", "/"])
def test_every_answer_forbids_what_is_not_ours(path: str) -> None:
    """Pages and errors alike: nothing inline, nothing from elsewhere, in no frame, in no cache."""
    headers = ask(path)[1]
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_faults_are_pages_too() -> None:
    """A database that does not answer, a page that is not there, a request that makes no sense: each says so."""
    status, _, body = ask("/")
    assert status == 503
    assert "the database does not answer" in body
    assert ask("/nowhere")[0] == 404
    assert ask("/usage/slots?server=a")[0] == 400
    assert ask("/quarantine/usage.events/0/99999999999999999999/0")[0] == 400
    assert ask("/usage/slots?server=a&meter=b&day=2026-13-01")[0] == 404
    assert ask("/usage/slots?server=a&meter=b&day=2026-01-01&tz=Nowhere/Else")[0] == 404


def test_what_was_asked_is_shown_escaped() -> None:
    """An error that quotes the request cannot become markup."""
    _, _, body = ask("/usage/slots?server=a&meter=b&day=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "&lt;script&gt;" in body
    assert "<script>" not in body


def test_no_page_of_the_framework_is_served() -> None:
    """The framework's own pages load scripts from elsewhere."""
    assert [ask(path)[0] for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 404]
