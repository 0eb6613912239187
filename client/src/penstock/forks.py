"""What fork() must not break: gRPC's threads and locks do not live on in the child.

Seen with grpcio 1.85, in a process that streams: by default, os.fork() runs gRPC's own handlers, which hung
the fork for ever when a channel had just been closed, and crashed one child in three, also those that never
called gRPC. With the handlers off, forking is sound, and gRPC in the child is not: every call hangs or aborts.
So the handlers are off (`penstock/__init__.py`), and what a child has to say goes by a relay, a process of
its own (`relay`); so does what a process has to say in which gRPC was loaded with the handlers on.
"""

from __future__ import annotations

import ctypes
import os
import weakref

import grpc

import penstock

_user_pid = 0
_channels: weakref.WeakSet[grpc.Channel] = weakref.WeakSet()


def use_grpc() -> bool:
    """Whether this process may call gRPC itself. If so, it is taken to do so from here on."""
    global _user_pid  # noqa: PLW0603  one per process
    if not _user_pid:
        _user_pid = os.getpid()
    return _user_pid == os.getpid()


def may_stream() -> bool:
    """Whether a stream, which may be open at any fork, can be in this process itself."""
    return use_grpc() and (penstock.FORKS_SAFELY or not hasattr(os, "fork"))


def watch(channel: grpc.Channel) -> grpc.Channel:
    """See to it that a forked child leaves this channel alone."""
    _channels.add(channel)
    return channel


def keep(thing: object) -> None:
    """Never destroy this, not even when the interpreter ends: gRPC would wait for threads that are not there."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _in_child() -> None:
    for channel in list(_channels):
        keep(channel)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
