"""Where the server is and how to connect to it, for both kinds of client."""

from __future__ import annotations

import ctypes
import getpass
import ipaddress
import os
import socket
import weakref
from dataclasses import dataclass
from typing import Any

import grpc

from pylok.errors import ForkedError

DEFAULT_ADDRESS = "127.0.0.1:5625"
"""Where a server listens unless it was told otherwise: LOCK on a keypad."""

TIMEOUT = 10.0
"""Seconds that the server has to answer, the wait for a lock not counted."""

PATIENCE = 10.0
"""Seconds for which a request that can safely be sent again is, after the
connection was lost, unless the client was given others."""

UNDO = 5.0
"""Seconds for which a caller that leaves while it takes a lock is kept, so that the lock
does not stay held."""

UNDO_TTL = 1.0
"""The ttl of a hold that must not come about: one that is granted only because somebody
asked what became of an earlier request."""

EXPLAIN = 1.0
"""Seconds that the server has to say who ended a hold, and why."""

LEFT = "the caller left before it could use the lock"
"""Why a hold is released that nobody will get to see."""

PAUSE = 0.2
"""Seconds between two attempts when the server is there and turns requests away.
Without a server gRPC's own backoff counts, up to 5 s."""


@dataclass(frozen=True)
class Settings:
    """What it takes to make a Client, in a form that can go to another process."""

    address: str
    """HOST:PORT."""
    tls: bool = False
    """Whether to speak TLS."""
    root_certificates: bytes | None = None
    """PEM of those who vouch for the server; None: the usual ones."""
    insecure: bool = False
    """Whether plaintext to another machine is meant."""

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of Client."""
        credentials = grpc.ssl_channel_credentials(self.root_certificates) if self.tls else None
        return dict(address=self.address, credentials=credentials, insecure=self.insecure)


def default_address() -> str:
    """Returns the address that PYLOK_ADDRESS gives, else DEFAULT_ADDRESS."""
    return os.environ.get("PYLOK_ADDRESS") or DEFAULT_ADDRESS


def default_holder() -> str:
    """Returns user@host, or uid-1234@host for a user who has no name here, as in many
    containers."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's list
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname() or 'somewhere'}"


def make_channel(
    make_insecure: Any,
    make_secure: Any,
    address: str,
    credentials: grpc.ChannelCredentials | None,
) -> Any:
    """Makes a channel with the two functions of grpc or of grpc.aio."""
    global _used_by
    if is_forked() and os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0":
        raise ForkedError(
            "this process was forked from one with a pylok client, and gRPC does not survive that; "
            "start it by other means, such as multiprocessing's spawn, or fork before the first client"
        )
    _used_by = _used_by or os.getpid()
    options = [
        # Each client has a connection of its own, so that closing one means it.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5000),  # that is for one attempt to connect
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A page of list has at most 1000 locks of 64 KiB of YAML each, which may
        # take more room as a message.
        ("grpc.max_receive_message_length", 256 << 20),
    ]
    if is_loopback(split_address(address)[0]):
        options.append(("grpc.enable_http_proxy", 0))
    if credentials is not None:
        channel = make_secure(address, credentials, options=options)
    else:
        channel = make_insecure(address, options=options)
    return not_for_children(channel)


class Maker:
    """The process that made a client, a hold or a watch, which belong to it: a process
    that is forked from it has a copy of the connection, which is still the other's."""

    def __init__(self) -> None:
        """Is for this process."""
        self._pid = os.getpid()

    def is_here(self) -> bool:
        """Reports whether this is the process."""
        return self._pid == os.getpid()

    def check(self, what: str) -> None:
        """Raises ForkedError in any other process."""
        if not self.is_here():
            raise ForkedError(
                f"{what} belongs to process {self._pid}, from which this one was forked; "
                "use it there, or start this process by other means, such as multiprocessing's "
                "spawn, and give it a client of its own"
            )


_used_by = 0  # the process that made the first channel
_not_for_children: weakref.WeakSet[Any] = weakref.WeakSet()


def not_for_children(thing: Any) -> Any:
    """Returns a channel or a stream, which will not be closed in forked processes."""
    _not_for_children.add(thing)
    return thing


def is_forked() -> bool:
    """Reports whether this process was forked from one that had channels, so that
    gRPC does not work in it."""
    return _used_by not in (0, os.getpid())


def _abandon() -> None:
    """Keeps channels and streams from being closed in a forked process, which could hang
    in it, and would end them for the process that they belong to."""
    for thing in list(_not_for_children):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)


def check_address(address: str, *, encrypted: bool, insecure: bool) -> None:
    """Raises ValueError for an address that is none, or that must not be used in
    plaintext unless the caller insists."""
    host, port = split_address(address)
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"the address {address!r} is not HOST:PORT, such as {DEFAULT_ADDRESS}")
    if not encrypted and not insecure and not is_loopback(host):
        raise ValueError(
            f"{address} is another machine, and without TLS anyone on the way could read and "
            "change what is sent; give credentials, or tls=True to pylok.configure; or "
            "insecure=True where that is meant"
        )


def split_address(address: str) -> tuple[str, str]:
    """Returns host and port of HOST:PORT or [HOST]:PORT; empty strings for neither."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return ("", "") if ":" in host or "/" in host else (host, port)


def is_loopback(host: str) -> bool:
    """Reports whether host is this machine under a name or an address that cannot
    mean another one."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
