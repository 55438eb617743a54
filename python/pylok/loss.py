"""Why a hold is over that was not released; for both kinds of client."""

from __future__ import annotations

from pylok.errors import Error, LostError, NotHolderError, NotLockedError
from pylok.messages import Event, EventCause, EventType, Lock


def is_over(cause: BaseException | None) -> bool:
    """Reports whether the server said that a hold is over."""
    return isinstance(cause, (NotHolderError, NotLockedError))


def becomes_over(event: Event, lock: Lock) -> bool:
    """Reports whether an event after the lock's revision has ended its hold, or made it
    stale."""
    if event.lock is None or event.lock.name != lock.name:
        return False
    if event.lock.token != lock.token:
        return event.type == EventType.LOCKED
    return event.type == EventType.UNLOCKED or event.lock.stale


class Ending:
    """Finds out, from the changes of a lock, how a hold of it has ended."""

    def __init__(self, lock: Lock) -> None:
        """Begins with the lock as the hold last saw it."""
        self._lock = lock
        self.event: Event | None = None
        """The change that tells most of it; None: none so far."""

    def passed(self, event: Event) -> bool:
        """Notes the next change, and reports whether no later one can tell more: where a
        request has released it, another hold may have been put in its place."""
        if self.event is None:
            if becomes_over(event, self._lock):
                self.event = event
            return self.event is not None and not (
                event.type == EventType.UNLOCKED and event.cause == EventCause.REQUEST
            )
        if event.lock is None or event.lock.name != self._lock.name:
            return False
        if heir(event, self._lock):
            self.event = event
        return True


def heir(event: Event | None, lock: Lock) -> str:
    """Returns to whom an event has handed a hold over; empty: it has not. Who overwrites a
    hold has its holder's name, or it had none, and makes the change in its own."""
    if event is None or event.lock is None or not event.previous_token or event.previous_token != lock.token:
        return ""
    if event.type != EventType.LOCKED or event.cause != EventCause.REQUEST:
        return ""
    by_another = event.actor not in ("", "anonymous", event.lock.caller or event.lock.holder)
    if not by_another and (not lock.holder or lock.holder == event.lock.holder):
        return ""
    return event.lock.holder or event.lock.caller or "somebody who gave no name"


def lost_error(lock: Lock, cause: Error | None, event: Event | None) -> LostError:
    """Makes the error for a lost hold: the lock as it last saw it, what told of the loss,
    and the change that has ended it."""
    to = heir(event, lock)
    now = cause.lock if cause is not None else None
    stale = now is not None and now.token == lock.token and now.stale
    error = LostError(f"the hold on {lock.name} with token {lock.token} is lost: {_why(cause, event, to, stale)}")
    error.__cause__ = cause
    error.lock = now
    error.event = event
    error.name, error.token = lock.name, lock.token
    error.to, error.stale = to, stale
    return error


def lost_errors(errors: list[LostError]) -> LostError:
    """Makes the error for some lost holds of a set."""
    first, *others = errors
    if others:
        names = ", ".join(error.name for error in others)
        first.args = (f"{first}; lost with it: {names}",)
        first.others = tuple(others)
    return first


def _why(cause: Error | None, event: Event | None, to: str, stale: bool) -> str:
    if stale:
        return "the lease ran out before it was renewed; the lock stays held, stale, until somebody has looked"
    if event is None:
        return str(cause)
    actor = event.actor or "somebody who gave no name"
    words = f": {event.reason}" if event.reason else ""
    if to:
        handed = "handed over to "  # the server's words, where nobody gave others
        return f"it was {event.reason}" if event.reason.startswith(handed) else f"it was {handed}{to}{words}"
    if event.cause == EventCause.FORCED:
        return f"it was broken by {actor}{words}"
    if event.cause == EventCause.EXPIRED:
        return "the lease ran out before it was renewed"
    if event.cause == EventCause.FILE:
        return "its lock file was removed or replaced"
    return f"it was released or replaced by {actor}{words}"
