"""The requests, from Python arguments; for both kinds of client."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from pylok.data import to_struct
from pylok.messages import Choice, EventCause, OnExpiry, SetRef, Verb
from pylok.v1 import lock_service_pb2 as pb

Seconds = float | datetime.timedelta
"""A length of time: seconds, or a timedelta."""

class Named(Protocol):
    """What says which hold it is: a Lock that is held, or a Hold."""

    @property
    def name(self) -> str:
        """The name of the lock."""

    @property
    def token(self) -> int:
        """The token of the hold."""


HoldRef = Named | tuple[str, int]
"""A hold of a lock: a Lock or a Hold, or its name and token."""

PAGE_SIZE = 1000
"""How many locks or events are asked for at a time."""


def seconds(length: Seconds) -> float:
    """Returns a length of time in seconds."""
    return length.total_seconds() if isinstance(length, datetime.timedelta) else float(length)


def lock(
    name: str,
    *,
    data: Mapping[Any, Any] | None,
    holder: str,
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    wait: Seconds,
    request_id: str,
    overwrite: bool,
    shared: bool,
    limit: int,
    tree: bool,
    drain: bool,
    through_freeze: bool,
    replace_stale: bool,
    reason: str,
    on_expiry: OnExpiry | str,
    refuse_manual: bool,
) -> pb.LockRequest:
    """Makes the request of lock."""
    request = pb.LockRequest(
        name=name,
        holder=holder,
        request_id=request_id,
        overwrite=overwrite,
        shared=shared or limit > 0,
        limit=limit,
        tree=tree or drain,
        drain=drain,
        replace_stale=replace_stale,
    )
    _set_terms(request, data, ttl, expire_time, wait, through_freeze, reason, on_expiry, refuse_manual)
    return request


def lock_set(
    names: Iterable[str],
    choices: Iterable[Choice],
    *,
    data: Mapping[Any, Any] | None,
    holder: str,
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    wait: Seconds,
    request_id: str,
    through_freeze: bool,
    reason: str,
    on_expiry: OnExpiry | str,
    refuse_manual: bool,
) -> pb.LockSetRequest:
    """Makes the request of lock_set."""
    request = pb.LockSetRequest(names=_names(names), holder=holder, request_id=request_id)
    for choice in choices:
        request.choices.add(names=_names(choice.names), count=choice.count)
    if not request.names and not request.choices:
        raise ValueError("a set needs at least one name or choice")
    _set_terms(request, data, ttl, expire_time, wait, through_freeze, reason, on_expiry, refuse_manual)
    return request


def unlock(
    name: str,
    token: int,
    holder: str,
    *,
    force: bool = False,
    stale: bool = False,
    reason: str = "",
    data: Mapping[Any, Any] | None = None,
) -> pb.UnlockRequest:
    """Makes the request of unlock."""
    request = pb.UnlockRequest(
        name=name, token=token, holder=holder, force=force, stale=stale, reason=reason
    )
    if data is not None:
        request.data.CopyFrom(to_struct(data))
    return request


def unlock_set(
    holds: Iterable[HoldRef],
    of: SetRef | int | None,
    holder: str,
    *,
    force: bool = False,
    reason: str = "",
    data: Mapping[Any, Any] | None = None,
) -> pb.UnlockSetRequest:
    """Makes the request of unlock_set."""
    request = pb.UnlockSetRequest(
        holds=_holds(holds),
        set=of.id if isinstance(of, SetRef) else of or 0,
        holder=holder,
        force=force,
        reason=reason,
    )
    if data is not None:
        request.data.CopyFrom(to_struct(data))
    return request


def renew_set(
    holds: Iterable[HoldRef],
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    holder: str,
) -> pb.RenewSetRequest:
    """Makes the request of renew_set."""
    request = pb.RenewSetRequest(holds=_holds(holds), holder=holder)
    _set_expiry(request, ttl, expire_time)
    return request


def hand_over(
    name: str,
    token: int,
    *,
    to: str,
    caller: str,
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    never: bool,
    data: Mapping[Any, Any] | None,
    reason: str,
    request_id: str,
    holder: str,
) -> pb.HandOverRequest:
    """Makes the request of hand_over."""
    if never and (ttl is not None or expire_time is not None):
        raise ValueError("give ttl, expire_time or never, and no two of them")
    request = pb.HandOverRequest(
        name=name, token=token, holder=to, caller=caller, reason=reason, request_id=request_id
    )
    setattr(request, "from", holder)  # a word of Python
    _set_expiry(request, ttl, expire_time)
    if never:
        request.never = True
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


def _set_terms(
    request: Any,
    data: Mapping[Any, Any] | None,
    ttl: Seconds | None,
    expire_time: datetime.datetime | None,
    wait: Seconds,
    through_freeze: bool,
    reason: str,
    on_expiry: OnExpiry | str,
    refuse_manual: bool,
) -> None:
    """Sets what the requests for a lock and for a set have in common."""
    request.through_freeze = through_freeze
    request.reason = reason
    request.on_expiry = int(_on_expiry(on_expiry))
    request.refuse_manual = refuse_manual
    if data is not None:
        request.data.CopyFrom(to_struct(data))
    _set_expiry(request, ttl, expire_time)
    if seconds(wait) == math.inf:
        request.wait_forever = True
    elif seconds(wait):
        request.wait.FromTimedelta(datetime.timedelta(seconds=seconds(wait)))


def _on_expiry(given: OnExpiry | str) -> OnExpiry:
    if not isinstance(given, str):
        return given
    words = {"release": OnExpiry.RELEASE, "keep": OnExpiry.KEEP}
    if given not in words:
        raise ValueError(f"on_expiry is {given!r}; there are {', '.join(words)}")
    return words[given]


def _names(names: Iterable[str]) -> list[str]:
    """Returns names, and refuses one alone, whose letters would be taken for names."""
    if isinstance(names, str):
        raise TypeError(f"names is {names!r}; give a list of names, such as [{names!r}]")
    return list(names)


def _holds(holds: Iterable[HoldRef]) -> list[pb.HoldRef]:
    return [
        pb.HoldRef(name=hold[0], token=hold[1])
        if isinstance(hold, tuple)
        else pb.HoldRef(name=hold.name, token=hold.token)
        for hold in holds
    ]


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
