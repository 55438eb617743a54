"""Who leaves while a lock is taken or released leaves no lock behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import statistics
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent import futures
from types import FrameType
from typing import Any
from unittest import mock

import grpc

import pylok
import pylok.aio
from pylok import connection, errors
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1 import lock_service_pb2_grpc
from tests.daemon import Daemon, DaemonTest
from tests.kinds import Loop

PATIENCE = 20.0  # seconds after which a test that waits has failed

ROUNDS = int(os.environ.get("PYLOK_TEST_CANCELS", "150"))
"""How many calls of each kind are left within their round trip."""

PACKAGE = os.path.dirname(os.path.abspath(pylok.__file__))


class Cancelled(unittest.IsolatedAsyncioTestCase):
    """Tasks are cancelled at any moment of what they do."""

    def setUp(self) -> None:
        """Starts a daemon."""
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)

    async def asyncSetUp(self) -> None:
        """Makes clients."""
        self.client = pylok.aio.Client(self.daemon.address, holder="alice@ci-7")
        self.addAsyncCleanup(self.client.close)
        self.other = pylok.aio.Client(self.daemon.address, holder="bob@ci-8")
        self.addAsyncCleanup(self.other.close)

    async def held(self, waits: bool) -> list[pylok.Lock]:
        """Returns what is held. A request that waits is cancelled on the server too, which
        undoes by itself what it grants just then."""
        until = time.monotonic() + (PATIENCE if waits else 0)
        while held := [lock async for lock in self.other.list()]:
            if time.monotonic() > until:
                break
        return held

    async def cancel_all(self, work: Callable[[str], Any], *, waits: bool = False) -> None:
        """Cancels work within a round trip, and sees that nothing is held after it."""
        took = []
        for number in range(20):
            begun = time.monotonic()
            lock = await self.client.lock("warm")
            took.append(time.monotonic() - begun)
            await self.client.unlock("warm", lock.token)
        round_trip = statistics.median(took)
        left, cancelled = 0, 0
        for number in range(ROUNDS):
            task = asyncio.create_task(work("x"))
            await asyncio.sleep(random.uniform(0, 2 * round_trip))
            task.cancel()
            try:
                taken = await task
                if taken is not None:
                    await self.client.unlock_set(taken if isinstance(taken, tuple) else [taken])
            except asyncio.CancelledError:
                cancelled += 1
            if held := await self.held(waits):
                left += 1
                await self.other.unlock_set(held, force=True, reason="left behind")
        self.assertGreater(cancelled, 0)
        self.assertEqual(left, 0, f"of {cancelled} that were cancelled")

    async def test_lock(self) -> None:
        """lock alone."""
        await self.cancel_all(self.client.lock)

    async def test_acquire(self) -> None:
        """`async with`, which is cancelled also while it unlocks."""

        async def work(name: str) -> None:
            async with self.client.acquire(name):
                pass

        await self.cancel_all(work)

    async def test_kinds(self) -> None:
        """Shared holds and trees, which are asked for again as such."""
        for options in ({"shared": True}, {"limit": 1, "wait": 5}, {"tree": True}, {"drain": True, "wait": 5}):
            with self.subTest(options=options), mock.patch.dict(globals(), ROUNDS=ROUNDS // 4):
                await self.cancel_all(
                    lambda name: self.client.lock(name, **options), waits="wait" in options
                )

    async def test_lock_set(self) -> None:
        """lock_set alone, of names and of choices alone."""
        pool = pylok.Choice(["p/1", "p/2", "p/3"], 2)
        for names in (["x", "y"], []):
            with self.subTest(names=names), mock.patch.dict(globals(), ROUNDS=ROUNDS // 2):
                await self.cancel_all(lambda _: self.client.lock_set(names, choices=[pool]))
                await self.cancel_all(
                    lambda _: self.client.lock_set(names, choices=[pool], wait=PATIENCE), waits=True
                )

    async def test_acquire_set(self) -> None:
        """`async with` a set, which is cancelled also while it unlocks."""

        async def work(name: str) -> None:
            async with self.client.acquire_set([name, "y"], choices=[pylok.Choice(["p/1", "p/2"])]):
                pass

        await self.cancel_all(work)

    async def test_set_in_the_queue(self) -> None:
        """A set that waits is cancelled when its last lock comes to it."""

        async def work() -> None:
            async with self.client.acquire_set(["a", "q"], wait=PATIENCE):
                pass

        for number in range(ROUNDS // 3):
            held = await self.other.lock("q")
            task = asyncio.create_task(work())
            while not (await self.other.status("q")).waiters:
                pass
            release = asyncio.create_task(self.other.unlock("q", held.token))
            await asyncio.sleep(random.uniform(0, 0.005))
            task.cancel()
            await release
            await asyncio.wait((task,))
            self.assertEqual(await self.held(True), [])

    async def test_queue(self) -> None:
        """A waiter is cancelled when the lock comes to it."""

        async def work(name: str) -> None:
            async with self.client.acquire(name, wait=PATIENCE):
                pass

        for number in range(ROUNDS // 3):
            held = await self.other.lock("q")
            task = asyncio.create_task(work("q"))
            while not (await self.other.status("q")).waiters:
                pass
            release = asyncio.create_task(self.other.unlock("q", held.token))
            await asyncio.sleep(random.uniform(0, 0.005))
            task.cancel()
            await release
            await asyncio.wait((task,))
            self.assertFalse((await self.other.status("q")).locked)

    async def test_waiting(self) -> None:
        """A waiter that is cancelled leaves the queue, and nothing is taken for it."""
        held = await self.other.lock("w")
        task = asyncio.create_task(self.client.lock("w", wait=PATIENCE))
        while not (await self.other.status("w")).waiters:
            pass
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertEqual((await self.other.status("w")).waiters, 0)
        await self.other.unlock("w", held.token)
        self.assertEqual([e.revision async for e in self.other.history("w")], [1, 2])


class LoopEnds(DaemonTest):
    """asyncio.run cancels what is left when its main coroutine has returned."""

    def test_run(self) -> None:
        """No lock is left, whatever the task was at."""
        with pylok.Client(self.daemon.address) as watcher:
            for number in range(30):

                async def main() -> None:
                    client = pylok.aio.Client(self.daemon.address)

                    async def work() -> None:
                        async with client.acquire("x", ttl=3600):
                            pass

                    task = asyncio.create_task(work())
                    await asyncio.sleep(random.uniform(0, 0.01))
                    del task

                asyncio.run(main())
                self.assertFalse(watcher.status("x").locked)


class Interrupted(DaemonTest):
    """The main thread gets a KeyboardInterrupt at any moment of what pylok does."""

    def interrupt_all(self, work: Callable[[], Any]) -> None:
        """Interrupts work within a round trip, and sees that nothing is held after it."""
        took = []
        for number in range(20):
            begun = time.monotonic()
            work()
            took.append(time.monotonic() - begun)
        round_trip = statistics.median(took)

        def interrupt(_: int, frame: FrameType | None) -> None:
            """Interrupts pylok alone: what is done with the lock afterwards is the
            program's own. Of a `with` Python itself leaves the step into __enter__ and
            __exit__ unguarded."""
            if frame is not None and frame.f_code.co_name in ("__enter__", "__exit__", "_remove"):
                return
            while frame is not None:
                if frame.f_code.co_filename.startswith(PACKAGE):
                    raise KeyboardInterrupt
                frame = frame.f_back

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        left, interrupted = 0, 0
        for number in range(ROUNDS):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, round_trip))
                work()
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if held := list(self.client.list()):
                left += 1
                self.client.unlock_set(held, force=True, reason="left behind")
        self.assertGreater(interrupted, 0)
        self.assertEqual(left, 0, f"of {interrupted} that were interrupted")

    def setUp(self) -> None:
        """Makes a client."""
        self.client = pylok.Client(self.daemon.address)
        self.addCleanup(self.client.close)

    def test_lock(self) -> None:
        """lock, and an unlock that is not interrupted."""
        unlocker = pylok.Client(self.daemon.address)
        self.addCleanup(unlocker.close)

        def work() -> None:
            lock = self.client.lock("x")
            signal.setitimer(signal.ITIMER_REAL, 0)
            unlocker.unlock("x", lock.token)

        self.interrupt_all(work)

    def test_acquire(self) -> None:
        """`with`, which is interrupted also while it unlocks."""

        def work() -> None:
            with self.client.acquire("x"):
                pass

        self.interrupt_all(work)

    def test_lock_set(self) -> None:
        """lock_set, of names and of choices alone, and an unlock that is not interrupted."""
        unlocker = pylok.Client(self.daemon.address)
        self.addCleanup(unlocker.close)
        pool = pylok.Choice(["p/1", "p/2", "p/3"], 2)

        def work() -> None:
            locks = self.client.lock_set(names, choices=[pool])
            signal.setitimer(signal.ITIMER_REAL, 0)
            unlocker.unlock_set(locks)

        for names in (["x", "y"], []):
            with mock.patch.dict(globals(), ROUNDS=ROUNDS // 2):
                self.interrupt_all(work)

    def test_acquire_set(self) -> None:
        """`with` a set, which is interrupted also while it unlocks."""

        def work() -> None:
            with self.client.acquire_set(["x", "y"], choices=[pylok.Choice(["p/1", "p/2"])]):
                pass

        self.interrupt_all(work)

    def test_shared(self) -> None:
        """A shared hold."""

        def work() -> None:
            with self.client.acquire("x", shared=True):
                pass

        self.interrupt_all(work)

    def test_original(self) -> None:
        """The original's lock."""

        def work() -> None:
            pylok.lock(self.daemon.root, "x", {}, "lock")
            signal.setitimer(signal.ITIMER_REAL, 0)
            unlocker.unlock("x", holder="")

        unlocker = pylok.Client(self.daemon.address)
        self.addCleanup(unlocker.close)
        self.interrupt_all(work)

    def test_without_threads(self) -> None:
        """At its end, as in atexit, newer Pythons begin no thread. A hold needs one."""
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            with self.assertRaises(RuntimeError):
                self.client.acquire("t")
        self.assertFalse(self.client.status("t").locked)
        with mock.patch("pylok.taking.start_new_thread", side_effect=RuntimeError("can't start new thread")):
            lock = self.client.lock("t")
            with self.assertRaises(pylok.LockHeldError):
                self.client.lock("t")
        self.client.unlock("t", lock.token)
        hold = self.client.acquire("t")
        with mock.patch("pylok.taking.start_new_thread", side_effect=RuntimeError("can't start new thread")):
            hold.release()
        self.assertFalse(self.client.status("t").locked)

    def test_waiting(self) -> None:
        """A waiter that is interrupted leaves the queue, and nothing is taken for it."""
        held = self.client.lock("w")

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, interrupt)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

        def when_it_waits() -> None:
            with pylok.Client(self.daemon.address) as other:
                while not other.status("w").waiters:
                    time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        for take in (self.client.lock, self.client.acquire):
            interrupter = threading.Thread(target=when_it_waits)
            interrupter.start()
            with self.assertRaises(KeyboardInterrupt):
                take("w", wait=PATIENCE)
            interrupter.join()
            self.assertEqual(self.client.status("w").waiters, 0)
        self.client.unlock("w", held.token)
        self.assertEqual(len(list(self.client.history("w"))), 2)


class Lossy(lock_service_pb2_grpc.LockServiceServicer):  # type: ignore[misc]
    """A server that keeps one lock, and answers Lock with errors."""

    def __init__(self, *answers: grpc.StatusCode) -> None:
        """Begins with the lock free."""
        self.answers = list(answers)
        self.held_by = ""  # the request id
        self.keeps = False  # it, whoever asks
        self.waits: list[float] = []  # as they were asked for
        self.trees: list[bool] = []
        self.asked = threading.Event()  # for a sign of life
        self.there = threading.Event()  # so that it gives one
        self.there.set()
        self.slow = 0.0  # seconds until the answer to Lock
        self.unlocked = threading.Event()

    def Lock(self, request: Any, context: Any) -> Any:
        """Grants the lock, and answers with an error while there is one."""
        self.held_by = self.held_by or request.request_id
        self.waits.append(request.wait.ToTimedelta().total_seconds())
        self.trees.append(request.tree)
        time.sleep(self.slow)
        if self.answers:
            context.abort(self.answers.pop(0), "no luck")
        if self.held_by != request.request_id:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "held")
        return pb.LockResponse(lock=pb.Lock(name=request.name, token=7))

    def Info(self, request: Any, context: Any) -> Any:
        """Is there."""
        self.asked.set()
        self.there.wait(PATIENCE)
        return pb.InfoResponse()

    def Status(self, request: Any, context: Any) -> Any:
        """Knows of no lock yet."""
        return pb.StatusResponse(lock=pb.Lock(name=request.name))

    def Unlock(self, request: Any, context: Any) -> Any:
        """Unlocks the lock."""
        if self.keeps:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        self.held_by = ""
        self.unlocked.set()
        return pb.UnlockResponse(lock=pb.Lock(name=request.name, token=7))

    def Renew(self, request: Any, context: Any) -> Any:
        """Never renews."""
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")


def take(address: str, kind: str, method: str, what: Any, **options: Any) -> None:
    """Takes a lock or a set with a client of a kind."""
    if kind == "sync":
        with pylok.Client(address) as client:
            getattr(client, method)(what, **options)
        return

    async def awaited() -> None:
        async with pylok.aio.Client(address) as client:
            await getattr(client, method)(what, **options)

    asyncio.run(awaited())


class Outcomes(unittest.TestCase):
    """What becomes of a lock whose answer is lost, for both kinds of client."""

    def serve(self, *answers: grpc.StatusCode) -> None:
        """Serves."""
        self.service = Lossy(*answers)
        server = grpc.server(futures.ThreadPoolExecutor(4))
        lock_service_pb2_grpc.add_LockServiceServicer_to_server(self.service, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())

    def take(self, kind: str, method: str, **options: Any) -> None:
        """Takes the lock with a client of a kind."""
        take(self.address, kind, method, "x", **options)

    def each(self) -> list[tuple[str, str]]:
        """Returns each kind of client and each way to take a lock."""
        return [(kind, method) for kind in ("sync", "aio") for method in ("lock", "acquire")]

    def test_undone(self) -> None:
        """Where the server can be asked, nothing is held after an error."""
        for code, error in (
            (grpc.StatusCode.DEADLINE_EXCEEDED, pylok.TimeLimitError),
            (grpc.StatusCode.INTERNAL, pylok.Error),
        ):
            for kind, method in self.each():
                with self.subTest(code=code, kind=kind, method=method):
                    self.serve(code)
                    with self.assertRaises(error) as raised:
                        self.take(kind, method)
                    self.assertEqual(raised.exception.request_id, "")
                    self.assertNotIn("may be locked", str(raised.exception))
                    self.assertEqual(self.service.held_by, "")

    def test_unknown(self) -> None:
        """Where it cannot, the error says so, and what to ask with."""
        for kind, method in self.each():
            with self.subTest(kind=kind, method=method):
                self.serve(*[grpc.StatusCode.UNAVAILABLE] * 100)
                with mock.patch("pylok.connection.PATIENCE", 0.2):
                    with self.assertRaises(pylok.UnreachableError) as raised:
                        self.take(kind, method)
                self.assertEqual(raised.exception.request_id, self.service.held_by)
                self.assertIn(
                    f"x may be locked by this request, and asking again with request_id='{self.service.held_by}'",
                    str(raised.exception),
                )
                self.service.answers = []
                with pylok.Client(self.address) as client:
                    lock = client.lock("x", request_id=raised.exception.request_id)
                self.assertEqual(lock.token, 7)

    def test_refused_afterwards(self) -> None:
        """A later refusal that is no answer does not make the first one known."""
        for kind, method in self.each():
            with self.subTest(kind=kind, method=method):
                unavailable, denied = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED
                self.serve(unavailable, *[denied] * 100)
                with mock.patch("pylok.connection.PATIENCE", 0.2):
                    with self.assertRaises(pylok.UnreachableError) as raised:
                        self.take(kind, method)
                self.assertTrue(raised.exception.request_id)

    def test_nobody_there(self) -> None:
        """What was never sent is not unknown."""
        self.address = "127.0.0.1:1"
        for kind, method in self.each():
            with mock.patch("pylok.connection.PATIENCE", 0.2):
                with self.subTest(kind=kind, method=method):
                    with self.assertRaises(pylok.UnreachableError) as raised:
                        self.take(kind, method)
                    self.assertFalse(raised.exception.sent)
                    self.assertEqual(raised.exception.request_id, "")

    def test_hold_of_unknown_age(self) -> None:
        """A hold that had to be asked for again, and cannot be renewed, is given back."""
        for kind in ("sync", "aio"):
            with self.subTest(kind=kind):
                self.serve(grpc.StatusCode.UNAVAILABLE)
                with self.assertRaises(pylok.Error) as raised:
                    self.take(kind, "acquire")
                self.assertEqual(self.service.held_by, "")
                self.assertEqual(raised.exception.request_id, "")

    def test_hold_that_cannot_be_given_back(self) -> None:
        """The same where that fails too: the lock may be held, and the error says so."""
        for kind in ("sync", "aio"):
            with self.subTest(kind=kind):
                self.serve(grpc.StatusCode.UNAVAILABLE)
                self.service.keeps = True
                with self.assertRaises(pylok.Error) as raised:
                    self.take(kind, "acquire")
                self.assertEqual(raised.exception.request_id, self.service.held_by)

    def test_wait_over_losses(self) -> None:
        """A place in line outlives a server that is away, and no wait begins anew."""
        for kind in ("sync", "aio"):
            with self.subTest(kind=kind):
                self.serve(*[grpc.StatusCode.UNAVAILABLE] * 4)
                self.service.slow = 0.1
                with mock.patch("pylok.connection.PATIENCE", 0.1):
                    self.take(kind, "lock", wait=60)
                waits = self.service.waits
                self.assertEqual(len(waits), 5)
                self.assertEqual(waits[0], 60)
                for earlier, later in zip(waits, waits[1:]):
                    self.assertLess(later, earlier - 0.1)

    def test_wait_forever_over_losses(self) -> None:
        """A wait without an end goes on when the server is back."""
        for kind in ("sync", "aio"):
            with self.subTest(kind=kind):
                self.serve(*[grpc.StatusCode.UNAVAILABLE] * 4)
                with mock.patch("pylok.connection.PATIENCE", 0.1):
                    self.take(kind, "lock", wait=math.inf)
                self.assertEqual(self.service.waits, [0] * 5)

    def test_tree(self) -> None:
        """What became of a tree is asked as for a tree: that needs another right."""
        for kind in ("sync", "aio"):
            with self.subTest(kind=kind):
                self.serve(grpc.StatusCode.DEADLINE_EXCEEDED)
                with self.assertRaises(pylok.TimeLimitError):
                    self.take(kind, "lock", tree=True)
                self.assertEqual((self.service.trees, self.service.held_by), ([True, True], ""))

    def test_patience(self) -> None:
        """A server that was never there is not waited for, however patient the client."""
        begun = time.monotonic()
        with pylok.Client("127.0.0.1:1", patience=60) as client:
            with self.assertRaises(pylok.UnreachableError):
                client.lock("x", wait=60)

        async def take() -> None:
            async with pylok.aio.Client("127.0.0.1:1", patience=60) as client:
                with self.assertRaises(pylok.UnreachableError):
                    await client.lock("x", wait=60)

        asyncio.run(take())
        self.assertLess(time.monotonic() - begun, 50)

    def test_cancelled_while_cut_off(self) -> None:
        """A task that is cancelled while the connection is lost does not believe that the
        lock is free: its request may still be on its way to the grant."""

        async def take() -> None:
            async with pylok.aio.Client(self.address) as client:
                task = asyncio.create_task(client.lock("x", wait=60))
                await asyncio.to_thread(self.service.asked.wait, PATIENCE)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task

        self.serve(grpc.StatusCode.UNAVAILABLE)
        self.service.there.clear()
        self.addCleanup(self.service.there.set)
        asyncio.run(take())
        self.assertEqual(self.service.held_by, "")


class LossySets(Lossy):
    """A server that keeps one set of two, and answers LockSet with errors."""

    def __init__(self, *answers: grpc.StatusCode) -> None:
        """Begins with both locks free."""
        super().__init__(*answers)
        self.broken = False  # one of the two, by others
        self.released: list[Any] = []  # the requests
        self.lose_unlock = False  # the answer to it

    def LockSet(self, request: Any, context: Any) -> Any:
        """Grants the set, and answers with an error while there is one."""
        if not self.held_by:
            self.held_by, self.names = request.request_id, request.names
        if self.answers:
            context.abort(self.answers.pop(0), "no luck")
        if self.broken:
            info = errors._ErrorInfo(reason="NOT_HOLDER", domain="pylok").SerializeToString()
            status = errors._Status()
            status.details.add(type_url="x/google.rpc.ErrorInfo", value=info)
            status.details.add(type_url="x/pylok.v1.Lock", value=self.lock(0).SerializeToString())
            details = ("grpc-status-details-bin", status.SerializeToString())
            context.set_trailing_metadata((details,))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "only a stands")
        return pb.LockSetResponse(locks=[self.lock(0), self.lock(1)])

    def lock(self, number: int) -> Any:
        """Returns one of its locks."""
        own = pb.SetRef(id=7, size=2)
        return pb.Lock(name=self.names[number], token=7 + number, state=pb.LOCK_STATE_LOCKED, set=own)

    def UnlockSet(self, request: Any, context: Any) -> Any:
        """Unlocks all, or nothing where it keeps it."""
        self.released.append(request)
        if self.lose_unlock:
            self.lose_unlock, self.held_by = False, ""
            context.abort(grpc.StatusCode.UNAVAILABLE, "no luck")
        if not self.held_by:
            return pb.UnlockSetResponse(
                answers=[pb.SetAnswer(name=h.name, token=h.token, reason="NOT_LOCKED") for h in request.holds]
            )
        reason = "PERMISSION_DENIED" if self.keeps else ""
        if not self.keeps:
            self.held_by = ""
        return pb.UnlockSetResponse(answers=[
                pb.SetAnswer(name=name, token=7 + number, reason=reason) for number, name in enumerate(self.names)
            ]
        )

    def RenewSet(self, request: Any, context: Any) -> Any:
        """Never renews."""
        return pb.RenewSetResponse(
            answers=[pb.SetAnswer(name=h.name, token=h.token, reason="LOCK_FILE_FAILED") for h in request.holds]
        )


class SetOutcomes(unittest.TestCase):
    """What becomes of a set whose answer is lost, for both kinds of client."""

    def serve(self, *answers: grpc.StatusCode) -> None:
        """Serves."""
        self.service = LossySets(*answers)
        server = grpc.server(futures.ThreadPoolExecutor(4))
        lock_service_pb2_grpc.add_LockServiceServicer_to_server(self.service, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())

    def take(self, kind: str, method: str, **options: Any) -> None:
        """Takes the set with a client of a kind."""
        take(self.address, kind, method, ["a", "b"], **options)

    def each(self) -> list[tuple[str, str]]:
        """Returns each kind of client and each way to take a set."""
        return [(kind, method) for kind in ("sync", "aio") for method in ("lock_set", "acquire_set")]

    def test_undone(self) -> None:
        """Where the server can be asked, nothing is held after an error."""
        for code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL):
            for kind, method in self.each():
                with self.subTest(code=code, kind=kind, method=method):
                    self.serve(code)
                    with self.assertRaises(pylok.Error) as raised:
                        self.take(kind, method)
                    self.assertEqual((raised.exception.request_id, self.service.held_by), ("", ""))

    def test_unknown(self) -> None:
        """Where it cannot, or keeps what it is to release, the error says so, and what to ask
        with."""
        for kind, method in self.each():
            for keeps in (False, True):
                with self.subTest(kind=kind, method=method, keeps=keeps):
                    if keeps:
                        self.serve(grpc.StatusCode.DEADLINE_EXCEEDED)
                        self.service.keeps = True
                    else:
                        self.serve(*[grpc.StatusCode.UNAVAILABLE] * 100)
                    with mock.patch("pylok.connection.PATIENCE", 0.2):
                        with self.assertRaisesRegex(pylok.Error, "the set of a and 1 more may be locked") as raised:
                            self.take(kind, method)
                    self.assertEqual(raised.exception.request_id, self.service.held_by)

    def test_partly_lost(self) -> None:
        """A set that has lost a part before its answer came is given back as far as it
        stands, whether it was sent again or only asked about."""
        for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            for kind, method in self.each():
                with self.subTest(code=code, kind=kind, method=method):
                    self.serve(code)
                    self.service.broken = True
                    with self.assertRaises(pylok.Error) as raised:
                        self.take(kind, method)
                    self.assertEqual(raised.exception.request_id, "")
                    self.assertEqual([request.set for request in self.service.released], [7])

    def test_partly_lost_and_asked_for(self) -> None:
        """Who asks for such a set by its request_id is refused and loses nothing."""
        for kind in ("sync", "aio"):
            self.serve()
            self.service.held_by, self.service.names, self.service.broken = "one", ["a", "b"], True
            with self.assertRaises(pylok.NotHolderError):
                self.take(kind, "lock_set", request_id="one")
            self.assertEqual(self.service.released, [])

    def test_holds_of_unknown_age(self) -> None:
        """Holds that had to be asked for again, and cannot be renewed, are given back."""
        for kind, method in self.each():
            if method == "acquire_set":
                self.serve(grpc.StatusCode.UNAVAILABLE)
                with self.assertRaises(pylok.LockFileError) as raised:
                    self.take(kind, method)
                self.assertEqual((raised.exception.request_id, self.service.held_by), ("", ""))

    def clients(self) -> Iterator[Any]:
        """Yields a client of each kind."""
        loop = Loop()
        self.addCleanup(loop.close)
        for make in (pylok.Client, loop.client):
            client: Any = make(self.address)
            self.addCleanup(client.close)
            yield client

    def test_release(self) -> None:
        """What cannot be released is told and asked again; what the first sending has
        released is no loss."""
        self.serve()
        for client in self.clients():
            locks = client.acquire_set(["a", "b"])
            self.service.keeps = True
            with self.assertRaises(pylok.PermissionDeniedError):
                locks.release()
            self.service.keeps, self.service.lose_unlock = False, True
            locks.release()
            self.assertEqual(self.service.held_by, "")
            locks = client.lock_set(["a", "b"])
            self.service.lose_unlock = True
            self.assertEqual([answer.error for answer in client.unlock_set(locks)], [None, None])
            self.assertIsInstance(client.unlock_set(locks)[0].error, pylok.NotLockedError)

    def test_closed_meanwhile(self) -> None:
        """What is taken while close releases everything is released too."""
        self.serve()
        for client in self.clients():
            client._kept.close()
            with self.assertRaisesRegex(pylok.Error, "closed"):
                client.acquire_set(["a", "b"])
            self.assertEqual(self.service.held_by, "")
