"""Every verb of `import tracetune` with its signature, from the source: nothing heavy is imported to describe it."""

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import tracetune
from tracetune import _HOMES

SOURCE = Path(tracetune.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """The reference of the Python interface."""
    lines = [
        "# Python",
        "",
        "The verbs of the command line as functions, written from their source. `import tracetune` loads nothing "
        "heavy; each verb does when it is first used. What each raises is a kind of "
        "`tracetune.core.errors.TracetuneError`, and also the standard library's error of that kind.",
    ]
    for verb in tracetune.__all__:
        lines += ["", f"## {verb}", "", *_verb(_HOMES[verb], verb)]
    lines += ["", "## Errors", "", f"```text\n{_docstring(_tree('core.errors'))}\n```"]
    return "\n".join(lines) + "\n"


def _verb(module: str, name: str) -> Iterator[str]:
    home, found = _definition(module, name)
    assert isinstance(found, Function), f"{name} is no function"
    yield f"```python\n{_signature(found)}\n```"
    yield ""
    yield _prose(_docstring(found))
    returned = ast.unparse(found.returns) if found.returns else ""
    if returned.isidentifier() and returned[0].isupper():
        yield from _result(home, returned)


def _result(module: str, name: str) -> Iterator[str]:
    """What a verb returns, where that is a class of ours: what it is and its fields."""
    found = _definition(module, name)[1]
    if isinstance(found, ast.ClassDef):
        fields = [
            f"`{field.target.id}: {ast.unparse(field.annotation)}`"
            for field in found.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        ]
        yield from ("", f"Returns `{name}` with {', '.join(fields)}.", "", _prose(_docstring(found)))


def _signature(function: Function) -> str:
    """A function as it is called, one parameter a line where it would be long."""
    parts, returns = list(_parameters(function.args)), ast.unparse(function.returns) if function.returns else "None"
    line = f"tracetune.{function.name}({', '.join(parts)}) -> {returns}"
    if len(line) <= 88:
        return line
    return "\n".join((f"tracetune.{function.name}(", *(f"    {part}," for part in parts), f") -> {returns}"))


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    """Each parameter with its type and default, and the star before those that must be named."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    yield from map(_parameter, positional, defaults)
    if arguments.vararg or arguments.kwonlyargs:
        yield f"*{arguments.vararg.arg if arguments.vararg else ''}"
    yield from map(_parameter, arguments.kwonlyargs, arguments.kw_defaults)


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{kind}{f' = {ast.unparse(default)}' if default else ''}"


def _prose(docstring: str) -> str:
    """A docstring as Markdown: its examples become blocks."""
    paragraphs = [
        f"```python\n{paragraph}\n```" if paragraph.startswith(">>>") else paragraph
        for paragraph in docstring.split("\n\n")
    ]
    return "\n\n".join(paragraphs)


def _docstring(node: ast.Module | Function | ast.ClassDef) -> str:
    return inspect.cleandoc(ast.get_docstring(node) or "")


def _definition(module: str, name: str) -> tuple[str, ast.stmt]:
    """The module that defines a name, imports of ours followed, and its definition; `pass` for what is not ours."""
    for node in _tree(module).body:
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in {each.asname or each.name for each in node.names}:
            package, _, inner = (node.module or "").partition(".")
            return _definition(inner, name) if package == "tracetune" else (module, ast.Pass())
    return module, ast.Pass()


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
