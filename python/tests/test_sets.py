"""Sets, pools, shared holds, trees, stale holds, hand-over and asking, for both kinds of
client."""

from __future__ import annotations

import asyncio
import math
import os
import queue
import signal
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any
from unittest import mock

import grpc

import pylok
import pylok.aio
from pylok import errors
from pylok.aio.keeper import Keeper as AioKeeper
from pylok.keeper import Keeper
from pylok.lease import Lease, now
from pylok.messages import EventType, ObstacleKind, OnExpiry, event_from_message
from pylok.position import Position
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1 import lock_service_pb2_grpc
from pylok.wanted import WantedSet
from tests.daemon import Daemon, DaemonTest
from tests.kinds import KINDS, Loop

PATIENCE = 20.0  # seconds after which a test that waits has failed


def until(condition: Callable[[], Any]) -> None:
    """Waits for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it has not come to pass")
        time.sleep(0.005)


class Both(unittest.TestCase):
    """A test case whose tests do all with both kinds of client."""

    address = ""

    def setUp(self) -> None:
        """Makes somebody else, and a loop for the clients that need one."""
        self.loop = Loop()
        self.addCleanup(self.loop.close)

    def client(self, kind: str, holder: str = "alice@ci-7", **options: Any) -> Any:
        """Makes a client of a kind."""
        make: Any = pylok.Client if kind == "sync" else self.loop.client
        client = make(self.address, holder=holder, **options)
        self.addCleanup(client.close)
        return client

    def clients(self) -> Iterator[Any]:
        """Yields a client of each kind, and has tests use names of that kind."""
        for kind in KINDS:
            self.kind = kind
            yield self.client(kind)


class Real(Both, DaemonTest):
    """Against a daemon."""

    def setUp(self) -> None:
        """Makes somebody else."""
        super().setUp()
        self.address = self.daemon.address
        self.other = pylok.Client(self.daemon.address, holder="bob@ci-8")
        self.addCleanup(self.other.close)

    def in_background(self, work: Callable[[], Any]) -> futures.Future[Any]:
        """Does work in another thread."""
        pool = futures.ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return pool.submit(work)

    def waiting(self, name: str) -> pylok.Waiter:
        """Waits until somebody waits for a lock, and returns who."""
        until(lambda: self.other.status(name).waiting)
        return self.other.status(name).waiting[0]


class Locks(Real):
    """What one lock can be."""

    def test_shared(self) -> None:
        """Readers stand beside each other and keep the writer out."""
        for client in self.clients():
            name = f"{self.kind}/conf"
            first = client.lock(name, shared=True, ttl=60)
            self.assertEqual((first.name, first.shared), (f"{name}/_+1", True))
            with client.acquire(name, limit=2, ttl=60) as second:
                self.assertEqual(second.name, f"{name}/_+2")
                self.assertEqual(client.status(name).shared_holds, 2)
                with self.assertRaises(pylok.LockHeldError):
                    self.other.lock(name, limit=2)
                with self.assertRaises(pylok.LockHeldError) as refused:
                    self.other.lock(name)
                assert refused.exception.lock
                self.assertTrue(refused.exception.lock.shared)
                obstacle = client.status(name).blocked_by
                self.assertEqual(obstacle.kind, ObstacleKind.SHARED)
                self.assertEqual(obstacle.lock.name, f"{name}/_+1")
            client.unlock(first.name, first.token)
            self.assertFalse(self.other.status(name).blocked_by)

    def test_tree(self) -> None:
        """A freeze: at once, drained, and gone through."""
        for client in self.clients():
            name = f"{self.kind}/prod"
            below = self.other.lock(f"{name}/web")
            with self.assertRaises(pylok.LockHeldError):
                client.lock(name, drain=True, wait=0.05)
            freeze = client.lock(name, tree=True, ttl=60)
            self.assertTrue(freeze.tree)
            self.assertEqual(client.status(name).held_below, 1)
            with self.assertRaises(pylok.LockHeldError) as refused:
                self.other.lock(f"{name}/db")
            assert refused.exception.lock
            self.assertEqual(refused.exception.lock.name, name)
            with self.assertRaises(pylok.InvalidArgumentError):
                self.other.lock(f"{name}/db", through_freeze=True)
            fix = self.other.lock(f"{name}/db", through_freeze=True, reason="hot fix")
            self.assertEqual([e.reason for e in self.other.history(f"{name}/db")], [f"through the freeze of {name}: hot fix"])
            self.other.unlock(fix.name, fix.token)
            self.other.unlock(below.name, below.token)
            with open(os.path.join(self.daemon.root, name, "by-hand.lock"), "x", encoding="utf-8"):
                until(lambda: client.status(f"{name}/by-hand").locked)
            self.assertIn(name, client.status(f"{name}/by-hand").conflict)
            self.other.unlock(f"{name}/by-hand")
            client.unlock(name, freeze.token)
            with client.acquire(name, drain=True, wait=PATIENCE) as hold:
                self.assertTrue(hold.lock.tree)

    def test_stale(self) -> None:
        """A hold that is kept stays until somebody has looked."""
        for client in self.clients():
            name = f"{self.kind}/stale"
            for _ in range(2):
                lost = threading.Event()
                hold = client.acquire(name, ttl=0.3, on_expiry="keep", on_lost=lambda _: lost.set())
                self.assertEqual(hold.lock.on_expiry, OnExpiry.KEEP)
                self.stop_renewing(client)
                self.assertTrue(lost.wait(PATIENCE))
                until(lambda: self.other.status(name).stale)
                with self.assertRaises(pylok.LostError):
                    hold.release()
                with self.assertRaises(pylok.NotHolderError):
                    self.other.renew(name, hold.token)
                with self.assertRaises(pylok.InvalidArgumentError):
                    self.other.unlock(name, stale=True)
                with self.assertRaises(pylok.LostError) as gone:
                    client.adopt(name, hold.token)
                self.assertTrue(gone.exception.stale)
                self.resume_renewing(client)
                if _ == 0:
                    self.other.unlock(name, stale=True, reason="looked")
            taken = self.other.lock(name, replace_stale=True, reason="looked")
            *_, event = self.other.history(name)
            self.assertEqual((event.previous_token, event.lock and event.lock.token), (hold.token, taken.token))

    def stop_renewing(self, client: Any) -> None:
        """Has the client's renewals fail."""
        real = client._called[1] if hasattr(client, "_called") else client
        self.renews, real._renew_holds = real._renew_holds, mock.Mock(side_effect=pylok.Error("no"))

    def resume_renewing(self, client: Any) -> None:
        """Has them succeed again."""
        real = client._called[1] if hasattr(client, "_called") else client
        real._renew_holds = self.renews

    def test_waits(self) -> None:
        """A wait without an end, one for no person, and one that is put out of the line."""
        for client in self.clients():
            name = f"{self.kind}/waits"
            held = self.other.lock(name)
            with self.assertRaises(pylok.LockHeldError):
                client.lock(name, wait=PATIENCE, refuse_manual=True)
            waits = self.in_background(lambda: client.lock(name, data={"msg": "me"}, wait=math.inf))
            waiter = self.waiting(name)
            self.assertEqual((waiter.holder, waiter.until_time, waiter.message), ("alice@ci-7", None, "me"))
            self.other.unlock(name, held.token)
            lock = waits.result(PATIENCE)
            waits = self.in_background(lambda: self.other.acquire(name, wait=math.inf))
            out = client.dismiss(name, self.waiting(name).place, reason="not today")
            self.assertEqual(out.holder, "bob@ci-8")
            with self.assertRaisesRegex(pylok.LockHeldError, "not today"):
                waits.result(PATIENCE)
            with self.assertRaises(pylok.NotLockedError):
                client.dismiss(name, out.place, reason="again")
            client.unlock(name, lock.token)

    def test_hand_over(self) -> None:
        """The hold goes on under another holder, and its Hold is lost and says to whom."""
        for client in self.clients():
            name = f"{self.kind}/shift"
            hold = client.acquire(name, ttl=2)
            with self.assertRaises(ValueError):
                client.hand_over(name, hold.token, to="carol", ttl=1, never=True)
            answer = client.hand_over(name, hold.token, to="carol", never=True, reason="night")
            self.assertEqual((answer.lock.holder, answer.lock.ttl, answer.warnings), ("carol", None, ()))
            with self.assertRaises(pylok.LostError) as lost:
                hold.release()
            self.assertEqual((lost.exception.to, lost.exception.name), ("carol", name))
            self.assertIn("it was handed over to carol: night", str(lost.exception))
            self.assertEqual(lost.exception.event.previous_token, hold.token)  # type: ignore[union-attr]
            # One that was overwritten is not handed over.
            hold = client.acquire(f"{name}-2", ttl=2)
            client.lock(f"{name}-2", overwrite=True)
            with self.assertRaises(pylok.LostError) as lost:
                hold.release()
            self.assertEqual(lost.exception.to, "")

    def test_ask(self) -> None:
        """The holder hears what is asked, and so does who watches with the token."""
        for client in self.clients():
            name = f"{self.kind}/ask"
            with self.assertRaises(pylok.NotLockedError):
                self.other.ask(name, "please")
            heard: queue.Queue[pylok.Ask] = queue.Queue()
            with client.acquire(name, ttl=60, on_asked=lambda _, ask: heard.put(ask)) as hold:
                self.assertEqual(self.other.ask(name, "let go").lock.token, hold.token)
                ask = heard.get(timeout=PATIENCE)
                self.assertEqual((ask.name, ask.actor, ask.message), (name, "bob@ci-8", "let go"))
                until(lambda: self.other.ask(name, "soon").heard)
                with self.assertRaises(pylok.NotHolderError):
                    self.other.ask(name, "you", token=hold.token + 1)
                with self.other.watch(name, after_revision=hold.lock.revision, token=hold.token) as watch:
                    self.assertEqual(next(watch).type, EventType.SYNCED)
                    self.other.ask(name, "let go")
                    event = next(event for event in watch if event.type != EventType.SYNCED)
                    self.assertEqual((event.type, event.reason, event.revision), (EventType.ASKED, "let go", 0))

    def test_broken_at_once(self) -> None:
        """A hold that listens knows at once when it is over."""
        for client in self.clients():
            name, lost = f"{self.kind}/broken", threading.Event()
            hold = client.acquire(name, ttl=3600, on_asked=lambda *_: None, on_lost=lambda _: lost.set())
            self.other.unlock(name, force=True, reason="in the way")
            self.assertTrue(lost.wait(PATIENCE))
            with self.assertRaisesRegex(pylok.LostError, "it was broken by bob@ci-8: in the way"):
                hold.release()

    def test_adopt(self) -> None:
        """A job goes on under the lock of who started it, and leaves it there."""
        for client in self.clients():
            name = f"{self.kind}/adopt"
            lock = self.other.lock(name, ttl=2)
            with client.adopt(name, lock.token) as hold:
                self.assertEqual(hold.token, lock.token)
                time.sleep(2.5)  # beyond its ttl
                hold.check()
            self.assertTrue(self.other.status(name).locked)
            client.adopt(name, lock.token).release()
            with self.assertRaises(pylok.LostError) as lost:
                client.adopt(name, lock.token)
            self.assertEqual(lost.exception.token, lock.token)
            # One that does not end by itself is not renewed and hears when it is over.
            lock, over = self.other.lock(name), threading.Event()
            hold = client.adopt(name, lock.token, on_lost=lambda _: over.set())
            self.assertEqual(hold.lease_left, math.inf)
            self.other.unlock(name, lock.token)
            self.assertTrue(over.wait(PATIENCE))
            with self.assertRaises(pylok.LostError):
                hold.check()
            with self.assertRaises(ValueError):
                client.adopt(name, 0)

    def test_release_all(self) -> None:
        """close releases what was taken, and not what was adopted or left or only locked."""
        for kind in KINDS:
            with self.subTest(kind=kind):
                client = self.client(kind)
                for number in range(70):
                    client.acquire(f"{kind}/all/{number:02}", ttl=3600)
                client.acquire_set([f"{kind}/all/a", f"{kind}/all/b"], ttl=3600)
                client.acquire(f"{kind}/released").release()
                other = self.other.lock(f"{kind}/all/other", ttl=3600)
                client.adopt(other.name, other.token)
                client.acquire(f"{kind}/all/left", ttl=3600).leave()
                client.lock(f"{kind}/all/locked")
                client.close(release_all=True)
                left = [lock.name for lock in self.other.list(f"{kind}/all/*")]
                self.assertEqual(left, [f"{kind}/all/{name}" for name in ("left", "locked", "other")])


    def test_features(self) -> None:
        """Info says what the server can do, which is all that this client knows."""
        for client in self.clients():
            wanted = ("ask", "dismiss", "hand-over", "keep", "set", "shared", "tree")
            self.assertEqual(client.info().features, wanted)


class Sets(Real):
    """All or none."""

    def test_lock_set(self) -> None:
        """Names and choices, answers for each, and what is left by the set."""
        for client in self.clients():
            a, b, c, d = (f"{self.kind}/s/{letter}" for letter in "abcd")
            held = self.other.lock(c)
            pool = pylok.Choice([c, d])
            locks = client.lock_set([b, a], choices=[pool], ttl=60, data={"msg": "all"})
            self.assertEqual([lock.name for lock in locks], [a, b, d])
            self.assertEqual({lock.set for lock in locks}, {pylok.SetRef(locks[0].token, 3)})
            with self.assertRaises(pylok.LockHeldError) as refused:
                self.other.lock_set([a, f"{a}-free"])
            assert refused.exception.lock
            self.assertEqual(refused.exception.lock.token, locks[0].token)
            self.assertFalse(self.other.status(f"{a}-free").locked)
            self.other.unlock(b, force=True, reason="in the way")
            answers = client.renew_set(locks, ttl=90)
            self.assertEqual([type(answer.error) for answer in answers], [type(None), pylok.NotLockedError, type(None)])
            self.assertEqual(answers[0].lock.ttl.total_seconds(), 90)
            answers = client.unlock_set([(a, locks[0].token), (c, held.token + 1)])
            self.assertGreater(answers[0].revision, 0)
            self.assertIsInstance(answers[1].error, pylok.NotHolderError)
            self.assertEqual([x.name for x in client.unlock_set(set=locks[0].set)], [d])
            with self.assertRaises(ValueError):
                client.lock_set()
            with self.assertRaises(TypeError):
                client.lock_set(a)
            with self.assertRaises(pylok.InvalidArgumentError):
                client.lock_set([a, a])
            self.other.unlock(c, held.token)

    def test_block(self) -> None:
        """A set is renewed by one call and released by one."""
        for client in self.clients():
            names = [f"{self.kind}/b/{number}" for number in range(5)]
            with client.acquire_set(names, ttl=2, wait=1) as locks:
                self.assertEqual(locks.names, tuple(names))
                self.assertEqual(len(locks), 5)
                self.assertEqual([hold.name for hold in locks], names)
                time.sleep(2.5)  # beyond its ttl
                locks.check()
                self.assertFalse(locks.lost)
                self.assertGreater(locks.lease_left, 0)
                self.assertEqual(locks[names[1]].update({"n": 1}).data, {"n": 1})
                with self.assertRaises(KeyError):
                    locks["another"]
            events = [e for e in self.other.history(f"{self.kind}/b/*") if e.type == EventType.UNLOCKED]
            revisions = [event.revision for event in events]
            self.assertEqual(revisions, list(range(revisions[0], revisions[0] + 5)))
            locks.release()  # a second time

    def test_lost(self) -> None:
        """The set knows which hold is lost, keeps the others to its end, and gives all back."""
        for client in self.clients():
            names = [f"{self.kind}/l/{letter}" for letter in "abc"]
            told: queue.Queue[Any] = queue.Queue()
            with self.assertRaises(pylok.LostError) as lost:
                with client.acquire_set(names, ttl=2, on_lost=told.put) as locks:
                    self.other.unlock(names[1], force=True, reason="in the way")
                    self.assertEqual(told.get(timeout=PATIENCE).name, names[1])
                    self.assertEqual([hold.name for hold in locks.lost], [names[1]])
                    locks.wait_lost()
                    with self.assertRaises(pylok.LostError):
                        locks.check()
                    time.sleep(2.5)  # beyond the ttl
                    self.assertEqual([self.other.status(name).locked for name in names], [True, False, True])
                    self.other.unlock(names[2], force=True, reason="too")
                    self.assertEqual(told.get(timeout=PATIENCE).name, names[2])
            self.assertEqual(lost.exception.name, names[1])
            self.assertEqual([error.name for error in lost.exception.others], [names[2]])
            self.assertIn(names[2], str(lost.exception))
            self.assertFalse(list(self.other.list(f"{self.kind}/l/*")))

    def test_cancelled_block(self) -> None:
        """With asyncio the loss of the first hold cancels the block, whose end releases the
        rest; of a block that others cancel, all."""

        async def lose() -> None:
            async with pylok.aio.Client(self.address) as client:
                with self.assertRaises(pylok.LostError) as lost:
                    async with client.acquire_set(["k/a", "k/b"], ttl=3, on_asked=lambda *_: None):
                        self.other.unlock("k/b", force=True, reason="in the way")
                        await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
                self.assertEqual(lost.exception.name, "k/b")
                task = asyncio.current_task()
                assert task and task.cancelling() == 0
                self.assertFalse((await client.status("k/a")).locked)

                begun = asyncio.Event()

                async def work() -> None:
                    async with client.acquire_set(["k/a", "k/b"]):
                        begun.set()
                        await asyncio.Event().wait()

                task = asyncio.create_task(work())
                await begun.wait()
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                self.assertFalse((await client.status("k/a")).locked)

        asyncio.run(lose())


class Away(Both):
    """A server that comes and goes."""

    def setUp(self) -> None:
        """Starts it."""
        super().setUp()
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.address = self.daemon.address

    def test_at_risk(self) -> None:
        """A hold, and a set, warn before they are lost, once, and again in the next
        trouble."""
        for client in self.clients():
            told: queue.Queue[tuple[str, Exception]] = queue.Queue()

            def warn(hold: Any, why: Exception) -> None:
                told.put((hold.name, why))

            hold = client.acquire(f"{self.kind}/risk", ttl=6, margin=0, on_at_risk=warn)
            both = client.acquire_set([f"{self.kind}/a", f"{self.kind}/b"], ttl=6, margin=0, on_at_risk=warn)
            for _ in range(2):
                os.kill(self.daemon.process.pid, signal.SIGSTOP)
                names = {told.get(timeout=PATIENCE)[0] for _ in range(2)}
                self.assertEqual(len(names), 2)
                self.assertFalse(hold.lost or both.lost)
                os.kill(self.daemon.process.pid, signal.SIGCONT)
                until(lambda: hold.lease_left > 3 and both.lease_left > 3)
                self.assertTrue(told.empty())
            hold.release()
            both.release()

    def test_asked_over_a_restart(self) -> None:
        """A hold goes on hearing after its server was away."""
        for client in self.clients():
            heard: queue.Queue[pylok.Ask] = queue.Queue()
            with client.acquire(f"{self.kind}/ask", ttl=60, on_asked=lambda _, ask: heard.put(ask)) as hold:
                with pylok.Client(self.address) as other:
                    other.ask(hold.name, "one")
                    self.assertEqual(heard.get(timeout=PATIENCE).message, "one")
                    self.daemon.kill()
                    self.daemon.start()
                    other.ask(hold.name, "two")
                    self.assertEqual(heard.get(timeout=PATIENCE).message, "two")
                    self.assertTrue(heard.empty())


class Older(lock_service_pb2_grpc.LockServiceServicer):  # type: ignore[misc]
    """A server that knows one plain lock and none of the new requests and fields."""

    def __init__(self) -> None:
        """Begins with the lock free."""
        self.held = ""
        self.keeps = False

    def Lock(self, request: Any, context: Any) -> Any:
        """Takes every request for one for a plain lock."""
        if self.held:
            info = errors._ErrorInfo(reason="LOCK_HELD", domain="pylok").SerializeToString()
            status = errors._Status()
            status.details.add(type_url="x/google.rpc.ErrorInfo", value=info)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "held")
        self.held = request.name
        return pb.LockResponse(lock=pb.Lock(name=request.name, token=7, state=pb.LOCK_STATE_LOCKED))

    def Unlock(self, request: Any, context: Any) -> Any:
        """Releases it."""
        if self.keeps:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        self.held = ""
        return pb.UnlockResponse(lock=pb.Lock(name=request.name, token=7))

    def Info(self, request: Any, context: Any) -> Any:
        """Has no features."""
        return pb.InfoResponse(version="0.9")


class Doubles(Both):
    """Servers that are none."""

    def serve(self, service: Any) -> None:
        """Serves."""
        self.service = service
        server = grpc.server(futures.ThreadPoolExecutor(8))
        lock_service_pb2_grpc.add_LockServiceServicer_to_server(service, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())

    def test_no_echo(self) -> None:
        """A hold that is not what was asked for is given back."""
        self.serve(Older())
        for client in self.clients():
            for method in ("lock", "acquire"):
                for options in ({"tree": True}, {"drain": True}, {"shared": True}, {"limit": 3}, {"on_expiry": "keep"}):
                    with self.subTest(method=method, options=options):
                        with self.assertRaisesRegex(pylok.UnsupportedError, "is older than this client") as raised:
                            getattr(client, method)("x", wait=1, **options)
                        self.assertEqual((raised.exception.request_id, self.service.held), ("", ""))
            self.service.keeps = True
            with self.assertRaises(pylok.UnsupportedError) as raised:
                client.lock("x", tree=True)
            self.assertTrue(raised.exception.request_id)
            self.service.keeps, self.service.held = False, ""

    def test_unimplemented(self) -> None:
        """Calls that the server does not know say so."""
        self.serve(Older())
        calls: dict[str, Callable[[Any], Any]] = {
            "LockSet": lambda c: c.lock_set(["a", "b"]),
            "UnlockSet": lambda c: c.unlock_set([("a", 1)]),
            "RenewSet": lambda c: c.renew_set([("a", 1)], ttl=3),
            "HandOver": lambda c: c.hand_over("a", 1, to="bob"),
            "Ask": lambda c: c.ask("a", "please"),
            "Dismiss": lambda c: c.dismiss("a", 1, reason="no"),
        }
        for client in self.clients():
            for method, call in {**calls, "LockSet ": lambda c: c.acquire_set(["a", "b"])}.items():
                with self.assertRaisesRegex(pylok.UnsupportedError, f"does not know {method.strip()}: update pylokd"):
                    call(client)
            self.service.held = "x"
            with self.assertRaisesRegex(pylok.UnsupportedError, "a wait without an end"):
                client.lock("x", wait=math.inf)
            with self.assertRaises(pylok.Error) as refused:
                client.lock("x", wait=0.1)
            self.assertNotIsInstance(refused.exception, pylok.UnsupportedError)
            self.service.held = ""
            hold = client.acquire("x")
            client.close(release_all=True)
            self.assertEqual((hold.token, self.service.held), (7, ""))


class Parts(unittest.TestCase):
    """What the clients are made of."""

    def test_risk(self) -> None:
        """No renewal takes so long that the warning would be late, and there is one for
        each trouble."""
        lease = Lease(30.0, now() - 19, 0.0)
        self.assertLess(lease.attempt(), 1.1)
        self.assertFalse(lease.is_at_risk())
        lease = Lease(30.0, now() - 21, 0.0)
        self.assertFalse(lease.is_at_risk())
        self.assertGreater(lease.attempt(), 5)
        lease.failed()
        self.assertTrue(lease.is_at_risk())
        for module, make in (("pylok.keeper", Keeper), ("pylok.aio.keeper", AioKeeper)):
            with mock.patch(f"{module}.tell") as tell, mock.patch("asyncio.Event"):
                keeper: Any = make(print)
                why = pylok.Error("no answer")
                hold = mock.Mock(_lease=lease, _failure=why)
                hold._stop.is_set.return_value = hold._is_over.return_value = False
                keeper._warn([hold])
                keeper._warn([hold])
                tell.assert_called_once_with(print, hold, why)
                keeper._warn([])  # all is renewed
                keeper._warn([hold])
                self.assertEqual(tell.call_count, 2)

    def test_position(self) -> None:
        """What is asked is no place to go on from."""
        position = Position(5)
        position.passed(event_from_message(pb.Event(type=pb.EVENT_TYPE_ASKED)))
        self.assertEqual(position.after_revision, 5)

    def test_probes(self) -> None:
        """A set that is all of choices may have any of the first."""
        for names, asked in ((["a", "b"], ["a"]), ([], ["c", "d"])):
            request = pb.LockSetRequest(names=names, choices=[pb.Choice(names=["c", "d"])])
            self.assertEqual([probe.name for _, probe in WantedSet(request).probes()], asked)
