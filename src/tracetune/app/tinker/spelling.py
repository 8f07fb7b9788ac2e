"""Tokens as text while they come: what can be shown already, and what each of them is called.

A character may take several tokens, and a stop string must never be seen: both are held back until it is clear what
becomes of them.
"""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from tracetune.models.tokenizer import Tokenizer

# What a tokenizer writes for bytes that are no whole character yet.
_UNFINISHED = "\ufffd"
# Tokens that may be left for later because a character is not whole; more are left only where the bytes are no text.
_LOOK_BACK = 8


class Unfolding:
    """The text of one completion as its tokens come. What `add` and `end` return, joined, is the completion's text."""

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stop_strings)
        self._tokens: list[int] = []
        # Tokens before `_begin` are settled; those up to `_read` were read already, and are read again since the text
        # of a token may depend on the one before it.
        self._begin = self._read = 0
        self._held = ""
        self._shown = 0

    def add(self, tokens: Sequence[int]) -> str:
        """The text that is certain with `tokens`, which none of a stop string can be part of."""
        self._tokens += tokens
        self._held += self._settled()
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        self._shown += len(shown)
        return shown

    def end(self, text: str) -> str:
        """The rest, when the whole `text` of the completion is known."""
        return text[self._shown :]

    def _settled(self) -> str:
        end = len(self._tokens)
        # The bytes beside a lone byte decide whether it is part of a character.
        while end > self._read and self._tokenizer.is_byte(self._tokens[end - 1]):
            end -= 1
        before = self._tokenizer.decode(self._tokens[self._begin : self._read])
        for whole in range(end, max(self._read, end - _LOOK_BACK), -1):
            now = self._tokenizer.decode(self._tokens[self._begin : whole])
            if not now.endswith(_UNFINISHED):
                self._begin, self._read = self._read, whole
                return now[len(before) :]
        return ""


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)


class Spelled(NamedTuple):
    """One token: `text` is never broken (`bytes:\\xe2` for part of a character); `offset` in characters of the text."""

    text: str
    bytes: bytes
    offset: int


class Speller:
    """Names tokens one after another, from `offset` of the text on; below 0 stands what is not part of it. `by_id`
    calls each by its number, which no two tokens share."""

    def __init__(self, tokenizer: Tokenizer, offset: int = 0, *, by_id: bool = False) -> None:
        self._tokenizer, self._offset, self._by_id = tokenizer, offset, by_id
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def spell(self, token: int) -> Spelled:
        """The next token."""
        said = self._tokenizer.token_bytes(token)
        name = f"token_id:{token}" if self._by_id else spell_bytes(said)
        spelled = Spelled(name, said, max(0, self._offset))
        self._offset += len(self._decoder.decode(said))
        return spelled


def spell_bytes(said: bytes) -> str:
    """The text of bytes, or their numbers where they are no text."""
    try:
        return said.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in said)
