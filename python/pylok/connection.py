"""Where the server is and how to connect to it, for both kinds of client."""

from __future__ import annotations

import ctypes
import getpass
import ipaddress
import os
import socket
import urllib.parse
import weakref
from dataclasses import dataclass
from typing import Any

import grpc

from pylok import proof, settings
from pylok.errors import ForkedError

DEFAULT_ADDRESS = "127.0.0.1:5625"
"""Where a server listens unless it was told otherwise, beside its socket: LOCK on a
keypad."""

TIMEOUT = 10.0
"""Seconds that the server has to answer, the wait for a lock not counted."""

PATIENCE = 10.0
"""Seconds for which a request that can safely be sent again is, after the
connection was lost, unless the client was given others."""

UNDO = 5.0
"""Seconds for which a caller that leaves while it takes a lock is kept, so that the lock
does not stay held."""

LONG = 3600.0
"""Seconds after which a call without an end of its own is made anew."""

UNDO_TTL = 1.0
"""The ttl of a hold that must not come about: one that is granted only because somebody
asked what became of an earlier request."""

EXPLAIN = 1.0
"""Seconds that the server has to say who ended a hold, and why."""

RELEASE_ALL = 5.0
"""Seconds that the end of a client takes to release all that it has taken."""

LISTEN_AGAIN = 5.0
"""Seconds after which a hold asks again for a watch that was refused."""

LEFT = "the caller left before it could use the lock"
"""Why a hold is released that nobody will get to see."""

PAUSE = 0.2
"""Seconds between two attempts when the server is there and turns requests away.
Without a server gRPC's own backoff counts, up to 5 s."""


@dataclass(frozen=True)
class Settings:
    """What it takes to make a Client, in a form that can go to another process."""

    address: str
    """HOST:PORT, or unix:///PATH."""
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
    """Returns the address that PYLOK_ADDRESS gives, else DEFAULT_ADDRESS, for those who
    are to be told apart from nobody: over a socket a hold would be its user's alone."""
    return os.environ.get("PYLOK_ADDRESS") or DEFAULT_ADDRESS


_SYSTEM_SOCKET = "/run/pylok/pylok.sock"


def find_address() -> str:
    """Returns where this machine's own server is looked for when nobody says where, and
    without TLS: its Unix socket if there is one, else DEFAULT_ADDRESS. A socket
    that is there is the address whether a server answers on it or not: another one at
    DEFAULT_ADDRESS may serve other locks."""
    sockets = [_SYSTEM_SOCKET]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() != 0 and os.path.isabs(runtime):  # of another user, where root comes from su
        sockets.insert(0, os.path.join(runtime, "pylok", "pylok.sock"))
    for path in sockets:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # it may be there
        return f"{_SOCKET}{path}"
    return DEFAULT_ADDRESS


def default_holder() -> str:
    """Returns PYLOK_HOLDER; else user@host, or uid-1234@host for a user who has no name
    here, as in many containers."""
    if holder := os.environ.get("PYLOK_HOLDER"):
        return holder
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's list
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname() or 'somewhere'}"


class Endpoint:
    """A server and how to talk to it: what the settings of a client say."""

    def __init__(
        self, chosen: settings.Settings, credentials: grpc.ChannelCredentials | None
    ) -> None:
        """credentials go before the TLS of the settings. Raises ValueError for what must
        not be."""
        insecure = chosen.is_on("insecure")
        address = chosen.of("address").value
        # A job says by itself who it is where TLS of the settings says to whom, and an
        # address was given, and no other proof is meant.
        by_job = address != "" and credentials is None and not chosen.of("cert").value
        if not address:
            encrypted = credentials is not None or chosen.want_tls()
            address = DEFAULT_ADDRESS if encrypted else find_address()
        self.socket = socket_path(address)
        if self.socket is None:
            self.address = address
            if credentials is None:
                credentials = proof.tls_credentials(chosen)
        elif credentials is not None:
            raise ValueError(f"{address} is a Unix socket, which has no TLS and needs none")
        else:
            self.address = f"{_SOCKET}{self.socket}"
        self.encrypted = credentials is not None
        if self.socket is None:
            check_address(self.address, encrypted=self.encrypted, insecure=insecure)
        self.credentials = credentials
        self.bearer: proof.Bearer | None = None
        """The bearer token of each call; None: there is none."""
        if token_file := chosen.of("token_file").value:
            self._give(proof.TokenFile(token_file), insecure)
        elif by_job and self.encrypted and proof.JobToken.is_there(chosen):
            host = split_address(self.address)[0]
            self._give(proof.JobToken(chosen.of("audience").value or host), insecure)

    def _give(self, source: proof.TokenFile | proof.JobToken, insecure: bool) -> None:
        """Gives each call the token, over a connection that may have it."""
        check: Any = _no_check
        if self.socket is not None:
            check = proof.Listener(self.socket).check
            self.credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        elif self.credentials is None:
            if not insecure or not is_loopback(split_address(self.address)[0]):
                raise ValueError(
                    f"without TLS nothing tells who listens at {self.address}, and whoever does would "
                    "get the bearer token; give credentials or PYLOK_TLS, use the server's socket, or "
                    "insecure=True for this machine"
                )
            self.credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
        self.bearer = proof.Bearer(source, check)

    def target(self) -> str:
        """Returns the address as gRPC takes it."""
        if self.socket is None:
            return self.address
        return f"unix:{urllib.parse.quote(self.socket)}"


def _no_check() -> None:
    """Is for connections that TLS has checked, or that nobody can."""


_SOCKET = "unix://"
_LONGEST_SOCKET = 107  # bytes; see unix(7)


def socket_path(address: str) -> str | None:
    """Returns the absolute path of the Unix socket that an address means: unix:///PATH,
    unix:PATH, or a path that begins with / or a dot. None: it means something else."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if path.startswith("//"):
            path = path.removeprefix("//")
            if not path.startswith("/"):
                raise ValueError(f"the address {address!r} has no absolute path after unix://")
    elif address.startswith(("/", "./", "../")):
        path = address
    else:
        return None
    if not path or "\0" in path:
        raise ValueError(f"the address {address!r} has no path of a socket")
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise ValueError(
            f"the socket {path} has a path of {len(os.fsencode(path))} bytes; "
            f"the system allows {_LONGEST_SOCKET}"
        )
    return path


def is_same_server(a: str, b: str) -> bool:
    """Reports whether two addresses are one, which may be written in several ways; an empty
    one is that of this machine's own server."""

    def plain(address: str) -> str:
        path = socket_path(address or find_address())
        return (address or DEFAULT_ADDRESS) if path is None else f"{_SOCKET}{path}"

    return plain(a) == plain(b) or (a == "") != (b == "") and a + b == DEFAULT_ADDRESS


def make_channel(make_insecure: Any, make_secure: Any, endpoint: Endpoint) -> Any:
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
    if endpoint.socket is not None or is_loopback(split_address(endpoint.address)[0]):
        options.append(("grpc.enable_http_proxy", 0))
    if endpoint.credentials is not None:
        channel = make_secure(endpoint.target(), endpoint.credentials, options=options)
    else:
        channel = make_insecure(endpoint.target(), options=options)
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
        raise ValueError(f"the address {address!r} is not HOST:PORT, such as {DEFAULT_ADDRESS}, and not unix:///PATH of a socket")
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
