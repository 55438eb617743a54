"""What proves who asks: certificates and bearer tokens, which servers a token may go to,
and what happens when a server does not take it."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import socket
import stat
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc

from pylok.settings import Settings

_LARGEST_TOKEN_FILE = 64 << 10


NOBODY_LISTENS = "nobody listens on the socket"


class NobodyListensError(Exception):
    """There is no server to give the token to. The text begins with NOBODY_LISTENS."""


class NoTokenError(Exception):
    """A bearer token cannot be had, or must not go to that server. gRPC gives its text to
    the call, and pylok.errors makes a CredentialError of that."""


def tls_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Returns the TLS that settings ask for, or None. Without a CA the usual authorities
    vouch for the server."""
    if not settings.want_tls():
        return None
    files = [settings.of(key) for key in ("ca", "cert", "key")]
    if bool(files[1].value) != bool(files[2].value):
        by = files[1].by or files[2].by
        raise ValueError(f"a certificate and its key go together, and there is only {by}")
    least = settings.of("tls_min_version")
    if least.value == "1.3":
        raise ValueError(
            f"{least.by} is 1.3, and gRPC for Python takes TLS 1.2 as well and cannot be told "
            "otherwise; leave it out, or make it 1.2"
        )
    if least.value not in ("", "1.2"):
        raise ValueError(f"{least.by} is {least.value!r}; it can be 1.2 or 1.3")
    ca, certificate, key = (_read(file.value) if file.value else None for file in files)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _checked(token: str, where: str) -> str:
    """Returns a token without the white space around it; NoTokenError, without a word of it,
    for what cannot be one."""
    token = token.strip()
    if not token:
        raise NoTokenError(f"{where} is empty")
    if not all("\x20" < character < "\x7f" for character in token):
        raise NoTokenError(f"{where} has a character in it that no bearer token has")
    return token


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class TokenFile:
    """The bearer token in a file, which is read again when it has changed."""

    def __init__(self, path: str) -> None:
        """Reads nothing yet."""
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._token = ""

    def token(self, refused: str = "") -> str:
        """Returns the token, without the white space around it. One that the server has
        refused is looked for anew."""
        with self._lock:
            if refused == self._token:
                self._seen = None
            try:
                state = os.stat(self.path)
                seen = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
                if seen != self._seen:
                    self._seen = None
                    with open(self.path, "rb") as file:
                        text = file.read(_LARGEST_TOKEN_FILE + 1)
                    if len(text) > _LARGEST_TOKEN_FILE:
                        raise NoTokenError(f"{self.path} is too long for a bearer token")
                    self._token = _checked(text.decode("ascii", "replace"), self.path)
                    self._seen = seen
            except OSError as error:
                raise NoTokenError(f"the file with the bearer token: {error}") from None
            return self._token


class JobToken:
    """The OIDC token of the CI job that this process runs in: GitLab's PYLOK_ID_TOKEN, or
    what GitHub gives a job that asks with its own secret, fetched anew before it ends."""

    def __init__(self, audience: str) -> None:
        """audience is whom GitHub's tokens are for."""
        self._audience = audience
        self._lock = threading.Lock()
        self._token = ""
        self._renew = 0.0  # when the next one is asked for, on the wall clock
        self._end = 0.0

    @staticmethod
    def is_there(settings: Settings) -> bool:
        """Reports whether this is such a job, and ci_token is not off."""
        switch = settings.of("ci_token")
        if switch.value not in ("", "auto", "off"):
            raise ValueError(f"{switch.by} is {switch.value!r}; it can be auto or off")
        github = os.environ.get(_REQUEST_URL) and os.environ.get(_REQUEST_TOKEN)
        return switch.value != "off" and bool(os.environ.get(_ID_TOKEN, "").strip() or github)

    def token(self, refused: str = "") -> str:
        """Returns the token, and not one of GitHub's that the server has refused."""
        if given := os.environ.get(_ID_TOKEN, "").strip():
            return _checked(given, _ID_TOKEN)
        with self._lock:
            is_refused = refused != "" and refused == self._token
            if time.time() < self._renew and not is_refused:
                return self._token
            try:
                asked = time.time()
                token = self._fetch()
                life = _life(token)
            except (OSError, ValueError, http.client.HTTPException, NoTokenError) as error:
                if time.time() < self._end and not is_refused:
                    return self._token
                raise NoTokenError(
                    f"no OIDC token of this GitHub job for the audience {self._audience!r}: {error}"
                ) from None
            self._token, self._end = token, asked + life
            self._renew = self._end - min(30, life / 4)
            return token

    def _fetch(self) -> str:
        url = urllib.parse.urlsplit(os.environ[_REQUEST_URL])
        local = url.scheme == "http" and url.hostname in ("localhost", "127.0.0.1", "::1")
        if not url.netloc or not (url.scheme == "https" or local):
            raise ValueError(f"{_REQUEST_URL} is not the address of an HTTPS server")
        query = urllib.parse.parse_qsl(url.query) + [("audience", self._audience)]
        secret = _checked(os.environ[_REQUEST_TOKEN], _REQUEST_TOKEN)
        request = urllib.request.Request(
            url._replace(query=urllib.parse.urlencode(query)).geturl(),
            headers={"Authorization": f"Bearer {secret}"},
        )
        try:
            with urllib.request.build_opener(_NoRedirection()).open(request, timeout=5) as response:
                answer = json.loads(response.read(1 << 20))
        except urllib.error.HTTPError as error:
            error.close()
            raise ValueError(f"{url.netloc} answers {error.code} {error.reason}") from None
        token = answer.get("value") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise ValueError(f"{url.netloc} answers without a token")
        return _checked(token, f"the token of {url.netloc}")


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Follows none: the request has a secret."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        """Makes a redirection an error."""
        return None


_ID_TOKEN = "PYLOK_ID_TOKEN"
_REQUEST_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
_REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


def _life(token: str) -> float:
    """Returns for how many seconds a JWT that was issued just now counts, which is right
    also where the clocks here and there differ. Its signature is for the server to check."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        life = float(claims["exp"]) - float(claims.get("iat") or time.time())
    except (IndexError, KeyError, TypeError, ValueError):
        raise ValueError("the answer has no usable token") from None
    if not 0 < life < 366 * 24 * 3600:
        raise ValueError("the token says nothing usable of its end")
    return life


class Listener:
    """Who listens on a Unix socket, as the kernel says. A bearer token goes to root and to
    this process's own user alone."""

    def __init__(self, path: str) -> None:
        """Looks at nothing yet."""
        self._path = path
        self._trusted: tuple[int, ...] | None = None  # the socket that was found good

    def check(self) -> None:
        """Raises NoTokenError where somebody else listens. It is gRPC that connects, so
        this looks at the socket that is there now, and again when there is another. That
        is the socket which gRPC is connected to only where nobody else can have put one
        there before, so the directory must be safe too. Where nobody listens it raises
        NobodyListensError: gRPC may be connected to somebody who has gone from there."""
        try:
            self._check_directory()
            state = os.stat(self._path)
            present = (state.st_dev, state.st_ino, state.st_ctime_ns)
            if present == self._trusted:
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(1)
                connection.connect(self._path)
                credentials = connection.getsockopt(
                    socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
                )
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NobodyListensError(f"{NOBODY_LISTENS} {self._path}: {error}") from None
        except OSError as error:
            raise NoTokenError(
                f"who listens on the socket {self._path} cannot be told, so that it gets no bearer token: {error}"
            ) from None
        except AttributeError:
            raise NoTokenError(
                "nobody knows here who would get the bearer token: that is known on Linux only"
            ) from None
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in (0, os.geteuid()):
            raise NoTokenError(
                f"the socket {self._path} belongs to the user {uid}, and the bearer token goes only "
                "to root or to yourself: leave it out, for a socket knows who you are without"
            )
        self._trusted = present

    def _check_directory(self) -> None:
        """Raises NoTokenError where others may put a socket of their own in the place."""
        directory = os.path.dirname(os.path.abspath(self._path))
        for up in itertools.accumulate(directory.split("/")[1:], "{}/{}".format, initial=""):
            state = os.stat(up or "/")
            shared = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if up != directory and state.st_mode & stat.S_ISVTX:
                shared = 0  # what is in it is its owners'
            if shared or state.st_uid not in (0, os.geteuid()):
                raise NoTokenError(
                    f"others than root and yourself may put a socket into {up or '/'}, so that the one at "
                    f"{self._path} gets no bearer token: leave that out, for a socket knows who you are without"
                )


class Bearer:
    """The bearer token of a client's calls."""

    def __init__(self, source: TokenFile | JobToken, check: Callable[[], None]) -> None:
        """check raises NoTokenError where the token must not go."""
        self.source = source
        self.check = check


class Attempt(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """One sending of a call: gives it its token, and tells whether it is to be sent once
    more with another. Without a Bearer it does neither."""

    def __init__(self, bearer: Bearer | None, *, second: bool = False) -> None:
        """second: the token of another attempt was refused."""
        self._bearer = bearer
        self._token = ""  # that the call went out with
        self.second = second

    def options(self) -> dict[str, Any]:
        """Returns the arguments of the call that give it the token."""
        if self._bearer is None:
            return {}
        return {"credentials": grpc.metadata_call_credentials(self, "pylok")}

    def __call__(self, context: Any, callback: Any) -> None:
        """Implements grpc.AuthMetadataPlugin."""
        assert self._bearer is not None
        try:
            self._bearer.check()
            token = self._token = self._bearer.source.token()
            callback((("authorization", f"Bearer {token}"),), None)
        except Exception as error:
            callback((), error)

    def is_refused(self, error: grpc.RpcError) -> bool:
        """Reports whether the server did not take the token."""
        return self._token != "" and bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)

    def next(self) -> Attempt | None:
        """Returns an attempt with another token than the one that was refused; None: there
        is no other. It may ask a server for one, and take some seconds."""
        assert self._bearer is not None
        try:
            if self._bearer.source.token(self._token) == self._token:
                return None
        except NoTokenError:
            return None
        return Attempt(self._bearer, second=True)
