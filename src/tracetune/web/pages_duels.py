"""High Card Duel: the form that generates episodes as traces."""

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from tracetune.api.strict import Router
from tracetune.api.ungar import MAX_COUNT, MAX_SEED
from tracetune.app.duels import generate_duels
from tracetune.core.errors import InputError
from tracetune.web.forms import Fields, Form
from tracetune.web.render import page_rule, render

router = Router(tags=["pages"])

DEFAULTS = {"count": "200", "seed": "42", "style": "reasoned"}


@router.get("/duels", **page_rule("read"))
def duel_form(request: Request) -> HTMLResponse:
    """How many, by which seed, in which style."""
    return _page(request, DEFAULTS)


@router.post("/duels", **page_rule("write"))
def generate(request: Request, form: Form) -> Any:
    """Store the episodes and show the first."""
    given = {name: form.one(name, value) for name, value in DEFAULTS.items()}
    try:
        made = generate_duels(**_asked(form), home=request.app.state.settings.home)
    except InputError as error:
        return _page(request, given, problem=str(error), status=422)
    return _page(request, {**given, "seed": str(made.seed)}, made=made)


def _asked(form: Fields) -> dict[str, Any]:
    count, seed = form.number("count") or 0, form.number("seed")
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"how many: must be 1 to {MAX_COUNT}, got {count}")
    if seed is not None and abs(seed) > MAX_SEED - MAX_COUNT:
        raise InputError(f"seed: is too large, got {seed}")
    return {"count": count, "seed": seed, "style": "legacy" if form.one("style") == "legacy" else "reasoned"}


def _page(
    request: Request, form: dict[str, str], *, made: Any = None, problem: str = "", status: int = 200
) -> HTMLResponse:
    values = {"form": form, "problem": problem, "made": made}
    return render(request, "duels.html", twin="/api/ungar/status", status=status, **values)
