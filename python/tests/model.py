"""What the original library does, by behaviour.md, in memory."""

from __future__ import annotations

from typing import Any

import yaml


class Failure(Exception):
    """An exception of the original's: the name of its type, and its message."""


MESSAGES = {
    "LockFileNotPresentError": "Lock file expected BUT NOT present. Please verify status of Lock file",
    "LockFilePresentError": "Lock file already present. Please verify status of Lock file",
    "LockFileNotPresentForRemoval": "Attempted to remove lock file, but lock file not found.",
    "LockActionError": "Lock Action not actionable.",
}
"""The original's exceptions and their messages."""


def failure(name: str) -> Failure:
    """Makes the exception of that name."""
    return Failure(name, MESSAGES[name])


class Model:
    """Lock files as the original leaves them: path to text."""

    def __init__(self) -> None:
        """Begins with no lock file."""
        self.files: dict[str, str] = {}

    def lock(
        self,
        lock_file_directory: str,
        lock_object: str,
        lock_data: dict[Any, Any] | None = None,  # the default that is shared is a defect
        lock_action: Any = "status",
        ensure_unlock_state: bool = False,
        ensure_lock_state: bool = False,
    ) -> dict[Any, Any]:
        """Is the original's lock."""
        if lock_action not in ("status", "lock", "unlock"):
            raise failure("LockActionError")
        if lock_data is None:
            lock_data = {}
        path = lock_file_directory + lock_object + ".lock"
        present = path in self.files
        if lock_action == "status":
            if present:
                lock_data.update(yaml.safe_load(self.files[path]) or {})
        elif lock_action == "lock":
            if ensure_unlock_state and present:
                raise failure("LockFilePresentError")
            present = True
            lock_data.update(lock_file_location=path, lock_file_status="locked")
            self.files[path] = yaml.dump(lock_data)
        else:
            if not present:  # with ensure_lock_state and without
                raise failure("LockFileNotPresentError")
            del self.files[path]
            present = False
        lock_data["lock_file_location"] = path if present else None
        lock_data["lock_file_status"] = "locked" if present else "unlocked"
        lock_data["lock_action"] = lock_action
        return lock_data

    def is_locked(self, path: str) -> bool:
        """Is the original's is_locked."""
        return path in self.files

    def ensure_lock(self, path: str) -> bool:
        """Is the original's ensure_lock."""
        if path not in self.files:
            raise failure("LockFileNotPresentError")
        return True

    def ensure_unlock(self, path: str) -> bool:
        """Is the original's ensure_unlock."""
        if path in self.files:
            raise failure("LockFilePresentError")
        return True
