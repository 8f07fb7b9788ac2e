"""Contamination: does a training row show a problem that an eval set will ask?

Two rules, both on the prompt's tokens with every number, operator and code kept (data/text.py):
whole   the prompt, or one line of it, is an eval prompt;
8-gram  for eval prompts of 13 tokens and more: half of the eval prompt or more stands in the training prompt,
        found by shared runs of 8 tokens (Chowdhery et al. 2022, section 8), and there the numbers are equal.
        Runs of 13 (Brown et al. 2020) miss a 20-token problem in which one word was changed.
Runs that several eval prompts share are a template's wording and identify nothing, so they do not count.

Shapes: T tokens of a prompt, G runs of 8 tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.values import EvalSet
from tracetune.data.text import Words, ngram_hashes, read_words, sequence_hash, token_hashes

NGRAM_SIZE = 8
MIN_COVERAGE = 0.5
MIN_NGRAM_TOKENS = 13
MIN_LINE_TOKENS = 3
MAX_LISTED = 100

Policy = Literal["drop", "fail", "keep"]
POLICIES = ("drop", "fail", "keep")
Rule = Literal["whole", "8-gram"]


class Match(NamedTuple):
    """A training prompt shows this problem of this eval set."""

    eval_set: str
    problem_id: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One distinct eval prompt; `distinctive_T` marks the tokens inside runs that no other eval prompt has."""

    words: Words
    exact: list[str]
    owners: list[tuple[str, str]]
    distinctive_T: np.ndarray


class EvalIndex:
    """All problems of all eval sets, indexed once; `matches` then costs the same for 100 problems or 100,000."""

    def __init__(self, eval_sets: Iterable[EvalSet]) -> None:
        prompts: dict[tuple[str, ...], _Prompt] = {}
        for eval_set in eval_sets:
            for problem in eval_set.problems:
                words = read_words(problem.prompt)
                new = _Prompt(words, words.exact_tokens(), [], np.zeros(len(words.tokens), dtype=bool))
                prompts.setdefault(words.tokens, new).owners.append((eval_set.name, problem.id))
        prompts.pop((), None)
        self._prompts = list(prompts.values())
        self._whole = {sequence_hash(tokens): number for number, tokens in enumerate(prompts)}
        self._index_ngrams()

    def _index_ngrams(self) -> None:
        grams, prompts, starts = [], [], []
        for number, prompt in enumerate(self._prompts):
            if len(prompt.words.tokens) >= MIN_NGRAM_TOKENS:
                # A run repeated inside one prompt counts once, at its first place.
                unique_G, first_G = np.unique(_ngrams(prompt.words.tokens), return_index=True)
                grams.append(unique_G)
                prompts.append(np.full(len(unique_G), number))
                starts.append(first_G)
        if not grams:
            self._gram_G = np.zeros(0, dtype=np.uint64)
            return
        gram_G, first_G, counts_G = np.unique(np.concatenate(grams), return_index=True, return_counts=True)
        self._gram_G = gram_G[counts_G == 1]
        self._prompt_G = np.concatenate(prompts)[first_G][counts_G == 1]
        self._start_G = np.concatenate(starts)[first_G][counts_G == 1]
        for number, start in zip(self._prompt_G, self._start_G, strict=True):
            self._prompts[number].distinctive_T[start : start + NGRAM_SIZE] = True

    def matches(self, prompt: str) -> list[Match]:
        """Every eval problem that this training prompt shows."""
        if not self._prompts:
            return []
        words = read_words(prompt)
        found: dict[int, Rule] = {**self._by_ngrams(words), **self._by_whole(prompt, words)}
        return [
            Match(eval_set, problem_id, rule)
            for number, rule in sorted(found.items())
            for eval_set, problem_id in self._prompts[number].owners
        ]

    def _by_whole(self, prompt: str, words: Words) -> dict[int, Rule]:
        lines = [read_words(line).tokens for line in prompt.splitlines()] if "\n" in prompt.strip() else []
        texts = [words.tokens, *(line for line in lines if len(line) >= MIN_LINE_TOKENS)]
        return {self._whole[key]: "whole" for key in map(sequence_hash, texts) if key in self._whole}

    def _by_ngrams(self, words: Words) -> dict[int, Rule]:
        if len(words.tokens) < NGRAM_SIZE or len(self._gram_G) == 0:
            return {}
        grams_T = _ngrams(words.tokens)
        places_T = np.minimum(np.searchsorted(self._gram_G, grams_T), len(self._gram_G) - 1)
        hits = np.flatnonzero(self._gram_G[places_T] == grams_T)
        found: dict[int, Rule] = {}
        for number in np.unique(self._prompt_G[places_T[hits]]):
            own = hits[self._prompt_G[places_T[hits]] == number]
            if _shows(self._prompts[number], words, self._start_G[places_T[own]], own):
                found[int(number)] = "8-gram"
        return found


def _ngrams(tokens: Sequence[str]) -> np.ndarray:
    return ngram_hashes(token_hashes(tokens), NGRAM_SIZE)


def _shows(asked: _Prompt, words: Words, starts_in_asked: np.ndarray, starts: np.ndarray) -> bool:
    """Whether enough of the eval prompt is covered by shared runs, and the numbers there are its numbers."""
    covered_T = np.zeros(len(asked.distinctive_T), dtype=bool)
    for start in starts_in_asked:
        covered_T[start : start + NGRAM_SIZE] = True
    if (covered_T & asked.distinctive_T).sum() < MIN_COVERAGE * asked.distinctive_T.sum():
        return False
    if words.exact_tokens() == asked.exact:
        return True
    # The training prompt may say more than the eval prompt, so only the part laid against it is compared.
    first = max(0, int(starts[0] - starts_in_asked[0]))
    end = int(starts[-1] - starts_in_asked[-1]) + len(covered_T)
    return words.exact_tokens(first, end) == asked.exact and not _goes_on(words, first, end)


def _goes_on(words: Words, first: int, end: int) -> bool:
    """Whether an expression crosses the part's border: `1 + 2` inside `1 + 2 + 3` is another problem."""
    before = first > 0 and all(words.exact[first - 1 : first + 1])
    after = 0 < end < len(words.exact) and all(words.exact[end - 1 : end + 1])
    return before or after


@dataclass(slots=True)
class ContaminationCheck:
    """Rows stream by; what they show is collected for the verdict."""

    eval_sets: Sequence[EvalSet]
    policy: Policy = "drop"
    trace_ids: dict[str, list[str]] = field(default_factory=dict)
    matches: list[dict[str, str]] = field(default_factory=list)
    num_rows: int = 0
    num_contaminated: int = 0
    _index: EvalIndex = field(init=False)

    def __post_init__(self) -> None:
        """Raises InputError for an unknown policy."""
        if self.policy not in POLICIES:
            raise InputError(f"dataset.contamination: must be drop, fail or keep, got {self.policy!r}")
        self._index = EvalIndex(self.eval_sets)

    def is_contaminated(self, trace_id: str, prompt: str) -> bool:
        """Check one row and remember what it shows."""
        self.num_rows += 1
        matches = self._index.matches(prompt)
        for name in {match.eval_set for match in matches}:
            self.trace_ids.setdefault(name, []).append(trace_id)
        room = MAX_LISTED - len(self.matches)
        self.matches += [{"trace_id": trace_id, **match._asdict()} for match in matches[:room]]
        self.num_contaminated += bool(matches)
        return bool(matches)

    def verdict(self) -> dict[str, Any]:
        """The manifest's record: `clean` and `contaminated` speak of the frozen rows, after the policy.

        Raises InputError under the policy `fail` when a row is contaminated.
        """
        if self.policy == "fail" and self.num_contaminated:
            raise InputError(
                f"dataset: {self.num_contaminated} of {self.num_rows} rows show eval problems, first "
                f"{self.matches[0]}; remove them, or build with the contamination policy drop"
            )
        kept = self.num_contaminated if self.policy == "keep" else 0
        return {
            "verdict": "unchecked" if not self.eval_sets else "contaminated" if kept else "clean",
            "policy": self.policy,
            "rows_checked": self.num_rows,
            "rows_contaminated": self.num_contaminated,
            "rows_dropped": self.num_contaminated - kept,
            "method": {
                "ngram_size": NGRAM_SIZE,
                "min_ngram_tokens": MIN_NGRAM_TOKENS,
                "min_coverage": MIN_COVERAGE,
                "numbers": "equal",
            },
            "eval_sets": [self._eval_set_verdict(eval_set) for eval_set in self.eval_sets],
            "matches": self.matches,
        }

    def _eval_set_verdict(self, eval_set: EvalSet) -> dict[str, Any]:
        trace_ids = self.trace_ids.get(eval_set.name, [])
        return {
            "name": eval_set.name,
            "content_hash": eval_set.content_hash,
            "problems_checked": len(eval_set.problems),
            "contaminated_count": len(trace_ids),
            "trace_ids": trace_ids[:MAX_LISTED],
        }
