"""Traces, datasets, evaluations and models as pages: each from its own address, each with its twin as JSON."""

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient

from tracetune.api.settings import ServiceSettings
from tracetune.app import baselines, evaluations, traces
from tracetune.app.datasets import build_dataset, open_dataset, register_evalset
from tracetune.app.duels import generate_duels
from tracetune.app.jobs import list_runs
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Problem, Score
from tracetune.evals.records import write_result
from tracetune.web.site import create_site

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('&')</script>\" onload=\"x"
TWIN = re.compile(r'<link rel="alternate" type="application/json" href="([^"]+)">')
INLINE = re.compile(r"""<script(?![^>]*\ssrc=)|<style|\sstyle=|<[^>]*\son[a-z]+=(?=["'])""")
EMPTY_PAGES = (
    "/traces",
    "/traces/new",
    "/duels",
    "/datasets",
    "/datasets/new",
    "/evalsets",
    "/evalsets/new",
    "/evaluations",
    "/evaluations/new",
    "/leaderboard",
    "/experiments",
    "/baselines",
    "/models",
    "/models/new",
    "/chat",
    "/login",
)


def one_trace(prompt: str = "2+3?", answer: str = "5", steps: Sequence[str] = ("2+3=5",), **meta: object) -> str:
    made = tuple(Step(index, "compute", text) for index, text in enumerate(steps))
    return traces.add_traces([Trace("1.0", prompt, answer, made, meta)]).heads[0].id


def record(home: Path, model: str, correct: Sequence[bool], eval_set: str = "sums") -> str:
    """An evaluation of `model` on an eval set with one problem for each verdict; its id."""
    problems = [Problem(f"p-{i}", f"{i} + 1?", str(i + 1), "sums", "easy") for i in range(len(correct))]
    register_evalset(problems, eval_set)
    items = tuple(
        EvalItem(each.id, each.prompt, each.answer, "right" if ok else HOSTILE, Score(ok, "graded"), "sums", "easy")
        for each, ok in zip(problems, correct, strict=True)
    )
    file = home / f"{model.replace(':', '-')}.jsonl"
    home.mkdir(exist_ok=True)
    write_result(EvalResult(model, items, {"seed": 1}), file)
    return evaluations.record_evaluation(home, run_id=None, model=model, eval_set=eval_set, file=file).evaluation_id


def shown(browser: TestClient, address: str, status: int = 200) -> str:
    """The text of a page, its markup checked."""
    answer = browser.get(address)
    assert answer.status_code == status, (address, answer.status_code, answer.text[:2000])
    assert answer.headers["content-type"].startswith("text/html")
    assert not INLINE.search(answer.text), (address, INLINE.search(answer.text))
    return answer.text


def sent(browser: TestClient, address: str, status: int = 303, **fields: object) -> str:
    """Where a form led to, or the page that came back."""
    answer = browser.post(address, content=urlencode(fields, doseq=True), headers={"Content-Type": FORM})
    assert answer.status_code == status, (answer.status_code, answer.text[:2000])
    return answer.headers["location"] if status == 303 else answer.text


FORM = "application/x-www-form-urlencoded"


@pytest.mark.slow
def test_a_page_without_anything_to_show_says_how_to_begin_and_names_its_twin(browser: TestClient) -> None:
    for address in EMPTY_PAGES:
        page = shown(browser, address)
        assert "<h1>" in page
        twin = TWIN.search(page)
        if address != "/leaderboard":
            assert twin, address
            assert browser.get(unescape(twin[1]), headers={"Accept": "application/json"}).status_code == 200


@pytest.mark.slow
def test_every_page_of_a_thing_names_a_twin_that_answers(browser: TestClient, home: Path) -> None:
    ids = generate_duels(count=5, seed=1, style="reasoned").trace_ids
    build_dataset("duels", "v1")
    build_dataset("duels", "v2", limit=3)
    before, after = record(home, "tiny", [False] * 8), record(home, "run:1", [True] * 8)
    addresses = (
        "/traces?q=player&meta.result=win",
        f"/traces/{ids[0]}",
        f"/traces/compare?base={ids[0]}&other={ids[1]}",
        f"/datasets/add?trace_id={ids[0]}",
        "/datasets/duels-v1",
        "/datasets/duels-v1/diff?other=duels-v2",
        "/evalsets/sums",
        f"/evaluations/{before}",
        f"/evaluations/{before}?verdict=wrong",
        f"/evaluations/compare?before={before}&after={after}",
        "/leaderboard?eval_set=sums",
    )
    for address in addresses:
        twin = TWIN.search(shown(browser, address))
        assert twin, address
        answer = browser.get(unescape(twin[1]), headers={"Accept": "application/json"})
        assert answer.status_code == 200, (twin[1], answer.text[:500])
        assert answer.headers["content-type"] == "application/json"


def test_what_is_not_there_is_a_page_that_says_so(browser: TestClient) -> None:
    unknown = "00000000-0000-8000-8000-000000000000"
    for address in (
        f"/traces/{unknown}",
        "/datasets/none",
        "/evalsets/none",
        f"/evaluations/{unknown}",
        f"/models/{unknown}",
        "/leaderboard?eval_set=none",
        f"/baselines/none/check?evaluation_id={unknown}",
        f"/datasets/add?trace_id={unknown}",
    ):
        assert "not found" in shown(browser, address, 404).lower(), address
    assert "422" in shown(browser, "/traces/no-uuid", 422)


def test_the_browser_finds_by_words_and_facets_and_shows_what_is_in_force(browser: TestClient) -> None:
    one_trace("apples and pears", grade=3, source="book")
    one_trace("only pears", grade=4, source="book")
    page = shown(browser, "/traces?q=pears&meta.grade=3&source=book")
    assert "apples and pears" in page
    assert "only pears" not in page
    assert "words: pears" in page
    assert "grade = 3" in page
    assert "source = book" in page
    assert 'href="/traces?q=pears&amp;source=book"' in page, "a chip leads to the search without it"
    everything = shown(browser, "/traces")
    assert "only pears" in everything
    assert '<a href="/traces?meta.grade=4">' in everything, "a facet leads to its traces"
    assert "No trace matches" in shown(browser, "/traces?q=plums")


def test_the_form_s_field_and_value_become_part_of_the_address(browser: TestClient) -> None:
    answer = browser.get("/traces?q=&key=task.grade&value=3&source=book")
    assert (answer.status_code, answer.headers["location"]) == (303, "/traces?source=book&meta.task.grade=3")
    assert browser.get("/traces?key=source&value=web").headers["location"] == "/traces?source=web"


@pytest.mark.slow
def test_the_pages_of_a_search_show_every_trace_once(browser: TestClient) -> None:
    for number in range(45):
        one_trace(f"prompt {number:02} here")
    seen, address = [], "/traces?q=here"
    while True:
        page = shown(browser, address)
        seen += re.findall(r"prompt (\d\d) here", page)
        following = re.search(r'<a href="([^"]+)" rel="next">', page)
        if not following:
            break
        address = unescape(following[1])
    assert seen == [f"{number:02}" for number in reversed(range(45))]


def test_a_trace_is_shown_as_a_conversation_with_texts_escaped(browser: TestClient) -> None:
    trace_id = one_trace(HOSTILE, HOSTILE, [HOSTILE], **{HOSTILE: HOSTILE, "nested": {"a": [1, "b"]}})
    for address in (f"/traces/{trace_id}", "/traces"):
        page = shown(browser, address)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;" in page
    page = shown(browser, f"/traces/{trace_id}")
    assert "nested.a" in page
    assert 'href="/traces?meta.nested.a=b"' in page


def test_a_long_trace_is_shown_in_part_until_asked(browser: TestClient) -> None:
    trace_id = one_trace(steps=[f"step number {index};" for index in range(150)])
    part, whole = shown(browser, f"/traces/{trace_id}"), shown(browser, f"/traces/{trace_id}?steps=all")
    assert "step number 99;" in part
    assert "step number 100;" not in part
    assert "step number 149;" in whole


@pytest.mark.slow
def test_a_trace_by_hand_is_stored_or_comes_back_with_what_is_wrong(browser: TestClient) -> None:
    fields: dict[str, Any] = {
        "prompt": "1+1?",
        "steps": "one\n\ntwo\nlines",
        "final_answer": "2",
        "meta": '{"grade": 1}',
    }
    stored = traces.get_trace(sent(browser, "/traces/new", **fields).rpartition("/")[2]).trace
    assert [step.content for step in stored.steps] == ["one", "two\nlines"]
    assert stored.meta == {"grade": 1}
    again = sent(browser, "/traces/new", 422, **{**fields, "meta": "{"})
    assert 'role="alert"' in again
    assert "one\n\ntwo\nlines" in unescape(again), "nothing typed is lost"


def test_scoring_comparing_and_deleting_a_trace(browser: TestClient) -> None:
    first, second = one_trace("a?"), one_trace("b?")
    sent(browser, f"/traces/{first}/score", criteria="baseline")
    assert "<dt>baseline</dt>" in shown(browser, f"/traces/{first}")
    assert "<dt>baseline</dt>" not in shown(browser, f"/traces/{second}")
    both = sent(browser, "/traces/chosen", action="compare", trace_id=[first, second])
    assert "a?" in shown(browser, both)
    assert "b?" in shown(browser, both)
    assert "tick two" in sent(browser, "/traces/chosen", 422, action="compare", trace_id=first)
    sent(browser, f"/traces/{first}/delete")
    shown(browser, f"/traces/{first}", 404)


def test_duels_are_generated_by_the_form(browser: TestClient) -> None:
    page = sent(browser, "/duels", 200, count=12, seed=42, style="legacy")
    assert "12 duels are stored" in page
    assert "TS" in page
    assert len(traces.list_traces(limit=50, filters={"game": "high_card_duel"}).items) == 12
    assert "must be 1 to" in sent(browser, "/duels", 422, count=0, seed=42)


@pytest.mark.slow
def test_a_dataset_is_built_by_the_form_and_other_content_is_refused(browser: TestClient) -> None:
    generate_duels(count=30, seed=1, style="reasoned")
    fields: dict[str, Any] = {"dataset_name": "duels", "dataset_version": "v1", "filters": "source=ungar\nseed = 5"}
    assert sent(browser, "/datasets/new", **fields) == "/datasets/duels-v1"
    assert open_dataset("duels-v1").manifest.filters == {"source": "ungar", "seed": 5}
    assert sent(browser, "/datasets/new", **fields) == "/datasets/duels-v1", "the same content is the same build"
    other: dict[str, Any] = {**fields, "filters": "source=ungar"}
    assert "build it as a new version" in sent(browser, "/datasets/new", 409, **other)
    assert "KEY=VALUE" in sent(browser, "/datasets/new", 422, **{**fields, "filters": "source"})
    assert "needs a seed" in sent(browser, "/datasets/new", 422, **{**fields, "selection_strategy": "random"})


def test_the_form_takes_the_filters_of_the_browser(browser: TestClient) -> None:
    one_trace("x?", game="go", task={"grade": 3})
    browsed = shown(browser, "/traces?game=go&meta.task.grade=3")
    address = re.search(r'href="(/datasets/new[^"]+)">Build a dataset from these', browsed)
    assert address
    assert "game=go\ntask.grade=3</textarea>" in shown(browser, unescape(address[1]))


def test_chosen_traces_become_a_new_version_and_the_old_one_stays(browser: TestClient) -> None:
    generate_duels(count=10, seed=1, style="reasoned")
    build_dataset("duels", "v1")
    added = one_trace("a new question?")
    form = sent(browser, "/traces/chosen", action="add", trace_id=added)
    assert "a new question?" in shown(browser, form)
    led = sent(browser, "/datasets/add", trace_id=added, parent="duels-v1", dataset_version="v2")
    assert led == "/datasets/duels-v2"
    old, new = open_dataset("duels-v1").manifest, open_dataset("duels-v2").manifest
    assert new.trace_ids == (*old.trace_ids, added)
    assert new.origin.parent_dataset_id == "duels-v1"
    assert new.selection_strategy == "chosen"
    again = sent(browser, "/datasets/add", 409, trace_id=added, parent="duels-v1", dataset_version="v1")
    assert "other content" in again
    alone = sent(browser, "/datasets/add", trace_id=added, dataset_name="mine", dataset_version="v1")
    assert open_dataset(alone.rpartition("/")[2]).manifest.trace_ids == (added,)


@pytest.mark.slow
def test_a_dataset_tells_its_rows_lengths_and_what_was_left_out(browser: TestClient) -> None:
    one_trace("the same?", seed=1)
    one_trace("The  same?", seed=2)
    for number in range(25):
        one_trace(f"question {number}: what is {number} * 7?", str(number * 7))
    build_dataset("mixed", "v1")
    page = shown(browser, "/datasets/mixed-v1")
    assert "<dt>Exact duplicates</dt><dd>1</dd>" in page
    assert "unchecked" in page
    assert "<rect" in page
    assert "question 24" in page
    assert "question 0:" not in page
    register_evalset([Problem("a", "question 3: what is 3 * 7?", "21")], "test")
    assert "1 rows show their problems" in shown(browser, "/datasets/mixed-v1"), "an eval set registered since is told"


@pytest.mark.slow
def test_a_diff_shows_changed_words_in_place(browser: TestClient) -> None:
    one_trace("2+2?", "five", ["so it is five"])
    build_dataset("a", "v1")
    for found in traces.list_traces().items:
        traces.delete_trace(found.id)
    one_trace("2+2?", "four", ["so it is four"])
    one_trace("3+3?", "six")
    build_dataset("a", "v2")
    page = shown(browser, "/datasets/a-v1/diff?other=a-v2")
    assert "1 rows added, 0 removed, 1 changed" in page
    assert "so it is <del>five</del><ins>four</ins>" in page


def test_an_eval_set_is_registered_from_a_task_or_from_lines(browser: TestClient) -> None:
    led = sent(browser, "/evalsets/new", name="duels test", task="high_card_duel:reasoned", count=5, seed=9)
    assert led == "/evalsets/duels%20test"
    assert "5 problems" in shown(browser, led)
    line = '{"id": "a", "prompt": "<b>1+1?", "expected_answer": "2"}'
    page = shown(browser, sent(browser, "/evalsets/new", name="by hand", lines=line))
    assert "&lt;b&gt;1+1?" in page
    assert "line 2: " in sent(browser, "/evalsets/new", 422, name="bad", lines=line + "\n{")
    other = line.replace("1+1", "1+2")
    assert "stands for other problems" in sent(browser, "/evalsets/new", 409, name="by hand", lines=other)


@pytest.mark.slow
def test_an_evaluation_begins_as_a_run(browser: TestClient) -> None:
    register_evalset([Problem("a", "1+1?", "2")], "sums")
    led = sent(browser, "/evaluations/new", model="tiny", eval_set="sums", max_tokens=8, temperature=0, seed=1)
    (run,) = list_runs().items
    assert led == f"/runs/{run.run_id}"
    assert (run.kind, run.eval_set) == ("evaluation", "sums")
    assert "max_tokens" in sent(browser, "/evaluations/new", 422, model="tiny", eval_set="sums", max_tokens=-1)


@pytest.mark.slow
def test_before_and_after_say_what_flipped_and_whether_it_counts(browser: TestClient, home: Path) -> None:
    before, after = record(home, "tiny", [False] * 10), record(home, "run:1", [True] * 9 + [False])
    page = shown(browser, f"/evaluations/compare?before={before}&after={after}")
    assert "The model improved: 0.0 % → 90.0 % correct" in page
    assert page.count('class="sq fixed" href="#fixed-') == 9
    assert 'id="fixed-9"' in page
    assert "<b>9</b>▲ fixed" in page
    assert "<b>1</b>both wrong" in page
    few = shown(browser, f"/evaluations/compare?before={after}&after={after}")
    assert "No significant change" in few


def test_answers_are_listed_by_verdict(browser: TestClient, home: Path) -> None:
    stored = record(home, "tiny", [True, False, True])
    every, wrong = shown(browser, f"/evaluations/{stored}"), shown(browser, f"/evaluations/{stored}?verdict=wrong")
    assert every.count("<details") == 3
    assert wrong.count("<details") == 1
    assert "66.7 %" in every
    assert "&lt;script&gt;alert" in every


def test_the_leaderboard_does_not_tell_apart_what_is_not(browser: TestClient, home: Path) -> None:
    record(home, "tiny", [False] * 12)
    record(home, "run:best", [True] * 12)
    record(home, "run:near", [True] * 11 + [False])
    page = shown(browser, "/leaderboard")
    places = [page.index(name) for name in ("run best", "run near", ">tiny<")]
    assert places == sorted(places)
    assert page.count('regressed">behind<') == 1
    assert page.count("not told apart</span>") == 1


def test_a_baseline_is_set_checked_and_forgotten(browser: TestClient, home: Path) -> None:
    good, bad = record(home, "tiny", [True] * 12), record(home, "run:worse", [False] * 12)
    assert sent(browser, "/baselines", action="set", name="prod", evaluation_id=good) == "/baselines"
    assert "prod" in shown(browser, "/baselines")
    led = sent(browser, "/baselines", action="check", name="prod", evaluation_id=bad)
    assert "The model falls behind" in shown(browser, led)
    assert "does not fall behind" in shown(browser, led.replace(bad, good))
    sent(browser, "/baselines/prod/delete")
    assert baselines.list_baselines().items == []


@pytest.mark.slow
def test_a_run_without_a_model_is_not_promoted(browser: TestClient) -> None:
    sent(browser, "/models/new", 404, run="none", name="tutor")
    assert "must have 1 to" in sent(browser, "/models/new", 422, run="none", name="a/b")


@pytest.mark.slow
def test_chat_needs_a_model_and_a_prompt(browser: TestClient) -> None:
    assert "choose a model" in sent(browser, "/chat", 422, model="tiny", prompt=" ")
    assert "asks for 1 to" in sent(browser, "/chat", 422, model="tiny", prompt="hello", max_tokens=100_000)
    refused = sent(browser, "/chat", 200, model=["/etc/passwd", "run:none"], prompt="hello")
    assert refused.count('<p class="warn">') == 2, "a model that cannot answer says why, beside the others"


@pytest.mark.slow
@pytest.mark.parametrize("address", ["/traces/new", "/datasets/new", "/evalsets/new", "/baselines", "/models/new"])
def test_a_form_on_another_site_changes_nothing(browser: TestClient, address: str) -> None:
    fields = urlencode({"prompt": "p", "steps": "s", "final_answer": "a", "name": "n", "lines": "{}"})
    headers = {"Content-Type": FORM, "Origin": "http://elsewhere.example"}
    assert browser.post(address, content=fields, headers=headers).status_code == 403
    own = browser.post(address, content=fields, headers={"Content-Type": FORM})
    assert own.status_code in (303, 404, 422), "control: the same form from here is read"


def test_without_a_token_a_page_leads_to_the_login_and_back(home: Path) -> None:
    app = create_site(ServiceSettings(home=home, run_slots=0, require_token=True))
    headers = {"Accept": "text/html", "Origin": "http://localhost:8000"}
    with TestClient(app, base_url="http://localhost:8000", headers=headers, follow_redirects=False) as closed:
        answer = closed.get("/datasets?name=a")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fdatasets%3Fname%3Da")
        page = shown(closed, answer.headers["location"])
        assert 'type="password"' in page
        assert 'value="/datasets?name=a"' in page
        assert 'value="/"' in shown(closed, "/login?next=//elsewhere.example"), "it leads nowhere else"
        refused = sent(closed, "/login", 401, token="wrong", next="/datasets")
        assert "unknown, expired or revoked" in refused
        assert 'type="password"' in refused, "another token can be tried at once"
