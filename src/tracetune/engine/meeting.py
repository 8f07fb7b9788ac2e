"""Where the processes of a run find each other: JAX's coordination service, alone in a process.

Started by process 0 (`engine.hosts`), which holds its standard input: when that closes, whoever is left has a while to
ask who is gone. Arguments: a port and the number of processes.
"""

import socket
import sys
import time

from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

# A little longer than the others take to find that process 0 is silent (`hosts.SILENCE_SECONDS`).
LINGER_SECONDS = 35
# The meeting of a run that broke off a moment ago may still have the port.
PORT_SECONDS = 2 * LINGER_SECONDS
_NEVER = 10**6


def main(port: str, num_processes: str) -> None:
    """Keep the service until standard input closes, and a while longer. Ends at once, and says nothing, when the port
    does not become free."""
    if not _becomes_free(int(port)):
        return
    service = _jax.get_distributed_runtime_service(
        f"[::]:{port}", int(num_processes), heartbeat_timeout=_NEVER, shutdown_timeout=1, recoverable=True
    )
    sys.stdout.write("open\n")
    sys.stdout.flush()
    if sys.stdin.read() != "done\n":
        time.sleep(LINGER_SECONDS)
    service.shutdown()


def _becomes_free(port: int) -> bool:
    """gRPC would share a port that another meeting listens at, and some would go to the wrong one."""
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        with socket.socket() as probe:
            # Past connections that have not faded hold nothing.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
        time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
