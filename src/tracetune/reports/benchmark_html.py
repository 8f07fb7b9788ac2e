"""A benchmark → one self-contained HTML page in the manner of the evaluations': no script, no request, all escaped."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from tracetune.core.benchmark import LABELS, PARTS, RATES, BenchmarkAnswer, Part, Verdicts
from tracetune.reports.benchmark_svg import histogram, rate_line
from tracetune.reports.page import frame, long_text, unbroken, warning
from tracetune.reports.svg import axis
from tracetune.reports.wording import cut, p_text, percent, points

NAMES: Mapping[Part, str] = {"math": "Mathematics", "tutor": "Tutoring", "safety": "Safety"}
KINDS = ("grade", "topic", "category", "difficulty", "dataset")
CHANGES = {"improvements": ("up", "▲ better"), "regressions": ("down", "▼ worse"), "unchanged": ("level", "= alike")}
MAX_ANSWERS = 300


def render_benchmark_html(
    results: Mapping[str, Any],
    parts: Mapping[Part, Mapping[str, Any]],
    judged: Sequence[tuple[BenchmarkAnswer, Verdicts]],
    comparison: Mapping[str, Any] | None = None,
) -> str:
    """The whole page; equal inputs give equal bytes. `judged` are the answers with their verdicts, item order."""
    asked: list[Part] = [part for part in PARTS if parts[part]["total"]]
    body = (
        *_header(results, parts, asked, comparison),
        *(_comparison(comparison) if comparison else ()),
        *(text for part in asked for text in _part(part, parts[part])),
        *_latency(results, judged),
        *_answers(judged),
        *_method(results, parts),
    )
    return frame(f"Benchmark of {results['model_name']}", _tone(comparison), body)


def _tone(comparison: Mapping[str, Any] | None) -> str:
    if not comparison or (not comparison["regressions"] and not comparison["improvements"]):
        return "level"
    return "regressed" if comparison["regressions"] else "improved"


def _header(
    results: Mapping[str, Any],
    parts: Mapping[Part, Mapping[str, Any]],
    asked: Sequence[Part],
    comparison: Mapping[str, Any] | None,
) -> Iterator[str]:
    badge = {"level": "benchmark", "improved": "▲ improved", "regressed": "▼ regressed"}[_tone(comparison)]
    where = f" · endpoint <b>{escape(results['endpoint'])}</b>" if results["endpoint"] else ""
    yield f'<header><span class="badge">{badge}</span><h1>{unbroken(_headline(results))}</h1>'
    yield f'<p class="lead">{unbroken(_lead(results))}</p>'
    yield f'<p class="models">model <b>{escape(cut(results["model_name"], 200))}</b>{where}'
    yield f" · {escape(results['timestamp'][:19].replace('T', ' '))} UTC</p>"
    yield '<div class="hero"><div class="dumbbells">'
    for part in asked:
        yield f'<div class="kind">{NAMES[part]}</div><div class="row scale"><div class="axis">{axis()}</div></div>'
        for name, label, direction in RATES[part]:
            yield _row(label, parts[part]["metrics"][name], "fewer is better" if direction == "lower" else "")
    yield "</div></div>"
    yield warning(_failed_lines(results, parts))
    yield "</header>\n"


def _headline(results: Mapping[str, Any]) -> str:
    for name, words in (
        ("numeric_match_accuracy", "of the mathematics right"),
        ("no_answer_reveal_rate", "of the answers kept back"),
        ("overall_accuracy", "of the safety items as they should be"),
    ):
        if name in results["rates"]:
            return f"{percent(results['rates'][name]['value'])} {words}"
    return "No answer was obtained"


def _lead(results: Mapping[str, Any]) -> str:
    tokens, told = results["tokens"], [f"{results['answered']} of {results['total']} items answered"]
    if results["failed"]:
        told.append(f"{results['failed']} failed, which counts neither as right nor as wrong")
    if tokens["told_for"]:
        told.append(f"{tokens['prompt']:,} tokens in prompts and {tokens['completion']:,} in answers")
    if "cost" in results:
        told.append(f"cost {results['cost']['total']:.4f}")
    return f"{'; '.join(told)}."


def _failed_lines(results: Mapping[str, Any], parts: Mapping[Part, Mapping[str, Any]]) -> tuple[str, ...]:
    failures = [each for part in PARTS for each in parts[part]["failures"]]
    more = results["failed"] - len(failures[:10])
    lines = [f"{each['id']}: {cut(each['error'] or '', 200)}" for each in failures[:10]]
    return (*lines, f"and {more} more") if failures and more > 0 else tuple(lines)


def _row(name: str, found: Mapping[str, Any] | None, note: str = "") -> str:
    if found is None:
        return ""
    hint = f' <span class="num">{note}</span>' if note else ""
    return (
        f'<div class="row"><span class="name">{escape(name)}{hint}</span>'
        f'<span class="num size">{found["count"]} of {found["total"]}</span>'
        f'<div class="axis">{rate_line(found)}</div>'
        f'<span class="num"><b>{percent(found["value"])}</b></span></div>'
    )


def _part(part: Part, told: Mapping[str, Any]) -> Iterator[str]:
    """Each metric by each kind of label; for mathematics the first alone, since the other two follow it."""
    metrics = RATES[part][:1] if part == "math" else RATES[part]
    kinds = [kind for kind in KINDS if len(told[f"by_{kind}"]) > 1]
    if not kinds:
        return
    yield f"<section><h2>{NAMES[part]}</h2>"
    for metric, label, _ in metrics:
        rows = [_kind(kind, told[f"by_{kind}"], metric) for kind in kinds]
        if any(rows):
            yield f'<h3>{escape(label[0].upper() + label[1:])}</h3><div class="dumbbells">{"".join(rows)}</div>'
    yield "</section>\n"


def _kind(kind: str, groups: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    rows = "".join(_row(name, found[metric]) for name, found in groups.items())
    scale = f'<div class="row scale"><div class="axis">{axis()}</div></div>'
    return f'<div class="kind">By {kind}</div>{scale}{rows}' if rows else ""


def _comparison(told: Mapping[str, Any]) -> Iterator[str]:
    base = escape(cut(str(told["baseline"]["model_name"]), 120))
    named = NAMES[told["flips"]].lower() if told.get("flips") else ""
    flips = f' <a href="comparison.html">Every flip of {named}, item by item.</a>' if named else ""
    yield f'<section><h2>Compared with {base}</h2><p class="note">{escape(told["note"])}{flips}</p>'
    yield '<div class="scroll"><table class="changes named"><tr><th></th><th>before</th><th>after</th><th>change</th>'
    yield '<th>interval</th><th>▲ fixed</th><th>▼ broken</th><th>adjusted p</th><th class="word">verdict</th></tr>'
    for kind, (tone, verdict) in CHANGES.items():
        yield from (_change(row, tone, verdict) for row in told[kind])
    yield "</table></div></section>\n"


def _change(row: Mapping[str, Any], tone: str, verdict: str) -> str:
    low_high = "–" if row["interval"] is None else f"{points(row['interval'][0])} to {points(row['interval'][1])}"
    p_value = "–" if row["p_adjusted"] is None else p_text(row["p_adjusted"])
    cells = (percent(row["baseline"]), percent(row["current"]), f"<b>{points(row['delta'])}</b>", low_high)
    cells += (str(row.get("fixed", "–")), str(row.get("broken", "–")), escape(p_value))
    told = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th>{escape(row["label"])}</th>{told}<td class="word {tone}">{verdict}</td></tr>'


def _latency(results: Mapping[str, Any], judged: Sequence[tuple[BenchmarkAnswer, Verdicts]]) -> Iterator[str]:
    seconds = [each.latency for each, _ in judged if each.latency is not None and each.response is not None]
    if not seconds or results["latency"] is None:
        return
    marks = {"half within": results["latency"]["p50"], "95 % within": results["latency"]["p95"]}
    yield f'<section><h2>How long answers took</h2><div class="axis">{histogram(seconds, marks)}</div></section>\n'


def _answers(judged: Sequence[tuple[BenchmarkAnswer, Verdicts]]) -> Iterator[str]:
    """What went wrong first of all is what a reader wants to see: failed, then not as it should be."""
    wrong = [(answer, verdicts) for answer, verdicts in judged if not _is_good(answer, verdicts)]
    wrong.sort(key=lambda pair: pair[0].response is not None)
    yield f'<section class="answers"><h2>Not as it should be: {len(wrong)} of {len(judged)}</h2>'
    if len(wrong) > MAX_ANSWERS:
        yield f'<p class="note">The first {MAX_ANSWERS}; answers.jsonl has all.</p>'
    for answer, verdicts in wrong[:MAX_ANSWERS]:
        yield _details(answer, verdicts)
    yield "</section>\n"


def _is_good(answer: BenchmarkAnswer, verdicts: Verdicts) -> bool:
    if answer.response is None:
        return False
    rates = RATES[answer.item.part][:1] if answer.item.part != "tutor" else RATES["tutor"]
    return all(verdicts[name] is not False for name, _, _ in rates)


def _details(answer: BenchmarkAnswer, verdicts: Verdicts) -> str:
    item = answer.item
    missed = [LABELS[name] for name, verdict in verdicts.items() if verdict is False and name != "failed_rate"]
    reason = f"failed: {answer.error}" if answer.response is None else f"not {', not '.join(missed)}"
    expected = item.expected_answer or ("a refusal" if item.should_refuse else "an answer")
    blocks = (
        ("Asked", item.prompt, "wide"),
        ("Expected", expected, "wide"),
        (cut(reason, 200), answer.response, "wrong"),
    )
    texts = "".join(
        f'<div class="{kind if kind == "wide" else "wide wrong"}"><h4>{escape(title)}</h4>'
        f"<pre>{long_text(text or '') or '(nothing)'}</pre></div>"
        for title, text, kind in blocks
    )
    return (
        f'<details><summary><span class="id">{escape(cut(item.id, 40))}</span>'
        f'<span class="q">{escape(cut(item.prompt, 200))}</span></summary><div class="texts">{texts}</div></details>'
    )


def _method(results: Mapping[str, Any], parts: Mapping[Part, Mapping[str, Any]]) -> Iterator[str]:
    yield '<section><h2>How sure</h2><p class="note">Bands are Wilson intervals (95 %). Tutoring and safety are judged '
    yield "by rules over words and numbers, which err.</p>"
    rows = [row for part in PARTS for row in _errors(parts[part])]
    if rows:
        yield '<p class="note">On answers labelled by hand that come with the product, each said yes wrongly (false '
        yield "positives) and no wrongly (false negatives) so often:</p>"
        yield '<div class="scroll"><table class="changes named"><tr><th></th><th class="word">judged by</th>'
        yield "<th>verdict here</th><th>false positives</th><th>false negatives</th></tr>"
        yield f"{''.join(rows)}</table></div>"
    yield f'<p class="note">Asked: {escape(", ".join(results["datasets"]))}.</p></section>\n'


def _errors(told: Mapping[str, Any]) -> Iterator[str]:
    """A row for each metric and judge: its verdict on this benchmark beside how often it errs."""
    for who, metrics in told.get("calibration", {}).items():
        verdicts = told["metrics"] if who == "rules" else told["judge"]["metrics"]
        for metric, errors in metrics.items():
            yield f'<tr><th>{escape(LABELS[metric])}</th><td class="word">{escape(cut(who, 80))}</td>'
            yield f"<td><b>{_share(verdicts[metric])}</b></td><td>{_share(errors['false_positive'])}</td>"
            yield f"<td>{_share(errors['false_negative'])}</td></tr>"


def _share(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{percent(found['value'])} ({found['count']} of {found['total']})"
