"""How long a hold is surely ours, by this machine's clock."""

from __future__ import annotations

import math
import time

_LONGEST_LOOK = 10.0  # seconds in which a hold that needs no renewal is looked at

if hasattr(time, "CLOCK_BOOTTIME"):

    def now() -> float:
        """Returns seconds on a clock that also counts suspend."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def now() -> float:
        """Returns seconds on a clock that never goes back."""
        return time.monotonic()


class Lease:
    """When to renew a hold, and when it may have ended.

    The server counts from when a renewal reached it, this from when it was sent:
    so this ends first, and nobody believes in a hold that the server has ended. A hold
    that is not renewed counts as lost even before, by a margin.
    """

    def __init__(self, ttl: float, sent: float, margin: float | None = None) -> None:
        """Begins with the request for the lock, or the end of its wait. A ttl of math.inf is
        of a hold that does not end by itself. margin is 0 to half of the ttl; None: a tenth
        of it."""
        if ttl == math.inf:
            margin = 0.0
        elif margin is None:
            margin = ttl / 10
        if not 0 <= margin <= ttl / 2:
            raise ValueError(f"margin is {margin} s for a ttl of {ttl} s; give 0 to half of the ttl")
        self._ttl = ttl
        self._life = ttl - margin
        self._sent = sent
        self._failed = False

    def renewed(self, sent: float) -> None:
        """Notes a renewal that was sent then and has been answered."""
        self._sent = max(self._sent, sent)
        self._failed = False

    def failed(self) -> None:
        """Notes a renewal that has not reached its end."""
        self._failed = True

    def pause(self) -> float:
        """Returns how many seconds from now to renew: three times in the life of the
        hold; after a failed one soon, but never in a hurry."""
        if self._failed:
            return min(1.0, self._life / 20, max(0.0, self.remaining()))
        return max(0.0, self._sent + self._life / 3 - now())

    def attempt(self) -> float:
        """Returns for how many seconds a renewal may take: without an answer it is given
        up in time for another, and for a warning."""
        longest = min(self._life / 3, self.remaining(), _LONGEST_LOOK if self.is_endless else math.inf)
        return min(longest, until) if (until := self._until_risk()) > 0 else longest

    @property
    def is_endless(self) -> bool:
        """Whether the hold does not end by itself."""
        return self._ttl == math.inf

    @property
    def has_failed(self) -> bool:
        """Whether the last renewal did."""
        return self._failed

    def is_at_risk(self) -> bool:
        """Reports whether renewals have failed for a third of the hold's life, and the last
        third of it is left."""
        return self._failed and self._until_risk() <= 0 < self.remaining()

    def _until_risk(self) -> float:
        return self._sent + self._life * 2 / 3 - now()

    def remaining(self) -> float:
        """Returns the seconds until the hold counts as lost."""
        return self._sent + self._life - now()

    def left(self) -> float:
        """Returns the seconds until the lease may end, and others may get the lock."""
        return self._sent + self._ttl - now()
