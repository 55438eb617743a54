"""pylok.aio.Client: the same with asyncio."""

from __future__ import annotations

import asyncio
import os
import unittest
from unittest import mock

import pylok
import pylok.aio
from pylok.messages import Event, EventCause, EventType
from tests.daemon import Daemon

PATIENCE = 20.0  # seconds after which a test that waits has failed


class Aio(unittest.IsolatedAsyncioTestCase):
    """Each test has a daemon and a client."""

    def setUp(self) -> None:
        """Starts a daemon."""
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        environment = mock.patch.dict(os.environ, PYLOK_ADDRESS=self.daemon.address)
        environment.start()
        self.addCleanup(environment.stop)

    async def asyncSetUp(self) -> None:
        """Makes clients."""
        self.client = pylok.aio.Client(holder="alice@ci-7")
        self.addAsyncCleanup(self.client.close)
        self.other = pylok.aio.Client(holder="bob@ci-8")
        self.addAsyncCleanup(self.other.close)

    async def test_calls(self) -> None:
        """Each call once."""
        c = self.client
        lock = await c.lock("a/b", data={"port": 80}, ttl=30)
        self.assertEqual((await c.status("a/b")).token, lock.token)
        self.assertEqual((await c.renew("a/b", lock.token, data={"port": 81})).data, {"port": 81})
        self.assertEqual([held.name async for held in c.list("a/*")], ["a/b"])
        with self.assertRaises(pylok.LockHeldError) as refused:
            await self.other.lock("a/b")
        assert refused.exception.lock
        self.assertEqual(refused.exception.lock.token, lock.token)
        self.assertEqual((await c.unlock("a/b", lock.token, reason="done")).data, {"port": 81})
        kinds = [event.type async for event in c.history()]
        self.assertEqual(kinds, [EventType.LOCKED, EventType.UPDATED, EventType.UNLOCKED])
        back = [e.type async for e in c.history(actor="", newest_first=True)]
        self.assertEqual(back, kinds[::-1])
        self.assertEqual([e async for e in c.history(cause=EventCause.FORCED)], [])
        self.assertEqual((await c.info()).root, self.daemon.root)

    async def test_renewal(self) -> None:
        """A hold outlives its ttl, and ends with its block."""
        async with self.client.acquire("h", ttl=2) as hold:
            with self.assertRaises(pylok.LockHeldError):
                await self.other.lock("h", wait=5)
            self.assertFalse(hold.lost)
            self.assertEqual((await hold.update({"n": 2})).data, {"n": 2})
        self.assertFalse((await self.client.status("h")).locked)
        await hold.release()  # a second time
        awaited = await self.client.acquire("h")
        waiting = asyncio.create_task(self.other.lock("h", wait=PATIENCE))
        await awaited.release(data={"status": "READY"})
        self.assertTrue((await waiting).locked)

    async def test_broken(self) -> None:
        """The loss cancels the block, which raises LostError, and the task goes on."""
        told: list[pylok.aio.Hold] = []
        with self.assertRaises(pylok.LostError) as lost:
            async with self.client.acquire("b", ttl=3, on_lost=told.append) as hold:
                await self.other.unlock("b", force=True, reason="in the way")
                await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
        self.assertIsInstance(lost.exception.__cause__, pylok.NotLockedError)
        self.assertIn("it was broken by bob@ci-8: in the way", str(lost.exception))
        assert lost.exception.event
        self.assertEqual(lost.exception.event.actor, "bob@ci-8")
        self.assertTrue(hold.lost)
        self.assertEqual(told, [hold])
        await asyncio.sleep(0)  # a cancellation that was left over would come here
        task = asyncio.current_task()
        assert task and task.cancelling() == 0

    async def test_awaited_hold_is_lost(self) -> None:
        """Without a block nobody is cancelled; the hold tells."""
        hold = await self.client.acquire("b", ttl=3)
        await self.other.unlock("b", force=True, reason="in the way")
        await asyncio.wait_for(hold.wait_lost(), PATIENCE)
        with self.assertRaises(pylok.LostError):
            hold.check()
        with self.assertRaisesRegex(pylok.LostError, "it was broken by bob@ci-8: in the way"):
            await hold.release()

    async def test_cancelled_by_others(self) -> None:
        """A block that somebody cancels stays cancelled, and its lock is unlocked."""
        held = asyncio.Event()

        async def work() -> None:
            async with self.client.acquire("c"):
                held.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await held.wait()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertFalse((await self.client.status("c")).locked)

    async def test_cancelled_waiter(self) -> None:
        """A waiter that is cancelled leaves the queue."""
        await self.other.lock("w")
        waiter = asyncio.create_task(self.client.lock("w", wait=PATIENCE))
        while (await self.other.status("w")).waiters == 0:
            pass
        waiter.cancel()
        while (await self.other.status("w")).waiters > 0:
            pass
        self.assertEqual((await self.other.unlock("w")).holder, "bob@ci-8")
        self.assertFalse((await self.client.status("w")).locked)

    async def test_without_a_server(self) -> None:
        """A hold that cannot be renewed is lost, and the block with it."""
        with self.assertRaises(pylok.LostError):
            async with self.client.acquire("h", ttl=0.6):
                await asyncio.to_thread(self.daemon.kill)
                await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
        with mock.patch("pylok.connection.PATIENCE", 0.2):
            with self.assertRaises(pylok.UnreachableError):
                await self.client.status("h")
            with self.assertRaises(pylok.UnreachableError):
                await anext(self.client.watch())

    async def test_watch_over_a_restart(self) -> None:
        """A watch goes on where it was: no gap, no repeat, no RESET."""
        async with self.client.watch("w/*") as watch:
            kinds = [(await anext(watch)).type for _ in range(2)]
            self.assertEqual(kinds, [EventType.RESET, EventType.SYNCED])
            wanted: list[int] = []
            seen: list[Event] = []
            for number in range(3):
                wanted += [(await self.client.lock(f"w/{number}-{n}")).revision for n in range(5)]
                while len([e for e in seen if e.type == EventType.LOCKED]) < len(wanted):
                    seen.append(await anext(watch))
                await asyncio.to_thread(self.daemon.kill)
                await asyncio.to_thread(self.daemon.start)
        changes = [e for e in seen if e.type != EventType.SYNCED]
        self.assertEqual([e.revision for e in changes], wanted)

    async def test_watch_cancelled_and_closed(self) -> None:
        """A read that was cancelled loses nothing; close ends the iteration."""
        await self.other.lock("before")
        watch = self.client.watch("w/*")
        for _ in range(2):
            await anext(watch)
        reading = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
        reading.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await reading
        revision = (await self.other.lock("w/x")).revision
        event = await anext(watch)
        while event.type == EventType.SYNCED:
            event = await anext(watch)
        self.assertEqual(event.revision, revision)

        async def drain() -> list[Event]:
            return [event async for event in watch if event.type != EventType.SYNCED]

        reading_on = asyncio.create_task(drain())
        await asyncio.sleep(0)
        await watch.close()
        self.assertEqual(await asyncio.wait_for(reading_on, PATIENCE), [])
