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
EVENT_TYPE_LOCKED: EventType
EVENT_TYPE_RESET: EventType
EVENT_TYPE_SYNCED: EventType
EVENT_TYPE_UNLOCKED: EventType
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_UPDATED: EventType
LOCK_STATE_LOCKED: LockState
LOCK_STATE_UNLOCKED: LockState
LOCK_STATE_UNSPECIFIED: LockState
VERB_ADMIN: Verb
VERB_BREAK: Verb
VERB_FREEZE: Verb
VERB_LOCK: Verb
VERB_UNSPECIFIED: Verb
VERB_VIEW: Verb

class Event(_message.Message):
    __slots__ = ["actor", "cause", "lock", "reason", "revision", "time", "type"]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    actor: str
    cause: EventCause
    lock: Lock
    reason: str
    revision: int
    time: _timestamp_pb2.Timestamp
    type: EventType
    def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., type: _Optional[_Union[EventType, str]] = ..., cause: _Optional[_Union[EventCause, str]] = ..., lock: _Optional[_Union[Lock, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

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

class InfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ["caller", "groups", "proof", "revision", "root", "start_time", "store", "version"]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    caller: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    proof: str
    revision: int
    root: str
    start_time: _timestamp_pb2.Timestamp
    store: str
    version: str
    def __init__(self, version: _Optional[str] = ..., root: _Optional[str] = ..., store: _Optional[str] = ..., revision: _Optional[int] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., caller: _Optional[str] = ..., proof: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ["acquire_time", "caller", "data", "expire_time", "holder", "lock_file_location", "name", "problem", "revision", "state", "token", "ttl", "waiters", "warnings"]
    ACQUIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    LOCK_FILE_LOCATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    WAITERS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    acquire_time: _timestamp_pb2.Timestamp
    caller: str
    data: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    lock_file_location: str
    name: str
    problem: str
    revision: int
    state: LockState
    token: int
    ttl: _duration_pb2.Duration
    waiters: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[LockState, str]] = ..., lock_file_location: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder: _Optional[str] = ..., token: _Optional[int] = ..., revision: _Optional[int] = ..., acquire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., waiters: _Optional[int] = ..., problem: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., caller: _Optional[str] = ...) -> None: ...

class LockRequest(_message.Message):
    __slots__ = ["data", "expire_time", "holder", "name", "overwrite", "request_id", "ttl", "wait"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    holder: str
    name: str
    overwrite: bool
    request_id: str
    ttl: _duration_pb2.Duration
    wait: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder: _Optional[str] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., overwrite: bool = ...) -> None: ...

class LockResponse(_message.Message):
    __slots__ = ["lock", "queued"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    queued: _duration_pb2.Duration
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., queued: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

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
    __slots__ = ["data", "force", "holder", "name", "reason", "token"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    data: _struct_pb2.Struct
    force: bool
    holder: str
    name: str
    reason: str
    token: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ..., holder: _Optional[str] = ..., force: bool = ..., reason: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class UnlockResponse(_message.Message):
    __slots__ = ["lock", "next", "revision"]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    next: Lock
    revision: int
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., revision: _Optional[int] = ..., next: _Optional[_Union[Lock, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["after_revision", "pattern"]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    pattern: str
    def __init__(self, pattern: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ["event"]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class Verb(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class LockState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class EventCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
