"""Reaching a service: where key and address come from, what is checked first, and what is said when it fails."""

import socket
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from tracetune.backends import tinker_service
from tracetune.backends.tinker_service import HOSTED, Offer, Usage, connected, find_key, find_offer, service_url
from tracetune.core.errors import InputError, Unavailable

needs_sdk = pytest.mark.skipif(find_spec("tinker") is None, reason='no SDK: pip install "tracetune[tinker]"')


@pytest.fixture(autouse=True)
def nobody_is_known(monkeypatch, tmp_path):
    """No key and no address of the machine's own; an empty working folder."""
    for name in ("TINKER_API_KEY", "TINKER_BASE_URL", "TINKER_CREDENTIAL_CMD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_key_is_that_of_the_environment_then_of_dotenv(monkeypatch, tmp_path):
    assert find_key() is None
    (tmp_path / ".env").write_text("# keys\nOTHER=1\nexport TINKER_API_KEY='tml-file'\nTINKER_API_KEY_OLD=tml-old\n")
    assert find_key() == "tml-file"
    monkeypatch.setenv("TINKER_API_KEY", " tml-env ")
    assert find_key() == "tml-env"
    assert find_key(tmp_path / "elsewhere") == "tml-env"


@pytest.mark.parametrize(
    "line", ["TINKER_API_KEY=tml-x", 'TINKER_API_KEY="tml-x"', "  export TINKER_API_KEY = tml-x  "]
)
def test_dotenv_lines_are_read_as_shells_and_people_write_them(line, tmp_path):
    (tmp_path / ".env").write_text(line + "\n")
    assert find_key() == "tml-x"


def test_an_empty_key_is_none(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("TINKER_API_KEY=\n")
    monkeypatch.setenv("TINKER_API_KEY", "")
    assert find_key() is None


def test_the_address_is_that_of_the_environment_or_the_hosted_one(monkeypatch):
    assert service_url() == HOSTED
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:8000/")
    assert service_url() == "http://127.0.0.1:8000"


@needs_sdk
def test_the_hosted_address_is_the_sdks():
    from tinker.lib.base_url import DEFAULT_BASE_URL

    assert DEFAULT_BASE_URL == HOSTED


def reach(url: str, monkeypatch) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", url)
    with connected("tiny", sampled=False, say=print):
        pass


@needs_sdk
def test_no_key_and_a_wrong_one_are_told_before_anything_is_sent(monkeypatch):
    monkeypatch.setattr(tinker_service, "_reach", lambda *_: pytest.fail("something was sent"))
    with pytest.raises(Unavailable, match=r"TINKER_API_KEY: is not set, and \.env in this folder has none; set it"):
        reach("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setenv("TINKER_API_KEY", "sk-not-of-this-service")
    with pytest.raises(InputError, match="must begin with tml-, got 22 characters that do not") as caught:
        reach("http://127.0.0.1:9", monkeypatch)
    assert "sk-not" not in str(caught.value)


@needs_sdk
def test_a_service_that_nobody_answers_for_is_told_at_once(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("TINKER_API_KEY", "tml-secret")
    with pytest.raises(Unavailable, match=r"TINKER_BASE_URL: http://\[key\]@127.0.0.1:\d+ does not answer") as caught:
        reach(f"http://me:word@127.0.0.1:{port}", monkeypatch)
    assert "word" not in str(caught.value)


def offered(*names: str, trainable: bool | None = True, sampleable: bool | None = True) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(model_name=name, max_context_length=4096, trainable=trainable, sampleable=sampleable)
        for name in names
    ]


def test_a_model_is_found_by_its_alias_or_by_the_services_name():
    models = offered("Qwen/Qwen3-8B", "tiny")
    assert find_offer("qwen3:8b", models, sampled=True) == Offer("Qwen/Qwen3-8B", 4096)
    assert find_offer("tiny", models, sampled=True).name == "tiny"
    assert find_offer("Qwen/Qwen3-8B", offered("Qwen/Qwen3-8B", trainable=None), sampled=False).max_length == 4096


def test_a_model_that_is_not_offered_is_refused_with_those_that_are():
    with pytest.raises(InputError, match="the service has no google/gemma-3-4b-it; it trains Qwen/Qwen3-8B, tiny"):
        find_offer("gemma3:4b", offered("tiny", "Qwen/Qwen3-8B"), sampled=False)
    with pytest.raises(InputError, match=r"it trains m0, m1, .*, m7 and 2 more"):
        find_offer("x", offered(*(f"m{i}" for i in range(10))), sampled=False)


def test_a_model_that_is_only_sampled_is_not_trained_and_the_reverse():
    with pytest.raises(InputError, match="does not train tiny"):
        find_offer("tiny", offered("tiny", trainable=False), sampled=False)
    with pytest.raises(InputError, match="does not sample from tiny; take another"):
        find_offer("tiny", offered("tiny", sampleable=False), sampled=True)
    assert find_offer("tiny", offered("tiny", sampleable=False), sampled=False).name == "tiny"


def test_usage_adds_up_by_kind():
    assert Usage(1, 2, 3, 4).plus(Usage(sample=5, train=1)) == Usage(1, 2, 8, 5)
