"""Where a watch is in the order of all changes, so that it can go on from there."""

from __future__ import annotations

from typing import Any

import grpc

from pylok import connection
from pylok.errors import (
    Error,
    RateLimitedError,
    ShuttingDownError,
    TooManyWatchesError,
    UnreachableError,
)
from pylok.lease import now
from pylok.messages import Event, EventType
from pylok.proof import Attempt, Bearer


_AT_ONCE = 1.0  # seconds in which a stream that ends so has not outlived its token


class Position:
    """After which revision to watch when the stream has broken, and with which token."""

    def __init__(self, after_revision: int, bearer: Bearer | None = None) -> None:
        """Begins after a revision; 0: with the present state. bearer is the token of each
        stream, which the server ends with it."""
        self._bearer = bearer
        self._attempt = Attempt(bearer)
        self._opened = now()
        self._told = False  # this stream has brought an event
        self._refused_at_once = False  # the stream before
        self.after_revision = after_revision
        self._whole = after_revision > 0  # every change up to there has been told
        self._until = now() + connection.PATIENCE

    def open(self) -> dict[str, Any]:
        """Begins a stream, and returns the arguments of its call that are its token."""
        self._attempt = Attempt(self._bearer)
        self._opened, self._told = now(), False
        return self._attempt.options()

    def is_refused(self, error: grpc.RpcError) -> bool:
        """Reports whether the server does not take the stream's token, or no longer, and
        another may do: see renewed."""
        if not self._attempt.is_refused(error):
            return False
        before = self._refused_at_once
        self._refused_at_once = not self._told and now() - self._opened < _AT_ONCE
        return not (before and self._refused_at_once)

    def renewed(self) -> bool:
        """Reports whether there is another token. It may take some seconds to get one."""
        return self._attempt.next() is not None

    def again(self, error: Error, *, begun: bool) -> float | None:
        """Returns in how many seconds to open a stream in place of one that ended with an
        error; None: not at all. begun says that an event has come at some time."""
        if isinstance(error, RateLimitedError):
            late = not begun and now() + error.retry_after > self._until
            return None if late else error.retry_after
        # Where there is no room for the watch, its former stream may still count.
        away = isinstance(error, (UnreachableError, ShuttingDownError, TooManyWatchesError))
        return 0.0 if begun and away else None

    def passed(self, event: Event) -> None:
        """Notes an event that has been received."""
        self._told, self._refused_at_once = True, False
        if event.type == EventType.RESET:
            self.after_revision, self._whole = 0, False
        elif event.type == EventType.SYNCED:
            self.after_revision, self._whole = event.revision, True
        elif self._whole and event.type != EventType.ASKED:
            self.after_revision = event.revision
