"""What renews holds in the event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pylok.errors import Error, TimeLimitError
from pylok.lease import now
from pylok.loss import is_over
from pylok.messages import Lock

if TYPE_CHECKING:
    from pylok.aio.hold import Hold


class Keeper:
    """Renews holds that were taken together, by one call, until all are over."""

    def __init__(self, on_at_risk: Callable[[Hold, Error], None] | None) -> None:
        """on_at_risk is called, once in a trouble, when renewals have failed for so long
        that a hold may be lost."""
        self._on_at_risk = on_at_risk
        self._warned = False
        self._wake = asyncio.Event()
        self._holds: Sequence[Hold] = ()
        self._task: asyncio.Task[None] | None = None
        self._explaining: set[asyncio.Task[Any]] = set()

    def keep(self, holds: Sequence[Hold]) -> None:
        """Begins."""
        name = f"pylok {holds[0].name}" + (f" and {len(holds) - 1} more" if len(holds) > 1 else "")
        self._holds = holds
        self._task = asyncio.create_task(self._run(), name=name)

    def wake(self) -> None:
        """Has it look at its holds."""
        self._wake.set()
        if self._task not in (None, asyncio.current_task()) and not self._standing():
            assert self._task is not None
            self._task.cancel()

    def _standing(self) -> list[Hold]:
        return [hold for hold in self._holds if not hold._is_over()]

    async def _run(self) -> None:
        while standing := self._standing():
            pause = min(hold._due() for hold in standing)
            try:
                async with asyncio.timeout(None if pause == math.inf else pause):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                await self._renew(standing)

    async def _renew(self, holds: Sequence[Hold]) -> None:
        sent = now()
        asked = []
        for hold in holds:
            if (seconds := hold._lease.attempt()) > 0:
                asked.append((hold, seconds))
            else:
                slept = TimeLimitError("the lease ran out while this process did not run")
                hold._lose(hold._failure or slept)
        if not asked:
            return
        answers = await self._ask([hold for hold, _ in asked], min(seconds for _, seconds in asked))
        for (hold, _), answer in zip(asked, answers):
            if isinstance(answer, Lock):
                hold.lock, hold._failure, hold._look = answer, None, False
                hold._lease.renewed(sent)
            elif is_over(answer):
                hold._lose(answer)
                explaining = asyncio.create_task(hold._explain())
                self._explaining.add(explaining)
                explaining.add_done_callback(self._explaining.discard)
            else:
                hold._failure = answer
                hold._lease.failed()
                if hold._lease.remaining() <= 0:
                    hold._lose(answer)
        self._warn([hold for hold, _ in asked if hold._failure is not None])

    async def _ask(self, holds: Sequence[Hold], seconds: float) -> Sequence[Lock | Error]:
        try:
            return await holds[0]._client._renew_holds(holds, seconds)
        except Error as failure:
            return [failure] * len(holds)
        except Exception as failure:  # gRPC's own for a closed channel
            return [Error(f"the client is closed: {failure}")] * len(holds)

    def _warn(self, failed: Sequence[Hold]) -> None:
        """Warns of holds that may be lost, unless it has."""
        risky = [hold for hold in failed if hold._lease.is_at_risk() and not hold._is_over()]
        if risky and not self._warned and self._on_at_risk is not None:
            first = min(risky, key=lambda hold: hold._lease.remaining())
            assert first._failure is not None
            tell(self._on_at_risk, first, first._failure)
        self._warned = bool(risky) or self._warned and bool(failed)


def tell(callback: Callable[..., object], *arguments: Any) -> None:
    """Calls a program's own function soon; what it raises is the loop's to report."""
    asyncio.get_running_loop().call_soon(callback, *arguments)
