"""Calls from a process that was forked from one that uses gRPC.

gRPC has threads, which a fork does not copy: in the child it hangs, now and then,
and its own support for forks hangs the parent. Programs of the original's fork as
they please, so the original's functions, when they find themselves in such a child,
make their calls through a process of their own, which is started as a new program. It ends
when the child does.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

import grpc

from pylok import client, connection
from pylok.keeper import Kept
from pylok.sending import Server
from pylok.v1 import lock_service_pb2 as pb


class ForkedClient(client.Client):
    """A Client whose calls with one answer go through another process. It has no
    others."""

    def __init__(self, settings: connection.Settings) -> None:
        """Starts the other process."""
        self.address = settings.address
        self.holder = ""
        self._encrypted = settings.tls
        self._maker = connection.Maker()
        self._server = Server(None, None)
        self._kept = Kept()
        self._stub = _Stub(settings)

    def close(self, *, release_all: bool = False) -> None:
        """Ends the other process. There is nothing to release."""
        if self._maker.is_here():
            self._stub.close()


class _Stub:
    """What the generated stub is for calls with one answer."""

    def __init__(self, settings: connection.Settings) -> None:
        """Starts the process, which connects as settings say."""
        self._settings = settings
        self._one_at_a_time = threading.Lock()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-c", "from pylok.forked import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        pickle.dump(self._settings, process.stdin)  # type: ignore[arg-type]
        return process

    def __getattr__(self, method: str) -> Any:
        """Returns the RPC of that name."""

        def call(request: Any, **options: Any) -> Any:
            """Has the other process make the call, and returns its answer."""
            with self._one_at_a_time:
                process = self._process
                out: Any = process.stdin
                try:
                    pickle.dump((method, request.SerializeToString(), options), out)
                    out.flush()
                    ok, answer = pickle.load(process.stdout)  # type: ignore[arg-type]
                except (OSError, EOFError) as error:
                    raise _Failure("UNAVAILABLE", f"the helper process has ended: {error}", ())
                except BaseException:
                    # The answer may still come, and the next call must not take it for
                    # its own.
                    process.kill()
                    process.communicate()
                    self._process = self._start()
                    raise
            if not ok:
                raise _Failure(*answer)
            return getattr(pb, f"{method}Response").FromString(answer)

        return call

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


class _Failure(grpc.RpcError):  # type: ignore[misc]
    """An error as gRPC raised it in the other process."""

    def __init__(self, code: str, details: str, metadata: tuple[tuple[str, Any], ...]) -> None:
        """An answer with the name of a grpc.StatusCode, its text and its trailers."""
        super().__init__(details)
        self._parts = grpc.StatusCode[code], details, metadata

    def code(self) -> grpc.StatusCode:
        """Returns the status code."""
        return self._parts[0]

    def details(self) -> str:
        """Returns the message."""
        return self._parts[1]

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...]:
        """Returns the trailers."""
        return self._parts[2]


def serve() -> None:
    """Is the other process: makes the calls that come on stdin, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for those who call
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        settings = pickle.load(requests)
    except EOFError:  # who started it was interrupted
        return
    real = client.Client(**settings.arguments(), holder="")
    while True:
        try:
            method, request, options = pickle.load(requests)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            message = getattr(pb, f"{method}Request").FromString(request)
            response = real._ask(getattr(real._stub, method), message, **options)
            answer = True, response.SerializeToString()
        except grpc.RpcError as error:
            metadata = tuple((k, v) for k, v in error.trailing_metadata() or ())
            answer = False, (error.code().name, error.details() or "", metadata)
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except BrokenPipeError:
            return
