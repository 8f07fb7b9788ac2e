"""Every error a user can meet. A message reads *where: what is wrong, got what; what to do*.

TracetuneError                  anything we raise on purpose; the command line prints it and exits 1
├── InputError (ValueError)     a file, row, setting or argument that cannot be used as it is
│   └── MaskError               a row whose loss mask would teach the wrong tokens
├── NotFound (LookupError)      a trace, dataset, run, model or file that does not exist
├── Conflict (ValueError)       the name is taken by other content
├── Corrupt (ValueError)        bytes on disk differ from their recorded sha256
├── Unavailable (ImportError)   an optional package or device is missing; the message has the install command
├── Diverged (ArithmeticError)  a loss or gradient that is not finite
└── StorageError (OSError)      the disk refused a write
"""


class TracetuneError(Exception):
    """The root: catch this to catch every error raised on purpose."""


class InputError(TracetuneError, ValueError):
    """A file, row, setting or argument that cannot be used as it is."""


class MaskError(InputError):
    """A training row without a trainable answer, or with loss where none belongs."""


class NotFound(TracetuneError, LookupError):
    """Something asked for by name that does not exist."""


class Conflict(TracetuneError, ValueError):
    """A name that already stands for other content."""


class Corrupt(TracetuneError, ValueError):
    """Bytes that differ from the checksum recorded when they were written."""


class Unavailable(TracetuneError, ImportError):
    """An optional package or device that is not here; the message says how to get it."""


class Diverged(TracetuneError, ArithmeticError):
    """A loss or gradient norm that is not finite."""


class StorageError(TracetuneError, OSError):
    """A write that the disk refused."""
