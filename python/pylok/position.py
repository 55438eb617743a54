"""Where a watch is in the order of all changes, so that it can go on from there."""

from __future__ import annotations

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


class Position:
    """After which revision to watch when the stream has broken."""

    def __init__(self, after_revision: int) -> None:
        """Begins after a revision; 0: with the present state."""
        self.after_revision = after_revision
        self._whole = after_revision > 0  # every change up to there has been told
        self._until = now() + connection.PATIENCE

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
        if event.type == EventType.RESET:
            self.after_revision, self._whole = 0, False
        elif event.type == EventType.SYNCED:
            self.after_revision, self._whole = event.revision, True
        elif self._whole:
            self.after_revision = event.revision
