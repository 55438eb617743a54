"""A request for a lock or for a set of locks, and how to find out what became of it;
for both kinds of client."""

from __future__ import annotations

import datetime
from typing import Any

from pylok import requests
from pylok.connection import LEFT, UNDO_TTL
from pylok.errors import Error, NotHolderError, NotLockedError, UnsupportedError
from pylok.messages import Lock, lock_from_message
from pylok.v1 import lock_service_pb2 as pb


FOREVER = "set"
"""The feature whose servers know waits without an end."""


class Wanted:
    """A request for a lock."""

    method = "Lock"
    """The name of the RPC."""

    def __init__(self, request: Any) -> None:
        """Begins with the request that is sent."""
        self.request = request

    @property
    def name(self) -> str:
        """What it asks for, in words."""
        return str(self.request.name)

    @property
    def waits(self) -> bool:
        """Whether it may stand in line."""
        return self.request.HasField("wait") or bool(self.request.wait_forever)

    def locks(self, response: Any) -> tuple[Lock, ...]:
        """Returns the holds that an answer to it grants."""
        return (lock_from_message(response.lock),)

    def probes(self) -> list[tuple[str, Any]]:
        """Returns the methods and requests whose answers show whether it may have been
        granted anything."""
        if self.request.shared:
            return [("List", pb.ListRequest(pattern=f"{self.name}/_+*", page_size=requests.PAGE_SIZE))]
        return [("Status", pb.StatusRequest(name=self.name))]

    def may_be_held(self, response: Any) -> bool:
        """Reports whether it may have been granted what the answer to a probe shows."""
        found = [response.lock] if isinstance(response, pb.StatusResponse) else response.locks
        if getattr(response, "next_page_token", ""):
            return True  # there are more to see than it takes to ask
        return any(
            lock.state == pb.LOCK_STATE_LOCKED and lock.holder == self.request.holder for lock in found
        )

    def again(self) -> Any:
        """Makes the request that asks what became of it. That waits for nothing and
        replaces nothing, and a hold that it is granted anew ends soon."""
        again = pb.LockRequest(
            name=self.request.name,
            shared=self.request.shared,
            limit=self.request.limit,
            tree=self.request.tree,
        )
        return self._again(again)

    def _again(self, again: Any) -> Any:
        again.holder, again.request_id = self.request.holder, self.request.request_id
        again.ttl.FromTimedelta(datetime.timedelta(seconds=UNDO_TTL))
        return again

    def is_partly_held(self, refusal: Error) -> bool:
        """Reports whether a refusal says that it was granted, and that a part of that still
        stands."""
        return False

    def rest(self, refusal: Error) -> tuple[str, Any] | None:
        """Returns the method and the request that release that part; None: the refusal does
        not tell what it is."""
        return None

    def missing(self, locks: tuple[Lock, ...]) -> str:
        """Returns, in words, what it asked for and a server that is older than this has not
        granted; empty: nothing."""
        asked = self.request
        if asked.on_expiry == pb.ON_EXPIRY_KEEP and any(l.on_expiry != asked.on_expiry for l in locks):
            return "on_expiry='keep'"
        if isinstance(asked, pb.LockRequest):
            if asked.tree and not locks[0].tree:
                return "trees"
            if asked.shared and not locks[0].shared:
                return "shared holds"
        return ""


class WantedSet(Wanted):
    """A request for a set of locks."""

    method = "LockSet"

    @property
    def name(self) -> str:
        """What it asks for, in words."""
        names = self._names()
        return f"the set of {names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]

    def _names(self) -> list[str]:
        chosen = [name for choice in self.request.choices for name in choice.names]
        return [*self.request.names, *chosen] or [""]

    def locks(self, response: Any) -> tuple[Lock, ...]:
        """Returns the holds that an answer to it grants."""
        return tuple(map(lock_from_message, response.locks))

    def probes(self) -> list[tuple[str, Any]]:
        """Asks for one name that it has if it has any; where it has none, for each of a
        choice."""
        names = self.request.names[:1] or self.request.choices[0].names
        return [("Status", pb.StatusRequest(name=name)) for name in names]

    def again(self) -> Any:
        """Makes the request that asks what became of it."""
        again = pb.LockSetRequest(names=self.request.names, choices=self.request.choices)
        return self._again(again)

    def is_partly_held(self, refusal: Error) -> bool:
        """Reports whether a part of the set is left."""
        return isinstance(refusal, NotHolderError)

    def rest(self, refusal: Error) -> tuple[str, Any] | None:
        """Returns what releases the rest of the set."""
        left = refusal.lock
        if left is None or left.set is None:
            return None
        return "UnlockSet", requests.unlock_set((), left.set, self.request.holder, reason=LEFT)


def release_of(locks: tuple[Lock, ...], holder: str) -> tuple[str, Any]:
    """Returns the method and the request that release holds that nobody will get to see."""
    if len(locks) == 1:
        return "Unlock", requests.unlock(locks[0].name, locks[0].token, holder, reason=LEFT)
    return "UnlockSet", requests.unlock_set(locks, None, holder, reason=LEFT)


def is_released(response: Any) -> bool:
    """Reports whether an answer to such a release says that nothing stands."""
    return all(
        answer.reason in ("", NotHolderError.reason, NotLockedError.reason)
        for answer in getattr(response, "answers", ())
    )


def unsupported(address: str, what: str) -> UnsupportedError:
    """Makes the error of a server that is older than this client."""
    return UnsupportedError(
        f"the server at {address} is older than this client and does not know {what}: update pylokd there"
    )
