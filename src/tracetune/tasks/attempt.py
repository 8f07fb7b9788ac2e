"""The border to code that is not ours: what it raises becomes a sentence instead of ending a run."""

from types import TracebackType

MAX_CHARS = 300


class Attempt:
    """A block that may fail. After it `error` says what was raised, None when nothing was.

    Catches every ordinary exception and SystemExit; an interrupt by the user passes through.

    >>> with Attempt() as attempt:
    ...     _ = int("a")
    >>> attempt.error
    "ValueError: invalid literal for int() with base 10: 'a'"
    """

    error: str | None = None
    missing_module: str | None = None
    is_out_of_memory = False

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception | SystemExit):
            return False
        self.is_out_of_memory = isinstance(error, MemoryError)
        self.missing_module = error.name if isinstance(error, ModuleNotFoundError) else None
        self.error = " ".join(f"{type(error).__name__}: {error}"[:MAX_CHARS].split()).rstrip(":")
        return True
