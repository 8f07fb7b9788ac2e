"""A model of this machine as a benchmark's subject: prompts as its own run showed them, greedy answers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tracetune.app.benchmark_files import ANSWERS
from tracetune.app.benchmark_subjects import TUTOR, Asked, Asking, clean, facts_of
from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.evaluate import prompting_of
from tracetune.core.benchmark import BenchmarkAnswer, BenchmarkItem
from tracetune.core.errors import InputError
from tracetune.core.values import Completion, Message
from tracetune.data.render import render_prompt
from tracetune.engine.sampler import Sampling, failure, generate
from tracetune.models.load import load_model
from tracetune.models.model import Model

# Batches between two writes: what a kill costs at most.
BATCHES_AT_ONCE = 2


class LocalModel:
    """A model of this machine, loaded; answers come batch by batch."""

    def __init__(self, name: str, asking: Asking, folder: Path, say: Callable[[str], None]) -> None:
        use_compile_cache()
        self._model = load_model(name)
        # The manifest of the run around a model says how prompts are shown to it.
        self._prompting = prompting_of(name, folder / ANSWERS, say=say)
        self._asking = asking
        facts = {"model_fingerprint": self._model.fingerprint, "batch_size": asking.batch_size, **facts_of(asking)}
        if self._prompting.system_instruction or self._prompting.prompt_template != "default":
            facts |= {"system": self._system(None), "prompt_template": self._prompting.prompt_template}
        if self._prompting.instruction:
            facts["instruction"] = self._prompting.instruction
        self.asked = Asked(self._model.name, None, facts)

    def items(self) -> None:
        """It can be asked anything."""

    def answers(self, items: Sequence[BenchmarkItem]) -> Iterator[BenchmarkAnswer]:
        step = BATCHES_AT_ONCE * self._asking.batch_size
        asked = [(item, _render(self._messages(item), self._model)) for item in items]
        # As if every prompt had the longest one's tokens: what is compiled for the first serves all.
        longest = max((len(prompt) for _, prompt in asked if not isinstance(prompt, Completion)), default=0)
        for start in range(0, len(asked), step):
            yield from self._answer(asked[start : start + step], longest)

    def _answer(
        self, asked: Sequence[tuple[BenchmarkItem, list[int] | Completion]], longest: int
    ) -> Iterator[BenchmarkAnswer]:
        sampling = Sampling(seed=self._asking.seed, temperature=0.0, max_tokens=self._asking.max_tokens)
        prompts = [prompt for _, prompt in asked if not isinstance(prompt, Completion)]
        said = iter(
            generate(self._model, prompts, sampling, batch_size=self._asking.batch_size, longest_prompt=longest)
        )
        for item, prompt in asked:
            if isinstance(prompt, Completion):
                yield _of_completion(item, prompt, 0)
            else:
                yield _of_completion(item, next(said), len(prompt))

    def _messages(self, item: BenchmarkItem) -> tuple[Message, ...]:
        # How to answer a problem is no way to tutor.
        instruction = self._prompting.instruction if item.part == "math" else ""
        shown = self._prompting._replace(system_instruction=self._system(item), instruction=instruction)
        return shown.messages(item.prompt)

    def _system(self, item: BenchmarkItem | None) -> str | None:
        own = self._prompting.system_instruction
        return self._asking.system or own or (None if item is None or item.part == "math" else TUTOR)


def _render(messages: Sequence[Message], model: Model) -> list[int] | Completion:
    try:
        return render_prompt(messages, model.tokenizer)
    except InputError as error:
        return failure(str(error))


def _of_completion(item: BenchmarkItem, said: Completion, num_prompt: int) -> BenchmarkAnswer:
    if said.stop_reason == "error":
        return BenchmarkAnswer(item=item, response=None, error=said.error or "failed")
    return BenchmarkAnswer(
        item=item,
        response=clean(said.text),
        finish_reason=said.stop_reason,
        prompt_tokens=num_prompt,
        completion_tokens=len(said.tokens),
    )
