"""Each example, against a daemon of its own, does and prints the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

import pylok
from tests.daemon import PYTHON_DIRECTORY, DaemonTest

EXAMPLES = os.path.dirname(os.path.abspath(__file__))

PRINTED = """\
locked examples/server-1, token N
watching: locked by alice, MAINT
refused: LOCK_HELD by alice
unlocked examples/server-1
watching: unlocked by alice, READY
"""

PATCHED = """\
patched web-1 with lb/web-1 and patch/slot-1
patched web-2 with lb/web-2 and patch/slot-2
"""


class Examples(DaemonTest):
    """One test for each language."""

    def test_go(self) -> None:
        """Go."""
        with tempfile.TemporaryDirectory() as config:  # the go command keeps notes there
            self.check(["go", "run", "."], "go", XDG_CONFIG_HOME=config)

    def test_python(self) -> None:
        """Python."""
        self.check([sys.executable, "client.py"], "python", PYTHONPATH=PYTHON_DIRECTORY)

    def test_set(self) -> None:
        """A set and a pool, in Python alone."""
        printed = self.run_in("python", [sys.executable, "patch.py"], PYTHONPATH=PYTHON_DIRECTORY)
        self.assertEqual(printed, PATCHED)
        with pylok.Client() as client:
            self.assertEqual(list(client.list()), [])

    def test_typescript(self) -> None:
        """TypeScript, and its types."""
        self.run_in("typescript", ["npm", "run", "--silent", "check"])
        self.check(["npm", "start", "--silent"], "typescript")

    def test_grpcurl(self) -> None:
        """A shell."""
        self.check(["./client.sh"], "grpcurl")

    def check(self, command: list[str], directory: str, **environment: str) -> None:
        """Runs an example, and looks at what it printed and at what it did."""
        with pylok.Client() as client:
            before = client.info().revision
            printed = self.run_in(directory, command, **environment)
            self.assertEqual(re.sub(r"token \d+", "token N", printed), PRINTED)
            did = [
                (event.type.name, event.actor, event.lock.data)
                for event in client.history(after_revision=before)
                if event.lock
            ]
        self.assertEqual(
            did,
            [
                ("LOCKED", "alice", {"backend": "App1", "status": "MAINT"}),
                ("UNLOCKED", "alice", {"backend": "App1", "status": "READY"}),
            ],
        )

    def run_in(self, directory: str, command: list[str], **environment: str) -> str:
        """Runs a command in an example's directory and returns what it printed."""
        return subprocess.run(
            command,
            cwd=os.path.join(EXAMPLES, directory),
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        ).stdout
