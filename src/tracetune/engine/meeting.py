"""Where the processes of a run find each other: JAX's coordination service, alone in a process.

Started by process 0 (`engine.hosts`), which holds its standard input: when that closes, whoever is left has a while to
ask who is gone. Arguments: a port and the number of processes.
"""

import sys
import time

from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

LINGER_SECONDS = 60
_NEVER = 10**6


def main(port: str, num_processes: str) -> None:
    """Keep the service until standard input closes, and a while longer."""
    service = _jax.get_distributed_runtime_service(
        f"[::]:{port}", int(num_processes), heartbeat_timeout=_NEVER, shutdown_timeout=1, recoverable=True
    )
    sys.stdout.write("open\n")
    sys.stdout.flush()
    if sys.stdin.read() != "done\n":
        time.sleep(LINGER_SECONDS)
    service.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
