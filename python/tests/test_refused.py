"""A bearer token that the server does not take, or no longer, while there is another."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any
from unittest import mock

import grpc

import pylok
from pylok import aio, proof
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1 import lock_service_pb2_grpc as pb_grpc
from tests.test_proof import ProofTest, environment


class Door(pb_grpc.LockServiceServicer):  # type: ignore[misc]
    """Takes the bearer token that it is told to, and tells which it has got."""

    def __init__(self, rotate: Callable[[], None]) -> None:
        """rotate puts another token in place of the one that is refused."""
        self.takes: Callable[[str, str], bool] = lambda method, token: True
        self.rotate = rotate
        self.seen: list[tuple[str, str]] = []
        self.after: list[int] = []  # the revisions of the watches
        self.waits: list[float] = []

    def _check(self, method: str, context: Any) -> None:
        token = dict(context.invocation_metadata())["authorization"].removeprefix("Bearer ")
        self.seen.append((method, token))
        if not self.takes(method, token):
            self.rotate()
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has ended")

    def Info(self, request: Any, context: Any) -> Any:
        self._check("Info", context)
        return pb.InfoResponse()

    def Lock(self, request: Any, context: Any) -> Any:
        self.waits.append(request.wait.ToTimedelta().total_seconds())
        self._check("Lock", context)
        return pb.LockResponse(lock=self._lock(request.name))

    def Renew(self, request: Any, context: Any) -> Any:
        self._check("Renew", context)
        return pb.RenewResponse(lock=self._lock(request.name))

    def Unlock(self, request: Any, context: Any) -> Any:
        self._check("Unlock", context)
        return pb.UnlockResponse(lock=self._lock(request.name))

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        """Brings two events, and ends with its token; the third one does not."""
        self.after.append(request.after_revision)
        self._check("Watch", context)
        revision = request.after_revision + 1
        for kind in (pb.EVENT_TYPE_RESET, pb.EVENT_TYPE_SYNCED):
            yield pb.WatchResponse(event=pb.Event(type=kind, revision=revision))
        if len(self.after) == 3:
            left = threading.Event()
            if context.add_callback(left.set):
                left.wait(20)
            return
        self.rotate()
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has ended")

    @staticmethod
    def _lock(name: str) -> Any:
        return pb.Lock(name=name, state=pb.LOCK_STATE_LOCKED, token=1)


class Refused(ProofTest):
    """Tests with a door, and tokens t1, t2 and so on in a file."""

    def setUp(self) -> None:
        """Starts the server."""
        super().setUp()
        environment()
        self.number = 0
        self.token = self.path("token")
        self.door = Door(self.rotate)
        server = grpc.server(futures.ThreadPoolExecutor(8))
        pb_grpc.add_LockServiceServicer_to_server(self.door, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(0).wait())
        self.begin()

    def begin(self) -> None:
        """Begins anew, with t1."""
        self.number = 0
        self.rotate()
        self.door.seen.clear()
        self.door.after.clear()

    def rotate(self) -> None:
        """Puts the next token into the file, which looks as before: of the same length,
        and age."""
        self.number += 1
        self.write("token", f"t{self.number}\n")
        os.utime(self.token, ns=(10**18, 10**18))

    def tokens(self, method: str) -> str:
        """Returns those that came with a method."""
        return " ".join(token for called, token in self.door.seen if called == method)

    def both(
        self, sync: Callable[[pylok.Client], None], awaited: Callable[[aio.Client], Any]
    ) -> Iterator[None]:
        """Does it with each kind of client."""
        options: Any = dict(insecure=True, token_file=self.token, holder="me")
        self.begin()
        with pylok.Client(self.address, **options) as client:
            sync(client)
        yield

        async def run() -> None:
            async with aio.Client(self.address, **options) as client:
                await awaited(client)

        self.begin()
        asyncio.run(run())
        yield

    def test_call(self) -> None:
        """A call is made once more with the next token, and that stays. Of a file that
        looks as before only a refusal tells that it has another."""
        self.door.takes = lambda method, token: token != "t1"

        def sync(client: pylok.Client) -> None:
            client.info()
            self.number = 0
            self.rotate()
            client.lock("a", wait=30)
            self.number = 0
            self.rotate()
            client.unlock("a")  # no hold is named: such a request is not sent again otherwise

        async def awaited(client: aio.Client) -> None:
            await client.info()
            self.number = 0
            self.rotate()
            await client.lock("a", wait=30)
            self.number = 0
            self.rotate()
            await client.unlock("a")

        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Info"), "t1 t2")
            self.assertEqual(self.door.seen[2:], [("Lock", "t2"), ("Unlock", "t2")])

    def test_lock(self) -> None:
        """The wait of a request that is made once more goes on from where it was."""
        self.door.takes = lambda method, token: token != "t1"

        async def awaited(client: aio.Client) -> None:
            await client.lock("a", wait=30)

        for _ in self.both(lambda client: client.lock("a", wait=30) and None, awaited):
            self.assertEqual(self.tokens("Lock"), "t1 t2")
            first, second = self.door.waits[-2:]
            self.assertEqual(first, 30)
            self.assertLess(second, 30)

    def test_not_again(self) -> None:
        """Not a third time; and not a second time with the same token."""
        self.door.takes = lambda method, token: token not in ("t1", "t2")

        def sync(client: pylok.Client) -> None:
            with self.assertRaises(pylok.Error) as caught:
                client.info()
            self.assertEqual(caught.exception.code, "UNAUTHENTICATED")

        async def awaited(client: aio.Client) -> None:
            with self.assertRaises(pylok.Error) as caught:
                await client.info()
            self.assertEqual(caught.exception.code, "UNAUTHENTICATED")

        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Info"), "t1 t2")
        self.door.rotate = lambda: None
        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Info"), "t1")
        self.door.rotate = lambda: os.remove(self.token)
        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Info"), "t1")

    def test_hold(self) -> None:
        """A hold is renewed with the next token."""
        self.door.takes = lambda method, token: method != "Renew" or token != "t1"
        renewed = threading.Event()
        check = self.door._check

        def noted(method: str, context: Any) -> None:
            check(method, context)
            if method == "Renew":
                renewed.set()

        def sync(client: pylok.Client) -> None:
            with client.acquire("a", ttl=1) as hold:
                self.assertTrue(renewed.wait(20))
                hold.check()

        async def awaited(client: aio.Client) -> None:
            async with client.acquire("a", ttl=1) as hold:
                self.assertTrue(await asyncio.to_thread(renewed.wait, 20))
                hold.check()

        with mock.patch.object(self.door, "_check", noted):
            for _ in self.both(sync, awaited):
                self.assertTrue(self.tokens("Renew").startswith("t1 t2"), self.door.seen)
                self.assertEqual(self.tokens("Unlock"), "t2")
                renewed.clear()

    def test_watch(self) -> None:
        """A watch that the server ends with its token goes on with the next one, after
        what it has told."""

        def sync(client: pylok.Client) -> None:
            with client.watch() as watch:
                for _ in range(6):
                    next(watch)

        async def awaited(client: aio.Client) -> None:
            async with client.watch() as watch:
                for _ in range(6):
                    await anext(watch)

        for _ in self.both(sync, awaited):
            self.assertEqual((self.tokens("Watch"), self.door.after), ("t1 t2 t3", [0, 1, 2]))

    def test_watch_ends(self) -> None:
        """One that is refused at once with a second token too is refused."""
        self.door.takes = lambda method, token: token == "t3"

        def sync(client: pylok.Client) -> None:
            with client.watch() as watch, self.assertRaises(pylok.Error) as caught:
                next(watch)
            self.assertEqual(caught.exception.code, "UNAUTHENTICATED")

        async def awaited(client: aio.Client) -> None:
            async with client.watch() as watch:
                with self.assertRaises(pylok.Error) as caught:
                    await anext(watch)
            self.assertEqual(caught.exception.code, "UNAUTHENTICATED")

        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Watch"), "t1 t2")

    def test_undone(self) -> None:
        """What a hold comes to when its client cannot renew it is given back with the next
        token as well: the calls beside those of a program are made once more, too."""
        self.door.takes = lambda method, token: token != "t1"

        def sync(client: pylok.Client) -> None:
            client._give_back((client.lock("a"),))

        async def awaited(client: aio.Client) -> None:
            await client._give_back((await client.lock("a"),))

        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Unlock"), "t2")
        self.door.takes = lambda method, token: method != "Unlock" or token != "t1"
        for _ in self.both(sync, awaited):
            self.assertEqual(self.tokens("Unlock"), "t1 t2")

    def test_source(self) -> None:
        """No token of a file is none that was refused."""
        file = proof.TokenFile(self.token)
        self.assertEqual((file.token(), file.token("t1")), ("t1", "t1"))
        self.rotate()
        self.assertEqual((file.token(), file.token("t0"), file.token("t1")), ("t1", "t1", "t2"))
