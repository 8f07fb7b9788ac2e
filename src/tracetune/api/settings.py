"""What one service is told when it starts."""

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::", "")


def _trace_max_bytes() -> int:
    return int(os.environ.get("TRACE_MAX_BYTES") or 2**20)


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """`home` holds the database (unless DATABASE_URL names another), datasets, runs and models. Sizes are bytes.

    A bind beyond this machine always requires a token. `allowed_hosts` are exact names a request may be for,
    besides this machine's and the address it binds. `experiments` is the tree of experiments that is shown, None for
    none.
    """

    home: Path
    experiments: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    require_token: bool = False
    allowed_hosts: tuple[str, ...] = ()
    trace_max_bytes: int = field(default_factory=_trace_max_bytes)
    body_max_bytes: int = 32 * 2**20
    max_in_flight: int = 128
    run_slots: int = 1
    drain_seconds: float = 6.0

    @property
    def token_required(self) -> bool:
        """Whether a request without a token is refused."""
        return self.require_token or not is_loopback(self.host)

    @property
    def host_names(self) -> frozenset[str]:
        """The names, lower case and without a port, that a request may be for."""
        bound = () if self.host in ANY_ADDRESS else (f"[{self.host}]" if ":" in self.host else self.host,)
        return frozenset(name.lower() for name in (*LOCAL_HOSTS, *bound, *self.allowed_hosts))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
