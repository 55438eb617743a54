"""The renewal of holds, and the look at one that needs none; for both kinds of client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pylok import answers, requests
from pylok.errors import Error, NotHolderError, NotLockedError
from pylok.lease import Lease
from pylok.loss import lost_error
from pylok.messages import Lock, lock_from_message
from pylok.v1 import lock_service_pb2 as pb


class Kept(Protocol):
    """A Hold of either kind."""

    name: str
    token: int
    _lease: Lease


def renewal(holds: Sequence[Kept]) -> tuple[str, Any]:
    """Returns the method and the request that renew holds."""
    if len(holds) > 1:
        return "RenewSet", requests.renew_set(holds, None, None, "")
    hold = holds[0]
    if hold._lease.is_endless:
        return "Status", pb.StatusRequest(name=hold.name)
    return "Renew", pb.RenewRequest(name=hold.name, token=hold.token)


def renewal_answers(holds: Sequence[Kept], response: Any) -> list[Lock | Error]:
    """Returns for each hold the lock as it now stands, or why it was not renewed."""
    if isinstance(response, pb.RenewResponse):
        return [lock_from_message(response.lock)]
    if isinstance(response, pb.StatusResponse):
        lock = lock_from_message(response.lock)
        return [over(lock, holds[0].token) or lock]
    told = {(a.name, a.token): a.error or a.lock for a in answers.from_messages(response.answers)}
    return [told.get((hold.name, hold.token)) or Error(f"the server's answer says nothing of {hold.name}") for hold in holds]


def over(lock: Lock, token: int) -> Error | None:
    """Returns why a lock is not held any more by the hold with a token; None: it is."""
    refusal: Error
    if not lock.locked:
        refusal = NotLockedError(f"{lock.name} is not locked: the hold with token {token} is over")
    elif lock.token != token:
        refusal = NotHolderError(
            f"the hold with token {token} is over; {lock.name} is held with token {lock.token}"
        )
    elif lock.stale:
        refusal = NotHolderError(f"the hold of {lock.name} with token {token} is stale")
    else:
        return None
    refusal.reason, refusal.lock = type(refusal).reason, lock
    return refusal


def check_adoptable(lock: Lock, token: int) -> None:
    """Raises LostError if a hold is over."""
    if token <= 0:
        raise ValueError("token is needed, to say which hold to adopt")
    if refusal := over(lock, token):
        raise lost_error(Lock(lock.name, token=token), refusal, None) from refusal


def check_owner(lock: Lock, caller: str) -> None:
    """Raises NotHolderError if a hold, which needs no renewal that would tell, is another
    caller's."""
    if lock.caller and lock.caller != caller:
        refusal = NotHolderError(
            f"the hold of {lock.name} with token {lock.token} is {lock.caller}'s, and you are {caller or 'nobody by name'}"
        )
        refusal.reason, refusal.lock = NotHolderError.reason, lock
        raise refusal
