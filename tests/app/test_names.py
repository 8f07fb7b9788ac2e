"""Names that stand in URLs."""

import pytest

from tracetune.app.names import check_name
from tracetune.core.errors import InputError


@pytest.mark.parametrize("name", ["a", "tutor-v1.2_final", "0", "x" * 128])
def test_plain_names_pass(name):
    assert check_name("name", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a\\b", "a b", "a\n", "a\0", "é", "٣", "x" * 129])
def test_names_that_a_url_or_a_folder_could_not_carry_are_refused(name):
    with pytest.raises(InputError, match="name: must have 1 to 128"):
        check_name("name", name)
