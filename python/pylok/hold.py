"""A hold that renews itself in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pylok.connection import Maker
from pylok.errors import (
    Error,
    ForkedError,
    LostError,
    NotHolderError,
    NotLockedError,
    TimeLimitError,
    is_outcome_unknown,
)
from pylok.lease import Lease, now
from pylok.messages import Event, EventCause, EventType, Lock
from pylok.taking import finish

if TYPE_CHECKING:
    from pylok.client import Client


class Hold:
    """One possession of a lock, from Client.acquire. Use it in a `with` statement:
    the lock is unlocked at its end, and a hold that was lost meanwhile raises
    LostError there. It belongs to the process that took it: in one that was forked from
    that, its methods raise ForkedError, and the end of the block does nothing.

        with client.acquire("lb/server-1", wait=60) as hold:
            for server in servers:
                hold.check()
                deploy(server, fence=hold.token)
    """

    def __init__(
        self,
        client: Client,
        lock: Lock,
        lease: Lease,
        on_lost: Callable[[Hold], None] | None,
    ) -> None:
        """Is for Client.acquire."""
        self.name = lock.name
        self.token = lock.token
        self.lock = lock
        self._client = client
        self._lease = lease
        self._on_lost = on_lost
        self._cause: Error | None = None  # why it was lost
        self._event: Event | None = None  # that ended it
        self._explained = False  # the server was asked for that
        self._explaining = threading.Lock()
        self._maker = Maker()
        self._lost = threading.Event()
        self._stop = threading.Event()  # released, or lost
        self._deciding = threading.Lock()  # released or lost: whichever comes first
        self._released = False
        self._unlocked = False  # on the server
        self._maybe_unlocked = False  # the answer is lost
        threading.Thread(target=self._keep, name=f"pylok {self.name}", daemon=True).start()

    name: str
    """The name of the lock."""
    token: int
    """The hold's fencing token, for resources that refuse lower ones than they have
    seen."""
    lock: Lock
    """The lock as it stood at the last renewal."""

    @property
    def lost(self) -> bool:
        """Whether the hold is over although nobody here released it, as far as this
        process can know."""
        self._maker.check("this hold")
        if not self._stop.is_set() and self._lease.remaining() <= 0:
            self._lose(TimeLimitError("the lease ran out before the server could be asked to renew it"))
        return self._lost.is_set()

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Waits until the hold is lost, for at most timeout seconds; reports whether
        it is."""
        self._maker.check("this hold")
        return self._lost.wait(timeout)

    @property
    def lease_left(self) -> float:
        """How many seconds nobody else can get the lock for, unless somebody breaks the
        hold, and whether it is lost or not. 0 or less: somebody else may have it."""
        return self._lease.left()

    def check(self) -> None:
        """Raises LostError when the hold is lost."""
        if self.lost:
            raise self._lost_error()

    def update(self, data: Mapping[Any, Any]) -> Lock:
        """Replaces the data in the lock file, and renews the hold."""
        self.check()
        sent = now()
        try:
            self.lock = self._client.renew(self.name, self.token, data=data, holder=self.lock.holder)
        except (NotHolderError, NotLockedError) as error:
            self._lose(error)
            raise self._lost_error() from error
        self._lease.renewed(sent)
        return self.lock

    def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks the lock; reason and data, a closing message in place of the hold's
        data, go to those who watch and into the history. LostError when the hold was
        lost. A second release does nothing, but for one whose server did not answer:
        that is asked again. It is not interrupted by a KeyboardInterrupt, which is
        raised when the lock is unlocked."""
        self._maker.check("this hold")
        finish(lambda: self._release(reason, data))

    def _release(self, reason: str, data: Mapping[Any, Any] | None) -> None:
        with self._deciding:
            if self._unlocked:
                return
            if not self._lost.is_set():
                self._released = True
            self._stop.set()
        if not self._released:
            raise self._lost_error()
        try:
            self._client.unlock(self.name, self.token, reason=reason, data=data)
        except (NotHolderError, NotLockedError) as error:
            self._unlocked = True
            if self._maybe_unlocked:
                return
            self._cause = error
            self._lost.set()
            raise self._lost_error() from error
        except BaseException as error:
            if not isinstance(error, Error) or is_outcome_unknown(error):
                self._maybe_unlocked = True
            raise
        self._unlocked = True

    def __enter__(self) -> Hold:
        """Returns the hold."""
        try:
            self._maker.check("this hold")
        except ForkedError:
            raise
        except BaseException:  # a KeyboardInterrupt: there will be no block
            self.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlocks the lock. Raises LostError when the hold was lost, but leaves an
        exception of the block itself as it is."""

        def release() -> None:
            """Unlocks it where it is to be unlocked."""
            if self._maker.is_here():
                self.release()

        try:
            finish(release)
        except Error:
            if error is None:
                raise
        except BaseException:  # a KeyboardInterrupt, and perhaps before it began
            with contextlib.suppress(Error):
                finish(release)
            raise

    def _keep(self) -> None:
        """Renews until the hold is released or lost."""
        while not self._stop.wait(self._lease.pause()):
            sent = now()
            error: Error = TimeLimitError("the lease ran out while this process did not run")
            if (seconds := self._lease.attempt()) > 0:
                try:
                    self.lock = self._client._renew_hold(self.name, self.token, seconds)
                    self._lease.renewed(sent)
                    continue
                except (NotHolderError, NotLockedError) as refusal:
                    self._lose(refusal)
                    return
                except Error as failure:
                    error = failure
                except ValueError as failure:  # gRPC's word for a closed channel
                    error = Error(f"the client is closed: {failure}")
                self._lease.failed()
            if self._lease.remaining() <= 0:
                self._lose(error)
                return

    def _lose(self, cause: Error) -> None:
        with self._deciding:
            if self._released or self._lost.is_set():
                return
            self._cause = cause
            self._stop.set()
            self._lost.set()
        if self._on_lost is not None:
            self._on_lost(self)

    def _lost_error(self) -> LostError:
        with self._explaining:
            if not self._explained and is_over(self._cause):
                self._event = self._client._end_of(self.lock)
                self._explained = True
        return lost_error(self.name, self.token, self._cause, self._event)


def is_over(cause: Error | None) -> bool:
    """Reports whether a hold was lost because the server said that it is over."""
    return isinstance(cause, (NotHolderError, NotLockedError))


def ends(event: Event, lock: Lock) -> bool:
    """Reports whether an event after the lock's revision has ended its hold."""
    if event.lock is None:
        return False
    ours = event.lock.token == lock.token
    return event.type == EventType.UNLOCKED and ours or event.type == EventType.LOCKED and not ours


def lost_error(name: str, token: int, cause: Error | None, event: Event | None) -> LostError:
    """Makes the error for a lost hold."""
    why = str(cause) if event is None else _why(event)
    error = LostError(f"the hold on {name} with token {token} is lost: {why}")
    error.__cause__ = cause
    error.lock = cause.lock if cause is not None else None
    error.event = event
    return error


def _why(event: Event) -> str:
    actor = event.actor or "somebody who gave no name"
    words = f": {event.reason}" if event.reason else ""
    if event.cause == EventCause.FORCED:
        return f"it was broken by {actor}{words}"
    if event.cause == EventCause.EXPIRED:
        return "the lease ran out before it was renewed"
    if event.cause == EventCause.FILE:
        return "its lock file was removed or replaced"
    return f"it was released or replaced by {actor}{words}"
