"""What a GRPO run's model said: a step's rewards, its groups by how much they teach, and one group side by side."""

from typing import Literal

from fastapi import Request
from fastapi.responses import HTMLResponse

from tracetune.api.strict import Router
from tracetune.app import jobs
from tracetune.app.rollout_views import Group, completions, reward_bins, summarize
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query

router = Router(tags=["pages"])
Sort = Literal["spread", "mean", "drawn"]


@router.get("/runs/{run_id}/rollouts", **page_rule("read", 404))
def rollouts(
    run_id: str,
    request: Request,
    *,
    step: int | None = None,
    sort: Sort = "spread",
    problem: str = "",
    low: float | None = None,
    high: float | None = None,
) -> HTMLResponse:
    """One step; `low` and `high` keep the groups with a reward between them, `problem` is the group that is open."""
    folder = request.app.state.settings.home
    view = jobs.get_run(run_id, folder)
    found = jobs.run_rollouts(run_id, step, folder)
    every = summarize(found.groups, sort)
    groups = [group for group in every if low is None or high is None or _has_reward(group, low, high)]
    chosen = next((group for group in groups if group.problem_id == problem), groups[0] if groups else None)
    place = found.steps.index(found.step)
    kept = {"sort": sort if sort != "spread" else None, "low": low, "high": high}
    here = f"/runs/{run_id}/rollouts"
    return render(
        request,
        "rollouts.html",
        twin=f"/api/runs/{run_id}/rollouts?step={found.step}",
        run=view,
        step=found.step,
        steps=found.steps,
        before=here + query({"step": found.steps[place - 1], **kept}) if place else None,
        after=here + query({"step": found.steps[place + 1], **kept}) if place + 1 < len(found.steps) else None,
        sort=sort,
        bins=[
            (bin, here + query({"step": found.step, **kept, "low": bin.low, "high": bin.high}))
            for bin in reward_bins(every)
        ],
        low=low,
        high=high,
        groups=[(group, here + query({"step": found.step, **kept, "problem": group.problem_id})) for group in groups],
        num_groups=len(every),
        unfiltered=here + query({"step": found.step, "sort": kept["sort"]}),
        sorts=[
            (name, here + query({"step": found.step, **kept, "sort": name})) for name in ("spread", "mean", "drawn")
        ],
        chosen=chosen,
        completions=completions(chosen, view, folder) if chosen else [],
    )


def _has_reward(group: Group, low: float, high: float) -> bool:
    return any(row["reward"] is not None and low <= row["reward"] <= high for row in group.rows)
