"""A model of this machine as a benchmark's subject: prompts as its own run showed them, greedy answers."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tracetune.app.benchmark_files import ANSWERS
from tracetune.app.benchmark_subjects import TUTOR, Asked, Asking, ModelSubject, facts_of
from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.evaluate import BASE, prompting_of, rendered
from tracetune.core.benchmark import BenchmarkAnswer, BenchmarkItem
from tracetune.core.values import Completion, Message, storable
from tracetune.engine.sampler import Sampling, generate_each, prompt_room
from tracetune.models.load import load_model


class LocalModel:
    """A model of this machine, loaded; answers come as they are finished."""

    def __init__(self, subject: ModelSubject, asking: Asking, folder: Path, say: Callable[[str], None]) -> None:
        use_compile_cache()
        self._model = load_model(subject.name)
        # The manifest of the run around a model says how prompts are shown to it.
        maker = subject.name if subject.shown_as is None else BASE
        self._prompting = prompting_of(maker, (subject.shown_as or folder) / ANSWERS, say=say)
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
        sampling = Sampling(seed=self._asking.seed, temperature=0.0, max_tokens=self._asking.max_tokens)
        asked = []
        for item in items:
            prompt = rendered(self._messages(item), self._model)
            if isinstance(prompt, Completion):
                yield _of_completion(item, prompt, 0)
            else:
                asked.append((item, prompt))
        # Those of one size together: the short do not wait on the room that the long ones need.
        for _, alike in groupby(sorted(asked, key=_room), key=_room):
            some = list(alike)
            prompts = [prompt for _, prompt in some]
            for place, said in generate_each(self._model, prompts, sampling, batch_size=self._asking.batch_size):
                item, prompt = some[place]
                yield _of_completion(item, said, len(prompt))

    def _messages(self, item: BenchmarkItem) -> tuple[Message, ...]:
        # How to answer a problem is no way to tutor.
        instruction = self._prompting.instruction if item.part == "math" else ""
        shown = self._prompting._replace(system_instruction=self._system(item), instruction=instruction)
        return shown.messages(item.prompt)

    def _system(self, item: BenchmarkItem | None) -> str | None:
        own = self._prompting.system_instruction
        return self._asking.system or own or (None if item is None or item.part == "math" else TUTOR)


def _room(asked: tuple[BenchmarkItem, Sequence[int]]) -> int:
    return prompt_room(len(asked[1]))


def _of_completion(item: BenchmarkItem, said: Completion, num_prompt: int) -> BenchmarkAnswer:
    if said.stop_reason == "error":
        return BenchmarkAnswer(item=item, response=None, error=said.error or "failed")
    return BenchmarkAnswer(
        item=item,
        response=storable(said.text),
        finish_reason=said.stop_reason,
        prompt_tokens=num_prompt,
        completion_tokens=len(said.tokens),
    )
