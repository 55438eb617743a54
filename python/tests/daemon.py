"""Real daemons for tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from unittest import mock

PYTHON_DIRECTORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory that holds the package and its tests."""


# What the user has set for a server of his own is nothing to the tests: those that say
# no address reach nobody.
for _name in [name for name in os.environ if name.startswith(("PYLOK_", "PYLOKD_"))]:
    if not _name.startswith("PYLOK_TEST_"):
        del os.environ[_name]
os.environ["PYLOK_ADDRESS"] = "127.0.0.1:1"
os.environ["XDG_CONFIG_HOME"] = os.path.join(PYTHON_DIRECTORY, "tests", "no-config")


class Daemon:
    """A pylokd, the program that PYLOKD names, with a root of its own. It keeps its
    address over a restart."""

    def __init__(self, *flags: str) -> None:
        """Starts it, and returns when it serves."""
        self._flags = flags
        self._directory = tempfile.TemporaryDirectory(prefix="pylok-test-")
        self.root = os.path.join(os.path.realpath(self._directory.name), "locks")
        self.address = "127.0.0.1:0"
        self.log = open(os.path.join(self._directory.name, "log"), "w+", encoding="utf-8")
        self.start()

    def start(self) -> None:
        """Starts it."""
        program = os.environ["PYLOKD"]
        self.process = subprocess.Popen(
            [program, "--root", self.root, "--state-dir", self.root + ".state", "--listen", self.address, "--socket", "none", *self._flags],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        prefix = f"pylokd: serving {self.root} on "
        if not line.startswith(prefix):
            self.kill()
            self.log.seek(0)
            raise AssertionError(f"{program} printed {line!r} and logged {self.log.read()!r}")
        self.address = line.removeprefix(prefix).strip()

    def stop(self) -> None:
        """Stops it cleanly."""
        self._end(signal.SIGTERM)
        if self.process.returncode != 0:
            self.log.seek(0)
            raise AssertionError(
                f"pylokd ended with {self.process.returncode} and logged {self.log.read()!r}"
            )

    def kill(self) -> None:
        """Ends it at once."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Removes its root. It must not run."""
        shutil.rmtree(self.root)

    def close(self) -> None:
        """Ends it, and removes what it left."""
        self.kill()
        self.log.close()
        self._directory.cleanup()

    def _end(self, by: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(by)
            self.process.wait(timeout=15)
        assert self.process.stdout is not None
        self.process.stdout.close()


class DaemonTest(unittest.TestCase):
    """A test case with a daemon, which PYLOK_ADDRESS names."""

    daemon: Daemon

    @classmethod
    def setUpClass(cls) -> None:
        """Starts the daemon."""
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.close)
        environment = mock.patch.dict(os.environ, PYLOK_ADDRESS=cls.daemon.address)
        environment.start()
        cls.addClassCleanup(environment.stop)
