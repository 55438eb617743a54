"""What becomes of each hold of several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pylok.errors import Error, NotHolderError, NotLockedError, from_reason
from pylok.messages import Lock, lock_from_message


@dataclass(frozen=True)
class SetAnswer:
    """What became of one hold of those that Client.unlock_set or Client.renew_set was
    given."""

    name: str
    """The lock."""
    token: int
    """The token of the hold."""
    lock: Lock | None
    """Of unlock_set the hold as it was, of renew_set as it now stands. Where nothing was
    done: the lock as it stands, if that is known."""
    revision: int = 0
    """Of unlock_set, the revision of the release; 0: nothing was released."""
    next: Lock | None = None
    """Of unlock_set, the hold that the lock was granted to in the same step."""
    error: Error | None = None
    """Why nothing was done: what unlock or renew would have raised. None: it was done."""


def from_messages(messages: Iterable[Any]) -> tuple[SetAnswer, ...]:
    """Returns the answers that messages stand for."""
    return tuple(map(_from_message, messages))


def _from_message(message: Any) -> SetAnswer:
    lock = lock_from_message(message.lock) if message.HasField("lock") else None
    error = from_reason(message.reason, message.message, lock) if message.reason else None
    return SetAnswer(
        name=message.name,
        token=message.token,
        lock=lock,
        revision=message.revision,
        next=lock_from_message(message.next) if message.HasField("next") else None,
        error=error,
    )


def released_before(answers: Iterable[SetAnswer]) -> tuple[SetAnswer, ...]:
    """Returns the answers to a release that was sent again: a hold that is over was
    released by the first sending."""
    return tuple(
        replace(answer, error=None, lock=None)
        if isinstance(answer.error, (NotHolderError, NotLockedError))
        else answer
        for answer in answers
    )


def renewed(answers: Iterable[SetAnswer]) -> tuple[Lock, ...]:
    """Returns the holds that answers say have been renewed, or raises why one was not."""
    locks: list[Lock] = []
    for answer in answers:
        if answer.error is not None:
            raise answer.error
        assert answer.lock is not None
        locks.append(answer.lock)
    return tuple(locks)
