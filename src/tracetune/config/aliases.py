"""The one table of short model names. A name it does not hold stands for itself: a repository or a folder.

A size alone is the model that follows instructions; `-base` asks for the one that was only pretrained.
"""

import difflib
from typing import NamedTuple

BUILT_IN = "tiny"
# Made on the spot, of one tokenizer: `tiny`, and one with about twice its parameters.
BUILT_INS = (BUILT_IN, "tiny-2x")


class _Line(NamedTuple):
    """Sizes of one family, and its repositories with `{}` for the size: instructed, and pretrained."""

    family: str
    sizes: str
    instructed: str
    pretrained: str


_LINES = (
    _Line("gemma", "2b 7b", "google/gemma-{}-it", "google/gemma-{}"),
    _Line("gemma2", "2b 9b 27b", "google/gemma-2-{}-it", "google/gemma-2-{}"),
    _Line("gemma3", "270m", "google/gemma-3-{}-it", "google/gemma-3-{}"),
    _Line("gemma3", "1b 4b 12b 27b", "google/gemma-3-{}-it", "google/gemma-3-{}-pt"),
    _Line("qwen2.5", "0.5B 1.5B 3B 7B 14B 32B", "Qwen/Qwen2.5-{}-Instruct", "Qwen/Qwen2.5-{}"),
    _Line("qwen3", "0.6B 1.7B 4B 8B 14B", "Qwen/Qwen3-{}", "Qwen/Qwen3-{}-Base"),
    # Published without its pretrained weights.
    _Line("qwen3", "32B", "Qwen/Qwen3-{}", ""),
    _Line("llama3", "8B", "meta-llama/Meta-Llama-3-{}-Instruct", "meta-llama/Meta-Llama-3-{}"),
    _Line("llama3.1", "8B", "meta-llama/Llama-3.1-{}-Instruct", "meta-llama/Llama-3.1-{}"),
    _Line("llama3.2", "1B 3B", "meta-llama/Llama-3.2-{}-Instruct", "meta-llama/Llama-3.2-{}"),
)
# What the families' own names call the two kinds.
_INSTRUCTED, _PRETRAINED = ("", "-it", "-instruct"), ("-base", "-pt")


def _aliases() -> dict[str, str]:
    """`qwen3:0.6b` and `qwen3_0p6b` are the two spellings of one family and size."""
    table = {name: name for name in BUILT_INS} | {"tiny_2x": "tiny-2x"}
    for line in _LINES:
        for size in line.sizes.split():
            for endings, pattern in ((_INSTRUCTED, line.instructed), (_PRETRAINED, line.pretrained)):
                for ending in endings if pattern else ():
                    name = f"{line.family}:{size.lower()}{ending}"
                    for spelling in (name, name.replace(":", "_").replace(".", "p").replace("-", "_")):
                        table[spelling] = pattern.format(size)
    return table


ALIASES = _aliases()


def resolve_alias(name: str) -> str:
    """The repository of an alias in any case, a built-in name for itself, and every other name unchanged.

    >>> resolve_alias("qwen3:8b"), resolve_alias("gemma3_270m"), resolve_alias("./my-model")
    ('Qwen/Qwen3-8B', 'google/gemma-3-270m-it', './my-model')
    >>> resolve_alias("qwen2.5:7b-base"), resolve_alias("gemma3:4b-pt")
    ('Qwen/Qwen2.5-7B', 'google/gemma-3-4b-pt')
    """
    return ALIASES.get(name.lower(), name)


def built_in(name: str) -> str | None:
    """Which of the built-in models a name stands for, None when it is none of them.

    >>> built_in("Tiny"), built_in("tiny_2x"), built_in("qwen3:8b")
    ('tiny', 'tiny-2x', None)
    """
    resolved = resolve_alias(name)
    return resolved if resolved in BUILT_INS else None


def near_names(name: str) -> tuple[str, ...]:
    """Up to three known names that look like `name`, the nearest first: material for a "did you mean"."""
    known = {candidate.lower(): candidate for candidate in (*ALIASES, *ALIASES.values())}
    return tuple(known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6))
