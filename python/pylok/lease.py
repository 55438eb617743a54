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
    so this ends first, and nobody believes in a hold that the server has ended.
    """

    def __init__(self, ttl: float, sent: float) -> None:
        """Begins with the request for the lock, or the end of its wait."""
        self.ttl = ttl
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
        """Returns how many seconds from now to renew: a third of the ttl after the
        last renewal; after a failed one soon, but never in a hurry."""
        if self._failed:
            return min(1.0, self.ttl / 20, max(0.0, self.remaining()))
        return max(0.0, self._sent + self.ttl / 3 - now())

    def remaining(self) -> float:
        """Returns the seconds left; 0 or less: the hold may have ended."""
        return self._sent + self.ttl - now()
