"""How long a hold is surely ours, by this machine's clock."""

from __future__ import annotations

import time

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
        """Begins with the request for the lock, or the end of its wait. margin is 0 to
        half of the ttl; None: a tenth of it."""
        if margin is None:
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
        up in time for another."""
        return min(self._life / 3, self.remaining())

    def remaining(self) -> float:
        """Returns the seconds until the hold counts as lost."""
        return self._sent + self._life - now()

    def left(self) -> float:
        """Returns the seconds until the lease may end, and others may get the lock."""
        return self._sent + self._ttl - now()
