"""What a run by a Tinker service costs: an estimate before it begins, running totals while it goes on."""

from collections.abc import Mapping
from typing import Any

from tracetune.app.tinker_prices import AS_OF, CACHED_SHARE, Tokens, bill
from tracetune.app.workload import policy_tokens
from tracetune.backends.tinker_service import HOSTED, TinkerService
from tracetune.config.distill_policy import policy_config
from tracetune.config.distill_schema import DistillConfig
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import SftConfig
from tracetune.train.steps import StepPlan


def supervised_tokens(config: SftConfig, plan: StepPlan, num_steps: int, eval_tokens: int) -> Tokens:
    """What a run hands over, its evaluations too, each of which reads `eval_tokens`."""
    every = config.training.eval_every
    # The last step is evaluated whatever the cadence.
    num_evals = (num_steps // every if every else 0) + (1 if not every or num_steps % every else 0)
    per_epoch = sum(len(plan.examples[index].tokens) - 1 for index in plan.drawn(0))
    tokens = trained_tokens(config, round(per_epoch * num_steps / len(plan.epoch(0))))
    return tokens._replace(prefill=tokens.prefill + eval_tokens * num_evals)


def trained_tokens(config: SftConfig, count: int) -> Tokens:
    """Training on `count` tokens; what a teacher said of them is first compared with what the student says."""
    is_judged = isinstance(config, DistillConfig) and config.method == "logit"
    return Tokens(count if is_judged else 0, 0, count)


def estimate(model: str, url: str, tokens: Tokens) -> str:
    """One line about the cost of a run of `model` by the service at `url`."""
    counts = f"{tokens.prefill:,} tokens to read, {tokens.sample:,} to sample, {tokens.train:,} to train on"
    if url != HOSTED:
        return f"{model} is trained by the service at {url}, whose prices are not known: at most {counts}"
    dollars = bill(model, tokens)
    if dollars is None:
        return f"{model} is trained by Tinker, at a price that is not known here: at most {counts}"
    return f"{model} is trained by Tinker for ${dollars:,.2f} at most, at prices of {AS_OF}: {counts}"


def policy_estimate(service: TinkerService, config: GrpoConfig, num_steps: int) -> str:
    """The same of a GRPO run, at the lengths that its settings allow."""
    return estimate(service.offer.name, service.where, Tokens(*policy_tokens(config, num_steps)))


def student_tokens(config: DistillConfig, num_steps: int) -> Tokens:
    """What a student that is taught on its own answers hands over, at the lengths that its settings allow."""
    tokens = Tokens(*policy_tokens(policy_config(config), num_steps))
    read = tokens.train if config.teacher.top_k > 1 else 0
    return tokens._replace(prefill=tokens.prefill + read)


def spent(service: TinkerService | None) -> dict[str, Any]:
    """Fields of a metrics line: tokens since the run began by kind, and dollars where the price is known."""
    if service is None:
        return {}
    usage = service.usage
    row = {f"tinker_tokens_{kind}": count for kind, count in usage._asdict().items()}
    fresh = usage.prefill + round(CACHED_SHARE * usage.cached)
    dollars = bill(service.offer.name, Tokens(fresh, usage.sample, usage.train)) if service.where == HOSTED else None
    return row if dollars is None else row | {"tinker_cost_usd": round(dollars, 4)}


def told_cost(row: Mapping[str, Any]) -> str:
    """The end of a line about a step: what was spent so far, nothing where nobody knows."""
    return f" · ${row['tinker_cost_usd']:,.2f} so far" if "tinker_cost_usd" in row else ""
