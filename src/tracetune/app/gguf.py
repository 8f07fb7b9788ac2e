"""GGUF by llama.cpp's own converter, which must be on this machine; what it wrote is read before it counts.

The converter is `convert_hf_to_gguf.py`, on PATH or in the folder that LLAMA_CPP names.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tracetune.core.errors import Corrupt, InputError, Unavailable

CONVERTER = "convert_hf_to_gguf.py"
FOLDER_VARIABLE = "LLAMA_CPP"
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_MAGIC = b"GGUF"
# Sizes of the metadata types 0 to 12; 8 is a string and 9 a list.
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _LIST = 8, 9
_TOLD_LINES = 5


class Gguf(NamedTuple):
    """What a GGUF file's header says: the number of values of each tensor."""

    tensors: Mapping[str, int]


def find_converter() -> list[str] | None:
    """The command that begins a conversion, None where there is no converter."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and (Path(folder) / CONVERTER).is_file():
        return ["python3", str(Path(folder) / CONVERTER)]
    found = shutil.which(CONVERTER)
    return None if found is None else [found]


def require_converter(target: Path) -> list[str]:
    """The converter's command. Raises Unavailable with what to run by hand when there is none."""
    if command := find_converter():
        return command
    raise Unavailable(
        f"--format gguf: needs llama.cpp's {CONVERTER} on PATH, or in the folder that {FOLDER_VARIABLE} names; "
        f"or export with --format merged, then run `python {CONVERTER} {target} --outfile {target}/model.gguf`"
    )


def convert(command: list[str], folder: Path, outfile: Path, *, dtype: str, num_values: int) -> None:
    """Convert a merged folder, and check that the file is whole and has all weights.

    Raises Unavailable with the converter's last lines when it fails, Corrupt when the file is not what it should be.
    """
    kind = _TYPES.get(dtype)
    if kind is None:
        raise InputError(f"--dtype: GGUF takes one of {', '.join(_TYPES)}, got {dtype}")
    words = [*command, str(folder), "--outfile", str(outfile), "--outtype", kind]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"{command[-1]}: cannot be run ({error.strerror}); repair it or unset it") from error
    if done.returncode != 0 or not outfile.is_file():
        told = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TOLD_LINES:])
        raise Unavailable(
            f"{command[-1]}: failed with exit code {done.returncode}; mend it, then export again:\n{told}"
        )
    found = sum(read_gguf(outfile).tensors.values())
    if found < num_values:
        raise Corrupt(f"{outfile}: has {found} values where the model has {num_values}; try another llama.cpp version")


def read_gguf(path: Path) -> Gguf:
    """The header of a GGUF file, version 2 or 3. Raises Corrupt when it is none or ends early."""
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise Corrupt(f"{path}: is no GGUF file; convert it again")
            _, num_tensors, num_facts = _unpack(file, "<IQQ")
            for _ in range(num_facts):
                _read_text(file)
                _skip_value(file, *_unpack(file, "<I"))
            return Gguf(dict(_read_tensor(file) for _ in range(num_tensors)))
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise Corrupt(f"{path}: its header cannot be read ({error}); convert it again") from error


def _read_tensor(file: BinaryIO) -> tuple[str, int]:
    name = _read_text(file)
    (num_axes,) = _unpack(file, "<I")
    count = 1
    for size in _unpack(file, f"<{num_axes}Q"):
        count *= size
    # Its type and place.
    _unpack(file, "<IQ")
    return name, count


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _read_text(file)
    elif kind == _LIST:
        inner, count = _unpack(file, "<IQ")
        for _ in range(count):
            _skip_value(file, inner)
    else:
        file.read(_SCALARS[kind])


def _read_text(file: BinaryIO) -> str:
    return file.read(*_unpack(file, "<Q")).decode()


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
