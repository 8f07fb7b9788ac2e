"""Words of traces: the same words on every database, whatever its own text search would do.

A word is a run of letters and digits, case and Unicode form aside; a Chinese or Japanese sign is a word of
its own. The first 200,000 characters of a trace are indexed, and of a word its first 40.
"""

import re
import unicodedata
from collections.abc import Iterable

from tracetune.core.errors import InputError
from tracetune.core.trace import Trace

MAX_TRACE_CHARS = 200_000
MAX_WORD_CHARS = 40
# PostgreSQL keeps at most 1 MiB of words a row.
MAX_WORDS_BYTES = 500_000
MAX_QUERY_WORDS = 32
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")


def trace_words(trace: Trace) -> list[str]:
    """The distinct words of prompt, final answer and steps, in order of appearance."""
    words = split_words(_learnt_text(trace))
    if len(words) * MAX_WORD_CHARS * 4 <= MAX_WORDS_BYTES:
        return words
    return list(_within(words, MAX_WORDS_BYTES))


def query_words(query: str) -> list[str]:
    """The words that a trace must all have. Raises InputError for a query without words, or with too many."""
    words = split_words(query[:MAX_TRACE_CHARS])
    if not 1 <= len(words) <= MAX_QUERY_WORDS:
        raise InputError(f"q: needs 1 to {MAX_QUERY_WORDS} words of letters or digits, got {len(words)}")
    return words


def split_words(text: str) -> list[str]:
    """Distinct words in order.

    >>> split_words("Tom's 3 apples; tom_cat ÉTÉ 苹果")
    ['tom', 's', '3', 'apples', 'cat', 'été', '苹', '果']
    """
    if text.isascii():
        found = _ASCII_WORD.findall(text.lower())
    else:
        found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return list(dict.fromkeys(word[:MAX_WORD_CHARS] for word in found))


def _learnt_text(trace: Trace) -> str:
    parts = [trace.prompt, trace.final_answer]
    room = MAX_TRACE_CHARS - len(trace.prompt) - len(trace.final_answer)
    for step in trace.steps:
        if room <= 0:
            break
        parts.append(step.content[:room])
        room -= len(step.content) + 1
    return "\n".join(parts)[:MAX_TRACE_CHARS]


def _within(words: Iterable[str], num_bytes: int) -> Iterable[str]:
    for word in words:
        num_bytes -= len(word.encode())
        if num_bytes < 0:
            return
        yield word
