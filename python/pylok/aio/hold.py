"""A hold that renews itself in a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc.aio

from pylok import connection
from pylok.aio.keeper import Keeper, tell
from pylok.aio.patience import patiently
from pylok.connection import Maker
from pylok.errors import (
    Error,
    LostError,
    NotHolderError,
    NotLockedError,
    TimeLimitError,
    is_outcome_unknown,
)
from pylok.lease import Lease, now
from pylok.loss import becomes_over, is_over, lost_error
from pylok.messages import Ask, Event, EventType, Lock

if TYPE_CHECKING:
    from pylok.aio.client import Client
    from pylok.aio.sets import Set


class Held:
    """What an `async with` block releases at its end, and whose loss cancels the block: a
    Hold or a Set."""

    def __init__(self) -> None:
        """Begins outside of a block."""
        self._maker = Maker()
        self._block: asyncio.Task[Any] | None = None  # in `async with`
        self._cancelling = 0  # of the block, by others
        self._cancelled = False  # the block, by the loss

    async def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks it."""
        raise NotImplementedError

    async def _end_block(self) -> None:
        """Does what the end of the block does."""
        await self.release()

    async def _explain(self) -> LostError:
        """Returns the error for the loss, with who is to blame if the server tells."""
        raise NotImplementedError

    def _cancel_block(self) -> None:
        """Cancels the block, once, unless it is the one that hears of the loss from here."""
        if self._block is not None and self._block is not asyncio.current_task() and not self._cancelled:
            self._cancelled = True
            self._block.cancel()

    async def __aenter__(self) -> Self:
        """Returns it; from here on its loss cancels the task."""
        self._maker.check("this hold")
        self._block = asyncio.current_task()
        assert self._block is not None
        self._cancelling = self._block.cancelling()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlocks what is held. Raises LostError when some of it was lost, but leaves an
        exception of the block itself as it is."""
        if not self._maker.is_here():
            return
        block, self._block = self._block, None
        ours = False  # the cancellation that ends the block
        if self._cancelled:
            assert block is not None
            ours = block.uncancel() <= self._cancelling and kind is asyncio.CancelledError
        try:
            await self._end_block()
        except Error:
            if error is None or ours:
                raise


class Hold(Held):
    """One possession of a lock, from Client.acquire, Client.adopt or a Set. In an `async
    with` block the loss of the hold cancels the block, which then raises LostError; its end
    unlocks the lock, or leaves one that was adopted. It belongs to the process that took it,
    as pylok.Hold does."""

    def __init__(
        self,
        client: Client,
        lock: Lock,
        lease: Lease,
        on_lost: Callable[[Hold], None] | None,
        on_asked: Callable[[Hold, Ask], None] | None,
        keeper: Keeper,
        *,
        adopted: bool = False,
        of: Set | None = None,
    ) -> None:
        """Is for the Client. keeper renews it, when it is told to begin."""
        super().__init__()
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
        self._explaining = asyncio.Lock()
        self._lost = asyncio.Event()
        self._released = False  # or left
        self._unlocked = False  # on the server
        self._maybe_unlocked = False  # the answer is lost
        self._look = False  # a renewal is due now: it may be over
        self._failure: Error | None = None  # of the last renewal
        self._listener: asyncio.Task[None] | None = None
        if on_asked is not None or lease.is_endless:
            self._listener = asyncio.create_task(self._listen(), name=f"pylok watch {self.name}")

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
        if not self._released and self._lease.remaining() <= 0:
            self._lose(TimeLimitError("the lease ran out before the server could be asked to renew it"))
        return self._lost.is_set()

    async def wait_lost(self) -> None:
        """Waits until the hold is lost."""
        self._maker.check("this hold")
        await self._lost.wait()

    @property
    def lease_left(self) -> float:
        """How many seconds nobody else can get the lock for, as pylok.Hold tells."""
        return self._lease.left()

    def check(self) -> None:
        """Raises LostError when the hold is lost."""
        if self.lost:
            raise self._lost_error()

    async def update(self, data: Mapping[Any, Any]) -> Lock:
        """Replaces the data in the lock file, and renews the hold."""
        self.check()
        sent = now()
        try:
            self.lock = await self._client.renew(
                self.name, self.token, data=data, holder=self.lock.holder
            )
        except (NotHolderError, NotLockedError) as error:
            (self._set or self)._block = None  # which hears of it from here
            self._lose(error)
            raise await self._explain() from error
        self._lease.renewed(sent)
        return self.lock

    async def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks the lock, as pylok.Hold.release does. A task that is cancelled
        meanwhile hears of it when the lock is unlocked."""
        self._maker.check("this hold")
        await patiently(lambda: self._release(reason, data))

    async def leave(self) -> None:
        """Renews the hold no more and does not unlock it, as pylok.Hold.leave does."""
        self._maker.check("this hold")
        await self._begin_release()
        self._client._kept.forget(self)

    async def _end_block(self) -> None:
        if self._adopted:
            await self.leave()
        else:
            await self.release()

    async def _release(self, reason: str, data: Mapping[Any, Any] | None) -> None:
        if not await self._begin_release():
            return
        try:
            await self._client.unlock(self.name, self.token, reason=reason, data=data)
        except BaseException as error:
            await self._unlock_answered(error)
            raise
        await self._unlock_answered(None)

    async def _begin_release(self) -> bool:
        """Ends the hold here, and reports whether it is to be unlocked. Raises LostError
        when it was lost."""
        if self._unlocked:
            return False
        if self.lost:
            raise await self._explain()
        self._released = True
        self._over()
        return True

    async def _unlock_answered(self, error: BaseException | None) -> None:
        """Notes the answer to an unlock: None, or the error that it raised. LostError when
        the hold was over before."""
        if error is None or is_over(error):
            self._unlocked = True
            self._forget()
            if error is not None and not self._maybe_unlocked:
                assert isinstance(error, Error)
                self._cause = error
                self._lost.set()
                raise await self._explain() from error
        elif not isinstance(error, Error) or is_outcome_unknown(error):
            self._maybe_unlocked = True

    def _is_over(self) -> bool:
        return self._released or self._lost.is_set()

    def _due(self) -> float:
        """Returns in how many seconds to renew it: see Keeper."""
        return 0.0 if self._look and not self._lease.has_failed else self._lease.pause()

    def _lose(self, cause: Error) -> None:
        if self._is_over():
            return
        self._cause = cause
        self._lost.set()
        self._over()
        self._forget()
        if self._set is not None:
            self._set._has_lost()
        else:
            self._cancel_block()
        if self._on_lost is not None:
            tell(self._on_lost, self)

    def _over(self) -> None:
        """Ends what goes on in the background."""
        self._keeper.wake()
        if self._listener is not None:
            self._listener.cancel()

    def _forget(self) -> None:
        """Tells the client that there is nothing to release any more."""
        if self._set is None:
            self._client._kept.forget(self)
        else:
            self._set._forget()

    async def _explain(self) -> LostError:
        """Returns the error for a lost hold, with who ended it if the server tells."""
        async with self._explaining:
            if not self._explained and is_over(self._cause):
                self._event = await self._client._end_of(self.lock)
                self._explained = True
        return self._lost_error()

    def _lost_error(self) -> LostError:
        return lost_error(self.lock, self._cause, self._event)

    async def _listen(self) -> None:
        """Hears what is asked of the hold, and what becomes of it, until it is over, which
        cancels this."""
        while True:
            try:
                async with self._client.watch(
                    self.name, after_revision=self.lock.revision, token=self.token
                ) as watch:
                    async for event in watch:
                        self._hear(event)
            except Error as error:
                if is_over(error):
                    self._look_now()
            except grpc.aio.UsageError:  # gRPC's word for a closed channel
                return
            await asyncio.sleep(connection.LISTEN_AGAIN)

    def _hear(self, event: Event) -> None:
        if event.type == EventType.ASKED:
            if self._on_asked is not None:
                tell(self._on_asked, self, Ask(self.name, event.actor, event.reason, event.time))
        elif event.type == EventType.RESET or becomes_over(event, self.lock):
            self._look_now()

    def _look_now(self) -> None:
        self._look = True
        self._keeper.wake()
