"""Locks you can read: one YAML file for each held lock, and a service that makes
them safe.

`from pylok import *` gives the original library's functions, over the service: see
pylok.original. New programs take pylok.Client, or pylok.aio.Client for asyncio:

    with pylok.Client() as client, client.acquire("lb/server-1") as hold:
        deploy(fence=hold.token)
"""

import os as _os

# Programs of the original's fork as they please, and gRPC's handlers for forks hang
# such a program now and then. See pylok.forked for what is done instead. gRPC looks
# at this when the first channel is made.
_os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from pylok.answers import SetAnswer as SetAnswer
from pylok.client import Client as Client
from pylok.errors import CredentialError as CredentialError
from pylok.errors import DataTooLargeError as DataTooLargeError
from pylok.errors import Error as Error
from pylok.errors import ForkedError as ForkedError
from pylok.errors import InvalidArgumentError as InvalidArgumentError
from pylok.errors import InvalidNameError as InvalidNameError
from pylok.errors import LockHeldError as LockHeldError
from pylok.errors import LostError as LostError
from pylok.errors import NotHolderError as NotHolderError
from pylok.errors import NotLockedError as NotLockedError
from pylok.errors import OutcomeUnknownError as OutcomeUnknownError
from pylok.errors import PermissionDeniedError as PermissionDeniedError
from pylok.errors import RateLimitedError as RateLimitedError
from pylok.errors import ShuttingDownError as ShuttingDownError
from pylok.errors import LockFileError as LockFileError
from pylok.errors import StoreReadOnlyError as StoreReadOnlyError
from pylok.errors import TimeLimitError as TimeLimitError
from pylok.errors import TooManyLocksError as TooManyLocksError
from pylok.errors import TooManyWaitersError as TooManyWaitersError
from pylok.errors import TooManyWatchesError as TooManyWatchesError
from pylok.errors import UnauthenticatedError as UnauthenticatedError
from pylok.errors import UnreachableError as UnreachableError
from pylok.errors import UnsupportedError as UnsupportedError
from pylok.hold import Hold as Hold
from pylok.messages import Ask as Ask
from pylok.messages import AskAnswer as AskAnswer
from pylok.messages import Choice as Choice
from pylok.messages import Event as Event
from pylok.messages import EventCause as EventCause
from pylok.messages import EventType as EventType
from pylok.messages import HandOverAnswer as HandOverAnswer
from pylok.messages import Info as Info
from pylok.messages import Lock as Lock
from pylok.messages import Obstacle as Obstacle
from pylok.messages import ObstacleKind as ObstacleKind
from pylok.messages import OnExpiry as OnExpiry
from pylok.messages import Permission as Permission
from pylok.messages import Released as Released
from pylok.messages import SetRef as SetRef
from pylok.messages import Verb as Verb
from pylok.messages import Waiter as Waiter
from pylok.original import (
    DirectoryError as DirectoryError,
)
from pylok.original import (
    LockAction,
    LockActionError,
    LockFileNotPresentError,
    LockFileNotPresentForRemoval,
    LockFilePresentError,
    ensure_lock,
    ensure_unlock,
    is_locked,
    lock,
)
from pylok.original import configure as configure
from pylok.sets import Set as Set
from pylok.watch import Watch as Watch

# What the original has. The names of new programs are not among them, so that
# `from pylok import *` gives a script no more than it expects.
__all__ = [
    "LockAction",
    "LockActionError",
    "LockFileNotPresentError",
    "LockFileNotPresentForRemoval",
    "LockFilePresentError",
    "ensure_lock",
    "ensure_unlock",
    "is_locked",
    "lock",
]
