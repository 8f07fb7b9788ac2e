"""A real browser on a real server: both processes end with their block, and what the browser saw is kept."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
START_SECONDS = 60
# Runs before any script of a page, whatever the page's policy; what breaks the policy is reported here.
WATCH = """
window.__reports = [];
document.addEventListener("securitypolicyviolation", (event) => window.__reports.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(home: Path, *words: str) -> Iterator[str]:
    """The address of `tracetune serve` on this home folder."""
    command = [sys.executable, "-m", "tracetune", "serve", "--port", "0", "--data-dir", str(home), *words]
    log = home.parent / "serve.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=dict(os.environ), text=True)
        try:
            assert process.stdout
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            assert address, line + log.read_text()
            _wait_until_ready(address[0])
            yield address[0]
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def _wait_until_ready(address: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, "the service does not become ready"
        time.sleep(0.1)


class Watched:
    """One tab, and everything in it that hostile text must not bring about."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        context = browser.new_context(base_url=address, **options)
        context.add_init_script(WATCH)
        self.page: Page = context.new_page()
        self.alarms: list[str] = []
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.alarms.append(f"error {error}"))
        self.page.on("request", self._request)
        self.page.on("popup", lambda popup: self.alarms.append(f"popup {popup.url}"))

    def open(self, path: str) -> None:
        """Load a page, and ask what happened in it."""
        answer = self.page.goto(path, wait_until="load")
        assert answer, path
        assert answer.status < 500, (path, answer.status)
        self.ask(path)

    def ask(self, where: str) -> None:
        """Whether a script of somebody else's ran, or the policy was broken."""
        fired, reports = self.page.evaluate("[window.__fired, window.__reports]")
        self.alarms += [f"{where}: script ran: {fired}"] if fired else []
        self.alarms += [f"{where}: policy: {report}" for report in reports]
        links = self.page.locator("a[href^='javascript:' i], a[href^='data:' i], [action^='javascript:' i]").count()
        self.alarms += [f"{where}: {links} links are code"] if links else []

    def _dialog(self, dialog: Any) -> None:
        self.alarms.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address + "/", "data:")):
            self.alarms.append(f"request {request.url}")
