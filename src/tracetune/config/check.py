"""Settings against a table of dials: each leaf read by its kind, every mistake collected, nothing ignored."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.config.kinds import Kind, spell


class Dial(NamedTuple):
    """`key` is what a user writes, `target` the field it sets; None only checks the value.

    `told` says what the field does, in the reference and in training/README.md. Of several keys with one target the one
    that `config.yaml` has is told, and the others are its other spellings.
    """

    key: str
    target: str | None
    kind: Kind
    told: str = ""


class Setting(NamedTuple):
    """A checked value with the place it was written, for messages about contradictions."""

    value: Any
    place: str


Settings = dict[str, Setting]


class Table:
    """Every key that may be written; `hint` ends the message about a key that resembles none of them."""

    def __init__(self, dials: Sequence[Dial], *, hint: str) -> None:
        self.known = {dial.key: dial for dial in dials}
        self.sections = {key.rsplit(".", depth)[0] for key in self.known for depth in range(1, key.count(".") + 1)}
        self._hint = hint

    def check(self, content: Mapping[str, Any], where: str, mistakes: list[str]) -> Settings:
        """Check every leaf; mistakes are appended, good settings returned by target."""
        settings: Settings = {}
        for key, value in leaves(content):
            place = f"{where}: {key}"
            dial = self.known.get(key)
            if dial is None:
                if key not in self.sections:
                    mistakes.append(f"{place}: unknown key{self.suggest(key)}")
                elif value not in (None, {}):
                    mistakes.append(f"{place}: must be a section with keys of its own, got {spell(value)}")
                continue
            try:
                typed = dial.kind.read(value)
            except ValueError:
                mistakes.append(f"{place}: must be {dial.kind.meaning}, got {spell(value)}")
                continue
            if dial.target is not None:
                _set_once(settings, dial.target, Setting(typed, place), mistakes)
        return settings

    def suggest(self, key: str) -> str:
        """The nearest key as the end of a sentence, by its whole path or by its last part."""
        near = difflib.get_close_matches(key, self.known, n=1, cutoff=0.7)
        if not near:
            last = key.rsplit(".", 1)[-1]
            by_last = {known.rsplit(".", 1)[-1]: known for known in reversed(self.known)}
            near = [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)]
        return f"; did you mean {near[0]}?" if near else f"; {self._hint}"


def leaves(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Each value that is no section, by its dotted key; an empty section is a value."""
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        key = f"{prefix}{name}"
        found.extend(leaves(value, f"{key}.") if isinstance(value, Mapping) and value else [(key, value)])
    return found


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean …?`, or nothing when no name is near."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _set_once(settings: Settings, target: str, setting: Setting, mistakes: list[str]) -> None:
    before = settings.setdefault(target, setting)
    if before.value != setting.value:
        mistakes.append(f"{setting.place}: contradicts {before.place}, which sets the same; keep one")
