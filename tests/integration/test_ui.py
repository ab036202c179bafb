"""The pages over a world that was really aggregated, rated, booked, closed and proven; in a real browser."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from pipeline.reports import store as reports
from pipeline.web.ui import store
from pipeline.web.ui.app import create_app
from pipeline.web.ui.database import snapshot
from pipeline.web.ui.look import Look
from pipeline.web.ui.server import listen, make_server
from tests.integration import proof_world
from tests.integration.proof_world import START, World
from tests.support.browser import chromium
from tests.support.databases import copied_database

pytestmark = [pytest.mark.real, pytest.mark.tools]

HOSTILE = "<script>window.hit=1</script><img src=x onerror=window.hit=1>"
HOSTILE_ROWS = """
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, detail, source, event_id,
    subject, event_type, log_time, payload)
VALUES ('usage.events', 0, 900000, 0, 'quarantined', %(text)s, %(text)s, %(text)s, %(text)s, %(text)s, %(text)s,
    '2013-07-02Z', %(payload)s);
INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)
VALUES (%(text)s, %(text)s, 'EUR', 'Europe/Amsterdam', 'host', 1);
INSERT INTO ledger_account (name, kind, product, currency) VALUES (%(text)s, 'revenue', %(text)s, 'EUR');
INSERT INTO source_subject VALUES (%(text)s, %(text)s, %(text)s, '2013-07-02Z', '2013-07-03Z')
"""
BAD_POSITION = "/quarantine/usage.events/0/900000/0"
SLOT = f"server=vm-1&meter=cores&slot={START:%Y-%m-%dT%H:%M:%SZ}&tz=Europe/Amsterdam"


@dataclass(frozen=True, slots=True)
class Site:
    """The pages, served."""

    url: str
    world: World
    invoices: list[dict[str, Any]]

    def get(self, path: str) -> str:
        answer = httpx.get(self.url + path, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text

    @property
    def pages(self) -> list[str]:
        number = self.invoices[0]["number"]
        return [
            "/", "/usage", "/usage?account=acme&meter=memory&month=2013-07", "/usage?server=vm-3",
            "/usage/slots?server=vm-1&meter=cores&day=2013-07-01&tz=Europe/Amsterdam", f"/usage/events?{SLOT}",
            "/invoices", "/invoices?month=2013-07", f"/invoices/{number}", f"/invoices/{number}/lines/1",
            "/quarantine", "/quarantine?reason=json_invalid", BAD_POSITION, "/ledger",
            "/ledger/entries?name=unbilled:acme:EUR", "/proof", "/nowhere",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def site(server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with copied_database(server_url, migrated_template) as (_, url):
        world = proof_world.build(url, tmp_path_factory.mktemp("world"))
        with closing(world.admin()) as admin:
            for statement in HOSTILE_ROWS.split(";\n"):
                admin.execute(statement, {"text": HOSTILE, "payload": HOSTILE.encode()})
            invoices = reports.invoices(admin)
        listening = listen(0)
        server = make_server(create_app(Look("test", url, world.archive_dir)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", world, invoices)
        finally:
            server.should_exit = True
            thread.join()
            listening.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page()
    yield opened
    opened.close()


def values(html: str) -> list[str]:
    """Every exact number of a page."""
    return re.findall(r'<data value="([^"]+)">', html)


def test_the_session_cannot_write(site: Site) -> None:
    """The transaction is read only, and the role it acts as may insert nowhere."""
    with snapshot(site.world.database_url) as connection:
        rights = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))"
            " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchone()
        assert rights is not None
        assert rights[0] > 20
        assert rights[1] == 0
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
            connection.execute("CREATE TABLE written (anything text)")


def test_a_page_is_one_snapshot(site: Site) -> None:
    """What is committed while a page is made is on the next one."""
    with snapshot(site.world.database_url) as connection, closing(site.world.admin()) as admin:
        before = store.open_outcomes(connection)
        admin.execute("UPDATE decision SET settled = true WHERE log_offset = 900000")
        assert store.open_outcomes(connection) == before
        admin.execute("UPDATE decision SET settled = false WHERE log_offset = 900000")


def test_every_line_is_the_sum_of_its_days_and_a_day_of_its_slots(site: Site) -> None:
    """From the invoice down the figures add up: steps to the line, days to the quantity, slots to the day."""
    seen = 0
    with snapshot(site.world.database_url) as connection:
        for invoice in site.invoices:
            for row in reports.invoice_lines(connection, invoice["invoice_id"]):
                line = store.line(connection, invoice["invoice_id"], row["line"])
                days = store.line_days(connection, line)
                assert [one["quantity"] for one in days if one["server"] is None] == [row["quantity"]]
                html = site.get(f"/invoices/{invoice['number']}/lines/{row['line']}")
                assert "which is the line's quantity" in unescape(html)
                assert format(row["amount_exact"].normalize(), "f") in values(html)
                day = next(one for one in days if one["day"] is not None)
                if row["unit"] != "hour":  # hours are counted, not added up
                    start = START + timedelta(days=(day["day"] - days[0]["day"]).days)
                    slots = store.slots(connection, day["server"], line["meter"], start, start + timedelta(days=1))
                    assert sum(slot["quantity"] for slot in slots) == day["quantity"]
                seen += 1
    assert seen >= 6


def test_a_slot_opens_to_its_events_with_position_and_outcome(site: Site) -> None:
    """Every event of the slot as it was sent; the one sent twice is there twice, once as a duplicate."""
    sent = [one["id"] for one in proof_world.samples("vm-1", 0) if str(one["time"]) < "2013-06-30T23:45"]
    slots = [START + timedelta(minutes=15 * number) for number in range(7)]
    html = "".join(site.get(f"/usage/events?server=vm-1&meter=requests&slot={at:%Y-%m-%dT%H:%M:%SZ}") for at in slots)
    shown = re.findall(r'<p class="code">(\S+) <small>', html)
    assert set(shown) == {str(name) for name in sent if isinstance(name, str)}
    assert len(shown) == len(sent) + 1
    assert html.count(">duplicate<") == 1
    assert html.count(">counted<") == len(sent)
    places = re.findall(r"usage\.events (\d+) / (\d+) / (\d+)", html)
    assert len(set(places)) == len(shown)


def test_an_ordered_meters_slot_shows_the_sample_it_begins_with(site: Site) -> None:
    """What was held when the slot began is part of why it is what it is."""
    second = START + timedelta(minutes=15)
    assert "before the slot" not in site.get(f"/usage/events?{SLOT}")
    assert (
        site.get(f"/usage/events?server=vm-1&meter=cores&slot={second:%Y-%m-%dT%H:%M:%SZ}").count("before the slot")
        == 1
    )


def test_usage_is_the_reports_usage(site: Site) -> None:
    """The page of a customer has the figures `rackmeter usage list` prints, digit for digit."""
    with snapshot(site.world.database_url) as connection:
        rows = reports.usage(connection, by="month", account="acme")
    july = [format(row["quantity"].normalize(), "f") for row in rows if row["from"] == START]
    assert july
    html = site.get("/usage?account=acme&month=2013-07")
    assert sorted(values(html)) == sorted(july)


def test_the_books_are_shown_to_the_last_decimal(site: Site) -> None:
    """The newest entry's balance is the account's balance in the trial balance."""
    with snapshot(site.world.database_url) as connection:
        balance = {row["name"]: row["balance"] for row in reports.trial_balance(connection)}
        for name in ("unbilled:acme:EUR", "receivable:acme:EUR", "revenue:compute:EUR"):
            assert store.ledger_entries(connection, name)[0]["balance"] == balance[name]
    assert "Balanced." in site.get("/ledger")


def test_an_unknown_name_is_not_found(site: Site) -> None:
    """What is not there is said, with 404; a NUL in a name is no server error."""
    for path in ("/invoices/RM-0", "/ledger/entries?name=x", "/quarantine/usage.events/0/77/0", "/usage?server=%00"):
        assert httpx.get(site.url + path).status_code == 404, path


def test_stages_that_do_not_run_are_said_not_to(site: Site) -> None:
    """Without anybody's metrics the flow shows what the database has, and no rate."""
    html = site.get("/")
    assert html.count("not running") >= 5
    assert "/s<" not in html


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_clean_for_whoever_reads_it(site: Site, browser: Browser, width: int, scheme: Any) -> None:
    """No page breaks a rule of accessibility, scrolls sideways or says anything in the console, wide or narrow."""
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        for path in site.pages:
            page.goto(site.url + path)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{path}\n{found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.title().endswith(" · Rackmeter")
    assert [line for line in said if "404" not in line] == []


def test_hostile_names_are_text(site: Site, page: Page) -> None:
    """Names and bytes that are markup are shown as they are; nothing of them runs."""
    for path in ("/quarantine", BAD_POSITION, "/usage", "/ledger"):
        page.goto(site.url + path)
        assert HOSTILE in page.inner_text("main").replace("\n", ""), path
        assert page.evaluate("window.hit") is None
        assert page.locator("main script, main img").count() == 0


def test_a_line_opens_down_to_its_events(site: Site, page: Page) -> None:
    """By keyboard alone, on one page: line, server, day, slot, event."""
    page.goto(f"{site.url}/invoices/{site.invoices[0]['number']}")
    line = page.locator("main > div > details").first
    line.locator("> summary").press("Enter")
    server = line.locator("details.server").first
    expect(server).to_be_visible()
    if server.get_attribute("open") is None:
        server.locator("> summary").press("Enter")
    day = server.locator("details").first
    day.locator("> summary").press("Enter")
    slot = day.locator("details").nth(1)
    slot.locator("> summary").press("Enter")
    expect(slot.locator(".events li").first).to_contain_text("usage.events")
    expect(slot.locator(".events pre").first).to_contain_text('"specversion": "1.0"')
    assert Axe().run(page).violations_count == 0


def test_the_flow_refreshes_itself_until_paused(site: Site, page: Page) -> None:
    """The time it is of moves on; a pause holds it."""
    page.goto(site.url)
    clock = page.locator(".lead time")
    first = clock.inner_text()
    expect(clock).not_to_have_text(first, timeout=15_000)
    page.get_by_role("button", name="Pause").click()
    time.sleep(0.5)
    held = clock.inner_text()
    time.sleep(3)
    assert clock.inner_text() == held


def test_pages_work_without_script(site: Site, browser: Browser) -> None:
    """Each level is a link to a page of its own."""
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{site.url}/invoices/{site.invoices[0]['number']}")
        page.locator("summary").first.click()
        page.get_by_role("link", name="Price and days").first.click()
        expect(page.locator("h1")).to_contain_text("line 1")
