"""What differs between two datasets: rows added, removed and changed, changed text inline, lengths side by side."""

import re
from difflib import SequenceMatcher
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from tracetune.api.strict import Router
from tracetune.app.datasets import RowDiff, diff_datasets, open_dataset
from tracetune.core.trace import StoredTrace
from tracetune.web.pages_datasets import lengths
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query, segment

router = Router(tags=["pages"])

NUM_EXAMPLES = 20
# Comparing two texts costs the product of their words.
MAX_WORDS = 1_500


@router.get("/datasets/{key}/diff", **page_rule("read", 404))
def diff_page(request: Request, key: str, other: str) -> HTMLResponse:
    """From `key` to `other`."""
    home = request.app.state.settings.home
    found = diff_datasets(key, other, num_examples=NUM_EXAMPLES, home=home)
    diff, examples = found.diff, found.examples
    before, after = open_dataset(key, home), open_dataset(other, home)
    return render(
        request,
        "dataset_diff.html",
        twin=f"/api/datasets/{segment(key)}/diff" + query({"other": other}),
        before=found.before,
        after=found.after,
        diff=diff,
        same=not (diff.added or diff.removed or diff.changed),
        pieces=_pieces(found),
        changes=[_change(examples[change.before], examples[change.after]) for change in diff.changed[:NUM_EXAMPLES]],
        added=[examples[trace_id] for trace_id in diff.added[:NUM_EXAMPLES]],
        removed=[examples[trace_id] for trace_id in diff.removed[:NUM_EXAMPLES]],
        lengths_before=lengths(before, after),
        lengths_after=lengths(after, before),
    )


def _pieces(found: RowDiff) -> list[dict[str, Any]]:
    """The shares of one bar, 100 wide."""
    diff = found.diff
    counts = {
        "same": diff.num_unchanged,
        "changed": len(diff.changed),
        "added": len(diff.added),
        "removed": len(diff.removed),
    }
    total, x, pieces = sum(counts.values()) or 1, 0.0, []
    for kind, count in counts.items():
        width = 100 * count / total
        pieces.append({"kind": kind, "x": round(x, 3), "width": round(width, 3), "total": count})
        x += width
    return pieces


def _change(before: StoredTrace, after: StoredTrace) -> dict[str, Any]:
    pieces = changed_words(_text(before), _text(after))
    return {"prompt": after.trace.prompt, "before": before.id, "after": after.id, "pieces": pieces}


def _text(stored: StoredTrace) -> str:
    steps = [f"{number}. {step.content}" for number, step in enumerate(stored.trace.steps, 1)]
    return "\n".join([*steps, f"Answer: {stored.trace.final_answer}"])


def changed_words(before: str, after: str) -> list[tuple[str, str]]:
    """The texts as one, in pieces that are `same`, `old` or `new`.

    >>> changed_words("so it is 4", "so it is 5")
    [('same', 'so it is '), ('old', '4'), ('new', '5')]
    """
    old, new = _words(before), _words(after)
    if len(old) > MAX_WORDS or len(new) > MAX_WORDS:
        return [("old", before), ("new", after)]
    pieces: list[tuple[str, str]] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("same", "".join(old[a:b])))
            continue
        pieces += [("old", "".join(old[a:b]))] if b > a else []
        pieces += [("new", "".join(new[c:d]))] if d > c else []
    return pieces


def _words(text: str) -> list[str]:
    """Words and the white space between them."""
    return re.findall(r"\s+|\S+", text)
