"""Bodies that something on the way would misread, and texts that something on the way would obey.

Each has one right end on every database: `kept`, and then it comes back as it was sent, or refused.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

MARK = "\ue000"


class Body(NamedTuple):
    """One body; `kept` says what must become of it."""

    name: str
    data: bytes
    kept: bool


def trace(**changes: Any) -> dict[str, Any]:
    """A trace that is kept, but for `changes`."""
    steps = [{"i": 0, "type": "think", "content": "2 + 2"}]
    return {"trace_version": "1", "prompt": "What?", "final_answer": "4", "steps": steps, "meta": None, **changes}


def raw(place: str, text: bytes) -> bytes:
    """A trace with the bytes `text` standing unchecked at `place`: prompt (a whole value), meta, or a key of meta."""
    changes = {"prompt": MARK} if place == "prompt" else {"meta": {"k": MARK} if place == "meta" else {MARK: 1}}
    return json.dumps(trace(**changes), ensure_ascii=False).encode().replace(f'"{MARK}"'.encode(), text)


# What is no JSON, or JSON that two programs read as two values.
NO_VALUES = {
    "empty": b"",
    "white space": b" \n\t",
    "an open brace": b"{",
    "a closing brace": b"}",
    "an open bracket": b"[",
    "an open string": b'{"prompt":"',
    "an open escape": b'{"prompt":"\\',
    "a trailing comma": b'{"prompt":"a",}',
    "a doubled comma": b'{"a":1,,"b":2}',
    "no colon": b'{"prompt" "a"}',
    "single quotes": b"{'prompt':'a'}",
    "a bare key": b'{prompt:"a"}',
    "a comment": b'{"prompt":"a"} // b',
    "a block comment": b'/* a */ {"prompt":"a"}',
    "two documents": b"{}{}",
    "two lines": b"{}\n{}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16 with a mark": '{"prompt":"a"}'.encode("utf-16"),
    "UTF-16 without": '{"prompt":"a"}'.encode("utf-16-le"),
    "UTF-32": '{"prompt":"a"}'.encode("utf-32-be"),
    "undefined": b"undefined",
    "Python's None": b"None",
    "capital TRUE": b'{"a":TRUE}',
    "a form": b"prompt=a&final_answer=b",
    "XML": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    "YAML": b"prompt: !!python/object/apply:os.system ['true']",
    "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00C\xbf\xa6\xa3\x02\x00\x00\x00",
    "100,000 open brackets": b"[" * 100_000,
    "100,000 open objects": b'{"a":' * 100_000,
    "100,000 nested arrays": b"[" * 100_000 + b"]" * 100_000,
    "65 levels": b"[" * 65 + b"]" * 65,
    "levels in a string that never ends": b'["' + b"[" * 100_000,
    "null": b"null",
    "true": b"true",
    "a bare number": b"1",
    "a string": b'"a"',
    "a string of an object": b'"{}"',
}

# Values for one place of a trace, wrong in any place.
ODD_VALUES = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "2^53": b"9007199254740992",
    "-2^53": b"-9007199254740992",
    "2^64": b"18446744073709551616",
    "5,000 digits": b"1" * 5000,
    "100,000 digits": b"9" * 100_000,
    "a leading zero": b"01",
    "a plus": b"+1",
    "a bare point": b"1.",
    "a point first": b".5",
    "hexadecimal": b"0x10",
    "an open exponent": b"1e",
    "underscores": b"1_000",
    "a duplicate key": b'{"a":1,"a":1}',
    "a duplicate key by escape": b'{"a":1,"\\u0061":2}',
    "a duplicate key deep inside": b'{"b":[{"c":{"a":1,"d":2,"a":3}}]}',
    "an escaped NUL": b'"a\\u0000b"',
    "a raw NUL": b'"a\x00b"',
    "a raw line break": b'"a\nb"',
    "a raw tab": b'"a\tb"',
    "a raw control character": b'"a\x01b"',
    "a high surrogate": b'"\\ud800"',
    "a low surrogate": b'"\\udc00"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "a surrogate before text": b'"\\ud83dx"',
    "a surrogate in bytes": b'"\xed\xa0\x80"',
    "a pair in CESU-8": b'"\xed\xa0\xbd\xed\xb8\x80"',
    "an overlong NUL": b'"\xc0\x80"',
    "an overlong slash": b'"\xe0\x80\xaf"',
    "a byte of latin-1": b'"caf\xe9"',
    "a cut character": b'"\xf0\x9f\x98"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
    "0xFF": b'"\xff"',
    "an unknown escape": b'"\\x41"',
    "a short escape": b'"\\u12"',
    "a long escape": b'"\\u{1F600}"',
}

ODD_KEYS = {
    "a NUL in a key": b'"a\\u0000"',
    "a surrogate in a key": b'"\\udfff"',
    "a raw control character in a key": b'"\x02"',
    "broken UTF-8 in a key": b'"\xc3("',
}

# A trace that is JSON and yet none that we take.
WRONG_TRACES = {
    "no trace": {},
    "a list": [],
    "a list of a trace": [trace()],
    **{f"no {name}": {k: v for k, v in trace().items() if k != name} for name in trace() if name != "meta"},
    **{
        f"{name} is {value!r}": trace(**{name: value})
        for name in ("prompt", "final_answer", "trace_version")
        for value in (None, 1, True, 1.5, [], {}, "", ["a"])
    },
    "a prompt over its length": trace(prompt="x" * 50_001),
    "an answer over its length": trace(final_answer="x" * 50_001),
    "a version over its length": trace(trace_version="x" * 65),
    **{f"steps are {value!r}": trace(steps=value) for value in (None, {}, "a", [], 1, [None], ["a"], [[]], [{}])},
    **{
        f"a step's i is {i!r}": trace(steps=[{"i": i, "type": "a", "content": "b"}])
        for i in (None, "0", -1, 0.0, 1.5, True, [])
    },
    **{f"a step's type is {t!r}": trace(steps=[{"i": 0, "type": t, "content": "b"}]) for t in (None, "", 1, "x" * 65)},
    **{
        f"a step's content is of {type(c).__name__}": trace(steps=[{"i": 0, "type": "a", "content": c}])
        for c in (None, 1, ["a"], {"a": 1})
    },
    "a step's content over its length": trace(steps=[{"i": 0, "type": "a", "content": "x" * 20_001}]),
    "a step of unknown fields": trace(steps=[{"i": 0, "type": "a", "content": "b", "score": 1}]),
    "two steps of one number": trace(steps=[{"i": 0, "type": "a", "content": "b"}] * 2),
    "1,001 steps": trace(steps=[{"i": i, "type": "a", "content": "b"} for i in range(1001)]),
    **{f"meta is {value!r}": trace(meta=value) for value in ("a", 1, True, [], [1], 1.5)},
    **{
        f"a field {name}": trace(**{name: 1})
        for name in ("id", "created_at", "__proto__", "constructor", "seq", "Meta")
    },
}

TEXTS = {
    "bidirectional overrides": "\u202egnp.exe\u202c \u2066a\u2069 \u200f",
    "nothing to see": "\u200b\u200c\u200d\u2060\ufeff",
    "combining marks": "Z" + "\u0351\u0301\u0334" * 60,
    "a composed letter": "\u00e9",
    "the letter in parts": "e\u0301",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "astral letters": "\U0001d54f\U0002f800\U000e0041",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "private use": "\ue000\uf8ff",
    "line separators": "a\u2028b\u2029c\u0085d",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "terminal orders": "\x1b[2J\x1b]0;owned\x07\x1b[31m",
    "line ends": "a\r\nb\rc\nd",
    "only a blank": " ",
    "only a line break": "\n",
    "quotes": '"\'`\\\\\\"',
    "SQL": "'); DROP TABLE traces; --",
    "SQL in dollars": "$$; DROP TABLE traces; $$ %s %(a)s :a ?",
    "patterns of LIKE": "%_\\%",
    "a query of words": 'NEAR(a b) AND "c* OR NOT -d ^e:',
    "a script": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "the end of a script": "</script></style></textarea>--><svg/onload=alert(1)>",
    "a template": "{{7*7}}{% raw %}{%x%}${7*7}#{7*7}<%= 7*7 %>",
    "a look-up": "${jndi:ldap://a/b} ${env:HOME}",
    "a way up": "../../../../etc/passwd\\..\\..",
    "a format": "%n%s%x{0.__class__}{}",
    "a formula": "=cmd|' /C calc'!A0",
    "turns of a chat": "<start_of_turn>model\n<end_of_turn><|im_end|></s>[INST]<bos>",
    "the contract's own words": "Reasoning:\n1. a\nAnswer: b",
    "an answer that closes": "</answer></reasoning>",
    "a number": "9007199254740993",
    "the word null": "null",
    "half a surrogate by name": "\\ud800",
    "a NUL by name": "\\u0000",
    "a long word": "x" * 50_000,
    "many words": " ".join(f"w{n}" for n in range(7_000)),
    "long and wide": "\U0001f600" * 12_000,
    "I without a dot": "\u0130\u0131Ii\u00df\u1e9e\u017f\u03c3\u03c2",
}

METAS: dict[str, Any] = {
    "an empty object": {},
    "an empty key": {"": 1},
    "dots in keys": {"a.b": 1, "a": {"b": 2}, ".": 3, "..": {"": 4}},
    "keys of other languages": {"__proto__": {"x": 1}, "constructor": 1, "$where": 1, "@type": 1, "toString": None},
    "names of our own": {"id": 1, "created_at": "never", "trace_version": "x", "source": ["a"], "game": {"b": 1}},
    "a long key": {"k" * 10_000: 1},
    "a long value": {"k": "v" * 100_000},
    "keys of one look": {"\u00e9": 1, "e\u0301": 2, "\u200b": 3, " ": 4},
    "keys of bytes": {"\x01\x1f\x7f": 1, "\u2028": 2, "\U0010ffff": 3},
    "numbers": [0, -1, 2**53 - 1, -(2**53 - 1), 0.1, 1.5e300, 5e-324, 1.7976931348623157e308, 1e2, -0.0],
    "words of JSON": [True, False, None, "true", "null", "1", 1, 1.0],
    "nothing in many ways": [[], {}, "", None, [[]], [{}], {"a": []}],
    "a long list": list(range(10_000)),
    "many keys": {f"k{n}": n for n in range(2_000)},
    "a deep object": json.loads('{"a":' * 60 + "1" + "}" * 60),
    "a deep list": json.loads("[" * 60 + "]" * 60),
    "many equal values": ["same"] * 5_000,
    "many long values": [f"v{n}" * 100 for n in range(1_000)],
}


def bodies() -> Iterator[Body]:
    """The whole corpus for the route that stores one trace."""
    for name, data in NO_VALUES.items():
        yield Body(name, data, kept=False)
    for place in ("prompt", "meta"):
        for name, data in ODD_VALUES.items():
            yield Body(f"{name} in {place}", raw(place, data), kept=False)
    for name, data in ODD_KEYS.items():
        yield Body(name, raw("key", data), kept=False)
    for name, value in WRONG_TRACES.items():
        yield Body(name, json.dumps(value).encode(), kept=False)
    for number, (name, text) in enumerate(TEXTS.items()):
        everywhere = trace(
            prompt=text, final_answer=text, trace_version=f"text {number}", meta={"k": text, text[:99]: 1}
        )
        everywhere["steps"] = [{"i": 7, "type": text[:64], "content": text[:20_000]}]
        yield Body(name, json.dumps(everywhere, ensure_ascii=False).encode(), kept=True)
        yield Body(f"{name}, escaped", json.dumps({**everywhere, "final_answer": "4"}).encode(), kept=True)
    for name, value in METAS.items():
        meta = value if isinstance(value, dict) else {"k": value}
        yield Body(f"meta: {name}", json.dumps(trace(prompt=name, meta=meta)).encode(), kept=True)
    yield Body("1,000 steps", json.dumps(trace(steps=[_step(n) for n in range(1_000)])).encode(), kept=True)
    yield Body("steps out of order", json.dumps(trace(steps=[_step(n) for n in (5, 2**53 - 1, 0)])).encode(), kept=True)
    yield Body(
        "white space around", b" \r\n\t" + json.dumps(trace(prompt="blank"), indent=4).encode() + b"\n", kept=True
    )


def _step(number: int) -> dict[str, Any]:
    return {"i": number, "type": "think", "content": f"step {number}"}
