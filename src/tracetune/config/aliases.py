"""The one table of short model names. A name it does not hold stands for itself: a repository or a folder."""

import difflib

BUILT_IN = "tiny"

_REPOSITORIES = (
    "google/gemma-2b-it",
    "google/gemma-2-2b-it",
    "google/gemma-2-9b-it",
    "google/gemma-2-27b-it",
    "google/gemma-3-270m-it",
    "google/gemma-3-1b-it",
    "google/gemma-3-4b-it",
    "google/gemma-3-12b-it",
    "google/gemma-3-27b-it",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct",
    "Qwen/Qwen2.5-32B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-14B",
    "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
)


def _aliases() -> dict[str, str]:
    """`qwen3:0.6b` and `qwen3_0p6b` are the two spellings of one family and size."""
    table = {BUILT_IN: BUILT_IN, "gemma:2b": "google/gemma-2b-it", "gemma_2b": "google/gemma-2b-it"}
    for repository in _REPOSITORIES:
        name = repository.split("/")[1].lower().removesuffix("-it").removesuffix("-instruct")
        family, _, size = name.replace("gemma-", "gemma").replace("llama-", "llama").rpartition("-")
        if family not in ("", "gemma"):
            table[f"{family}:{size}"] = repository
            table[f"{family}_{size}".replace(".", "p")] = repository
    return table


ALIASES = _aliases()


def resolve_alias(name: str) -> str:
    """The repository of an alias in any case, `tiny` for itself, and every other name unchanged.

    >>> resolve_alias("qwen3:8b"), resolve_alias("gemma3_270m"), resolve_alias("./my-model")
    ('Qwen/Qwen3-8B', 'google/gemma-3-270m-it', './my-model')
    """
    return ALIASES.get(name.lower(), name)


def near_names(name: str) -> tuple[str, ...]:
    """Up to three known names that look like `name`, the nearest first: material for a "did you mean"."""
    known = {candidate.lower(): candidate for candidate in (*ALIASES, *_REPOSITORIES)}
    return tuple(known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6))
