"""Errors of the service. They go by the reason that the server gives, never by
the text of a message."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory

from pylok.messages import Event, Lock, lock_from_message
from pylok.proof import NOBODY_LISTENS
from pylok.v1 import lock_service_pb2 as pb


class Error(Exception):
    """A request that was refused, or that got no answer. Its text is for people."""

    reason: str = ""
    """The reason that the server gave, such as `LOCK_HELD`; empty: none."""
    code: str = ""
    """The name of the gRPC status code; empty: the request was not sent."""
    lock: Lock | None = None
    """The lock as it stands, for LockHeldError and NotHolderError."""
    sent_again: bool = False
    """The request was sent again after its first answer was lost, so the first
    may have had its effect."""
    request_id: str = ""
    """What a request for a lock can be asked for again with, when its answer is lost
    and the lock may be held: lock with it returns the hold, or takes the lock if there
    is none. Empty: the outcome is known, or the request was no other."""


class CredentialError(Error):
    """A bearer token could not be had, or must not go to that server. Nothing was sent."""


class LockHeldError(Error):
    """The lock is held by someone else, also after a wait."""

    reason = "LOCK_HELD"


class NotHolderError(Error):
    """The present hold has another token, or another holder."""

    reason = "NOT_HOLDER"


class NotLockedError(Error):
    """The lock is free."""

    reason = "NOT_LOCKED"


class InvalidNameError(Error, ValueError):
    """The name of the lock breaks a rule."""

    reason = "INVALID_NAME"


class InvalidArgumentError(Error, ValueError):
    """Another part of the request breaks a rule."""

    reason = "INVALID_ARGUMENT"


class DataTooLargeError(Error):
    """The lock file would be larger than 64 KiB."""

    reason = "DATA_TOO_LARGE"


class TooManyWaitersError(Error):
    """The queue for the lock is full."""

    reason = "TOO_MANY_WAITERS"


class TooManyLocksError(Error):
    """The server holds as many locks as it may."""

    reason = "TOO_MANY_LOCKS"


class TooManyWatchesError(Error):
    """The caller, or the server, has as many watches as may be."""

    reason = "TOO_MANY_WATCHES"


class RateLimitedError(Error):
    """The caller asks more often than it may. Nothing changed."""

    reason = "RATE_LIMITED"
    retry_after: float = 0.0
    """In how many seconds the server wants to be asked again."""


class UnauthenticatedError(Error):
    """The server does not know the caller."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(Error):
    """The caller may not do this."""

    reason = "PERMISSION_DENIED"


class LockFileError(Error):
    """The operating system does not let the server change this one lock's file, or
    make it. Nothing changed."""

    reason = "LOCK_FILE_FAILED"


class StoreReadOnlyError(Error):
    """The server's disk is full or failing. Nothing changed."""

    reason = "STORE_READ_ONLY"


class OutcomeUnknownError(Error):
    """The change may or may not have been made."""

    reason = "OUTCOME_UNKNOWN"


class ShuttingDownError(Error):
    """The server is stopping. Nothing changed."""

    reason = "SHUTTING_DOWN"


class UnreachableError(Error, ConnectionError):
    """The server gave no answer: nothing listens there, or the connection was lost.
    A change that was asked for may have been made."""

    sent: bool = True
    """The request may have reached the server. False: there was no connection."""
    details: str = ""
    """What gRPC says of it."""


class TimeLimitError(Error, TimeoutError):
    """The server has not answered in time. A change that was asked for may have
    been made."""


class LostError(Error):
    """The hold is over although its holder did not release it: stop the work that
    it protects. The text says who ended it and why, as far as that is known, and
    __cause__ how it came out."""

    event: Event | None = None
    """The change that ended the hold: its cause, actor and reason. None: not known, or
    the hold could not be renewed in time."""
    name: str = ""
    """The lock's name."""
    token: int = 0
    """The hold's token."""
    stale: bool = False
    """Whether the hold, one with on_expiry="keep", stands although it is over: nobody else
    gets the lock until somebody has looked."""
    to: str = ""
    """Who has the lock now that the hold was handed over; empty: it was not."""
    others: tuple[LostError, ...] = ()
    """Of a Set of which more than one hold is lost, the errors of the others."""


class UnsupportedError(Error):
    """The server is older than this client and cannot do what was asked. Nothing is held
    by it."""


class ForkedError(Error, RuntimeError):
    """The process was forked from the one that made the client, the hold or the watch,
    which alone can use it. Nothing was sent."""


_BY_REASON: dict[str, type[Error]] = {
    kind.reason: kind
    for kind in (
        LockHeldError,
        NotHolderError,
        NotLockedError,
        InvalidNameError,
        InvalidArgumentError,
        DataTooLargeError,
        TooManyWaitersError,
        TooManyLocksError,
        TooManyWatchesError,
        RateLimitedError,
        UnauthenticatedError,
        PermissionDeniedError,
        LockFileError,
        StoreReadOnlyError,
        OutcomeUnknownError,
        ShuttingDownError,
    )
}

_LARGEST_FILE = 64 << 10  # bytes of a lock file

# gRPC tells only so that a call has failed for want of a connection.
_NO_CONNECTION = "failed to connect to all addresses"

# How gRPC begins the details of an UNAVAILABLE for a call whose token pylok.proof refused.
_NO_TOKEN = "Getting metadata from plugin failed with error: "

_DOMAIN = "pylok"  # of the ErrorInfo details that are the service's own


# What tells what has become of a request, however often it was sent: refusals for what
# the lock or the request is, not for how the server is doing.
ANSWERS = (
    LockHeldError,
    NotHolderError,
    NotLockedError,
    InvalidNameError,
    InvalidArgumentError,
    DataTooLargeError,
    TooManyWaitersError,
    TooManyLocksError,
)


def from_rpc_error(error: grpc.RpcError, address: str, request: Any = None) -> Error:
    """Returns the Error that a gRPC error stands for, as the answer to a request. This
    is the one place for it, as service/errors.go is for the other way."""
    code, text = error.code(), error.details() or ""
    reason, lock, retry_after = _details(error)
    made: Error
    if reason in _BY_REASON:
        made = _BY_REASON[reason](text)
        if isinstance(made, RateLimitedError):
            made.retry_after = retry_after
    elif code == grpc.StatusCode.RESOURCE_EXHAUSTED and _is_large(request):
        # gRPC refused it before the service saw it, and so without a reason.
        reason = DataTooLargeError.reason
        made = DataTooLargeError(
            f"the data for {_what(request)} are too large to send, {request.data.ByteSize()} bytes; a "
            f"lock file has at most {_LARGEST_FILE}: keep the bulk elsewhere and lock with a link to it"
        )
    elif text.startswith(_NO_TOKEN + NOBODY_LISTENS):
        made = away = UnreachableError(
            f"no answer from the server at {address}: {text.removeprefix(_NO_TOKEN)}; is pylokd running there?"
        )
        away.details = text
        away.sent = False
    elif text.startswith(_NO_TOKEN):
        made = CredentialError(text.removeprefix(_NO_TOKEN))
    elif code == grpc.StatusCode.UNAVAILABLE:
        made = unreachable = UnreachableError(
            f"no answer from the server at {address}: {text}; is pylokd running there? "
            "The client's address, or else PYLOK_ADDRESS, says where to look"
        )
        unreachable.details = text
        unreachable.sent = not text.startswith(_NO_CONNECTION)
    elif code == grpc.StatusCode.DEADLINE_EXCEEDED:
        made = TimeLimitError(f"the server at {address} has not answered in time")
    elif code == grpc.StatusCode.UNIMPLEMENTED:
        asked = type(request).__name__.removesuffix("Request") if request is not None else "this call"
        made = UnsupportedError(
            f"the server at {address} is older than this client and does not know {asked}: update pylokd there"
        )
    else:
        made = Error(f"the server at {address} failed: {text}")
    made.reason = reason
    made.code = code.name
    made.lock = lock
    return made


def from_reason(reason: str, text: str, lock: Lock | None) -> Error:
    """Returns the Error for one of several holds that were asked about together."""
    made = _BY_REASON.get(reason, Error)(text)
    made.reason, made.lock = reason, lock
    return made


def _what(request: Any) -> str:
    return str(getattr(request, "name", "the set"))


def _is_large(request: Any) -> bool:
    data = getattr(request, "data", None)
    return data is not None and data.ByteSize() > _LARGEST_FILE


def after(lost: Error, made: Error) -> Error:
    """Returns what to think of a request whose first sending got the error lost, and
    whose second got made, or raises it."""
    made.sent_again = lost.sent_again or is_outcome_unknown(lost)
    if isinstance(made, ANSWERS):
        raise made from lost
    if is_outcome_unknown(lost) and not is_outcome_unknown(made):
        made = lost  # "nothing changed" is about the last sending alone
    if not isinstance(made, (UnreachableError, ShuttingDownError, OutcomeUnknownError)):
        raise made
    return made


def is_outcome_unknown(error: Error) -> bool:
    """Reports whether a request that failed may have been carried out."""
    if isinstance(error, UnreachableError):
        return error.sent
    return isinstance(error, (TimeLimitError, OutcomeUnknownError)) or is_fault(error)


def is_fault(error: Error) -> bool:
    """Reports whether the server failed in a way that it has no reason for."""
    return error.code == "INTERNAL" and not error.reason


def may_be_locked(error: Error, name: str, request_id: str) -> None:
    """Adds to the error of a request for a lock that the lock may be held, and how to
    find out."""
    error.request_id = request_id
    error.args = (
        f"{error}; {name} may be locked by this request, and asking again with "
        f"request_id={request_id!r} tells",
    )


def _details(error: grpc.RpcError) -> tuple[str, Lock | None, float]:
    """Returns the reason and the lock that come with a gRPC error, and in how many seconds
    to ask again."""
    reason, lock, retry_after = "", None, 0.0
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in _Status.FromString(value).details:
            kind = detail.type_url.rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                info = _ErrorInfo.FromString(detail.value)
                reason = info.reason if info.domain == _DOMAIN else reason
            elif kind == "google.rpc.RetryInfo":
                delay = _RetryInfo.FromString(detail.value).retry_delay
                retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
            elif kind == "pylok.v1.Lock":
                lock = lock_from_message(pb.Lock.FromString(detail.value))
    return reason, lock, retry_after


def _make_details() -> tuple[Any, Any, Any]:
    """Makes the parts of google.rpc.Status, ErrorInfo and RetryInfo that are read
    here, under names of their own: googleapis-common-protos is no dependency, and
    where it is installed its own definitions must not clash with these."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pylok/python/status_details.proto",
        package="pylok.python",
        syntax="proto3",
        dependency=[duration_pb2.DESCRIPTOR.name],
    )

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    detail = file.message_type.add(name="Detail")
    detail.field.add(number=1, name="type_url", label=one, type=field.TYPE_STRING)
    detail.field.add(number=2, name="value", label=one, type=field.TYPE_BYTES)
    file.message_type.add(name="Status").field.add(
        number=3,
        name="details",
        label=many,
        type=field.TYPE_MESSAGE,
        type_name=".pylok.python.Detail",
    )
    info = file.message_type.add(name="ErrorInfo")
    info.field.add(number=1, name="reason", label=one, type=field.TYPE_STRING)
    info.field.add(number=2, name="domain", label=one, type=field.TYPE_STRING)
    retry = file.message_type.add(name="RetryInfo")
    retry.field.add(
        number=1,
        name="retry_delay",
        label=one,
        type=field.TYPE_MESSAGE,
        type_name=".google.protobuf.Duration",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(duration_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    get_class = getattr(message_factory, "GetMessageClass", None)  # protobuf 4.22 and later
    if get_class is None:
        get_class = message_factory.MessageFactory(pool).GetPrototype
    return (
        get_class(pool.FindMessageTypeByName("pylok.python.Status")),
        get_class(pool.FindMessageTypeByName("pylok.python.ErrorInfo")),
        get_class(pool.FindMessageTypeByName("pylok.python.RetryInfo")),
    )


_Status, _ErrorInfo, _RetryInfo = _make_details()
