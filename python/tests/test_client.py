"""pylok.Client: errors, holds, watches."""

from __future__ import annotations

import asyncio
import datetime
import os
import tempfile
import threading
import time
import unittest
from concurrent import futures
from typing import Any
from unittest import mock

import grpc

import pylok
import pylok.aio
from pylok.connection import check_address, default_holder
from pylok.lease import Lease, now
from pylok.messages import Event, EventCause, EventType, Lock
from pylok.position import Position
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1 import lock_service_pb2_grpc
from tests.daemon import Daemon, DaemonTest

PATIENCE = 20.0  # seconds after which a test that waits has failed


class Calls(DaemonTest):
    """One call after the other."""

    def setUp(self) -> None:
        """Makes a client."""
        self.client = pylok.Client(holder="alice@ci-7")
        self.addCleanup(self.client.close)

    def test_lock_renew_unlock(self) -> None:
        """What is given comes back, token first."""
        c = self.client
        before = datetime.datetime.now(datetime.timezone.utc)
        lock = c.lock("a/b", data={"port": 80}, ttl=30)
        self.assertTrue(lock.locked)
        self.assertEqual((lock.name, lock.holder, lock.data), ("a/b", "alice@ci-7", {"port": 80}))
        self.assertEqual(lock.ttl, datetime.timedelta(seconds=30))
        self.assertEqual(lock.lock_file_location, f"{self.daemon.root}/a/b.lock")
        assert lock.acquire_time and lock.expire_time
        self.assertLess(abs(lock.acquire_time - before), datetime.timedelta(seconds=PATIENCE))
        self.assertEqual(c.status("a/b").token, lock.token)
        renewed = c.renew("a/b", lock.token, ttl=datetime.timedelta(minutes=1), data={"port": 81})
        self.assertEqual((renewed.token, renewed.data), (lock.token, {"port": 81}))
        self.assertEqual(renewed.ttl, datetime.timedelta(minutes=1))
        was = c.unlock("a/b", lock.token, reason="done")
        self.assertEqual((was.locked, was.token), (True, lock.token))
        self.assertEqual(c.status("a/b"), Lock(name="a/b"))
        again = c.lock("a/b", holder="", expire_time=before + datetime.timedelta(hours=1))
        self.assertGreater(again.token, lock.token)
        self.assertEqual((again.holder, again.ttl), ("", None))
        c.unlock("a/b")

    def test_errors(self) -> None:
        """Each reason has its type, and the two that have one carry the lock."""
        c = self.client
        held = c.lock("e/held", data={"msg": "mine"}, request_id="one")
        self.assertEqual(c.lock("e/held", request_id="one").token, held.token)
        for kind, call in (
            (pylok.LockHeldError, lambda: c.lock("e/held")),
            (pylok.LockHeldError, lambda: c.lock("e/held", wait=0.01)),
            (pylok.LockHeldError, lambda: c.lock("e/held", overwrite=True, holder="bob")),
            (pylok.NotHolderError, lambda: c.unlock("e/held", holder="bob")),
            (pylok.NotHolderError, lambda: c.unlock("e/held", held.token + 1)),
            (pylok.NotHolderError, lambda: c.renew("e/held", held.token + 1, ttl=1)),
        ):
            with self.subTest(kind=kind), self.assertRaisesRegex(kind, "alice@ci-7") as refused:
                call()
            assert refused.exception.lock
            self.assertEqual(refused.exception.lock.token, held.token)
            self.assertEqual(refused.exception.lock.data, {"msg": "mine"})
            self.assertEqual(refused.exception.reason, kind.reason)
            self.assertEqual(refused.exception.code, "FAILED_PRECONDITION")
        for kind, call in (
            (pylok.NotLockedError, lambda: c.unlock("e/free")),
            (pylok.NotLockedError, lambda: c.renew("e/free", 1, ttl=1)),
            (pylok.InvalidNameError, lambda: c.status("e/ no")),
            (pylok.InvalidArgumentError, lambda: c.lock("e/free", ttl=0)),
            (pylok.InvalidArgumentError, lambda: c.unlock("e/held", force=True)),
            (pylok.InvalidArgumentError, lambda: c.unlock("e/held", force=True, reason=" ")),
            (pylok.InvalidArgumentError, lambda: c.lock("e/free", holder="x" * 257)),
            (pylok.InvalidArgumentError, lambda: list(c.list("***"))),
            (pylok.InvalidArgumentError, lambda: next(c.watch("***"))),
            (pylok.DataTooLargeError, lambda: c.lock("e/free", data={"x": "y" * 70_000})),
            (pylok.DataTooLargeError, lambda: c.lock("e/free", data={"x": "y" * 300_000})),
            (pylok.DataTooLargeError, lambda: c.renew("e/held", held.token, data={"x": "y" * 300_000})),
            (pylok.DataTooLargeError, lambda: c.unlock("e/held", data={"x": "y" * 300_000})),
            (ValueError, lambda: c.lock("e/free", ttl=1, expire_time=datetime.datetime.now())),
            (ValueError, lambda: c.lock("e/free", expire_time=datetime.datetime.now())),
        ):
            with self.subTest(kind=kind), self.assertRaises(kind):
                call()
        c.unlock("e/held", holder="bob", force=True, reason="gone home")

    def test_unlock_tells_who_is_next(self) -> None:
        """Who ends a hold hears who has the lock now; who renews it is the actor."""
        held = self.client.lock("n")
        other = pylok.Client(holder="bob@ci-8")
        self.addCleanup(other.close)
        other.renew("n", held.token, data={"step": 2})
        with futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(other.lock, "n", wait=PATIENCE)
            while not self.client.status("n").waiters:
                time.sleep(0.01)
            released = self.client.unlock("n", held.token)
            following = waiting.result(PATIENCE)
        assert released.next
        self.assertEqual((released.token, released.next.token), (held.token, following.token))
        self.assertEqual(released.next.holder, "bob@ci-8")
        self.assertIsNone(other.unlock("n").next)
        actors = [event.actor for event in self.client.history("n")]
        self.assertEqual(actors, ["alice@ci-7", "bob@ci-8", "alice@ci-7", "bob@ci-8", "bob@ci-8"])

    def test_warnings(self) -> None:
        """What does not count is told, a sentence each."""
        lock = self.client.lock("w/expire", data={"expire": "soon"})
        self.assertEqual(len(lock.warnings), 1)
        self.assertIn('"soon", is neither', lock.warnings[0])
        self.assertEqual(self.client.status("w/expire").warnings, lock.warnings)
        self.assertEqual(self.client.lock("w/none").warnings, ())

    def test_large_refusal(self) -> None:
        """A refusal arrives although the lock's data would not fit in its details."""
        self.client.lock("large", data={"x": "y" * 60_000})
        with self.assertRaises(pylok.LockHeldError) as refused:
            self.client.lock("large")
        assert refused.exception.lock
        self.assertEqual(refused.exception.lock.holder, "alice@ci-7")
        self.assertEqual(len(self.client.status("large").data["x"]), 60_000)

    def test_list_and_history(self) -> None:
        """Both page through to the end."""
        first = self.client.info().revision
        names = [f"many/{number:04}" for number in range(1005)]
        for name in names:
            self.client.lock(name)
        self.assertEqual([lock.name for lock in self.client.list("many/*")], names)
        events = list(self.client.history("many/*", after_revision=first))
        self.assertEqual([event.lock.name for event in events if event.lock], names)
        self.assertEqual(
            {(e.type, e.cause, e.actor) for e in events},
            {(EventType.LOCKED, EventCause.REQUEST, "alice@ci-7")},
        )
        self.assertEqual([e.revision for e in events], sorted({e.revision for e in events}))

    def test_history_filters(self) -> None:
        """Each filter selects, and the order can be turned round."""
        c = self.client
        before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
        c.lock("filter/a")
        c.lock("filter/b", holder="bob")
        c.unlock("filter/a", force=True, holder="boss", reason="gone")

        def names(**filters: Any) -> list[str]:
            events = c.history("filter/*", **filters)
            return [f"{e.type.name} {e.lock.name[-1]}" for e in events if e.lock]

        everything = ["LOCKED a", "LOCKED b", "UNLOCKED a"]
        self.assertEqual(names(), everything)
        self.assertEqual(names(newest_first=True), everything[::-1])
        self.assertEqual(names(actor="bob"), ["LOCKED b"])
        self.assertEqual(names(cause=EventCause.FORCED), ["UNLOCKED a"])
        self.assertEqual(names(after_time=before), everything)
        self.assertEqual(names(before_time=before), [])
        with self.assertRaises(ValueError):
            names(after_time=datetime.datetime(2026, 11, 24))

    def test_info(self) -> None:
        """Info says what the daemon said when it started."""
        info = self.client.info()
        self.assertEqual((info.root, info.store), (self.daemon.root, "file"))
        assert info.start_time
        self.assertTrue(info.version)


class Access(unittest.TestCase):
    """What a server with an access file tells of who asks and what that one may do."""

    def test_may(self) -> None:
        """The answers of both clients are those of the rules."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(
                "callers: [{unix: {}, groups: [ops]}]\n"
                "rules:\n"
                "  - {who: [anonymous], may: [lock, admin], locks: ['a/**']}\n"
                "  - {who: ['group:ops'], may: [break], locks: ['**']}\n"
            )
            file.flush()
            daemon = Daemon("--access", file.name)
            self.addCleanup(daemon.close)
        with pylok.Client(daemon.address) as client:
            info = client.info()
            self.assertEqual((info.caller, info.proof, info.groups), ("anonymous", "", ()))
            allowed = client.may("lock", "a/b")
            self.assertEqual(
                allowed,
                pylok.Permission(
                    True, "anonymous", (), "the rule on line 3 of the access file allows it to anonymous"
                ),
            )
            refused = client.may(pylok.Verb.BREAK, "a/b")
            self.assertFalse(refused.allowed)
            self.assertIn("who is in the group ops may", refused.why)
            self.assertTrue(client.may("admin").allowed)
            other = client.may("break", "a/b", caller="group:ops")
            self.assertEqual((other.allowed, other.groups), (True, ("ops",)))
            with self.assertRaisesRegex(ValueError, "view, lock, break"):
                client.may("look", "a/b")
            with self.assertRaises(pylok.InvalidNameError):
                client.may("lock")
            with self.assertRaises(pylok.PermissionDeniedError):
                client.status("c")
            self.assertEqual(client.lock("a/b").caller, "")

        async def ask() -> pylok.Permission:
            async with pylok.aio.Client(daemon.address) as client:
                return await client.may("lock", "a/b")

        self.assertEqual(asyncio.run(ask()), allowed)


class Addresses(unittest.TestCase):
    """What an address may be; the same as the Go client's."""

    def test_addresses(self) -> None:
        """Plaintext only to this machine, unless the caller insists."""
        for address in ("127.0.0.1:5625", "127.9.9.9:1", "LocalHost.:1", "db.localhost:1", "[::1]:1"):
            check_address(address, encrypted=False, insecure=False)
        for address in ("locks.example.com:1", "10.0.0.7:1", "[2001:db8::1]:1", "0.0.0.0:1"):
            check_address(address, encrypted=True, insecure=False)
            check_address(address, encrypted=False, insecure=True)
            with self.assertRaisesRegex(ValueError, "another machine"):
                check_address(address, encrypted=False, insecure=False)
        for address in ("localhost", ":1", "localhost:", "::1:1", "localhost:lock", "localhost:66666"):
            with self.assertRaisesRegex(ValueError, "not HOST:PORT"):
                check_address(address, encrypted=True, insecure=True)


class Holds(DaemonTest):
    """Holds renew themselves, and say when they are lost."""

    def setUp(self) -> None:
        """Makes two clients."""
        self.client = pylok.Client(holder="alice@ci-7")
        self.other = pylok.Client(holder="bob@ci-8")
        self.addCleanup(self.client.close)
        self.addCleanup(self.other.close)

    def test_renewal(self) -> None:
        """A hold outlives its ttl, and ends with its block."""
        with self.client.acquire("h", data={"n": 1}, ttl=2) as hold:
            self.assertGreater(hold.token, 0)
            with self.assertRaises(pylok.LockHeldError):
                self.other.lock("h", wait=5)
            self.assertFalse(hold.lost)
            hold.check()
            self.assertEqual(self.client.status("h").token, hold.token)
            self.assertEqual(hold.update({"n": 2}).data, {"n": 2})
            self.assertEqual(self.other.status("h").data, {"n": 2})
        self.assertFalse(self.other.status("h").locked)
        self.assertFalse(hold.lost)
        self.assertFalse(hold.wait_lost(0))
        hold.release()  # a second time

    def test_release_with_a_closing_message(self) -> None:
        """The message is in the history."""
        hold = self.client.acquire("closing")
        hold.release(reason="done", data={"status": "READY"})
        *_, event = self.client.history("closing")
        assert event.lock
        self.assertEqual((event.reason, event.lock.data), ("done", {"status": "READY"}))

    def test_queue(self) -> None:
        """A wait ends when the hold before does, and the lease counts from there."""
        with self.client.acquire("q", ttl=5):
            got: list[pylok.Hold] = []
            waiter = threading.Thread(
                target=lambda: got.append(self.other.acquire("q", ttl=5, wait=PATIENCE))
            )
            waiter.start()
            while self.client.status("q").waiters == 0:
                pass
        waiter.join(PATIENCE)
        self.assertFalse(got[0].lost)
        self.assertGreater(got[0]._lease.remaining(), 4)
        got[0].release()

    def test_broken(self) -> None:
        """A hold that somebody breaks is lost with its next renewal."""
        told: list[pylok.Hold] = []
        with self.assertRaisesRegex(pylok.LostError, "hold on b with token .* is lost") as lost:
            with self.client.acquire("b", ttl=3, on_lost=told.append) as hold:
                self.other.unlock("b", force=True, reason="in the way")
                self.assertTrue(hold.wait_lost(PATIENCE))
                self.assertTrue(hold.lost)
                with self.assertRaises(pylok.LostError):
                    hold.check()
                with self.assertRaises(pylok.LostError):
                    hold.update({})
        self.assertIsInstance(lost.exception.__cause__, pylok.NotLockedError)
        self.assertEqual(told, [hold])
        self.assertIn("it was broken by bob@ci-8: in the way", str(lost.exception))
        event = lost.exception.event
        assert event
        self.assertEqual(
            (event.cause, event.actor, event.reason),
            (EventCause.FORCED, "bob@ci-8", "in the way"),
        )

    def test_told_how_it_ended(self) -> None:
        """LostError says who ended the hold, and how."""

        def replace(name: str) -> None:
            self.other.lock(name, holder="alice@ci-7", overwrite=True)

        def remove(name: str) -> None:
            os.remove(f"{self.daemon.root}/{name}.lock")
            with self.other.watch(name) as watch:
                while next(watch).type != EventType.SYNCED or self.other.status(name).locked:
                    pass

        for number, (end, says) in enumerate(
            (
                (replace, "it was released or replaced by alice@ci-7"),
                (lambda name: self.other.unlock(name, holder="alice@ci-7", reason="done"), "by alice@ci-7: done"),
                (remove, "its lock file was removed or replaced"),
            )
        ):
            with self.subTest(says=says):
                hold = self.client.acquire(f"told/{number}", ttl=60)
                self.assertGreater(hold.lease_left, 0)
                end(hold.name)
                for ask in (hold.release, hold.check, lambda: hold.update({})):
                    with self.assertRaisesRegex(pylok.LostError, says):
                        ask()

    def test_taken_by_another(self) -> None:
        """The cause carries the lock as it is now."""
        hold = self.client.acquire("t", ttl=3)
        self.other.unlock("t", force=True, reason="in the way")
        now_held = self.other.lock("t")
        self.assertTrue(hold.wait_lost(PATIENCE))
        with self.assertRaises(pylok.LostError) as lost:
            hold.release()
        assert lost.exception.lock
        self.assertEqual(lost.exception.lock.token, now_held.token)
        self.assertIn("it was broken by bob@ci-8: in the way", str(lost.exception))
        self.assertEqual(self.other.status("t").token, now_held.token)

    def test_found_lost_at_release(self) -> None:
        """A hold that was broken since its last renewal is lost when it is released."""
        hold = self.client.acquire("f", ttl=60)
        self.other.unlock("f", force=True, reason="in the way")
        with self.assertRaises(pylok.LostError):
            hold.release()
        self.assertTrue(hold.lost)

    def test_error_of_the_block(self) -> None:
        """The block's own exception is not hidden, lost or not."""
        with self.assertRaises(ZeroDivisionError):
            with self.client.acquire("z") as hold:
                self.other.unlock("z", force=True, reason="in the way")
                raise ZeroDivisionError
        with self.assertRaises(ZeroDivisionError):
            with self.client.acquire("z"):
                raise ZeroDivisionError
        self.assertFalse(self.client.status("z").locked)

    def test_closed_client(self) -> None:
        """A hold whose client is closed is lost when its lease ends, not before."""
        client = pylok.Client()
        begun = now()
        hold = client.acquire("c", ttl=0.5)
        client.close()
        self.assertTrue(hold.wait_lost(PATIENCE))
        self.assertGreaterEqual(now() - begun, 0.45)  # but for the margin


class Holders(unittest.TestCase):
    """Who holds a lock that nobody is named for."""

    def test_without_a_name(self) -> None:
        """Users without a name are told apart."""
        with mock.patch("getpass.getuser", side_effect=KeyError), mock.patch("os.getuid", return_value=1234):
            self.assertTrue(default_holder().startswith("uid-1234@"))


class Outages(unittest.TestCase):
    """The daemon goes, and comes back or does not."""

    def setUp(self) -> None:
        """Starts a daemon and makes a client."""
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.client = pylok.Client(self.daemon.address, holder="alice@ci-7")
        self.addCleanup(self.client.close)

    def test_hold_without_a_server(self) -> None:
        """A hold that cannot be renewed is lost before the server may end it."""
        hold = self.client.acquire("h", ttl=0.6)
        self.daemon.kill()
        self.assertTrue(hold.wait_lost(PATIENCE))
        with self.assertRaises(pylok.LostError):
            hold.release()

    def test_hold_over_a_restart(self) -> None:
        """A hold survives a restart of the server within its ttl."""
        with self.client.acquire("h", ttl=5) as hold:
            self.daemon.kill()
            self.daemon.start()
            # A restart gives a lease its whole ttl again, and no more.
            with pylok.Client(self.daemon.address, holder="bob") as other:
                with self.assertRaises(pylok.LockHeldError):
                    other.lock("h", wait=6)
                self.assertFalse(hold.lost)
                self.assertEqual(other.status("h").token, hold.token)

    def test_released_again(self) -> None:
        """A release that never reached the server has done nothing: when it is made again,
        the hold may have been lost."""
        hold = self.client.acquire("again", ttl=60)
        self.daemon.kill()
        with mock.patch("pylok.connection.PATIENCE", 0.0):
            sent = True
            while sent:  # until gRPC knows that the connection is lost
                with self.assertRaises(pylok.UnreachableError) as raised:
                    self.client.status("again")
                sent = raised.exception.sent
            with self.assertRaises(pylok.UnreachableError):
                hold.release()
        self.daemon.start()
        with pylok.Client(self.daemon.address, holder="bob") as other:
            other.unlock("again", force=True, reason="it is stuck")
        with self.assertRaises(pylok.LostError):
            hold.release()

    def test_calls_over_a_restart(self) -> None:
        """Calls that can safely be made again do not notice a restart."""
        patience = mock.patch("pylok.connection.PATIENCE", PATIENCE)
        patience.start()
        self.addCleanup(patience.stop)
        lock = self.client.lock("c")
        for call in (
            lambda: self.assertEqual(self.client.status("c"), lock),
            lambda: self.assertTrue(self.client.lock("d").locked),
            lambda: self.assertTrue(self.client.unlock("c", lock.token).locked),
        ):
            self.daemon.kill()
            starter = threading.Thread(target=self.daemon.start)
            starter.start()
            self.addCleanup(starter.join)  # before the daemon is closed
            call()
            starter.join()

    def test_watch_over_a_restart(self) -> None:
        """A watch goes on where it was: no gap, no repeat, no RESET."""
        with self.client.watch() as watch:
            kinds = [next(watch).type for _ in range(2)]
            self.assertEqual(kinds, [EventType.RESET, EventType.SYNCED])
            wanted = [self.client.lock(f"w/{number}").revision for number in range(5)]
            seen = self.changes(watch, 5)
            for end in (self.daemon.stop, self.daemon.kill):
                end()
                self.daemon.start()
                with pylok.Client(self.daemon.address) as other:
                    for number in range(5):
                        other.unlock(f"w/{number}", force=True, reason="in the way")
                        wanted.append(other.lock(f"w/{number}").revision)
                seen += self.changes(watch, 10)
        locked = [e.revision for e in seen if e.type == EventType.LOCKED]
        self.assertEqual(locked, wanted)
        revisions = [e.revision for e in seen]
        self.assertEqual(revisions, sorted(set(revisions)))
        self.assertNotIn(EventType.RESET, [e.type for e in seen])

    def test_watch_of_a_new_root(self) -> None:
        """When the server does not know what was, the watch says RESET and begins
        anew."""
        for number in range(3):
            self.client.lock(f"w/{number}")
        with self.client.watch("w/*") as watch:
            self.until_synced(watch)
            self.daemon.stop()
            self.daemon.forget()
            self.daemon.start()
            with pylok.Client(self.daemon.address) as other:
                other.lock("w/new")
            events = self.until_synced(watch)
        resets = [i for i, e in enumerate(events) if e.type == EventType.RESET]
        self.assertTrue(resets, events)
        after = [e.lock.name for e in events[resets[-1] :] if e.lock]
        self.assertEqual(after, ["w/new"])

    def test_watch_closed_by_another_thread(self) -> None:
        """close ends the iteration, also while there is no server."""
        for gone in (False, True):
            watch = self.client.watch()
            self.until_synced(watch)
            got: list[list[Event]] = []
            reader = threading.Thread(target=lambda: got.append(list(watch)))
            reader.start()
            if gone:
                self.daemon.kill()
            watch.close()
            reader.join(PATIENCE)
            self.assertEqual(got, [[]])

    def test_watch_without_a_server(self) -> None:
        """A server that was never there is an error, not a silent wait."""
        self.daemon.kill()
        with self.assertRaises(pylok.UnreachableError):
            next(self.client.watch())

    def changes(self, watch: pylok.Watch, count: int) -> list[Event]:
        """Reads that many changes, and RESET if there is one."""
        seen: list[Event] = []
        while sum(e.type != EventType.RESET for e in seen) < count:
            event = next(watch)
            if event.type != EventType.SYNCED:
                seen.append(event)
        return seen

    def until_synced(self, watch: pylok.Watch) -> list[Event]:
        """Reads up to SYNCED."""
        events = [next(watch)]
        while events[-1].type != EventType.SYNCED:
            events.append(next(watch))
        return events


class Forgetful(lock_service_pb2_grpc.LockServiceServicer):  # type: ignore[misc]
    """A server whose first answer to each kind of request is lost on the way."""

    def __init__(self) -> None:
        """Begins with nothing asked."""
        self.calls: list[str] = []
        self.request_ids: set[str] = set()

    def answer(self, kind: str, context: Any) -> None:
        """Loses the first answer to a kind of request."""
        self.calls.append(kind)
        if self.calls.count(kind) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    def Lock(self, request: Any, context: Any) -> Any:
        """Grants the lock."""
        self.request_ids.add(request.request_id)
        self.answer("lock", context)
        return pb.LockResponse(lock=pb.Lock(name=request.name, token=7))

    def Renew(self, request: Any, context: Any) -> Any:
        """Renews the hold."""
        self.calls.append("renew")
        return pb.RenewResponse(lock=pb.Lock(name=request.name, token=7))

    def Unlock(self, request: Any, context: Any) -> Any:
        """Has unlocked the lock the first time."""
        self.answer("unlock", context)
        info = b"\n\x0aNOT_LOCKED\x12\x05pylok"
        kind = b"type.googleapis.com/google.rpc.ErrorInfo"
        detail = b"\n" + bytes([len(kind)]) + kind + b"\x12" + bytes([len(info)]) + info
        status = b"\x08\x05\x1a" + bytes([len(detail)]) + detail
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(grpc.StatusCode.NOT_FOUND, "the lock is free")


class Silent(Forgetful):
    """A server that does not answer the first renewal."""

    def answer(self, kind: str, context: Any) -> None:
        """Loses nothing."""

    def Renew(self, request: Any, context: Any) -> Any:
        """Answers all but the first."""
        self.calls.append("renew")
        if self.calls.count("renew") == 1:
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait(PATIENCE)
        return pb.RenewResponse(lock=pb.Lock(name=request.name, token=7))

    def Unlock(self, request: Any, context: Any) -> Any:
        """Unlocks the lock."""
        return pb.UnlockResponse(lock=pb.Lock(name=request.name, token=7))


class SilentServer(unittest.TestCase):
    """A renewal without an answer is given up in time for another."""

    def setUp(self) -> None:
        """Serves."""
        self.service = Silent()
        server = grpc.server(futures.ThreadPoolExecutor(8))
        lock_service_pb2_grpc.add_LockServiceServicer_to_server(self.service, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())

    def test_hold(self) -> None:
        """With threads."""
        with pylok.Client(self.address) as client, client.acquire("x", ttl=9) as hold:
            while self.service.calls.count("renew") < 2 and not hold.lost:
                time.sleep(0.01)
            self.assertFalse(hold.lost)

    def test_aio_hold(self) -> None:
        """With asyncio."""

        async def run() -> None:
            async with pylok.aio.Client(self.address) as client, client.acquire("x", ttl=9):
                while self.service.calls.count("renew") < 2:
                    await asyncio.sleep(0.01)

        asyncio.run(run())


class LostAnswers(unittest.TestCase):
    """Requests that are sent again after their answer was lost."""

    def setUp(self) -> None:
        """Serves."""
        self.service = Forgetful()
        server = grpc.server(futures.ThreadPoolExecutor(4))
        lock_service_pb2_grpc.add_LockServiceServicer_to_server(self.service, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())

    def test_hold(self) -> None:
        """A hold of unknown age is renewed at once; a lock found free after the second
        unlock was unlocked by the first."""
        with pylok.Client(self.address) as client, client.acquire("x", ttl=60) as hold:
            self.assertEqual(hold.token, 7)
            self.assertEqual(self.service.calls, ["lock", "lock", "renew"])
            self.assertEqual(len(self.service.request_ids), 1)
        self.assertEqual(self.service.calls[3:], ["unlock", "unlock"])

    def test_aio_hold(self) -> None:
        """The same with asyncio."""

        async def run() -> None:
            async with pylok.aio.Client(self.address) as client, client.acquire("x", ttl=60):
                self.assertEqual(self.service.calls, ["lock", "lock", "renew"])
            self.assertEqual(self.service.calls[3:], ["unlock", "unlock"])

        asyncio.run(run())

    def test_unlock_with_a_token(self) -> None:
        """It is done when the hold is found to be over."""
        with pylok.Client(self.address) as client:
            released = client.unlock("x", 7)
        self.assertEqual((released.name, released.token, released.next), ("x", 7, None))
        self.assertEqual(self.service.calls, ["unlock", "unlock"])

        async def run() -> None:
            self.service.calls.clear()
            async with pylok.aio.Client(self.address) as client:
                self.assertEqual((await client.unlock("x", 7)).token, 7)

        asyncio.run(run())

    def test_unlock_without_a_token(self) -> None:
        """It is not sent again: the second could end the hold of somebody else."""
        with pylok.Client(self.address) as client, self.assertRaises(pylok.UnreachableError):
            client.unlock("x")
        self.assertEqual(self.service.calls, ["unlock"])


class Reckoning(unittest.TestCase):
    """The parts that reckon, without a server."""

    def test_position(self) -> None:
        """After what to watch again, at each point of a stream."""

        def event(kind: EventType, revision: int) -> Event:
            return Event(revision, None, kind, EventCause.UNSPECIFIED, None, "", "")

        position = Position(0)
        for kind, revision, want in (
            (EventType.RESET, 0, 0),
            (EventType.LOCKED, 7, 0),  # the present state, not yet whole
            (EventType.LOCKED, 3, 0),
            (EventType.SYNCED, 9, 9),
            (EventType.UNLOCKED, 12, 12),
            (EventType.SYNCED, 15, 15),
            (EventType.RESET, 0, 0),
            (EventType.LOCKED, 14, 0),
            (EventType.SYNCED, 20, 20),
        ):
            position.passed(event(kind, revision))
            self.assertEqual(position.after_revision, want)
        position = Position(4)
        position.passed(event(EventType.UPDATED, 6))
        self.assertEqual(position.after_revision, 6)

    def test_lease(self) -> None:
        """A third of the life to the next renewal, never more than is left."""
        sent = now()
        lease = Lease(30.0, sent, 0.0)
        self.assertAlmostEqual(lease.pause(), 10, delta=1)
        lease.failed()
        self.assertEqual(lease.pause(), 1.0)
        lease.renewed(sent - 29)
        self.assertAlmostEqual(lease.remaining(), 30, delta=1)
        self.assertAlmostEqual(Lease(30.0, sent).remaining(), 27, delta=1)
        self.assertAlmostEqual(Lease(30.0, sent).left(), 30, delta=1)
        self.assertAlmostEqual(Lease(30.0, sent, 15).pause(), 5, delta=1)
        for margin in (-1, 15.1):
            with self.assertRaises(ValueError):
                Lease(30.0, sent, margin)
        old = Lease(30.0, sent - 29.9, 0.0)
        self.assertEqual(old.pause(), 0)
        old.failed()
        self.assertLess(old.pause(), 0.2)

    def test_unknown_numbers(self) -> None:
        """What a newer server may send has a name here."""
        self.assertIs(EventType(99), EventType.UNSPECIFIED)
        self.assertIs(EventCause(99), EventCause.UNSPECIFIED)
