"""A hold that renews itself in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pylok import connection
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
from pylok.keeper import Keeper, tell
from pylok.lease import Lease, now
from pylok.loss import Ending, becomes_over, is_over, lost_error
from pylok.messages import Ask, Event, EventType, Lock
from pylok.taking import finish
from pylok.watch import Watch

if TYPE_CHECKING:
    from pylok.client import Client
    from pylok.sets import Set


class Held:
    """What a `with` block releases at its end: a Hold or a Set."""

    _maker: Maker

    def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks it."""
        raise NotImplementedError

    def _end_block(self) -> None:
        """Does what the end of the block does, where the block was begun."""
        self.release()

    def __enter__(self) -> Self:
        """Returns it."""
        try:
            self._maker.check("this hold")
        except ForkedError:
            raise
        except BaseException:  # a KeyboardInterrupt: there will be no block
            self._end_block()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlocks what is held. Raises LostError when some of it was lost, but leaves an
        exception of the block itself as it is."""

        def release() -> None:
            """Unlocks it where it is to be unlocked."""
            if self._maker.is_here():
                self._end_block()

        try:
            finish(release)
        except Error:
            if error is None:
                raise
        except BaseException:  # a KeyboardInterrupt, and perhaps before it began
            with contextlib.suppress(Error):
                finish(release)
            raise


class Hold(Held):
    """One possession of a lock, from Client.acquire, Client.adopt or a Set. Use it in a
    `with` statement: the lock is unlocked at its end, and a hold that was lost meanwhile
    raises LostError there. One that was adopted is not unlocked there, but left to whoever
    has taken the lock. It belongs to the process that took it: in one that was forked from
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
        on_asked: Callable[[Hold, Ask], None] | None,
        keeper: Keeper[Hold],
        *,
        adopted: bool = False,
        of: Set | None = None,
    ) -> None:
        """Is for the Client. keeper renews it, when it is told to begin."""
        self.name = lock.name
        self.token = lock.token
        self.lock = lock
        self._client = client
        self._lease = lease
        self._on_lost = on_lost
        self._on_asked = on_asked
        self._keeper = keeper
        self._adopted = adopted
        self._set = of
        self._cause: Error | None = None  # why it was lost
        self._event: Event | None = None  # that ended it
        self._explained = False  # the server was asked for that
        self._explaining = threading.Lock()
        self._maker = Maker()
        self._lost = threading.Event()
        self._stop = threading.Event()  # released, left or lost
        self._deciding = threading.Lock()  # released, left or lost: whichever comes first
        self._released = False
        self._unlocked = False  # on the server
        self._maybe_unlocked = False  # the answer is lost
        self._listening: Watch | None = None
        self._look = False  # a renewal is due now: it may be over
        self._failure: Error | None = None  # of the last renewal
        if on_asked is not None or lease.is_endless:
            threading.Thread(target=self._listen, name=f"pylok watch {self.name}", daemon=True).start()

    name: str
    """The name of the lock; of a shared hold its own, NAME/_+NUMBER."""
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
        hold, and whether it is lost or not; math.inf for one that does not end by itself.
        0 or less: somebody else may have it."""
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

    def leave(self) -> None:
        """Renews the hold no more and does not unlock it: it goes on until its ttl runs
        out, or for as long as another renews it, as whoever has taken a lock that was
        adopted. LostError when the hold was lost."""
        self.check()
        self._begin_release()
        self._client._kept.forget(self)

    def _end_block(self) -> None:
        if self._adopted:
            self.leave()
        else:
            self.release()

    def _release(self, reason: str, data: Mapping[Any, Any] | None) -> None:
        if not self._begin_release():
            return
        try:
            self._client.unlock(self.name, self.token, reason=reason, data=data)
        except BaseException as error:
            self._unlock_answered(error)
            raise
        self._unlock_answered(None)

    def _begin_release(self) -> bool:
        """Ends the hold here, and reports whether it is to be unlocked. Raises LostError
        when it was lost."""
        with self._deciding:
            if self._unlocked:
                return False
            if not self._lost.is_set():
                self._released = True
            self._stop.set()
        self._over()
        if not self._released:
            raise self._lost_error()
        return True

    def _unlock_answered(self, error: BaseException | None) -> None:
        """Notes the answer to an unlock: None, or the error that it raised. LostError when
        the hold was over before."""
        if error is None or is_over(error):
            self._unlocked = True
            self._forget()
            if error is not None and not self._maybe_unlocked:
                assert isinstance(error, Error)
                self._cause = error
                self._lost.set()
                raise self._lost_error() from error
        elif not isinstance(error, Error) or is_outcome_unknown(error):
            self._maybe_unlocked = True

    def _due(self) -> float:
        """Returns in how many seconds to renew it: see Keeper."""
        return 0.0 if self._look and not self._lease.has_failed else self._lease.pause()

    def _lose(self, cause: Error) -> None:
        with self._deciding:
            if self._released or self._lost.is_set():
                return
            self._cause = cause
            self._stop.set()
            self._lost.set()
        self._over()
        self._forget()
        if self._set is not None:
            self._set._has_lost()
            if self._on_lost is not None:  # the other holds go on being renewed
                tell(self._on_lost, self)
        elif self._on_lost is not None:
            self._on_lost(self)

    def _over(self) -> None:
        """Ends what goes on in the background."""
        self._keeper.wake()
        if (watch := self._listening) is not None:
            watch.close()

    def _forget(self) -> None:
        """Tells the client that there is nothing to release any more."""
        if self._set is None:
            self._client._kept.forget(self)
        else:
            self._set._forget()

    def _lost_error(self) -> LostError:
        with self._explaining:
            if not self._explained and is_over(self._cause):
                self._event = self._client._end_of(self.lock)
                self._explained = True
        return lost_error(self.lock, self._cause, self._event)

    def _listen(self) -> None:
        """Hears what is asked of the hold, and what becomes of it, until it is over."""
        while not self._stop.is_set():
            try:
                watch = self._client.watch(
                    self.name, after_revision=self.lock.revision, token=self.token
                )
                self._listening = watch
                if self._stop.is_set():  # perhaps before that was known
                    watch.close()
                for event in watch:
                    self._hear(event)
            except Error as error:
                if is_over(error):
                    self._look_now()
            except ValueError:  # gRPC's word for a closed channel
                return
            self._stop.wait(connection.LISTEN_AGAIN)

    def _hear(self, event: Event) -> None:
        if event.type == EventType.ASKED:
            if self._on_asked is not None:
                tell(self._on_asked, self, Ask(self.name, event.actor, event.reason, event.time))
        elif event.type == EventType.RESET or becomes_over(event, self.lock):
            self._look_now()

    def _look_now(self) -> None:
        self._look = True
        self._keeper.wake()
