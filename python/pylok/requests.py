"""The requests, from Python arguments; for both kinds of client."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pylok.connection import UNDO_TTL
from pylok.data import to_struct
from pylok.messages import EventCause, Verb
from pylok.v1 import lock_service_pb2 as pb

Seconds = float | datetime.timedelta
"""A length of time: seconds, or a timedelta."""

PAGE_SIZE = 1000
"""How many locks or events are asked for at a time."""


def seconds(length: Seconds) -> float:
    """Returns a length of time in seconds."""
    return length.total_seconds() if isinstance(length, datetime.timedelta) else float(length)


def lock(
    name: str,
    data: Mapping[Any, Any] | None,
    holder: str,
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    wait: Seconds,
    request_id: str,
    overwrite: bool,
) -> pb.LockRequest:
    """Makes the request of lock."""
    request = pb.LockRequest(
        name=name, holder=holder, request_id=request_id, overwrite=overwrite
    )
    if data is not None:
        request.data.CopyFrom(to_struct(data))
    _set_expiry(request, ttl, expire_time)
    if seconds(wait):
        request.wait.FromTimedelta(datetime.timedelta(seconds=seconds(wait)))
    return request


def lock_again(request: pb.LockRequest) -> pb.LockRequest:
    """Makes the request that asks what became of an earlier one. It waits for nothing
    and replaces nothing, and a hold that it is granted anew ends soon."""
    again = pb.LockRequest(name=request.name, holder=request.holder, request_id=request.request_id)
    again.ttl.FromTimedelta(datetime.timedelta(seconds=UNDO_TTL))
    return again


def unlock(
    name: str,
    token: int,
    holder: str,
    force: bool,
    reason: str,
    data: Mapping[Any, Any] | None,
) -> pb.UnlockRequest:
    """Makes the request of unlock."""
    request = pb.UnlockRequest(name=name, token=token, holder=holder, force=force, reason=reason)
    if data is not None:
        request.data.CopyFrom(to_struct(data))
    return request


def renew(
    name: str,
    token: int,
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    data: Mapping[Any, Any] | None,
    holder: str,
) -> pb.RenewRequest:
    """Makes the request of renew."""
    request = pb.RenewRequest(name=name, token=token, holder=holder)
    _set_expiry(request, ttl, expire_time)
    if data is not None:
        request.data.CopyFrom(to_struct(data))
    return request


def history(
    pattern: str,
    after_revision: int,
    after_time: datetime.datetime | None,
    before_time: datetime.datetime | None,
    actor: str,
    cause: EventCause,
    newest_first: bool,
) -> pb.HistoryRequest:
    """Makes the request of the first page of a history."""
    request = pb.HistoryRequest(
        pattern=pattern,
        after_revision=after_revision,
        actor=actor,
        newest_first=newest_first,
        page_size=PAGE_SIZE,
    )
    request.cause = int(cause)  # type: ignore[assignment]
    if after_time is not None:
        request.after_time.CopyFrom(_timestamp("after_time", after_time))
    if before_time is not None:
        request.before_time.CopyFrom(_timestamp("before_time", before_time))
    return request


def may(verb: Verb | str, name: str, caller: str) -> pb.MayRequest:
    """Returns the request for what the rules say."""
    if isinstance(verb, str):
        words = {v.name.lower(): v for v in Verb}
        if verb not in words:
            raise ValueError(f"{verb!r} is no verb; there are {', '.join(words)}")
        verb = words[verb]
    request = pb.MayRequest(name=name)
    setattr(request, "verb", int(verb))
    setattr(request, "as", caller)  # a word of Python
    return request


def _set_expiry(
    request: Any, ttl: Seconds | None, expire_time: datetime.datetime | None
) -> None:
    if ttl is not None and expire_time is not None:
        raise ValueError("give ttl or expire_time, not both")
    if ttl is not None:
        request.ttl.FromTimedelta(datetime.timedelta(seconds=seconds(ttl)))
    if expire_time is not None:
        request.expire_time.CopyFrom(_timestamp("expire_time", expire_time))


def _timestamp(argument: str, time: datetime.datetime) -> Timestamp:
    if time.tzinfo is None:
        raise ValueError(f"{argument} has no zone; give it one, such as .astimezone()")
    message = Timestamp()
    message.FromDatetime(time)
    return message
