import pytest

from tracetune.core.ids import canonical_json, content_hash, file_hash


def test_canonical_json_has_one_form():
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()


def test_a_number_that_is_not_one_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
    assert canonical_json(1.0) == b"1.0"


def test_the_hash_of_a_known_value_never_changes():
    assert content_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_a_file_has_the_hash_of_its_bytes(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"{}")
    assert file_hash(path) == content_hash({})
