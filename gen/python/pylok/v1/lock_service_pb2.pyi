from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
EVENT_CAUSE_EXPIRED: EventCause
EVENT_CAUSE_FILE: EventCause
EVENT_CAUSE_FORCED: EventCause
EVENT_CAUSE_REQUEST: EventCause
EVENT_CAUSE_UNSPECIFIED: EventCause
EVENT_TYPE_ASKED: EventType
EVENT_TYPE_LOCKED: EventType
EVENT_TYPE_RESET: EventType
EVENT_TYPE_SYNCED: EventType
EVENT_TYPE_UNLOCKED: EventType
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_UPDATED: EventType
LOCK_STATE_LOCKED: LockState
LOCK_STATE_UNLOCKED: LockState
LOCK_STATE_UNSPECIFIED: LockState
OBSTACLE_KIND_SHARED: ObstacleKind
OBSTACLE_KIND_TREE: ObstacleKind
OBSTACLE_KIND_UNSPECIFIED: ObstacleKind
OBSTACLE_KIND_WAITER: ObstacleKind
ON_EXPIRY_KEEP: OnExpiry
ON_EXPIRY_RELEASE: OnExpiry
ON_EXPIRY_UNSPECIFIED: OnExpiry
VERB_ADMIN: Verb
VERB_BREAK: Verb
VERB_FREEZE: Verb
VERB_LOCK: Verb
VERB_UNSPECIFIED: Verb
VERB_VIEW: Verb

class AskRequest(_message.Message):
    __slots__ = ["holder", "message", "name", "token"]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    holder: str
    message: str
    name: str
    token: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ..., message: _Optional[str] = ..., holder: _Optional[str] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ["heard", "lock"]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    heard: bool
    lock: Lock
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., heard: bool = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ["count", "names"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    count: int
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ...) -> None: ...

class DismissRequest(_message.Message):
    __slots__ = ["holder", "name", "place", "reason"]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    holder: str
    name: str
    place: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., place: _Optional[int] = ..., holder: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DismissResponse(_message.Message):
    __slots__ = ["waiter"]
    WAITER_FIELD_NUMBER: _ClassVar[int]
    waiter: Waiter
    def __init__(self, waiter: _Optional[_Union[Waiter, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ["actor", "cause", "lock", "previous_token", "reason", "revision", "time", "type"]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    actor: str
    cause: EventCause
    lock: Lock
    previous_token: int
    reason: str
    revision: int
    time: _timestamp_pb2.Timestamp
    type: EventType
    def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., type: _Optional[_Union[EventType, str]] = ..., cause: _Optional[_Union[EventCause, str]] = ..., lock: _Optional[_Union[Lock, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., previous_token: _Optional[int] = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ["caller", "data", "expire_time", "holder", "name", "never", "reason", "request_id", "token", "ttl"]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEVER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    caller: str
    data: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    name: str
    never: bool
    reason: str
    request_id: str
    token: int
    ttl: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ..., holder: _Optional[str] = ..., caller: _Optional[str] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., never: bool = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., **kwargs) -> None: ...

class HandOverResponse(_message.Message):
    __slots__ = ["lock", "warnings"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ["actor", "after_revision", "after_time", "before_time", "cause", "newest_first", "page_size", "page_token", "pattern"]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    AFTER_TIME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_TIME_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    actor: str
    after_revision: int
    after_time: _timestamp_pb2.Timestamp
    before_time: _timestamp_pb2.Timestamp
    cause: EventCause
    newest_first: bool
    page_size: int
    page_token: str
    pattern: str
    def __init__(self, pattern: _Optional[str] = ..., after_revision: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., newest_first: bool = ..., after_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., before_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., cause: _Optional[_Union[EventCause, str]] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ["events", "next_page_token"]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class HoldRef(_message.Message):
    __slots__ = ["name", "token"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    token: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ["caller", "features", "groups", "proof", "revision", "root", "start_time", "store", "version"]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    caller: str
    features: _containers.RepeatedScalarFieldContainer[str]
    groups: _containers.RepeatedScalarFieldContainer[str]
    proof: str
    revision: int
    root: str
    start_time: _timestamp_pb2.Timestamp
    store: str
    version: str
    def __init__(self, version: _Optional[str] = ..., root: _Optional[str] = ..., store: _Optional[str] = ..., revision: _Optional[int] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., caller: _Optional[str] = ..., proof: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ["page_size", "page_token", "pattern"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    pattern: str
    def __init__(self, pattern: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ["locks", "next_page_token", "revision"]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    locks: _containers.RepeatedCompositeFieldContainer[Lock]
    next_page_token: str
    revision: int
    def __init__(self, locks: _Optional[_Iterable[_Union[Lock, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Lock(_message.Message):
    __slots__ = ["acquire_time", "blocked_by", "caller", "conflict", "data", "expire_time", "held_below", "holder", "lock_file_location", "name", "on_expiry", "problem", "revision", "set", "shared", "shared_holds", "stale_time", "state", "token", "tree", "ttl", "waiters", "waiting", "warnings"]
    ACQUIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_BY_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HELD_BELOW_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    LOCK_FILE_LOCATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    SHARED_HOLDS_FIELD_NUMBER: _ClassVar[int]
    STALE_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    WAITERS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    acquire_time: _timestamp_pb2.Timestamp
    blocked_by: Obstacle
    caller: str
    conflict: str
    data: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    held_below: int
    holder: str
    lock_file_location: str
    name: str
    on_expiry: OnExpiry
    problem: str
    revision: int
    set: SetRef
    shared: bool
    shared_holds: int
    stale_time: _timestamp_pb2.Timestamp
    state: LockState
    token: int
    tree: bool
    ttl: _duration_pb2.Duration
    waiters: int
    waiting: _containers.RepeatedCompositeFieldContainer[Waiter]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[LockState, str]] = ..., lock_file_location: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder: _Optional[str] = ..., token: _Optional[int] = ..., revision: _Optional[int] = ..., acquire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., waiters: _Optional[int] = ..., problem: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., caller: _Optional[str] = ..., tree: bool = ..., set: _Optional[_Union[SetRef, _Mapping]] = ..., on_expiry: _Optional[_Union[OnExpiry, str]] = ..., stale_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., waiting: _Optional[_Iterable[_Union[Waiter, _Mapping]]] = ..., shared_holds: _Optional[int] = ..., held_below: _Optional[int] = ..., blocked_by: _Optional[_Union[Obstacle, _Mapping]] = ..., conflict: _Optional[str] = ..., shared: bool = ...) -> None: ...

class LockRequest(_message.Message):
    __slots__ = ["data", "drain", "expire_time", "holder", "limit", "name", "on_expiry", "overwrite", "reason", "refuse_manual", "replace_stale", "request_id", "shared", "through_freeze", "tree", "ttl", "wait", "wait_forever"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSE_MANUAL_FIELD_NUMBER: _ClassVar[int]
    REPLACE_STALE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FREEZE_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOREVER_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    drain: bool
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    limit: int
    name: str
    on_expiry: OnExpiry
    overwrite: bool
    reason: str
    refuse_manual: bool
    replace_stale: bool
    request_id: str
    shared: bool
    through_freeze: bool
    tree: bool
    ttl: _duration_pb2.Duration
    wait: _duration_pb2.Duration
    wait_forever: bool
    def __init__(self, name: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder: _Optional[str] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., overwrite: bool = ..., shared: bool = ..., limit: _Optional[int] = ..., tree: bool = ..., drain: bool = ..., through_freeze: bool = ..., reason: _Optional[str] = ..., on_expiry: _Optional[_Union[OnExpiry, str]] = ..., replace_stale: bool = ..., refuse_manual: bool = ..., wait_forever: bool = ...) -> None: ...

class LockResponse(_message.Message):
    __slots__ = ["lock", "queued"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    queued: _duration_pb2.Duration
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., queued: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LockSetRequest(_message.Message):
    __slots__ = ["choices", "data", "expire_time", "holder", "names", "on_expiry", "reason", "refuse_manual", "request_id", "through_freeze", "ttl", "wait", "wait_forever"]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSE_MANUAL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FREEZE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOREVER_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.RepeatedCompositeFieldContainer[Choice]
    data: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    names: _containers.RepeatedScalarFieldContainer[str]
    on_expiry: OnExpiry
    reason: str
    refuse_manual: bool
    request_id: str
    through_freeze: bool
    ttl: _duration_pb2.Duration
    wait: _duration_pb2.Duration
    wait_forever: bool
    def __init__(self, names: _Optional[_Iterable[str]] = ..., choices: _Optional[_Iterable[_Union[Choice, _Mapping]]] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder: _Optional[str] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., through_freeze: bool = ..., reason: _Optional[str] = ..., on_expiry: _Optional[_Union[OnExpiry, str]] = ..., refuse_manual: bool = ..., wait_forever: bool = ...) -> None: ...

class LockSetResponse(_message.Message):
    __slots__ = ["locks", "queued"]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    locks: _containers.RepeatedCompositeFieldContainer[Lock]
    queued: _duration_pb2.Duration
    def __init__(self, locks: _Optional[_Iterable[_Union[Lock, _Mapping]]] = ..., queued: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MayRequest(_message.Message):
    __slots__ = ["name", "verb"]
    AS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    name: str
    verb: Verb
    def __init__(self, verb: _Optional[_Union[Verb, str]] = ..., name: _Optional[str] = ..., **kwargs) -> None: ...

class MayResponse(_message.Message):
    __slots__ = ["allowed", "caller", "groups", "why"]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    caller: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    why: str
    def __init__(self, allowed: bool = ..., caller: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., why: _Optional[str] = ...) -> None: ...

class Obstacle(_message.Message):
    __slots__ = ["kind", "lock", "waiter"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    WAITER_FIELD_NUMBER: _ClassVar[int]
    kind: ObstacleKind
    lock: Lock
    waiter: Waiter
    def __init__(self, kind: _Optional[_Union[ObstacleKind, str]] = ..., lock: _Optional[_Union[Lock, _Mapping]] = ..., waiter: _Optional[_Union[Waiter, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ["data", "expire_time", "holder", "name", "token", "ttl"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    name: str
    token: int
    ttl: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder: _Optional[str] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ["lock"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ...) -> None: ...

class RenewSetRequest(_message.Message):
    __slots__ = ["expire_time", "holder", "holds", "ttl"]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    holds: _containers.RepeatedCompositeFieldContainer[HoldRef]
    ttl: _duration_pb2.Duration
    def __init__(self, holds: _Optional[_Iterable[_Union[HoldRef, _Mapping]]] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., holder: _Optional[str] = ...) -> None: ...

class RenewSetResponse(_message.Message):
    __slots__ = ["answers"]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[SetAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[SetAnswer, _Mapping]]] = ...) -> None: ...

class SetAnswer(_message.Message):
    __slots__ = ["lock", "message", "name", "next", "reason", "revision", "token"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    message: str
    name: str
    next: Lock
    reason: str
    revision: int
    token: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ..., lock: _Optional[_Union[Lock, _Mapping]] = ..., revision: _Optional[int] = ..., next: _Optional[_Union[Lock, _Mapping]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class SetRef(_message.Message):
    __slots__ = ["id", "size"]
    ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    id: int
    size: int
    def __init__(self, id: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ["lock"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ...) -> None: ...

class UnlockRequest(_message.Message):
    __slots__ = ["data", "force", "holder", "name", "reason", "stale", "token"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    force: bool
    holder: str
    name: str
    reason: str
    stale: bool
    token: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ..., holder: _Optional[str] = ..., force: bool = ..., reason: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., stale: bool = ...) -> None: ...

class UnlockResponse(_message.Message):
    __slots__ = ["lock", "next", "revision"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    next: Lock
    revision: int
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., revision: _Optional[int] = ..., next: _Optional[_Union[Lock, _Mapping]] = ...) -> None: ...

class UnlockSetRequest(_message.Message):
    __slots__ = ["data", "force", "holder", "holds", "reason", "set"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    force: bool
    holder: str
    holds: _containers.RepeatedCompositeFieldContainer[HoldRef]
    reason: str
    set: int
    def __init__(self, holds: _Optional[_Iterable[_Union[HoldRef, _Mapping]]] = ..., set: _Optional[int] = ..., holder: _Optional[str] = ..., force: bool = ..., reason: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class UnlockSetResponse(_message.Message):
    __slots__ = ["answers"]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[SetAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[SetAnswer, _Mapping]]] = ...) -> None: ...

class Waiter(_message.Message):
    __slots__ = ["caller", "holder", "message", "names", "place", "shared", "since_time", "tree", "until_time"]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    caller: str
    holder: str
    message: str
    names: _containers.RepeatedScalarFieldContainer[str]
    place: int
    shared: bool
    since_time: _timestamp_pb2.Timestamp
    tree: bool
    until_time: _timestamp_pb2.Timestamp
    def __init__(self, place: _Optional[int] = ..., holder: _Optional[str] = ..., caller: _Optional[str] = ..., since_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., until_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., shared: bool = ..., tree: bool = ..., names: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["after_revision", "pattern", "token"]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    pattern: str
    token: int
    def __init__(self, pattern: _Optional[str] = ..., after_revision: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ["event"]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class Verb(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class LockState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class OnExpiry(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class ObstacleKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class EventCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
