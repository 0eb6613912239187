"""What fork() must not break: gRPC's threads and locks do not live on in the child.

Streams and channels belong to the process that made them. A child makes its own, and the inherited ones
are kept, unused, so that nothing tries to close them there.
"""

from __future__ import annotations

import os

import grpc

_inherited: list[object] = []
_pinned_pid = 0


def pin_grpc() -> None:
    """Keep one thread of this process inside gRPC for good.

    When none is, os.fork() runs gRPC's own fork handlers, which were seen to hang the fork for ever shortly
    after a channel was closed (grpcio 1.85). The channel made here never connects and is never closed.
    """
    global _pinned_pid  # noqa: PLW0603  one per process
    if _pinned_pid != os.getpid():
        _pinned_pid = os.getpid()
        pin = grpc.insecure_channel("localhost:1", options=[("grpc.use_local_subchannel_pool", 1)])
        pin.subscribe(lambda _: None)
        keep(pin)


def keep(inherited: object) -> None:
    """Never destroy this, and so never let gRPC take it down."""
    _inherited.append(inherited)
