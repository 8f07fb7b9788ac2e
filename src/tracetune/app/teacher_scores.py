"""A teacher's likeliest tokens at every target of a run's examples, asked once and kept on disk.

One file holds the rows of `SHARD` examples, write-once and mapped into memory when it is read, under a folder that is
named by the teacher's identity, k, temperature and the tokens: a killed run asks again only for what is not there.
Shapes: N targets of a shard, K candidates, n tokens of an example.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tracetune.app.teacher_answers import teacher_folder
from tracetune.backends.teacher import Teacher
from tracetune.core.durable import write_durably
from tracetune.core.errors import Corrupt
from tracetune.core.values import Example
from tracetune.data.pack_teacher import NO_TOKEN, Said

SHARD = 256
_OPEN_SHARDS = 16


class TeacherScores:
    """What a teacher says of `examples`; `asked` counts those it was asked about by this object."""

    def __init__(
        self, teacher: Teacher, examples: Sequence[Example], *, k: int, temperature: float, home: Path | None
    ) -> None:
        self._teacher, self._examples, self._k, self._temperature = teacher, examples, k, temperature
        settings = {"k": k, "temperature": temperature, "examples": _hash(examples)}
        self._folder = teacher_folder(teacher.identity, settings, home)
        self._dtype = np.dtype([("ids", "<i4", (k,)), ("logprobs", "<f4", (k,))])
        self._open = lru_cache(_OPEN_SHARDS)(self._mapped)
        self.asked = 0

    def fill(self, say: Callable[[str], None]) -> None:
        """Ask for every shard that is not kept yet."""
        missing = [number for number in range(self._num_shards) if not self._path(number).is_file()]
        for done, number in enumerate(missing, start=1):
            examples = self._shard(number)
            found = self._teacher.likeliest(
                [example.tokens for example in examples], self._k, temperature=self._temperature
            )
            rows = [self._targets(example, Said(*told)) for example, told in zip(examples, found, strict=True)]
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate(rows), allow_pickle=False)
            write_durably(self._path(number), buffer.getvalue())
            self.asked += len(examples)
            say(f"the teacher has judged {done} of {len(missing)} parts of the rows")

    def judge(self, indices: Sequence[int]) -> Mapping[int, Said]:
        """What was said of some examples, as a recipe asks for it."""
        return {index: self._said(index) for index in indices}

    @property
    def _num_shards(self) -> int:
        return -(-len(self._examples) // SHARD)

    def _shard(self, number: int) -> Sequence[Example]:
        return self._examples[number * SHARD : (number + 1) * SHARD]

    def _path(self, number: int) -> Path:
        return self._folder / f"likeliest-{number:05d}.npy"

    def _targets(self, example: Example, said: Said) -> np.ndarray:
        """The rows that predict a target; what a teacher left out is no token."""
        is_target = np.asarray(example.mask[1:], bool)
        rows_NK = np.empty(int(is_target.sum()), self._dtype)
        rows_NK["ids"], rows_NK["logprobs"] = NO_TOKEN, -np.inf
        width = min(self._k, said.ids.shape[1])
        rows_NK["ids"][:, :width] = said.ids[is_target, :width]
        rows_NK["logprobs"][:, :width] = said.logprobs[is_target, :width]
        return rows_NK

    def _said(self, index: int) -> Said:
        number, place = divmod(index, SHARD)
        rows, ends = self._open(number)
        is_target = np.asarray(self._examples[index].mask[1:], bool)
        kept = rows[ends[place] - int(is_target.sum()) : ends[place]]
        ids = np.full((is_target.size, self._k), NO_TOKEN, np.int32)
        logprobs = np.full(ids.shape, -np.inf, np.float32)
        ids[is_target], logprobs[is_target] = kept["ids"], kept["logprobs"]
        return Said(ids, logprobs)

    def _mapped(self, number: int) -> tuple[Any, list[int]]:
        """A shard's rows, and where those of each example end."""
        path = self._path(number)
        ends = list(accumulate(sum(example.mask[1:]) for example in self._shard(number)))
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Corrupt(f"{path}: cannot be read ({error}); delete the file, and it is asked for again") from error
        if rows.dtype != self._dtype or len(rows) != ends[-1]:
            raise Corrupt(f"{path}: holds other rows than were kept; delete the file, and it is asked for again")
        return rows, ends


def _hash(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(np.asarray(example.tokens, "<i4").tobytes() + bytes(example.mask) + b"\n")
    return digest.hexdigest()
