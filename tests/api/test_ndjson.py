"""Lines out of chunks, whatever the network makes of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracetune.api.ndjson import BATCH_LINES, Line, line_batches, ndjson_response


async def sent(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def batches(chunks: Sequence[bytes], max_bytes: int = 100) -> list[list[Line]]:
    async def collect() -> list[list[Line]]:
        return [batch async for batch in line_batches(sent(chunks), max_bytes)]

    return asyncio.run(collect())


@given(st.lists(st.sampled_from([b"", b"\n", b"a", b"bc\n", b"\n\nd", b" \r\n", b"e\nf"]), max_size=12))
def test_lines_do_not_depend_on_how_they_are_cut(chunks):
    whole = b"".join(chunks)
    expected = [Line(number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
    assert [line for batch in batches(chunks) for line in batch] == expected


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_line_over_the_limit_comes_without_its_bytes_however_it_is_sent(cut):
    body = b"a\n" + b"x" * 101 + b"\nb\n"
    found = [line for batch in batches([body[at : at + cut] for at in range(0, len(body), cut)]) for line in batch]
    assert found[:2] == [Line(1, b"a"), Line(2, None)]
    assert batches([b"x" * 100 + b"\n"]) == [[Line(1, b"x" * 100)]]


def test_a_batch_has_so_many_lines_at_most():
    assert [len(batch) for batch in batches([b"a\n" * (2 * BATCH_LINES + 1)])] == [BATCH_LINES, BATCH_LINES, 1]


def test_a_batch_is_closed_by_its_bytes_too():
    line = b"x" * 500_000 + b"\n"
    assert [len(batch) for batch in batches([line] * 7, 2**20)] == [5, 2]


def test_a_name_with_foreign_letters_stands_in_the_header_encoded():
    header = ndjson_response(iter([b"{}\n"]), 'été"\r\n.jsonl').headers["content-disposition"]
    assert header.isascii()
    assert "\r" not in header
    assert "%C3%A9t%C3%A9%22%0D%0A.jsonl" in header
