"""Ollama's Modelfile: where the weights are, the chat format as a Go template, and what ends an answer.

The template writes what the family's own template writes, but for the token that begins a sequence, which the
runtime adds by itself.
"""

from tracetune.core.errors import InputError
from tracetune.core.values import Role
from tracetune.models.templates import ChatFormat, Opening
from tracetune.models.tokenizer import Tokenizer


def modelfile(tokenizer: Tokenizer, *, source: str, adapter: str | None = None) -> str:
    """The whole Modelfile. `source` is a folder, a file or a model's name; `adapter` a folder of an adapter on it.

    A tokenizer of no known chat format gets no template, and Ollama takes its own.
    """
    lines = [f"FROM {source}"] + ([] if adapter is None else [f"ADAPTER {adapter}"])
    try:
        chat = tokenizer.chat_format
    except InputError:
        lines.append("# The tokenizer has no chat format that Tracetune knows, so no TEMPLATE stands here.")
        chat = None
    if chat is not None:
        lines.append(f'TEMPLATE """{go_template(chat)}"""')
        if chat.default_system is not None:
            lines.append(f'SYSTEM """{chat.default_system}"""')
    lines += [f'PARAMETER stop "{name}"' for name in stop_names(tokenizer)]
    return "\n".join(lines) + "\n"


def stop_names(tokenizer: Tokenizer) -> list[str]:
    """The tokens that end an answer, by name, in the order of their ids."""
    named = {number: name for name, number in tokenizer.control_tokens.items()}
    return [named[number] for number in sorted(tokenizer.stop_ids) if number in named]


def go_template(chat: ChatFormat) -> str:
    """The chat format over Ollama's `.System` and `.Messages` (each with `.Role` and `.Content`)."""
    asks = "".join(piece.text for piece in chat.answer_headers()[0])
    first = "" if chat.folds_system else _system(chat)
    folded = '{{ if $system }}{{ $system }}\n\n{{ $system = "" }}{{ end }}' if chat.folds_system else ""
    user = _turn(chat, "user", folded + "{{ .Content }}")
    # The answer after the last user's turn is asked for; one that is already begun is gone on with.
    asked = f"{{{{ if $last }}}}{asks}{{{{ end }}}}"
    said = f"{_open(chat.openings['assistant'])}{{{{ .Content }}}}"
    ended = f"{{{{ if not $last }}}}{chat.stop}{chat.separator}{{{{ end }}}}"
    return (
        f"{{{{ $system := .System }}}}{first}"
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{user}{asked}'
        f'{{{{ else if eq .Role "assistant" }}}}{said}{ended}'
        "{{ end }}{{ end }}"
    )


def _system(chat: ChatFormat) -> str:
    return f"{{{{ if $system }}}}{_turn(chat, 'system', '{{ $system }}')}{{{{ end }}}}"


def _turn(chat: ChatFormat, role: Role, content: str) -> str:
    return f"{_open(chat.openings[role])}{content}{chat.closings.get(role, '')}{chat.separator}"


def _open(opening: Opening) -> str:
    return opening.control + opening.name
