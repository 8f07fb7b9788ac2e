"""What a GRPO run trains and is validated on: problems from their source, as prompts that fit, and their facts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tracetune.config.grpo_schema import GrpoConfig, PromptSettings
from tracetune.core.ids import content_hash
from tracetune.core.values import Message, Problem
from tracetune.data.render import render_prompt
from tracetune.models.tokenizer import Tokenizer
from tracetune.tasks.problem_sources import load_problems, source_of
from tracetune.tasks.problem_split import LoadedProblems, fit_prompts, problems_hash
from tracetune.train.curriculum import Curriculum, make_curriculum
from tracetune.train.prompts import Prompt

Say = Callable[[str], None]


def _silent(told: str) -> None:
    del told


class PromptSets(NamedTuple):
    """Prompts to train on and to validate with; `facts` go into the manifest, hashes first."""

    train: tuple[Prompt, ...]
    validation: tuple[Prompt, ...]
    facts: dict[str, Any]
    validation_facts: dict[str, Any] | None

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(prompt.tokens) for prompt in (*self.train, *self.validation))


def read_problems(config: GrpoConfig) -> LoadedProblems:
    """The problems that a configuration asks for. Raises what the source raises."""
    training, size = config.training, config.training.micro_batch_size
    return load_problems(
        source_of(
            config.data,
            num_train=None if training.num_batches is None else training.num_batches * size,
            num_test=training.num_test_batches * size,
            seed=config.seed,
        )
    )


def make_prompts(config: GrpoConfig, loaded: LoadedProblems, tokenizer: Tokenizer, say: Say = _silent) -> PromptSets:
    """Every problem as the model is shown it; those over `max_prompt_length` are left out, and counted to `say`."""
    for reason, count in loaded.left_out.items():
        say(f"left out {count} problems: {reason}")

    def fitting(problems: Sequence[Problem], kind: str) -> tuple[Prompt, ...]:
        limit = config.generation.max_prompt_length
        made = {problem.prompt: make_prompt(problem, config.prompt, tokenizer) for problem in problems}
        kept = fit_prompts(problems, lambda question: made[question].tokens, limit)
        if kept.num_too_long:
            say(f"left out {kept.num_too_long} {kind} problems: prompt over {limit} tokens (max_prompt_length)")
        return tuple(made[problem.prompt] for problem in kept.problems)

    train, validation = fitting(loaded.train, "training"), fitting(loaded.test, "validation")
    return PromptSets(train, validation, _facts(train), _facts(validation) if validation else None)


def curriculum_of(config: GrpoConfig, prompts: PromptSets) -> Curriculum | None:
    """The stages of the prompts to train on; None where the configuration asks for none. Raises what they raise."""
    settings = config.data.curriculum
    return None if settings.by is None else make_curriculum(prompts.train, settings, seed=config.seed)


def train_facts(prompts: PromptSets, curriculum: Curriculum | None) -> dict[str, Any]:
    """What the manifest says of the problems to train on; with stages the hash covers who is in which."""
    if curriculum is None:
        return prompts.facts
    stages = [[stage.name, problems_hash(prompt.problem for prompt in stage.prompts)] for stage in curriculum.stages]
    sizes = {stage.name: len(stage.prompts) for stage in curriculum.stages}
    return {**prompts.facts, "rows_hash": content_hash([prompts.facts["rows_hash"], stages]), "stages": sizes}


def make_prompt(problem: Problem, settings: PromptSettings, tokenizer: Tokenizer) -> Prompt:
    """One user turn with the instruction before the question, ready to be answered."""
    text = f"{settings.instruction}\n\n{problem.prompt}" if settings.instruction else problem.prompt
    system = [Message("system", settings.system)] if settings.system else []
    return Prompt(problem, text, tuple(render_prompt([*system, Message("user", text)], tokenizer)))


def _facts(prompts: Sequence[Prompt]) -> dict[str, Any]:
    return {"rows_hash": problems_hash(prompt.problem for prompt in prompts), "rows": len(prompts)}
