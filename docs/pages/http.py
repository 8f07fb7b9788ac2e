"""Every route of the service with what it takes and answers, from its own OpenAPI; no server is started."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings

Json = Mapping[str, Any]


def page() -> str:
    """The reference of the HTTP interface."""
    described = create_service(ServiceSettings(home=Path("unused"))).openapi()
    operations = [
        (method.upper(), path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    common = set.intersection(*(set(operation["responses"]) for _, _, operation in operations))
    refusals = ", ".join(sorted(code for code in common if code >= "400"))
    lines = [
        "# HTTP",
        "",
        "Written from the service's own OpenAPI, which it serves at `/openapi.json`. Any route may refuse with "
        f"{refusals}, and where a token is asked for with 401; what a refusal looks like, and what is refused, stands "
        "in [The service](../service.md).",
    ]
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in operations):
        lines += ["", f"## {tag.capitalize()}"]
        for method, path, operation in operations:
            if operation["tags"][0] == tag:
                lines += ["", f"### {method} {path}", "", *_operation(operation, common, described)]
    return "\n".join(lines) + "\n"


def _operation(operation: Json, common: set[str], described: Json) -> Iterator[str]:
    yield " ".join(operation.get("description", "").split())
    for parameter in operation.get("parameters", ()):
        words = _sentence(parameter.get("description") or parameter["schema"].get("description") or "")
        place = f"In the {parameter['in']}.{' Required.' if parameter.get('required') else ''}"
        yield from _term(parameter["name"], parameter["schema"], f"{words} {place}", described)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _followed(content.get("schema", {}), described)
        yield from ("", f"Takes {_kind(kind)}{_of(schema)}{':' if schema.get('properties') else '.'}")
        for name, field in schema.get("properties", {}).items():
            required = " Required." if name in schema.get("required", ()) else ""
            yield from _term(name, field, f"{_sentence(field.get('description', ''))}{required}", described)
    for code, answer in operation["responses"].items():
        if code < "300":
            yield from ("", f"Answers {code}{_answer(answer, described)}.")
    own = sorted(code for code in operation["responses"] if code >= "400" and code not in common | {"401"})
    if own:
        yield from ("", f"Refuses also with {', '.join(own)}.")


def _answer(answer: Json, described: Json) -> str:
    """The fields of an answer in JSON, the kind of any other."""
    kinds = []
    for kind, content in answer.get("content", {}).items():
        schema = _followed(content.get("schema", {}), described)
        fields = [f"`{name}` *{_type(field, described)}*" for name, field in schema.get("properties", {}).items()]
        kinds.append(f" with {', '.join(fields)}" if fields else f" with {_kind(kind)}")
    return " or".join(kinds)


def _term(name: str, schema: Json, words: str, described: Json) -> Iterator[str]:
    default = f" *Default* `{_json(schema['default'])}`." if schema.get("default") is not None else ""
    told = f"{' '.join(words.split())}{default}".strip() or "Optional."
    yield from ("", f"`{name}` *{_type(schema, described)}*", f": {told}")


def _type(schema: Json, described: Json) -> str:
    if "$ref" in schema:
        followed = _followed(schema, described)
        return _named(followed) if followed.get("properties") else _type(followed, described)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part, described) for part in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), described)}"
    return f"{schema.get('type', 'any value')}{_bounds(schema)}"


def _bounds(schema: Json) -> str:
    low, high = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    if low is None and high is None:
        return ""
    # The largest integer that every JSON reader keeps is no bound worth telling.
    low = f"{low or 0:.0f}"
    return f" from {low}" if high is None or high == 2**53 - 1 else f" {low}–{high:.0f}"


def _named(schema: Json) -> str:
    return f"{{{', '.join(schema['properties'])}}}"


def _followed(schema: Json, described: Json) -> Json:
    name = schema.get("$ref", "").rpartition("/")[2]
    return described["components"]["schemas"][name] if name else schema


def _sentence(words: str) -> str:
    return words if not words or words.endswith(".") else f"{words}."


def _of(schema: Json) -> str:
    words = " ".join(schema.get("description", "").split())
    return f" ({words[0].lower()}{words[1:].removesuffix('.')})" if words else ""


def _kind(content_type: str) -> str:
    return "JSON" if content_type == "application/json" else f"`{content_type}`"


def _json(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
