"""The main job by clicking, in the system's Chromium; and hostile text in every field, of which nothing runs."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.web.chromium import CHROMIUM, Watched, chromium, served
from tests.web.hostile_home import hostile_pages
from tests.web.test_pages_data import record

from tracetune.app import traces
from tracetune.app.chosen_traces import build_from_traces
from tracetune.core.trace import Step, Trace

pytestmark = pytest.mark.long

RUN_MS = 240_000


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """One browser for this file, or a skip with the reason."""
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium on this machine; `apt-get install chromium`")
    with chromium() as found:
        yield found


def section(page: Page, name: str) -> None:
    """Go to a section by the navigation."""
    page.get_by_role("navigation", name="Sections").get_by_role("link", name=name).click()


def slowly(route: Route) -> None:
    """An answer that comes after two seconds."""
    time.sleep(2)
    route.continue_()


def launch_and_wait(page: Page, button: str) -> str:
    """Click, and stay on the run's page until it has finished; its id."""
    page.get_by_role("button", name=button).click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}$"))
    ended = page.locator(".badge.finished, .badge.failed, .badge.cancelled").first
    expect(ended).to_be_visible(timeout=RUN_MS)
    assert ended.inner_text() == "finished", page.locator("main").inner_text()
    return page.url.rpartition("/")[2]


def test_from_nothing_to_a_compared_and_promoted_model_by_clicking(chrome: Browser, home: Path) -> None:
    with served(home) as address:
        seen = Watched(chrome, address)
        page = seen.page
        seen.open("/")
        section(page, "Traces")
        page.get_by_role("link", name="Generate duels").first.click()
        page.get_by_label("How many").fill("200")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("status")).to_contain_text("200 duels are stored")

        page.get_by_role("link", name="freeze them as a dataset").click()
        page.get_by_role("button", name="Build").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("duels")
        expect(page.locator(".tok.trained").first).to_be_visible(timeout=RUN_MS)

        page.get_by_role("link", name="Train on it").click()
        page.get_by_label("Steps").fill("3")
        page.get_by_label("Log every").fill("1")
        trained = launch_and_wait(page, "Launch")
        # The page of a run that ends loads itself once more, but not over a click whose answer takes its time.
        page.route("**/evaluations", slowly)
        section(page, "Evaluations")
        page.get_by_role("link", name="Register an eval set").click()
        page.unroute("**/evaluations")
        page.get_by_label("Name").fill("duels-test")
        page.get_by_label("How many").fill("8")
        page.get_by_role("button", name="Register").click()
        for model in ("tiny", f"run:{trained}"):
            section(page, "Evaluations")
            page.get_by_role("link", name="Evaluate a model").first.click()
            page.get_by_label("Model").fill(model)
            page.get_by_label("Longest answer").fill("16")
            launch_and_wait(page, "Evaluate")
            page.get_by_role("link", name="Its answers").click()
            expect(page.locator("details.flip")).to_have_count(8)

        section(page, "Evaluations")
        page.get_by_role("button", name="Compare before and after").click()
        expect(page.locator(".verdict")).to_be_visible()
        expect(page.locator(".squares .sq")).to_have_count(8)

        page.goto(f"/runs/{trained}")
        expect(page.locator("#curves")).to_be_visible()
        page.get_by_role("link", name="Promote").click()
        page.get_by_label("Name").fill("duelist")
        page.get_by_role("button", name="Promote").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("duelist version 1")
        section(page, "Leaderboard")
        expect(page.locator("tbody tr")).to_have_count(2)
        seen.ask("the end")
        assert seen.alarms == []


def test_no_text_of_others_runs_asks_elsewhere_or_breaks_the_policy(chrome: Browser, home: Path) -> None:
    addresses = hostile_pages(home)
    with served(home, "--no-runs") as address:
        seen = Watched(chrome, address)
        for path in addresses:
            seen.open(path)
        assert seen.alarms == []
        assert len(addresses) > 100
        shown = seen.page.request.get("/traces", headers={"Accept": "text/html"}).text()
        assert "__fired" in shown, "control: the texts do stand on the pages"


def test_the_watch_sees_what_runs_asks_elsewhere_and_breaks_the_policy(chrome: Browser, home: Path) -> None:
    with served(home, "--no-runs") as address:
        seen = Watched(chrome, address)
        policy = {"Content-Security-Policy": "default-src 'none'"}
        bare = "<script>window.__fired = 1</script><img src='http://127.0.0.1:9/p.png'>"
        seen.page.route("**/bare", lambda route: route.fulfill(body=bare, content_type="text/html"))
        seen.page.route("**/kept", lambda route: route.fulfill(body=bare, content_type="text/html", headers=policy))
        seen.open("/bare")
        assert any("script ran" in alarm for alarm in seen.alarms)
        assert any("request http://127.0.0.1:9" in alarm for alarm in seen.alarms)
        seen.alarms.clear()
        seen.open("/kept")
        assert any("policy: script-src" in alarm for alarm in seen.alarms)


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(chrome: Browser, home: Path, width: int) -> None:
    long = "x" * 300
    trace_id = (
        traces.add_traces([Trace("1.0", long, long, (Step(0, "s" * 64, long),), {long: long, "source": long})])
        .heads[0]
        .id
    )
    build_from_traces("n" * 100, "v1", [trace_id])
    before, after = record(home, "tiny", [False] * 30), record(home, "run:1", [True] * 30)
    key = "n" * 100 + "-v1"
    addresses = (
        "/traces",
        f"/traces/{trace_id}",
        "/duels",
        "/datasets",
        f"/datasets/{key}",
        f"/datasets/{key}/diff?other={key}",
        "/evalsets/sums",
        "/evaluations",
        f"/evaluations/{before}",
        f"/evaluations/compare?before={before}&after={after}",
        "/leaderboard",
        "/chat",
        "/login",
    )
    with served(home, "--no-runs") as address:
        seen = Watched(chrome, address, viewport={"width": width, "height": 800})
        for path in addresses:
            seen.open(path)
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (path, wide)


def test_rows_are_walked_by_keys_and_the_search_is_one_key_away(chrome: Browser, home: Path) -> None:
    traces.add_traces([Trace("1.0", f"prompt {number}", "a", (Step(0, "s", "c"),)) for number in range(3)])
    with served(home, "--no-runs") as address:
        seen = Watched(chrome, address)
        seen.open("/traces")
        seen.page.keyboard.press("j")
        seen.page.keyboard.press("j")
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_url(re.compile(r"/traces/[0-9a-f-]{36}$"))
        expect(seen.page.locator(".turn.user")).to_contain_text("prompt 1")
        seen.open("/traces")
        seen.page.keyboard.press("/")
        seen.page.keyboard.type("prompt 2")
        seen.page.keyboard.press("Enter")
        expect(seen.page.locator("li[data-row]")).to_have_count(1)
