"""A real browser for tests of pages."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's Chromium, else playwright's own; without either the test fails and says what to do."""
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    # Its sandbox does not run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=arguments)
        except Error as error:
            pytest.fail(f"no browser: install chromium, or `playwright install chromium` ({error})", pytrace=False)
        try:
            yield browser
        finally:
            browser.close()
