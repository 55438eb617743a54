"""What is wrong with a server that no connection comes about with: gRPC says little of
one that speaks TLS where plaintext is meant, or the other way round."""

from __future__ import annotations

import contextlib
import socket
import ssl

from pylok.connection import socket_path, split_address
from pylok.errors import Error, UnreachableError

_WITHIN = 1.0  # seconds for which a server is listened to

# What a client of HTTP/2 says first, with SETTINGS that are empty; and where in a
# server's first frame its type stands, which is SETTINGS too. See RFC 9113, section 3.4.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_TYPE, _SETTINGS = 3, 4


def explain(error: Error, address: str, *, encrypted: bool) -> Error:
    """Returns error, which says so if the server does not speak as the client does."""
    if not isinstance(error, UnreachableError) or error.sent or socket_path(address) is not None:
        return error
    host, port = split_address(address)
    try:
        with socket.create_connection((host, int(port)), timeout=_WITHIN) as connection:
            if encrypted and _speaks_plainly(connection):
                error.args = (
                    f"the server at {address} does not speak TLS: leave credentials out, "
                    "or tls for pylok.configure",
                )
            elif not encrypted and _speaks_tls(connection):
                error.args = (
                    f"the server at {address} speaks TLS: give "
                    "credentials=grpc.ssl_channel_credentials(), or tls=True to pylok.configure",
                )
            else:
                error.args = (
                    f"something listens at {address}, but no connection comes about: {error.details}",
                )
    except (OSError, ValueError):
        pass
    return error


def _speaks_plainly(connection: socket.socket) -> bool:
    connection.sendall(_PREFACE)
    head = b""
    with contextlib.suppress(TimeoutError):
        while len(head) <= _TYPE and (more := connection.recv(64)):
            head += more
    return len(head) > _TYPE and head[_TYPE] == _SETTINGS


def _speaks_tls(connection: socket.socket) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said to it
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(connection):
        return True
