"""The live pages in a real browser: curves, log and state come by themselves, and the policy is never breached."""

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from tests.web.fake_runs import begin, end, grpo_rows, log_steps, roll_out, say

from tracetune.api.server import bind
from tracetune.web.site import create_site

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 15_000
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium at {CHROMIUM}: {str(error)[:80]}")
        yield browser
        browser.close()


@pytest.fixture
def address(settings) -> Iterator[str]:
    """The site on a real socket, with streams and drain."""
    site = create_site(settings)
    bound = bind("127.0.0.1", 0)
    config = uvicorn.Config(site, http="h11", lifespan="on", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    limit = time.monotonic() + 20
    while not server.started and time.monotonic() < limit:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def page(chromium, address) -> Iterator:
    """A tab; whatever its console complains of, or asks of another host, fails the test."""
    tab = chromium.new_page(base_url=address)
    wrong: list[str] = []
    tab.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith(address) else wrong.append(asked.url))
    yield tab
    tab.close()
    assert not wrong, wrong


def shows(place, text: str) -> None:
    """Wait until a place of the page says so. Nothing is evaluated there: the policy refuses that, to us as well."""
    playwright.expect(place).to_contain_text(text, timeout=WAIT_MS)


def test_curves_log_and_state_of_a_run_come_by_themselves(page):
    run_id, owner = begin()
    log_steps(run_id, grpo_rows(6))
    page.goto(f"/runs/{run_id}")
    page.wait_for_selector(".canvas canvas", timeout=WAIT_MS)
    # The newest reward is read out in the caption: -2 + step / 10.
    shows(page.locator(".chart .value").first, "-1.4")
    log_steps(run_id, grpo_rows(3, first=7))
    say(run_id, "a line <b>that</b> comes later")
    shows(page.locator(".chart .value").first, "-1.1")
    shows(page.locator("#log"), "a line <b>that</b> comes later")
    shows(page.locator(".state-line"), "step 9")
    assert page.text_content("#log").count("step 7 · told") == 1
    end(run_id, owner)
    page.wait_for_selector(".badge.finished", timeout=WAIT_MS)
    page.wait_for_selector("a:has-text('Evaluate')", timeout=WAIT_MS)


def test_smoothing_redraws_and_a_click_on_a_step_opens_its_rollouts(page):
    run_id, owner = begin()
    log_steps(run_id, grpo_rows(11))
    for step in range(1, 12):
        roll_out(run_id, step, {"a": [("42", 1.0), ("41", 0.0)]})
    end(run_id, owner)
    page.goto(f"/runs/{run_id}")
    page.wait_for_selector(".canvas canvas", timeout=WAIT_MS)
    page.fill("#smooth", "0.9")
    over = page.locator(".chart .u-over").first.bounding_box()
    page.mouse.move(over["x"] + over["width"] / 2, over["y"] + 20)
    shows(page.locator(".chart .value").first, "-1.4")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**/runs/{run_id}/rollouts?step=6", timeout=WAIT_MS)
    assert page.text_content("h1") == "Rollouts of step 6"


def test_the_list_renews_itself_and_keeps_what_was_ticked(page):
    first, owner = begin("grpo", "first")
    second, _ = begin("grpo", "second", overrides=["seed=1"])
    log_steps(first, grpo_rows(3))
    page.goto("/")
    page.check(f"#pick-{first}")
    page.check(f"#pick-{second}")
    log_steps(first, grpo_rows(2, first=4))
    page.wait_for_selector(f"#run-{first} td:has-text('-1.5')", timeout=WAIT_MS)
    assert page.is_checked(f"#pick-{first}")
    end(first, owner)
    page.wait_for_selector(f"#run-{first} .badge.finished", timeout=WAIT_MS)
    page.click("button:has-text('Compare the chosen')")
    page.wait_for_selector(".canvas canvas", timeout=WAIT_MS)
    assert page.text_content("h1") == "Compare runs"


def test_a_run_is_launched_followed_and_cancelled_by_keyboard_and_clicks(page):
    page.goto("/")
    page.click("text=New run")
    page.click("text=GRPO with rewards")
    page.fill("[name='training.num_batches']", "3")
    page.click("text=Check only")
    page.wait_for_selector("text=Every setting is accepted")
    page.click("button:has-text('Launch')")
    page.wait_for_selector(".badge.queued", timeout=WAIT_MS)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("button:has-text('Cancel')")
    page.wait_for_selector(".badge.cancelled", timeout=WAIT_MS)
    page.goto("/")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('grpo tiny')", timeout=WAIT_MS)


def test_pages_work_without_scripts(chromium, address):
    run_id, owner = begin()
    log_steps(run_id, grpo_rows(6))
    end(run_id, owner)
    context = chromium.new_context(java_script_enabled=False, base_url=address)
    tab = context.new_page()
    tab.goto(f"/runs/{run_id}")
    assert tab.locator("svg.plot polyline").count() >= 4
    tab.goto("/runs/new?kind=grpo")
    tab.click("button:has-text('Launch')")
    shows(tab.locator(".badge"), "queued")
    tab.click("button:has-text('Cancel')")
    shows(tab.locator(".badge"), "cancelled")
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(chromium, address, width):
    run_id, owner = begin("grpo", "a name " * 15)
    log_steps(run_id, grpo_rows(6))
    roll_out(run_id, 1, {"x" * 300: [("y" * 900, 1.0), ("z", 0.0)]})
    end(run_id, owner)
    other, _ = begin("grpo", "b" * 120, overrides=["seed=2"])
    tab = chromium.new_page(base_url=address, viewport={"width": width, "height": 800})
    for place in (
        "/",
        f"/runs/{run_id}",
        f"/runs/{run_id}/rollouts",
        f"/runs/compare?ids={run_id},{other}",
        f"/lineage?kind=run&id={run_id}",
        "/runs/new",
    ):
        tab.goto(place)
        over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, (place, over)
    tab.close()
