"""Holds that were taken together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pylok.answers import SetAnswer
from pylok.connection import Maker
from pylok.errors import Error, LostError, UnsupportedError
from pylok.hold import Held, Hold
from pylok.keeper import Keeper
from pylok.lease import Lease
from pylok.loss import lost_errors
from pylok.messages import Ask, Lock
from pylok.taking import finish

if TYPE_CHECKING:
    from pylok.client import Client

MOST = 64
"""How many holds one request may name."""


class Set(Held):
    """Some Holds that Client.acquire_set took together, one of each lock. Each is a Hold
    like any other; what the Set adds is that they are renewed by one call and released by
    one. Use it in a `with` statement: what stands is unlocked at its end, and LostError
    raised there if a hold was lost meanwhile. The others stay, and are renewed, until then,
    so that nobody else gets them while the work comes to its end.

        with client.acquire_set(["db/a", "db/b"], wait=60) as locks:
            for step in steps:
                locks.check()
                step(fence=locks["db/a"].token)
    """

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
        self._client = client
        self._maker = Maker()
        self._lost = threading.Event()
        keeper: Keeper[Hold] = Keeper(on_at_risk)
        self.holds = ()
        try:
            for lock, lease in zip(locks, leases):
                hold = Hold(client, lock, lease, on_lost, on_asked, keeper, of=self)
                self.holds += (hold,)
            keeper.keep(self.holds)
        except BaseException:  # there is no thread
            for hold in self.holds:
                hold._begin_release()
            raise

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

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Waits until a hold is lost, for at most timeout seconds; reports whether one is."""
        self._maker.check("this set")
        return self._lost.wait(timeout)

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

    def release(self, *, reason: str = "", data: Mapping[Any, Any] | None = None) -> None:
        """Unlocks what stands, in one step; reason and data count for each, and the rest is
        as for Hold.release."""
        self._maker.check("this set")
        finish(lambda: self._release(reason, data))

    def _release(self, reason: str, data: Mapping[Any, Any] | None) -> None:
        lost, failures = release_together(self._client, self.holds, reason, data)
        if failures:
            raise failures[0]
        if lost:
            raise lost_errors(lost)

    def _has_lost(self) -> None:
        """Notes that a hold is lost."""
        self._lost.set()

    def _forget(self) -> None:
        """Tells the client when there is nothing to release any more."""
        if not is_standing(self):
            self._client._kept.forget(self)


def is_standing(taken: Hold | Set) -> bool:
    """Reports whether there is anything to release."""
    holds = taken.holds if isinstance(taken, Set) else (taken,)
    return not all(hold._unlocked or hold._lost.is_set() for hold in holds)


def release_together(
    client: Client, holds: Sequence[Hold], reason: str, data: Mapping[Any, Any] | None
) -> tuple[list[LostError], list[Error]]:
    """Unlocks at most MOST holds, as far as they stand, by one call. Returns what was lost,
    and why others may stay locked."""
    lost: list[LostError] = []
    failures: list[Error] = []
    ending: list[Hold] = []
    for hold in holds:
        try:
            if hold._begin_release():
                ending.append(hold)
        except LostError as error:
            lost.append(error)
    if not ending:
        return lost, failures
    answers: Sequence[SetAnswer | Error]
    try:
        answers = client.unlock_set(ending, reason=reason, data=data)
    except UnsupportedError:  # then they are no set
        answers = [_unlock(hold, reason, data) for hold in ending]
    except Error as error:
        answers = [error] * len(ending)
    except BaseException as error:
        for hold in ending:
            hold._unlock_answered(error)
        raise
    told = {(a.name, a.token): a.error for a in answers if isinstance(a, SetAnswer)}
    for hold, answer in zip(ending, answers):
        unheard = Error(f"the server does not say what became of {hold.name}")
        failure = answer if isinstance(answer, Error) else told.get((hold.name, hold.token), unheard)
        try:
            hold._unlock_answered(failure)
        except LostError as error:
            lost.append(error)
        else:
            if failure is not None and not hold._unlocked:
                failures.append(failure)
    return lost, failures


def _unlock(hold: Hold, reason: str, data: Mapping[Any, Any] | None) -> SetAnswer | Error:
    try:
        lock = hold._client.unlock(hold.name, hold.token, reason=reason, data=data)
    except Error as error:
        return error
    return SetAnswer(hold.name, hold.token, lock)
