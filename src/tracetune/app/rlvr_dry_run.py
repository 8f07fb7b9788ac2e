"""A rehearsal of reinforcement learning: all is checked, some prompts are shown as the model is, nothing is written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tracetune.app.backend_choice import check_backend_arch, require_backend
from tracetune.app.blueprint import blueprint
from tracetune.app.datasets import TokenView
from tracetune.app.dry_run import SHOWN_ROWS, DryRun
from tracetune.app.grpo_problems import PromptSets, curriculum_of, make_prompts, read_problems, train_facts
from tracetune.app.kept_session import check_same
from tracetune.app.plan import facts, plan
from tracetune.app.runs import RunFolder, read_manifest
from tracetune.config.grpo import deciding_mapping, to_yaml
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.grpo_steps import num_grpo_steps
from tracetune.config.schema import OutputSettings
from tracetune.core.labels import grade_order, labels_of
from tracetune.core.values import Example
from tracetune.data.show import token_spans
from tracetune.models.served import served_model
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer
from tracetune.tasks.reward_set import load_rewards
from tracetune.train.prompts import Prompt


def rehearse_rlvr(config: GrpoConfig, output: Path) -> DryRun:
    """Check what a run would check and estimate what it would cost. Raises what it would raise."""
    require_backend(config)
    loaded = read_problems(config)
    with load_rewards(config.rewards):
        tokenizer = _tokenizer(config)
    notes: list[str] = []
    prompts = make_prompts(config, loaded, tokenizer, notes.append)
    curriculum = curriculum_of(config, prompts)
    num_steps = num_grpo_steps(config, num_problems=len(prompts.train))
    folder = RunFolder(output, OutputSettings())
    manifest = read_manifest(folder.manifest)
    if manifest is not None:
        data = {"data": train_facts(prompts, curriculum), "eval_data": prompts.validation_facts}
        check_same(folder, manifest, {"training_config": deciding_mapping(config), **data})
    told = {
        "problems": _problems_told(prompts),
        **({} if curriculum is None else {"stages": curriculum.told()}),
        "notes": "; ".join(notes) or "none",
        "rewards": ", ".join(f"{reward.function} × {reward.weight:g}" for reward in config.rewards),
        **_cost(config, prompts, num_steps),
        "run folder": f"{output} ({'new' if manifest is None else manifest['status']}); nothing was written",
    }
    first = prompts.train if curriculum is None else curriculum.stages[0].prompts
    return DryRun(to_yaml(config), told, [_view(prompt, tokenizer) for prompt in first[:SHOWN_ROWS]])


def _tokenizer(config: GrpoConfig) -> Tokenizer:
    if config.backend == "tinker":
        return served_model(config.model.name).tokenizer
    found = blueprint(config.model.name)
    check_backend_arch(config, found.arch)
    return tiny_tokenizer() if found.folder is None else Tokenizer.from_folder(found.folder)


def _cost(config: GrpoConfig, prompts: PromptSets, num_steps: int) -> dict[str, str]:
    """Memory and time here, or dollars elsewhere, of so many steps."""
    known = replace(config, training=replace(config.training, num_steps=num_steps))
    longest = max(len(prompt.tokens) for prompt in (*prompts.train, *prompts.validation))
    return facts(plan(known, longest=longest))


def _problems_told(prompts: PromptSets) -> str:
    by_grade = Counter(labels_of(prompt.problem.meta).grade for prompt in prompts.train)
    named = grade_order(grade for grade in by_grade if grade is not None)
    graded = f", by grade {', '.join(f'{grade}: {by_grade[grade]}' for grade in named)}" if named else ""
    return f"{len(prompts.train):,} to train on{graded}, {len(prompts.validation):,} to validate with"


def _view(prompt: Prompt, tokenizer: Tokenizer) -> TokenView:
    """A prompt as the model is shown it; nothing of it is trained."""
    tokens: Sequence[int] = prompt.tokens
    example = Example(tuple(tokens), (0,) * len(tokens), f"{prompt.problem.id}, answer {prompt.problem.answer}")
    return TokenView(example.trace_id, token_spans(example, tokenizer))
