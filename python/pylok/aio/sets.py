"""Holds that were taken together, for the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pylok.aio.hold import Held, Hold
from pylok.aio.keeper import Keeper
from pylok.aio.patience import patiently
from pylok.answers import SetAnswer
from pylok.errors import Error, LostError, UnsupportedError
from pylok.lease import Lease
from pylok.loss import lost_errors
from pylok.messages import Ask, Lock

if TYPE_CHECKING:
    from pylok.aio.client import Client


class Set(Held):
    """Some Holds that Client.acquire_set took together, as pylok.Set is. In an `async with`
    block the loss of the first hold cancels the block, which then raises LostError; the
    others stay until its end, which unlocks what stands."""

    def __init__(
        self,
        client: Client,
        locks: Sequence[Lock],
        leases: Sequence[Lease],
        on_lost: Callable[[Hold], None] | None,
        on_asked: Callable[[Hold, Ask], None] | None,
        on_at_risk: Callable[[Hold, Error], None] | None,
    ) -> None:
        """Is for Client.acquire_set."""
        super().__init__()
        self._client = client
        self._lost = asyncio.Event()
        keeper = Keeper(on_at_risk)
        self.holds = tuple(
            Hold(client, lock, lease, on_lost, on_asked, keeper, of=self)
            for lock, lease in zip(locks, leases)
        )
        keeper.keep(self.holds)

    holds: tuple[Hold, ...]
    """The holds, in name order, those that are over too."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the locks: of a pool, of those that were granted."""
        return tuple(hold.name for hold in self.holds)

    def __iter__(self) -> Iterator[Hold]:
        """Returns an iterator over the holds."""
        return iter(self.holds)

    def __len__(self) -> int:
        """Returns how many holds there are."""
        return len(self.holds)

    def __getitem__(self, name: str) -> Hold:
        """Returns the hold of a lock."""
        for hold in self.holds:
            if hold.name == name:
                return hold
        raise KeyError(name)

    @property
    def lost(self) -> tuple[Hold, ...]:
        """The holds that are over although nobody here released them: empty, and so false,
        if there are none."""
        return tuple(hold for hold in self.holds if hold.lost)

    async def wait_lost(self) -> None:
        """Waits until a hold is lost."""
        self._maker.check("this set")
        await self._lost.wait()

    @property
    def lease_left(self) -> float:
        """How many seconds nobody else can get any of the locks for: the least
        Hold.lease_left."""
        return min(hold.lease_left for hold in self.holds)

    def check(self) -> None:
        """Raises LostError when a hold is lost: that of the first in name order, which has
        those of the others."""
        if lost := self.lost:
            raise lost_errors([hold._lost_error() for hold in lost])

    async def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks what stands, in one step; reason and data count for each, and the rest is
        as for Hold.release."""
        self._maker.check("this set")
        await patiently(lambda: self._release(reason, data))

    async def _release(self, reason: str, data: Mapping[Any, Any] | None) -> None:
        lost, failures = await release_together(self._client, self.holds, reason, data)
        if failures:
            raise failures[0]
        if lost:
            raise lost_errors(lost)

    def _has_lost(self) -> None:
        """Notes that a hold is lost."""
        self._lost.set()
        self._cancel_block()

    def _forget(self) -> None:
        """Tells the client when there is nothing to release any more."""
        if all(hold._unlocked or hold._lost.is_set() for hold in self.holds):
            self._client._kept.forget(self)


async def release_together(
    client: Client, holds: Sequence[Hold], reason: str, data: Mapping[Any, Any] | None
) -> tuple[list[LostError], list[Error]]:
    """Unlocks some holds, as far as they stand, by one call. Returns what was lost, and why
    others may stay locked."""
    lost: list[LostError] = []
    failures: list[Error] = []
    ending: list[Hold] = []
    for hold in holds:
        try:
            if await hold._begin_release():
                ending.append(hold)
        except LostError as error:
            lost.append(error)
    if not ending:
        return lost, failures
    answers: Sequence[SetAnswer | Error]
    try:
        answers = await client.unlock_set(ending, reason=reason, data=data)
    except UnsupportedError:  # then they are no set
        answers = [await _unlock(hold, reason, data) for hold in ending]
    except Error as error:
        answers = [error] * len(ending)
    except BaseException as error:
        for hold in ending:
            await hold._unlock_answered(error)
        raise
    told = {(a.name, a.token): a.error for a in answers if isinstance(a, SetAnswer)}
    for hold, answer in zip(ending, answers):
        unheard = Error(f"the server does not say what became of {hold.name}")
        failure = answer if isinstance(answer, Error) else told.get((hold.name, hold.token), unheard)
        try:
            await hold._unlock_answered(failure)
        except LostError as error:
            lost.append(error)
        else:
            if failure is not None and not hold._unlocked:
                failures.append(failure)
    return lost, failures


async def _unlock(hold: Hold, reason: str, data: Mapping[Any, Any] | None) -> SetAnswer | Error:
    try:
        lock = await hold._client.unlock(hold.name, hold.token, reason=reason, data=data)
    except Error as error:
        return error
    return SetAnswer(hold.name, hold.token, lock)
