"""Chat formats: how a conversation becomes pieces of control tokens and text, and which pieces are trained.

Gemma (1–3), Qwen (ChatML: 2.5 and 3) and our own `tiny`. Each format renders what the family's own chat
template renders; control tokens come from the format alone, never from what a message says.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.values import Message, Role

QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system\\n([^'<]+)<\|im_end\|>")


class Piece(NamedTuple):
    """A control token (its exact text) or plain text; `role` is the turn's, None for the start of the sequence."""

    text: str
    control: bool
    trained: bool
    role: Role | None


class Opening(NamedTuple):
    """What opens a turn: a control token, then the role's name as text."""

    control: str
    name: str


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """The grammar of one model family's conversations.

    `closings` ends a turn of that role; the assistant's is the stop token and is trained. `separator` is text
    between turns; after the last turn it is left out, since nothing is learnt from it. `folds_system` puts the
    system text before the first user turn, with a blank line, trimming prompts as Gemma's template does.
    `last_header` stands between the last answer's opening and its text and is not trained: Qwen 3 marks an
    answer without thinking by an empty block there, in the last turn only, as its own template does.
    """

    name: str
    bos: str | None
    openings: Mapping[Role, Opening]
    closings: Mapping[Role, str]
    separator: str
    folds_system: bool = False
    default_system: str | None = None
    last_header: tuple[Piece, ...] = ()

    @property
    def stop(self) -> str:
        """The control token that ends the model's turn."""
        return self.closings["assistant"]

    @property
    def controls(self) -> frozenset[str]:
        """Every control token that this format writes."""
        own = {opening.control for opening in self.openings.values()} | set(self.closings.values())
        own |= {piece.text for piece in self.last_header if piece.control}
        return frozenset(own | ({self.bos} if self.bos else set()))

    def answer_headers(self) -> tuple[tuple[Piece, ...], ...]:
        """The untrained pieces that may stand directly before an answer, the longest first."""
        plain = tuple(self._open("assistant", ""))
        return (plain + self.last_header, plain) if self.last_header else (plain,)

    def pieces(self, messages: Sequence[Message], *, generate: bool = False) -> list[Piece]:
        """The conversation in order; `generate` appends the header that asks for an answer.

        Raises InputError for turns that do not alternate (see `check_turns`).
        """
        check_turns(messages, answered=not generate)
        turns = self._turns(messages)
        pieces = [Piece(self.bos, True, False, None)] if self.bos else []
        for index, turn in enumerate(turns):
            last = index == len(turns) - 1
            pieces += self._turn(turn, last=last)
            if self.separator and (generate or not last):
                pieces.append(Piece(self.separator, False, False, turn.role))
        return pieces + (list(self.answer_headers()[0]) if generate else [])

    def _turns(self, messages: Sequence[Message]) -> list[Message]:
        """Messages as the format's turns: system text folded in, or the family's default added."""
        if not self.folds_system:
            default = [Message("system", self.default_system)] if self.default_system else []
            return [*(default if messages[0].role != "system" else []), *messages]
        system = messages[0].content + "\n\n" if messages[0].role == "system" else ""
        turns = [
            Message("user", message.content.strip()) if message.role == "user" else message
            for message in messages[1 if system else 0 :]
        ]
        return [replace(turns[0], content=system + turns[0].content), *turns[1:]]

    def _turn(self, turn: Message, *, last: bool) -> Iterator[Piece]:
        trained = turn.role == "assistant"
        # The model's text starts a piece of its own: at generation nothing follows its header.
        yield from self._open(turn.role, "" if trained else turn.content)
        if trained:
            yield from self.last_header if last else ()
            yield Piece(turn.content, False, True, turn.role)
        if turn.role in self.closings:
            yield Piece(self.closings[turn.role], True, trained, turn.role)

    def _open(self, role: Role, content: str) -> Iterator[Piece]:
        opening = self.openings[role]
        yield Piece(opening.control, True, False, role)
        if opening.name or content:
            # One piece, so that the tokens equal those of the whole string between control tokens.
            yield Piece(opening.name + content, False, False, role)


def _answer(text: str, *, control: bool = False) -> Piece:
    return Piece(text, control, False, "assistant")


EMPTY_THINKING = (
    *(_answer("<think>", control=True), _answer("\n\n")),
    *(_answer("</think>", control=True), _answer("\n\n")),
)
GEMMA = ChatFormat(
    name="gemma",
    bos="<bos>",
    openings={"user": Opening("<start_of_turn>", "user\n"), "assistant": Opening("<start_of_turn>", "model\n")},
    closings={"user": "<end_of_turn>", "assistant": "<end_of_turn>"},
    separator="\n",
    folds_system=True,
)
QWEN = ChatFormat(
    name="qwen",
    bos=None,
    openings={
        "system": Opening("<|im_start|>", "system\n"),
        "user": Opening("<|im_start|>", "user\n"),
        "assistant": Opening("<|im_start|>", "assistant\n"),
    },
    closings={"system": "<|im_end|>", "user": "<|im_end|>", "assistant": "<|im_end|>"},
    separator="\n",
)
TINY = ChatFormat(
    name="tiny",
    bos="<bos>",
    openings={
        "system": Opening("<system>", ""),
        "user": Opening("<user>", ""),
        "assistant": Opening("<model>", ""),
    },
    closings={"assistant": "<end>"},
    separator="",
)
FORMATS = (GEMMA, QWEN, TINY)
STRUCTURE = frozenset().union(*(known.controls for known in FORMATS))


def choose_format(control_tokens: Collection[str], *, chat_template: str | None = None) -> ChatFormat:
    """The format whose control tokens a tokenizer has. Raises InputError when none fits.

    For ChatML, the model's own `chat_template` says which default system text it adds (Qwen 2, 2.5) and whether
    an answer without thinking carries the empty block (Qwen 3); without a template the presence of `<think>`
    decides: with it Qwen 3, else Qwen 2.5.
    """
    for known in FORMATS:
        if known.controls <= set(control_tokens):
            return _qwen_variant(control_tokens, chat_template) if known is QWEN else known
    wanted = "; ".join(f"{known.name}: {' '.join(sorted(known.controls))}" for known in FORMATS)
    raise InputError(
        f"tokenizer: has the control tokens of no known chat format, got {sorted(control_tokens)[:12]}; "
        f"use a model of one of these ({wanted})"
    )


def _qwen_variant(control_tokens: Collection[str], chat_template: str | None) -> ChatFormat:
    if chat_template is None:
        if "<think>" in control_tokens:
            return replace(QWEN, last_header=EMPTY_THINKING)
        return replace(QWEN, default_system=QWEN25_SYSTEM)
    default = DEFAULT_SYSTEM.search(chat_template)
    thinks = "<think>" in control_tokens and r"<think>\n\n</think>" in chat_template
    return replace(
        QWEN, default_system=default.group(1) if default else None, last_header=EMPTY_THINKING if thinks else ()
    )


def check_turns(messages: Sequence[Message], *, answered: bool, where: str = "messages") -> None:
    """A conversation is an optional system message, then user and assistant in turn, the user first.

    `answered` says whether it ends with the assistant (training) or with the user (a prompt). Raises InputError.
    """
    turns = messages[1 if messages and messages[0].role == "system" else 0 :]
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise InputError(
                f"{where}: turn {index + 1} after the system message must be {expected}'s, got {message.role!r}; "
                "user and assistant take turns, the user first"
            )
    last = "assistant" if answered else "user"
    if not turns or turns[-1].role != last:
        raise InputError(f"{where}: must end with a message of the {last}, got {turns[-1].role if turns else 'none'}")
