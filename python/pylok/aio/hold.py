"""A hold that renews itself in a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

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
from pylok.hold import is_over, lost_error
from pylok.lease import Lease, now
from pylok.messages import Event, Lock

if TYPE_CHECKING:
    from pylok.aio.client import Client


class Hold:
    """One possession of a lock, from Client.acquire. In an `async with` block the
    loss of the hold cancels the block, which then raises LostError; its end unlocks
    the lock. It belongs to the process that took it, as pylok.Hold does."""

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
        self._explaining = asyncio.Lock()
        self._maker = Maker()
        self._lost = asyncio.Event()
        self._released = False
        self._unlocked = False  # on the server
        self._maybe_unlocked = False  # the answer is lost
        self._block: asyncio.Task[Any] | None = None  # in `async with`
        self._cancelling = 0  # of the block, by others
        self._cancelled = False  # the block, by the loss
        self._keeper = asyncio.create_task(self._keep(), name=f"pylok {self.name}")

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
            self._block = None  # which hears of it from here
            self._lose(error)
            raise await self._explain() from error
        self._lease.renewed(sent)
        return self.lock

    async def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks the lock, as pylok.Hold.release does. A task that is cancelled
        meanwhile hears of it when the lock is unlocked."""
        self._maker.check("this hold")
        await patiently(lambda: self._release(reason, data))

    async def _release(self, reason: str, data: Mapping[Any, Any] | None) -> None:
        if self._unlocked:
            return
        if self._lost.is_set():
            raise await self._explain()
        self._released = True
        self._keeper.cancel()
        try:
            await self._client.unlock(self.name, self.token, reason=reason, data=data)
        except (NotHolderError, NotLockedError) as error:
            self._unlocked = True
            if self._maybe_unlocked:
                return
            self._cause = error
            self._lost.set()
            raise await self._explain() from error
        except BaseException as error:
            if not isinstance(error, Error) or is_outcome_unknown(error):
                self._maybe_unlocked = True
            raise
        self._unlocked = True

    async def __aenter__(self) -> Hold:
        """Returns the hold; from here on its loss cancels the task."""
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
        """Unlocks the lock. Raises LostError when the hold was lost, but leaves an
        exception of the block itself as it is."""
        if not self._maker.is_here():
            return
        block, self._block = self._block, None
        if self._cancelled:
            assert block is not None
            others = block.uncancel() > self._cancelling
            if error is None or (kind is asyncio.CancelledError and not others):
                raise await self._explain()
            return
        try:
            await self.release()
        except Error:
            if error is None:
                raise

    async def _keep(self) -> None:
        """Renews until the hold is released, which cancels this, or lost."""
        while True:
            await asyncio.sleep(self._lease.pause())
            sent = now()
            error: Error = TimeLimitError("the lease ran out while this process did not run")
            if (seconds := self._lease.attempt()) > 0:
                try:
                    self.lock = await self._client._renew_hold(self.name, self.token, seconds)
                    self._lease.renewed(sent)
                    continue
                except (NotHolderError, NotLockedError) as refusal:
                    self._lose(refusal)
                    await self._explain()
                    return
                except Error as failure:
                    error = failure
                except Exception as failure:  # gRPC's own for a closed channel
                    error = Error(f"the client is closed: {failure}")
                self._lease.failed()
            if self._lease.remaining() <= 0:
                self._lose(error)
                return

    def _lose(self, cause: Error) -> None:
        if self._released or self._lost.is_set():
            return
        self._cause = cause
        self._lost.set()
        if asyncio.current_task() is not self._keeper:
            self._keeper.cancel()
        if self._block is not None and self._block is not asyncio.current_task():
            self._cancelled = True
            self._block.cancel()
        if self._on_lost is not None:
            self._on_lost(self)

    async def _explain(self) -> LostError:
        """Returns the error for a lost hold, with who ended it if the server tells."""
        async with self._explaining:
            if not self._explained and is_over(self._cause):
                self._event = await self._client._end_of(self.lock)
                self._explained = True
        return self._lost_error()

    def _lost_error(self) -> LostError:
        return lost_error(self.name, self.token, self._cause, self._event)
