"""What renews holds in the background, and what a client has to release in the end."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pylok.errors import Error, TimeLimitError
from pylok.lease import now
from pylok.loss import is_over
from pylok.messages import Lock

if TYPE_CHECKING:
    from pylok.hold import Hold

H = TypeVar("H")


class Keeper(Generic[H]):
    """Renews holds that were taken together, by one call, until all are over."""

    def __init__(self, on_at_risk: Callable[[H, Error], None] | None) -> None:
        """on_at_risk is called, once in a trouble, when renewals have failed for so long
        that a hold may be lost."""
        self._on_at_risk = on_at_risk
        self._warned = False
        self._wake = threading.Event()

    def keep(self: Keeper[Hold], holds: Sequence[Hold]) -> None:
        """Begins."""
        name = f"pylok {holds[0].name}" + (f" and {len(holds) - 1} more" if len(holds) > 1 else "")
        threading.Thread(target=self._run, args=(holds,), name=name, daemon=True).start()

    def wake(self) -> None:
        """Has it look at its holds."""
        self._wake.set()

    def _run(self: Keeper[Hold], holds: Sequence[Hold]) -> None:
        while standing := [hold for hold in holds if not hold._stop.is_set()]:
            pause = min(hold._due() for hold in standing)
            if self._wake.wait(None if pause == math.inf else pause):
                self._wake.clear()
            else:
                self._renew(standing)

    def _renew(self: Keeper[Hold], holds: Sequence[Hold]) -> None:
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
        answers = self._ask([hold for hold, _ in asked], min(seconds for _, seconds in asked))
        for (hold, _), answer in zip(asked, answers):
            if isinstance(answer, Lock):
                hold.lock, hold._failure, hold._look = answer, None, False
                hold._lease.renewed(sent)
            elif is_over(answer):
                hold._lose(answer)
            else:
                hold._failure = answer
                hold._lease.failed()
                if hold._lease.remaining() <= 0:
                    hold._lose(answer)
        self._warn([hold for hold, _ in asked if hold._failure is not None])

    def _ask(self: Keeper[Hold], holds: Sequence[Hold], seconds: float) -> Sequence[Lock | Error]:
        try:
            return holds[0]._client._renew_holds(holds, seconds)
        except Error as failure:
            return [failure] * len(holds)
        except ValueError as failure:  # gRPC's word for a closed channel
            return [Error(f"the client is closed: {failure}")] * len(holds)

    def _warn(self: Keeper[Hold], failed: Sequence[Hold]) -> None:
        """Warns of holds that may be lost, unless it has."""
        risky = [hold for hold in failed if hold._lease.is_at_risk() and not hold._stop.is_set()]
        if risky and not self._warned and self._on_at_risk is not None:
            first = min(risky, key=lambda hold: hold._lease.remaining())
            why = first._failure
            assert why is not None
            tell(self._on_at_risk, first, why)  # which goes on renewing
        self._warned = bool(risky) or self._warned and bool(failed)


def tell(callback: Callable[..., object], *arguments: Any) -> None:
    """Calls a program's own function without waiting for it."""
    try:
        threading.Thread(target=callback, args=arguments, name="pylok tells", daemon=True).start()
    except RuntimeError:  # no thread is to be had
        callback(*arguments)


class Kept:
    """What a client has taken and not released, for its end to release it."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._changing = threading.Lock()
        self._all: dict[Any, None] = {}
        self._closed = False

    def keep(self, taken: Any) -> bool:
        """Notes what has been taken. Reports false when nobody will release it."""
        with self._changing:
            self._all[taken] = None
            return not self._closed

    def forget(self, taken: Any) -> None:
        """Notes that there is nothing to release of it any more."""
        with self._changing:
            self._all.pop(taken, None)

    def close(self) -> list[Any]:
        """Returns what is to be released, and keeps nothing more."""
        with self._changing:
            self._closed = True
            return list(self._all)
