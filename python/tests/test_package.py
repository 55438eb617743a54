"""The package as it is installed, and its types."""

from __future__ import annotations

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator

from tests.daemon import PYTHON_DIRECTORY, DaemonTest

PROGRAM = """
import sys, pylok, pylok.aio
from google.protobuf.internal import api_implementation
assert pylok.__file__.startswith(sys.argv[1]), pylok.__file__
assert api_implementation.Type() == sys.argv[2], api_implementation.Type()
with pylok.Client(holder="alice") as client, client.watch("p") as watch:
    with client.acquire("p", data={"n": [1, {"x": None}]}) as hold:
        assert client.status("p").data == {"n": [1, {"x": None}]}
        try:
            client.lock("p")
            raise AssertionError("it is held")
        except pylok.LockHeldError as error:
            assert error.lock.token == hold.token
    events = [next(watch).type.name for _ in range(2)]
    assert events == ["RESET", "SYNCED"], events
"""


class Package(DaemonTest):
    """What users get."""

    def test_wheel(self) -> None:
        """A wheel of it works, from another directory, whichever way protobuf does."""
        with tempfile.TemporaryDirectory() as directory:
            source = os.path.join(directory, "source")
            # As a checkout without the rest would be: links become what they point to.
            shutil.copytree(
                PYTHON_DIRECTORY, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
            subprocess.run(
                [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "bdist_wheel"],
                cwd=source,
                check=True,
                stderr=subprocess.DEVNULL,
            )
            (wheel,) = pathlib.Path(source, "dist").glob("*.whl")
            installed = os.path.join(directory, "installed")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(installed)
            for name in ("py.typed", "v1/lock_service_pb2.pyi", "aio/client.py"):
                self.assertTrue(os.path.exists(os.path.join(installed, "pylok", name)), name)
            for implementation in ("cpp", "python"):
                environment = dict(
                    os.environ,
                    PYTHONPATH=installed,
                    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation,
                )
                subprocess.run(
                    [sys.executable, "-W", "error", "-c", PROGRAM, installed, implementation],
                    cwd=directory,
                    env=environment,
                    check=True,
                    timeout=60,
                )

    def test_docstrings(self) -> None:
        """Every exported name says what it is."""
        for path in pathlib.Path(PYTHON_DIRECTORY, "pylok").rglob("*.py"):
            if "v1" in path.parts:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in exported(tree):
                name = getattr(node, "name", "")
                if not name.startswith("_") or name.startswith("__"):
                    self.assertTrue(ast.get_docstring(node), f"{path.name}: {name}")


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def exported(node: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    """Yields a module or a class, and what is in it, but not what is in functions."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from exported(child)
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
