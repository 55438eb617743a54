"""How long a request goes on being sent, for both kinds of client."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from typing import Any

import grpc

from pylok import connection
from pylok.errors import (
    Error,
    OutcomeUnknownError,
    RateLimitedError,
    ShuttingDownError,
    UnreachableError,
    after,
)
from pylok.lease import now
from pylok.proof import Attempt, Bearer
from pylok.requests import Seconds, seconds

ABSENT = (UnreachableError, ShuttingDownError)
"""The errors of a server that is gone, or about to go."""


class Server:
    """What a client knows of its server."""

    def __init__(self, patience: Seconds | None, bearer: Bearer | None) -> None:
        """patience is how long the server is waited for; None: connection.PATIENCE. bearer
        is the token of each call."""
        self._patience = patience
        self.bearer = bearer
        self.reached = False
        """Whether it has answered once: one that never did is not waited for."""

    def patience(self) -> float:
        """Returns how many seconds it is waited for."""
        return connection.PATIENCE if self._patience is None else seconds(self._patience)


class Sending:
    """One request, which is sent until it is answered or its time is over: the client's
    patience, and for one that stands in line the wait."""

    def __init__(self, request: Any, server: Server, wait: Seconds = 0.0) -> None:
        """wait is how long the request stands in line; math.inf: without an end."""
        self._request = request
        self._server = server
        self._waits = seconds(wait) > 0
        self._wait_end = now() + seconds(wait)
        self._begun = False  # it was sent
        self._until = 0.0  # when its time is over; 0: it has not failed
        self.pause: float | None = None
        """For how many seconds the server wants not to be asked; None: it says nothing of
        it, and may be away."""
        self.lost: Error | None = None
        """What to think of the sendings so far; None: there was no other."""
        self.cut_off = False
        """Whether a connection was lost, so that the server may not know yet when the
        caller has left."""
        self._attempt = Attempt(server.bearer)

    def begin(self) -> dict[str, Any]:
        """Makes the request ready to be sent, and returns the arguments of the call: how
        many seconds it may take, and its token. The wait goes on from where it was."""
        left = max(0.0, self._wait_end - now())
        begun, self._begun = self._begun, True
        if left == math.inf:
            return {"timeout": None, **self._attempt.options()}
        if begun and self._waits:
            self._request.wait.FromTimedelta(timedelta(seconds=left))
        return {"timeout": connection.TIMEOUT + left, **self._attempt.options()}

    def answered(self) -> None:
        """Notes an answer."""
        self._server.reached = True

    def is_refused(self, error: grpc.RpcError) -> bool:
        """Reports whether the server did not take the token, and the request may be sent
        once more with another: see renewed."""
        return not self._attempt.second and self._attempt.is_refused(error)

    def renewed(self) -> bool:
        """Reports whether there is another token. It may take some seconds to get one."""
        following = self._attempt.next()
        if following is None:
            return False
        self._attempt = following
        return True

    def failed(self, error: Error, *, again: bool) -> bool:
        """Notes an error, and reports whether the request is to be sent again. Raises the
        error of a later sending that tells what has become of the request."""
        self._attempt = Attempt(self._server.bearer)
        sent = not isinstance(error, UnreachableError) or error.sent
        self._server.reached = self._server.reached or sent
        self.cut_off = self.cut_off or isinstance(error, UnreachableError)
        if not self._until:
            self._until = self._wait_end if self._waits else now() + self._server.patience()
        self.pause = None
        if isinstance(error, RateLimitedError):  # nothing changed, and the server is there
            self.pause = error.retry_after + connection.PAUSE * (1 + random.random())
            return self.pause < self.left()
        if self.lost is not None:
            self.lost = after(self.lost, error)
            return self.left() > 0
        self.lost = error
        return again and self._server.reached and isinstance(error, (*ABSENT, OutcomeUnknownError))

    def left(self) -> float:
        """Returns for how many seconds it is still sent again; it may be math.inf."""
        return self._until - now()
