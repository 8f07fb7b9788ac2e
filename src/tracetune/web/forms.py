"""What a page's form sends: urlencoded fields, read strictly. The guard has already asked where it came from."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from tracetune.api.errors import ApiError

MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 400


class Fields:
    """The fields of one form, in order; a name may come several times."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def one(self, name: str, default: str = "") -> str:
        """The last value of a name, without white space around it; `default` where the form had no such field."""
        return next((value.strip() for key, value in reversed(self.pairs) if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of a name that is not blank, in order."""
        return [value.strip() for key, value in self.pairs if key == name and value.strip()]

    def number(self, name: str) -> int | None:
        """A whole number; None for a blank field. Raises ApiError 422."""
        text = self.one(name)
        if not text:
            return None
        if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or len(text) > 15:
            raise ApiError(422, f"{name}: must be a whole number, got {text[:40]!r}")
        return int(text)


async def read_fields(request: Request) -> Fields:
    """The body of a form. Raises ApiError 415 for another media type, 422 for what is not UTF-8 or holds NUL."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise ApiError(415, f"body: must be {MEDIA_TYPE}, got {media_type or 'no Content-Type'}")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise ApiError(422, "body: not a form of UTF-8 fields, or too many of them") from error
    if any("\0" in part for pair in pairs for part in pair):
        raise ApiError(422, "body: a field holds a NUL character; remove it")
    # A text area sends the line ends of old terminals.
    return Fields([(key, value.replace("\r\n", "\n")) for key, value in pairs])


Form = Annotated[Fields, Depends(read_fields)]
