"""Model folders of every family, as the tests of models have them."""

from tests.models.conftest import copy_case

__all__ = ["copy_case"]
