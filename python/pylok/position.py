"""Where a watch is in the order of all changes, so that it can go on from there."""

from __future__ import annotations

from pylok.messages import Event, EventType


class Position:
    """After which revision to watch when the stream has broken."""

    def __init__(self, after_revision: int) -> None:
        """Begins after a revision; 0: with the present state."""
        self.after_revision = after_revision
        self._whole = after_revision > 0  # every change up to there has been told

    def passed(self, event: Event) -> None:
        """Notes an event that has been received."""
        if event.type == EventType.RESET:
            self.after_revision, self._whole = 0, False
        elif event.type == EventType.SYNCED:
            self.after_revision, self._whole = event.revision, True
        elif self._whole:
            self.after_revision = event.revision
