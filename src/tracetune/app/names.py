"""Names that stand in URLs and in file names: letters, digits, dot, dash and underline."""

import re

from tracetune.core.errors import InputError

MAX_CHARS = 128
PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


def check_name(where: str, name: str) -> str:
    """The name itself. Raises InputError for one that a URL or a folder could not carry."""
    if not re.fullmatch(PATTERN.removeprefix("^").removesuffix("$"), name, re.ASCII):
        raise InputError(
            f"{where}: must have 1 to {MAX_CHARS} letters, digits, '.', '_' or '-', a letter or digit first, "
            f"got {name[:40]!r}"
        )
    return name
