"""Ports for listeners that others must know before they listen."""

from __future__ import annotations

import random
import socket

# Below the ports that kernels give to outgoing connections and to port 0 (32768 and up on Linux, 49152 and up elsewhere)
# and below Kubernetes' node ports: nobody is given one of these by chance between our look and our use.
_RANGE = range(20_000, 30_000)
_ATTEMPTS = 200


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now, drawn at random.

    Raises:
        OSError: no port could be bound.
    """
    refusal: OSError | None = None
    for port in random.sample(_RANGE, _ATTEMPTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                refusal = exc
            else:
                return port
    raise OSError(f"no free port among {_ATTEMPTS} of {_RANGE.start}-{_RANGE.stop - 1}") from refusal
