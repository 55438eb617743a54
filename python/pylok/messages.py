"""What the server says: locks, events, and what it is itself."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pylok.data import from_struct
from pylok.v1 import lock_service_pb2 as pb


class OnExpiry(enum.IntEnum):
    """What becomes of a hold whose time is over. The numbers are the proto's."""

    UNSPECIFIED = 0
    """The lock is free, or the server is too old to tell."""
    RELEASE = 1
    """It ends."""
    KEEP = 2
    """It becomes stale: held, but no more by who had it, until somebody looks."""

    @classmethod
    def _missing_(cls, value: object) -> OnExpiry:
        return cls.UNSPECIFIED


class ObstacleKind(enum.IntEnum):
    """What an Obstacle is. The numbers are the proto's."""

    UNSPECIFIED = 0
    """A kind that this client is too old to know."""
    TREE = 1
    """A hold of a name above covers the lock, or one that is about to be granted."""
    SHARED = 2
    """Shared holds of the lock stand."""
    WAITER = 3
    """An older request waits for the lock, or for a tree that covers it."""

    @classmethod
    def _missing_(cls, value: object) -> ObstacleKind:
        return cls.UNSPECIFIED


@dataclass(frozen=True)
class SetRef:
    """Which holds were granted together."""

    id: int
    """The lowest token of the set's holds."""
    size: int
    """How many holds the set was granted."""


@dataclass(frozen=True)
class Choice:
    """Some of several locks, whichever are free first: a pool."""

    names: Sequence[str]
    """The locks to choose from."""
    count: int = 1
    """How many of them."""


@dataclass(frozen=True)
class Waiter:
    """A request that waits for a lock."""

    place: int
    """Its number, one counter for the whole server. Who has a lower one goes first."""
    holder: str = ""
    """Who wants the lock; empty: anonymous."""
    caller: str = ""
    """Whose request it is, as Lock.caller has it."""
    since_time: datetime.datetime | None = None
    """When it came, in UTC."""
    until_time: datetime.datetime | None = None
    """When its wait ends, in UTC; None: it waits without an end."""
    shared: bool = False
    """Whether it wants a shared hold."""
    tree: bool = False
    """Whether it wants a tree."""
    names: tuple[str, ...] = ()
    """What a set waits for, those of its choices too; empty: the lock alone."""
    message: str = ""
    """The text of its data's key `msg`, or the beginning of that."""


@dataclass(frozen=True)
class Obstacle:
    """What stands before a request for a free lock."""

    kind: ObstacleKind
    """What it is."""
    lock: Lock | None = None
    """For a tree or a shared hold, the lock in the way; of one that may not be viewed only
    that it is locked."""
    waiter: Waiter | None = None
    """For a waiter, the older request."""


@dataclass(frozen=True)
class Lock:
    """A lock as it stood when the server answered, held or free."""

    name: str
    """The lock's name, such as `lb/server-cluster3w1-2`."""
    locked: bool = False
    """Whether the lock is held. All that follows is empty for a free lock."""
    lock_file_location: str = ""
    """The absolute path of the lock file on the server."""
    data: dict[str, Any] = field(default_factory=dict)
    """The user's own document; see pylok.data for what becomes of Python values."""
    holder: str = ""
    """Who holds the lock; empty: anonymous."""
    token: int = 0
    """The hold's fencing token. A later hold always has a higher one."""
    revision: int = 0
    """The revision of the lock's last change."""
    acquire_time: datetime.datetime | None = None
    """When the hold began, in UTC."""
    ttl: datetime.timedelta | None = None
    """The length of the lease; None: the hold has no ttl."""
    expire_time: datetime.datetime | None = None
    """When the hold ends unless it is renewed, in UTC; None: not by itself."""
    waiters: int = 0
    """How many requests wait for the lock."""
    problem: str = ""
    """Why the lock file could not be read, in words; empty when it could."""
    warnings: tuple[str, ...] = ()
    """What in the lock file does not count, a sentence each."""
    caller: str = ""
    """Whose the hold is: the name that the server authenticated, such as `unix:alice`.
    Empty: it did not tell the caller apart from others."""
    tree: bool = False
    """Whether the hold covers every name below its own too: a freeze."""
    set: SetRef | None = None
    """Which set the hold was granted in; None: in none."""
    on_expiry: OnExpiry = OnExpiry.UNSPECIFIED
    """What becomes of the hold when its time is over."""
    stale_time: datetime.datetime | None = None
    """When the time of a hold that is kept was over, in UTC: it is stale. None: it is not."""
    waiting: tuple[Waiter, ...] = ()
    """The first of those who wait, in the order of the line; none in events."""
    shared_holds: int = 0
    """How many shared holds of the lock stand; 0 in events. It counts for a free lock too."""
    held_below: int = 0
    """For a tree, how many locks below its name are held; 0 in events."""
    blocked_by: Obstacle | None = None
    """What keeps the lock, which is free, from being granted; None: nothing does, or it is
    held; in events."""
    conflict: str = ""
    """What the hold is at odds with, in words, such as a freeze above a lock file that was
    made by hand; empty: nothing; in events."""
    shared: bool = False
    """Whether this is a shared hold, NAME/_+NUMBER, of the lock NAME."""

    @property
    def stale(self) -> bool:
        """Whether the hold's time is over and it stands until somebody has looked."""
        return self.stale_time is not None


@dataclass(frozen=True)
class Released(Lock):
    """A hold that was released, as it was."""

    next: Lock | None = None
    """The hold that the lock was granted to in the same step; None: nobody waited."""


class EventType(enum.IntEnum):
    """What an event tells. The numbers are the proto's."""

    UNSPECIFIED = 0
    """A type that this client is too old to know."""
    RESET = 1
    """Forget every lock you know: the present state follows, up to SYNCED."""
    LOCKED = 2
    """The lock has a new hold. Between RESET and SYNCED: the lock is held."""
    UPDATED = 3
    """The hold goes on, with other data."""
    UNLOCKED = 4
    """The hold has ended."""
    SYNCED = 5
    """Every change up to the event's revision has been told."""
    ASKED = 6
    """Somebody asks the holder to let go: actor says who, reason what for. It is no change
    and has no revision. Only in a watch with the hold's token."""

    @classmethod
    def _missing_(cls, value: object) -> EventType:
        return cls.UNSPECIFIED


class EventCause(enum.IntEnum):
    """Why a change came about. The numbers are the proto's."""

    UNSPECIFIED = 0
    """The event is no change: RESET, SYNCED, ASKED, or a LOCKED between the first two."""
    REQUEST = 1
    """The holder, or who became it, asked for the change."""
    FORCED = 2
    """Somebody broke the hold on purpose."""
    EXPIRED = 3
    """The hold's ttl ran out or its expiry came. With UPDATED: it became stale."""
    FILE = 4
    """Somebody created, edited or removed the lock file."""

    @classmethod
    def _missing_(cls, value: object) -> EventCause:
        return cls.UNSPECIFIED


@dataclass(frozen=True)
class Event:
    """One change of one lock, or in a watch a mark in the stream."""

    revision: int
    """The number of the change; for SYNCED: all up to here have been told; 0 for RESET and
    ASKED."""
    time: datetime.datetime | None
    """When the change was made, by the server's clock, in UTC."""
    type: EventType
    """What the event tells."""
    cause: EventCause
    """Why the change came about."""
    lock: Lock | None
    """The lock after the change; for UNLOCKED with the holder, the token and the
    data of the hold that ended, or its closing data. None for RESET and SYNCED."""
    actor: str
    """Who made the change; empty: not known."""
    reason: str
    """The actor's own words; empty: none."""
    previous_token: int = 0
    """For LOCKED, the token of the hold that this one has replaced in one step: it was
    overwritten, handed over or stale. 0: of none."""


@dataclass(frozen=True)
class Ask:
    """That somebody asks the holder of a lock to let go. Nothing follows from it by
    itself."""

    name: str
    """The lock's name."""
    actor: str
    """Who asks; empty: who gave no name."""
    message: str
    """What they say."""
    time: datetime.datetime | None
    """When they asked, by the server's clock, in UTC."""


@dataclass(frozen=True)
class AskAnswer:
    """What Client.ask returns."""

    lock: Lock
    """The hold whose holder was asked."""
    heard: bool
    """Whether somebody listens for the holder at present. If not, who next listens is
    told."""


@dataclass(frozen=True)
class HandOverAnswer:
    """What Client.hand_over returns."""

    lock: Lock
    """The hold as it goes on. Its token is for the new holder."""
    warnings: tuple[str, ...]
    """What may be a mistake, a sentence each, such as a caller that was never seen."""


@dataclass(frozen=True)
class Info:
    """What a server is."""

    version: str
    """The version of the server program."""
    root: str
    """The absolute path of the directory with the lock files; empty: it keeps none."""
    store: str
    """Which store keeps the locks, such as `file`."""
    revision: int
    """The revision of the last change."""
    start_time: datetime.datetime | None
    """When the server started, in UTC."""
    caller: str = ""
    """Who asks, by the name that the server authenticated; `anonymous` or empty: the
    call came without a proof."""
    proof: str = ""
    """How the name was proved: socket, token, oidc or certificate; empty: not at all."""
    groups: tuple[str, ...] = ()
    """The groups that the server's access file puts the caller in, sorted."""
    features: tuple[str, ...] = ()
    """What the server can do that older ones cannot, such as `set` and `tree`, sorted."""


class Verb(enum.IntEnum):
    """What a rule of the server's access file allows. The numbers are the proto's."""

    VIEW = 1
    """See the lock: status, list, watch, history."""
    LOCK = 2
    """Take it, wait for it, renew and release one's own hold of it."""
    BREAK = 3
    """End or replace the hold of somebody else."""
    FREEZE = 4
    """Freeze the lock and all below it, and go through such a freeze."""
    ADMIN = 5
    """What concerns the server and not one lock."""


@dataclass(frozen=True)
class Permission:
    """What the rules of a server say of a caller, a verb and a lock."""

    allowed: bool
    """Whether they allow it. A server without an access file allows everything."""
    caller: str
    """Whom it concerns; empty: the server does not tell callers apart."""
    groups: tuple[str, ...]
    """The groups of that caller, as far as the server knows them."""
    why: str
    """A sentence that says which rule allows it, or who would be allowed."""


def _time(message: Any, name: str) -> datetime.datetime | None:
    if not message.HasField(name):
        return None
    at: datetime.datetime = getattr(message, name).ToDatetime(tzinfo=datetime.timezone.utc)
    return at


def lock_from_message(message: pb.Lock) -> Lock:
    """Returns the Lock that a message stands for."""
    return Lock(**_lock_fields(message))


def released_from_message(message: pb.UnlockResponse) -> Released:
    """Returns the hold that an answer to unlock stands for."""
    following = lock_from_message(message.next) if message.HasField("next") else None
    return Released(**_lock_fields(message.lock), next=following)


def _lock_fields(message: pb.Lock) -> dict[str, Any]:
    return dict(
        name=message.name,
        locked=message.state == pb.LOCK_STATE_LOCKED,
        lock_file_location=message.lock_file_location,
        data=from_struct(message.data),
        holder=message.holder,
        token=message.token,
        revision=message.revision,
        acquire_time=_time(message, "acquire_time"),
        ttl=message.ttl.ToTimedelta() if message.HasField("ttl") else None,
        expire_time=_time(message, "expire_time"),
        waiters=message.waiters,
        problem=message.problem,
        warnings=tuple(message.warnings),
        caller=message.caller,
        tree=message.tree,
        set=SetRef(message.set.id, message.set.size) if message.HasField("set") else None,
        on_expiry=OnExpiry(message.on_expiry),
        stale_time=_time(message, "stale_time"),
        waiting=tuple(map(waiter_from_message, message.waiting)),
        shared_holds=message.shared_holds,
        held_below=message.held_below,
        blocked_by=_obstacle(message.blocked_by) if message.HasField("blocked_by") else None,
        conflict=message.conflict,
        shared=message.shared,
    )


def waiter_from_message(message: pb.Waiter) -> Waiter:
    """Returns the Waiter that a message stands for."""
    return Waiter(
        place=message.place,
        holder=message.holder,
        caller=message.caller,
        since_time=_time(message, "since_time"),
        until_time=_time(message, "until_time"),
        shared=message.shared,
        tree=message.tree,
        names=tuple(message.names),
        message=message.message,
    )


def _obstacle(message: pb.Obstacle) -> Obstacle:
    return Obstacle(
        kind=ObstacleKind(message.kind),
        lock=lock_from_message(message.lock) if message.HasField("lock") else None,
        waiter=waiter_from_message(message.waiter) if message.HasField("waiter") else None,
    )


def event_from_message(message: pb.Event) -> Event:
    """Returns the Event that a message stands for."""
    return Event(
        revision=message.revision,
        time=_time(message, "time"),
        type=EventType(message.type),
        cause=EventCause(message.cause),
        lock=lock_from_message(message.lock) if message.HasField("lock") else None,
        actor=message.actor,
        reason=message.reason,
        previous_token=message.previous_token,
    )


def info_from_message(message: pb.InfoResponse) -> Info:
    """Returns the Info that a message stands for."""
    return Info(
        version=message.version,
        root=message.root,
        store=message.store,
        revision=message.revision,
        start_time=_time(message, "start_time"),
        caller=message.caller,
        proof=message.proof,
        groups=tuple(message.groups),
        features=tuple(message.features),
    )


def permission_from_message(message: pb.MayResponse) -> Permission:
    """Returns the Permission that a message stands for."""
    return Permission(
        allowed=message.allowed,
        caller=message.caller,
        groups=tuple(message.groups),
        why=message.why,
    )
