"""Tokenizer: text to ids and back, with a wall between text and control tokens.

`encode_text` never yields a control token, whatever the text says; control tokens are asked for by name with
`control_id`. A control token is an added token that is marked special, that a chat format writes, or that the
vocabulary underneath does not hold (`<think>`); added tokens that are ordinary pieces (Gemma's runs of newlines,
its HTML tags) stay text, as in the family's own tokenizer.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers

from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError, NotFound
from tracetune.core.ids import canonical_json
from tracetune.models.templates import STRUCTURE, ChatFormat, choose_format

PROBES = (" a  b\n\nc 1", "a")
PAD_NAMES = ("<pad>", "<|endoftext|>")
BOS_NAMES = ("<bos>", "<|begin_of_text|>")
SPACE_MARK = "▁"
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer:
    """A `tokenizer.json` with the settings that stand beside it in a model's folder.

    Ids and text correspond exactly for what `normalized` leaves unchanged: Qwen's tokenizers compose
    Unicode (NFC) and Gemma's writes `▁` as a space. No text gets a space in front or behind, so pieces encode
    as they stand. Raises InputError for a `tokenizer.json` that cannot keep that.
    """

    def __init__(
        self, source: str, *, settings: Mapping[str, Any] | None = None, generation: Mapping[str, Any] | None = None
    ) -> None:
        self._source = source
        self._settings = dict(settings or {})
        self._generation = dict(generation or {})
        self._tokenizer = _read_tokenizer(source)
        self._control = _wall_off_control(self._tokenizer)
        self._control_ids = frozenset(self._control.values())
        for probe in PROBES:
            kept = self.decode(self.encode_text(probe))
            if kept != probe:
                raise InputError(
                    f"tokenizer: text does not survive encoding, {probe!r} became {kept!r}; "
                    "use a byte-level or Gemma-like tokenizer"
                )

    @classmethod
    def from_json(cls, source: str, *, settings: Mapping[str, Any] | None = None) -> "Tokenizer":
        """From the text of a `tokenizer.json`; `settings` are those of `tokenizer_config.json`."""
        return cls(source, settings=settings)

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """From a Hugging Face model folder. Raises NotFound without `tokenizer.json`, InputError for bad JSON."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise NotFound(f"{path}: no such file; the folder needs the tokenizer's tokenizer.json")
        settings = _read_object(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        if template.is_file():
            settings["chat_template"] = template.read_text("utf-8")
        generation = _read_object(folder / "config.json") | _read_object(folder / "generation_config.json")
        kept = {key: generation[key] for key in generation if key.endswith("_token_id")}
        try:
            return cls(path.read_text("utf-8"), settings=settings, generation=kept)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` unchanged, `tokenizer_config.json`, and `generation_config.json` with the stop ids."""
        write_durably(folder / "tokenizer.json", self._source.encode("utf-8"))
        write_durably(folder / "tokenizer_config.json", _pretty(self._settings))
        ids = {"eos_token_id": sorted(self.stop_ids), "pad_token_id": self.pad_id, "bos_token_id": self.bos_id}
        write_durably(
            folder / "generation_config.json", _pretty({key: ids[key] for key in ids if ids[key] is not None})
        )

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text; a control token's text is spelled out. Raises InputError for a lone surrogate."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_text` of many texts at once, on every core."""
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise InputError("tokenizer: text must be valid Unicode, got a lone surrogate; repair the row") from error
        rows = [encoding.ids for encoding in encodings]
        return [
            ids if self._control_ids.isdisjoint(ids) else self._encode_apart(text)
            for text, ids in zip(texts, rows, strict=True)
        ]

    def _encode_apart(self, text: str) -> list[int]:
        """Some vocabularies spell a control token from text by themselves: cut inside it, encode the parts."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        spans = [span for token, span in zip(encoding.ids, encoding.offsets, strict=True) if token in self._control_ids]
        if any(end - start < 2 for start, end in spans):
            raise InputError(f"tokenizer: {text[:80]!r} cannot be written without a control token; repair the text")
        cuts = [0, *(start + 1 for start, _ in spans), len(text)]
        parts = [text[start:end] for start, end in pairwise(cuts)]
        return [token for ids in self.encode_batch(parts) for token in ids]

    def decode(self, ids: Iterable[int], *, skip_control: bool = False) -> str:
        """Text of ids; control tokens appear as their names, or not at all with `skip_control`."""
        kept = [token for token in ids if not (skip_control and token in self._control_ids)]
        return self._tokenizer.decode(kept, skip_special_tokens=False)

    def token_bytes(self, token: int) -> bytes:
        """What an id stands for in UTF-8, of which one character may take several ids; its name for a control token,
        and nothing for an id that a model has beyond its tokenizer's."""
        piece = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if token not in self._added:
            lone = BYTE_PIECE.fullmatch(piece)
            if lone is not None:
                return bytes.fromhex(lone.group(1))
            if self._spells_bytes:
                return bytes(_BYTES[letter] for letter in piece)
        return self.decode([token]).encode()

    def is_byte(self, token: int) -> bool:
        """Whether an id is a lone byte (`<0xE2>`), whose text depends on the bytes beside it."""
        return token not in self._added and BYTE_PIECE.fullmatch(self._tokenizer.id_to_token(token) or "") is not None

    def encode_document(self, text: str) -> list[int]:
        """Ids of text that stands alone: behind the token that starts a sequence where the family's own tokenizer puts
        one, by its `tokenizer.json` or by `add_bos_token`."""
        opening = self._tokenizer.encode("", add_special_tokens=True).ids
        opened = self.bos_id in opening[:1] or (self.bos_id is not None and self._settings.get("add_bos_token") is True)
        return [*([self.bos_id] if opened else []), *self.encode_text(text)]  # pyright: ignore[reportReturnType]

    def normalized(self, text: str) -> str:
        """`text` as decoding its ids gives it back."""
        composes = self._tokenizer.normalizer
        if composes is None:
            return text
        kept = composes.normalize_str(text)
        return kept.replace(SPACE_MARK, " ") if composes.normalize_str(" ") == SPACE_MARK else kept

    def is_control(self, token: int) -> bool:
        """Whether an id is a control token."""
        return token in self._control_ids

    def control_id(self, text: str) -> int:
        """The id of a control token by its exact text. Raises InputError when there is none."""
        if text not in self._control:
            raise InputError(f"tokenizer: has no control token {text!r}; known are {sorted(self._control)[:12]}")
        return self._control[text]

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Every control token with its id."""
        return self._control

    @property
    def chat_template(self) -> str | None:
        """The model's own Jinja chat template, where its folder has one."""
        template = self._settings.get("chat_template")
        return template if isinstance(template, str) else None

    @cached_property
    def chat_format(self) -> ChatFormat:
        """How conversations are written for this tokenizer. Raises InputError when no format fits."""
        return choose_format(self._control, chat_template=self.chat_template)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token as the vocabulary spells it, control tokens included, with its id."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.vocabulary.values()) + 1

    @cached_property
    def _added(self) -> frozenset[int]:
        """Ids whose pieces are plain text."""
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def _spells_bytes(self) -> bool:
        """Whether the vocabulary is written in the byte alphabet."""
        return '"ByteLevel"' in json.dumps(json.loads(self._source).get("decoder"))

    @cached_property
    def bos_id(self) -> int | None:
        """The token that starts a sequence, or None."""
        return self._named("bos", BOS_NAMES)

    @cached_property
    def pad_id(self) -> int:
        """The token that fills rows; any id serves, since padding is masked."""
        named = self._named("pad", PAD_NAMES)
        return min(self.stop_ids, default=0) if named is None else named

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the chat format's and every end-of-sequence the model's files name."""
        eos = self._generation.get("eos_token_id")
        ids = set(eos if isinstance(eos, list) else [] if eos is None else [eos])
        named = self._control.get(_content(self._settings.get("eos_token")) or "")
        own = [self._control[stop] for stop in self._format_stop()]
        return frozenset(ids | set(own) | (set() if named is None else {named}))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the canonical `tokenizer.json`."""
        return hashlib.sha256(canonical_json(json.loads(self._source))).hexdigest()

    def _format_stop(self) -> list[str]:
        try:
            return [self.chat_format.stop]
        except InputError:
            return []

    def _named(self, kind: str, usual: Sequence[str]) -> int | None:
        name = _content(self._settings.get(f"{kind}_token"))
        if name in self._control:
            return self._control[name]
        token = self._generation.get(f"{kind}_token_id")
        if isinstance(token, int):
            return token
        return next((self._control[name] for name in usual if name in self._control), None)


def _byte_alphabet() -> dict[str, int]:
    """The letter of each byte: itself where it can be seen, else one from 256 on (Radford et al. 2019)."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


_BYTES = _byte_alphabet()


class _PlainExceptions:
    """The tokenizers library raises the bare class Exception for a bad file; exactly that becomes InputError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is Exception:
            raise InputError(f"tokenizer.json: cannot be read ({error}); download the file again") from error


def _read_tokenizer(source: str) -> tokenizers.Tokenizer:
    with _PlainExceptions():
        tokenizer = tokenizers.Tokenizer.from_str(source)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _wall_off_control(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """Make every control token special and specials unreachable from text; return their ids by name."""
    added = tokenizer.get_added_tokens_decoder()
    control = {
        token.content: number
        for number, token in added.items()
        if token.special or token.content in STRUCTURE or tokenizer.model.token_to_id(token.content) is None
    }
    tokenizer.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in control])
    tokenizer.encode_special_tokens = True
    return control


def _content(token: Any) -> str | None:
    """A token's text; `tokenizer_config.json` writes it plain or as an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error}); download the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(value).__name__}; download the file again")
    return value


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8")
