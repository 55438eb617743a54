"""A server that has no time, or no room, is asked again when it says."""

from __future__ import annotations

import asyncio
import time
import unittest
from concurrent import futures
from typing import Any
from unittest import mock

import grpc
from google.protobuf.any_pb2 import Any as Packed

import pylok
import pylok.aio
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1 import lock_service_pb2_grpc


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _limited(seconds: int) -> tuple[tuple[str, bytes], ...]:
    """Returns the trailers of RATE_LIMITED with a RetryInfo."""
    info = Packed(
        type_url="type.googleapis.com/google.rpc.ErrorInfo",
        value=_field(1, b"RATE_LIMITED") + _field(2, b"pylok"),
    )
    retry = Packed(
        type_url="type.googleapis.com/google.rpc.RetryInfo",
        value=_field(1, b"\x08" + bytes([seconds])),
    )
    details = b"".join(_field(3, d.SerializeToString()) for d in (info, retry))
    return (("grpc-status-details-bin", details),)


class Busy(lock_service_pb2_grpc.LockServiceServicer):
    """A server that has no time for the first calls."""

    def __init__(self, refusals: int, seconds: int) -> None:
        """refuses so many calls, for some seconds each."""
        self.refusals = refusals
        self.seconds = seconds
        self.asked: list[float] = []

    def refuse(self, context: Any) -> None:
        """Ends the call while there are refusals."""
        self.asked.append(time.monotonic())
        if self.refusals > 0:
            self.refusals -= 1
            context.set_trailing_metadata(_limited(self.seconds))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too often")

    def Status(self, request: Any, context: Any) -> Any:
        """Answers when it has time."""
        self.refuse(context)
        return pb.StatusResponse(lock=pb.Lock(name=request.name))

    def Unlock(self, request: Any, context: Any) -> Any:
        """Answers when it has time."""
        self.refuse(context)
        return pb.UnlockResponse(lock=pb.Lock(name=request.name, token=7))

    def Watch(self, request: Any, context: Any) -> Any:
        """Answers when it has time."""
        self.refuse(context)
        yield pb.WatchResponse(event=pb.Event(type=pb.EVENT_TYPE_RESET))


class RateLimits(unittest.TestCase):
    """For both kinds of client."""

    def serve(self, refusals: int, seconds: int) -> Busy:
        """Serves."""
        busy = Busy(refusals, seconds)
        server = grpc.server(futures.ThreadPoolExecutor(4))
        lock_service_pb2_grpc.add_LockServiceServicer_to_server(busy, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        return busy

    def call(self, kind: str, method: str) -> None:
        """Makes a call."""
        if kind == "sync":
            with pylok.Client(self.address) as client:
                if method == "watch":
                    with client.watch() as watch:
                        next(watch)
                elif method == "unlock":
                    client.unlock("x")  # without a token: not to be carried out twice
                else:
                    client.status("x")
            return

        async def call() -> None:
            async with pylok.aio.Client(self.address) as client:
                if method == "watch":
                    async with client.watch() as watch:
                        await anext(watch)
                elif method == "unlock":
                    await client.unlock("x")
                else:
                    await client.status("x")

        asyncio.run(call())

    def each(self) -> list[tuple[str, str]]:
        """Returns each kind of client and each way to ask."""
        return [(k, m) for k in ("sync", "aio") for m in ("status", "unlock", "watch")]

    def test_asked_again(self) -> None:
        """The call succeeds, and is not made before the time that the refusal says."""
        for kind, method in self.each():
            with self.subTest(kind=kind, method=method):
                busy = self.serve(2, 1)
                self.call(kind, method)
                self.assertEqual(len(busy.asked), 3)
                for earlier, later in zip(busy.asked, busy.asked[1:]):
                    self.assertGreaterEqual(later - earlier, 0.9)

    def test_no_patience(self) -> None:
        """Who is not that patient is told so."""
        for kind, method in self.each():
            with self.subTest(kind=kind, method=method):
                busy = self.serve(100, 60)
                with mock.patch("pylok.connection.PATIENCE", 1.0):
                    with self.assertRaises(pylok.RateLimitedError) as raised:
                        self.call(kind, method)
                self.assertEqual(raised.exception.retry_after, 60)
                self.assertEqual(len(busy.asked), 1)
