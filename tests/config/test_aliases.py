import pytest

from tracetune.config.aliases import ALIASES, near_names, resolve_alias


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("tiny", "tiny"),
        ("qwen3:8b", "Qwen/Qwen3-8B"),
        ("Qwen3:8B", "Qwen/Qwen3-8B"),
        ("qwen3:0.6b", "Qwen/Qwen3-0.6B"),
        ("qwen3_0p6b", "Qwen/Qwen3-0.6B"),
        ("qwen3_1p7b", "Qwen/Qwen3-1.7B"),
        ("qwen3_4b", "Qwen/Qwen3-4B"),
        ("gemma3_270m", "google/gemma-3-270m-it"),
        ("gemma3_1b", "google/gemma-3-1b-it"),
        ("gemma3_4b", "google/gemma-3-4b-it"),
        ("gemma3_12b", "google/gemma-3-12b-it"),
        ("gemma3_27b", "google/gemma-3-27b-it"),
        ("gemma_2b", "google/gemma-2b-it"),
        ("gemma2:2b", "google/gemma-2-2b-it"),
        ("qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("qwen2p5_0p5b", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("llama3.2:1b", "meta-llama/Llama-3.2-1B-Instruct"),
        ("gemma3:4b-it", "google/gemma-3-4b-it"),
        ("gemma3:4b-base", "google/gemma-3-4b-pt"),
        ("gemma3_270m_base", "google/gemma-3-270m"),
        ("gemma2:27b-pt", "google/gemma-2-27b"),
        ("qwen3:14b-base", "Qwen/Qwen3-14B-Base"),
        ("qwen2p5_1p5b_instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("qwen2.5:1.5b-base", "Qwen/Qwen2.5-1.5B"),
        ("llama3:8b", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("llama3.1:8b-base", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_an_alias_names_one_repository(name, repository):
    assert resolve_alias(name) == repository


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "google/gemma-2b-it", "./runs/base", "/models/My-Model", "gpt5"])
def test_any_other_name_stands_for_itself(name):
    assert resolve_alias(name) == name


SIZES = {
    "qwen2.5": "0.5b 1.5b 3b 7b 14b 32b",
    "qwen3": "0.6b 1.7b 4b 8b 14b 32b",
    "llama3": "8b",
    "llama3.1": "8b",
    "llama3.2": "1b 3b",
    "gemma2": "2b 9b 27b",
    "gemma3": "270m 1b 4b 12b 27b",
}


@pytest.mark.parametrize("name", [f"{family}:{size}" for family, sizes in SIZES.items() for size in sizes.split()])
def test_every_published_size_has_a_name_instructed_and_pretrained(name):
    assert "/" in resolve_alias(name)
    assert resolve_alias(f"{name}-instruct") == resolve_alias(f"{name}-it") == resolve_alias(name)
    pretrained = resolve_alias(f"{name}-base")
    # Alibaba kept the largest one's to itself.
    assert (pretrained == f"{name}-base") if name == "qwen3:32b" else (pretrained not in (name, resolve_alias(name)))


def test_every_alias_resolves_to_a_fixed_point():
    assert all(resolve_alias(repository) == repository for repository in ALIASES.values())


def test_a_misspelt_name_suggests_the_right_one():
    assert near_names("qwen3_8bb")[0] == "qwen3_8b"
    assert near_names("tinny")[0] == "tiny"
    assert near_names("Qwen/Qwen-3-8B")[0] == "Qwen/Qwen3-8B"
    assert near_names("llama-3.2-3b")[0] == "llama3.2:3b"
    assert near_names("zzzzzzzz") == ()
