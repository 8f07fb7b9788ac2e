"""The service's log: one JSON object a line on stderr, from which anything that looks like a secret is cut."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

FIELDS = ("request_id", "method", "path", "route", "status", "seconds", "bytes_out", "client", "who", "traceparent")
CUT = "[cut]"
# Our tokens, what follows Bearer or Basic, passwords in URLs, and the keys of the hubs that runs use.
_SECRET = re.compile(
    r"tt_[\w-]{16,}|(?<=Bearer )[^\s\"',]+|(?<=Basic )[^\s\"',]+|(?<=://)[^\s/@\"']+:[^\s/@\"']+(?=@)"
    r"|\bhf_\w{16,}|\btml-[\w-]{16,}|\bsk-[\w-]{16,}",
    re.IGNORECASE,
)


class JsonLines(logging.Formatter):
    """One record, one line: JSON keeps line breaks and control characters of hostile text inside their string."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without secrets."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: record.__dict__[name] for name in FIELDS if name in record.__dict__},
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _SECRET.sub(CUT, json.dumps(line, ensure_ascii=True, default=str))


def log_as_json(stream: TextIO | None = None) -> None:
    """Send the records of the service and of its HTTP server to `stream`, stderr by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("tracetune", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
