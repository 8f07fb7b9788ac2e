import pytest

from tracetune.core.errors import Corrupt, InputError
from tracetune.core.ids import canonical_json, content_hash
from tracetune.models.seal import SEAL, seal_folder, verify_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").write_bytes(b"0123456789")
    (tmp_path / "config").write_bytes(b"{}")
    seal_folder(tmp_path, {"fingerprint": "f" * 64})
    return tmp_path


def test_a_whole_folder_gives_its_facts(folder):
    assert verify_folder(folder) == {"fingerprint": "f" * 64}


def test_a_folder_without_a_seal_has_no_facts(tmp_path):
    assert verify_folder(tmp_path) == {}


def test_equal_folders_have_equal_seals(folder):
    before = (folder / SEAL).read_bytes()
    seal_folder(folder, {"fingerprint": "f" * 64})
    assert (folder / SEAL).read_bytes() == before


@pytest.mark.parametrize("name", ["weights", "config", SEAL])
def test_any_flipped_bit_is_refused_and_its_file_named(folder, name):
    whole = (folder / name).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        (folder / name).write_bytes(damaged)
        if damaged.strip() != whole.strip():  # white space after the JSON carries nothing
            with pytest.raises(Corrupt, match=name):
                verify_folder(folder)
    (folder / name).write_bytes(whole)
    verify_folder(folder)


def test_a_missing_file_is_named(folder):
    (folder / "weights").unlink()
    with pytest.raises(Corrupt, match="weights: missing"):
        verify_folder(folder)


def test_a_later_format_asks_for_an_update(folder):
    sealed = {"files": {}, "format_version": 2}
    (folder / SEAL).write_bytes(canonical_json(sealed | {"sha256": content_hash(sealed)}))
    with pytest.raises(InputError, match="format_version must be 1, got 2"):
        verify_folder(folder)
