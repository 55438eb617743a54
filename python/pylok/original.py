"""The original library's functions, over the service.

The lock files are the server's: a directory is one on the server, at or under its
root. The server is the one that PYLOK_ADDRESS gives, 127.0.0.1:5625
without it, or the one of configure; the config file's contexts are for pylok.Client.

What the original did unsafely is safe here. ensure_unlock_state is one step with
taking the lock, so of many callers one gets it. What others hold by name, with the
command line or pylok.Client, is neither overwritten nor unlocked. Locks taken here
are anonymous, so that anyone can unlock them, as ever; over the server's socket, for
which PYLOK_ADDRESS can be unix:///PATH, they are their user's.
"""

from __future__ import annotations

import enum
import os
from collections.abc import MutableMapping
from typing import Any

from pylok import connection
from pylok.client import Client
from pylok.errors import (
    DataTooLargeError,
    Error,
    InvalidArgumentError,
    LockHeldError,
    NotHolderError,
    NotLockedError,
)
from pylok.forked import ForkedClient


class LockAction(enum.Enum):
    """What lock can do."""

    UNLOCK = "unlock"
    """Unlock the lock."""
    LOCK = "lock"
    """Lock it."""
    STATUS = "status"
    """Look at it."""


class LockFileNotPresentError(Exception):
    """A lock file should be there and is not."""

    def __init__(
        self,
        message: str = "Lock file expected BUT NOT present. Please verify status of Lock file",
    ) -> None:
        """Makes the error with the original's message, unless another is given."""
        super().__init__(message)


class LockFilePresentError(Exception):
    """A lock file is there and should not be. The cause says who holds the lock."""

    def __init__(
        self, message: str = "Lock file already present. Please verify status of Lock file"
    ) -> None:
        """Makes the error with the original's message, unless another is given."""
        super().__init__(message)


class LockFileNotPresentForRemoval(Exception):
    """The lock file is still there: its hold has a holder, who alone can unlock it."""

    def __init__(
        self, message: str = "Attempted to remove lock file, but lock file not found."
    ) -> None:
        """Makes the error with the original's message, unless another is given."""
        super().__init__(message)


class LockActionError(Exception):
    """An action that is none."""

    def __init__(self, message: str = "Lock Action not actionable.") -> None:
        """Makes the error with the original's message, unless another is given."""
        super().__init__(message)


class DirectoryError(Error, ValueError):
    """The path is not under the server's root, so it is no lock of the server's."""


Path = str | os.PathLike[str]


def lock(
    lock_file_directory: Path,
    lock_object: str,
    lock_data: MutableMapping[Any, Any] | None = None,
    lock_action: str | LockAction = "status",
    ensure_unlock_state: bool = False,
    ensure_lock_state: bool = False,
    *,
    ensure_unlock: bool = False,
    ensure_lock: bool = False,
) -> MutableMapping[Any, Any]:
    """Locks, unlocks or looks at the lock of lock_object in a directory, which may
    end in a slash or not. Returns lock_data, which it changes: the keys
    lock_file_location, lock_file_status and lock_action are set in it, and by
    'status' all that the lock file says of a lock that is held.

    'lock' writes lock_data into the lock file; see pylok.data for what becomes of
    Python values. A lock that is held anonymously is overwritten; with
    ensure_unlock_state it is LockFilePresentError, as it is with another holder.

    'unlock' of a free lock is LockFileNotPresentError, with ensure_lock_state or
    without. lock_data goes to those who watch, as a closing message.

    ensure_unlock and ensure_lock are other names for the two flags. Any other
    action is LockActionError. A directory outside the server's root is
    DirectoryError; a server that is not there is UnreachableError.
    """
    try:
        action = LockAction(lock_action)
    except ValueError:
        raise LockActionError() from None
    if lock_data is None:
        lock_data = {}
    path, word = _lock_file(lock_file_directory, lock_object), action.value
    client = _client()
    name = _name(client, path)
    locked = action is LockAction.LOCK
    if action is LockAction.STATUS:
        found = client.status(name)
        locked = found.locked
        lock_data.update(found.data)
    elif action is LockAction.LOCK:
        overwrite = not (ensure_unlock_state or ensure_unlock)
        try:
            client.lock(name, data=lock_data, overwrite=overwrite)
        except LockHeldError as error:
            raise LockFilePresentError() from error
    else:
        _unlock(client, name, lock_data)
    # No call from here on: a Ctrl-C would come in it, and the lock be held.
    lock_data["lock_file_location"] = path if locked else None
    lock_data["lock_file_status"] = "locked" if locked else "unlocked"
    lock_data["lock_action"] = word
    return lock_data


def is_locked(lock_file: object) -> bool:
    """Reports whether a lock file is there. A path outside the server's root is
    DirectoryError; one that is no lock file's, None included, is not there."""
    if not isinstance(lock_file, (str, os.PathLike)):
        return False
    path = os.fspath(lock_file)
    if not isinstance(path, str) or not path.endswith(_SUFFIX):
        return False
    client = _client()
    return client.status(_name(client, path)).locked


def ensure_lock(lock_file: Path) -> bool:
    """Returns True when the lock file is there, else raises LockFileNotPresentError."""
    if not is_locked(lock_file):
        raise LockFileNotPresentError()
    return True


def ensure_unlock(lock_file: Path) -> bool:
    """Returns True when the lock file is not there, else raises LockFilePresentError."""
    if is_locked(lock_file):
        raise LockFilePresentError()
    return True


def configure(
    address: str | None = None,
    *,
    tls: bool = False,
    root_certificates: bytes | None = None,
    insecure: bool = False,
) -> None:
    """Sets the server for lock, is_locked, ensure_lock and ensure_unlock, for those
    who need more than PYLOK_ADDRESS says. tls encrypts the connection; with
    root_certificates, in PEM, it is those that vouch for the server. insecure allows
    plaintext to another machine. Without arguments it is as in the beginning."""
    global _settings
    _settings = None
    if address or tls or root_certificates or insecure:
        _settings = connection.Settings(
            address or connection.default_address(),
            tls or root_certificates is not None,
            root_certificates,
            insecure,
        )


_SUFFIX = ".lock"

_settings: connection.Settings | None = None  # of configure
_clients: dict[tuple[int, connection.Settings], Client] = {}  # by process


def _client() -> Client:
    settings = _settings or connection.Settings(connection.default_address())
    key = (os.getpid(), settings)
    client = _clients.get(key)
    if client is None:
        if connection.is_forked():
            client = ForkedClient(settings)
        else:
            client = Client(**settings.arguments(), holder="")
        client = _clients.setdefault(key, client)
    return client


def _lock_file(directory: Path, lock_object: str) -> str:
    """Returns the path of a lock file, as the original writes it."""
    start = os.fspath(directory)
    if start and not start.endswith("/"):
        start += "/"
    return start + lock_object + _SUFFIX


def _name(client: Client, path: str) -> str:
    """Returns the name of the lock whose lock file has this path. The root is asked
    for each time: a server that came back with another one must not be mistaken."""
    root = client.info().root
    if not root:
        raise DirectoryError(f"the server at {client.address} keeps no lock files")
    plain = os.path.abspath(path)
    for candidate in (plain, os.path.realpath(plain)):
        if candidate.startswith(root.rstrip("/") + "/"):
            return candidate[len(root.rstrip("/")) + 1 :].removesuffix(_SUFFIX)
    raise DirectoryError(
        f"{plain} is not under {root}, the directory of the server at {client.address}; "
        f"lock in {root} or below it, or ask the server for that directory, by PYLOK_ADDRESS or "
        "pylok.configure"
    )


def _unlock(client: Client, name: str, lock_data: MutableMapping[Any, Any]) -> None:
    """Unlocks a lock with lock_data as the closing message. The original never looks
    at it here, so data that no lock file can hold is no reason to fail."""
    try:
        try:
            client.unlock(name, data=lock_data or None)
        except (TypeError, ValueError, DataTooLargeError) as error:
            if isinstance(error, Error) and not isinstance(
                error, (DataTooLargeError, InvalidArgumentError)
            ):
                raise
            client.unlock(name)
    except NotLockedError as error:
        raise LockFileNotPresentError() from error
    except NotHolderError as error:
        raise LockFileNotPresentForRemoval(str(error)) from error
