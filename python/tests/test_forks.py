"""A client, a hold and a watch belong to the process that made them."""

from __future__ import annotations

import os
import subprocess
import sys

from pylok import Client, EventType
from tests.daemon import PYTHON_DIRECTORY, DaemonTest

ROUNDS = 10

COMMON = """
import multiprocessing, os, sys, threading
import pylok, pylok.aio

def refuses(*calls):
    for call in calls:
        try:
            call()
        except pylok.ForkedError as error:
            assert "forked" in str(error), error
        else:
            raise AssertionError(f"{call} did something")
"""

SYNC = COMMON + """
client = pylok.Client()
watch = client.watch("x")
assert next(watch).type == pylok.EventType.RESET
locks = client.acquire_set(["s/1", "s/2"], ttl=30)
for number in range(int(sys.argv[1])):
    with client.acquire("x", ttl=30) as hold:
        child = os.fork()
        if child == 0:
            with client, watch:
                refuses(hold.__enter__, hold.check, lambda: hold.lost, hold.wait_lost, hold.release, lambda: hold.update({}))
                refuses(locks.__enter__, locks.check, locks.wait_lost, locks.release, hold.leave)
                refuses(lambda: client.lock("y"), lambda: client.acquire("y"), lambda: client.status("x"))
                refuses(lambda: client.acquire_set(["y"]), lambda: client.adopt("x", hold.token))
                refuses(client.info, lambda: list(client.list()), lambda: client.unlock("x"))
                refuses(lambda: next(watch), lambda: client.watch(), pylok.Client)
                assert hold.token and hold.name == "x"
            watch.close()
            locks.__exit__(None, None, None)
            client.close(release_all=True)
            sys.exit(7)  # through the `with` of the parent
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        hold.check()
        assert client.status("x").token == hold.token
    assert not client.status("x").locked
    assert not client.lock("y").token == 0
    client.unlock("y")
locks.check()
locks.release()
assert next(watch).type == pylok.EventType.SYNCED
watch.close()
client.close()
"""

MULTIPROCESSING = COMMON + """
def work(client, hold):
    refuses(hold.check, client.info)
    hold.__exit__(None, None, None)

fork = multiprocessing.get_context("fork")
with pylok.Client() as client:
    for number in range(int(sys.argv[1])):
        with client.acquire("x", ttl=30) as hold:
            process = fork.Process(target=work, args=(client, hold))
            process.start()
            process.join()
            assert process.exitcode == 0, process.exitcode
            hold.check()
        assert not client.status("x").locked
"""

AIO = COMMON + """
import asyncio

async def main():
    client = pylok.aio.Client()
    watch = client.watch("x")
    assert (await anext(watch)).type == pylok.EventType.RESET
    for number in range(int(sys.argv[1])):
        async with client.acquire("x", ttl=30) as hold:
            child = os.fork()
            if child == 0:
                refuses(hold.check, lambda: hold.lost, client.watch)
                for call in (client.info, lambda: anext(watch), hold.__aenter__, hold.release, lambda: client.lock("y"), hold.wait_lost):
                    try:
                        await call()
                    except pylok.ForkedError:
                        continue
                    raise AssertionError(call)
                await watch.close()
                sys.exit(7)  # through the `async with` of the parent
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            hold.check()
        assert not (await client.status("x")).locked
    assert (await anext(watch)).type == pylok.EventType.SYNCED
    await watch.close()
    await client.close()

asyncio.run(main())
"""


HELPED = COMMON + """
import random, signal

root = sys.argv[2]
pylok.lock(root, "held", lock_action="lock")
child = os.fork()
if child:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted = 0
for number in range(1000):
    if interrupted == int(sys.argv[1]):
        break
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1e-3))
        for _ in range(3):
            pylok.is_locked(f"{root}/held.lock")
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    assert pylok.is_locked(f"{root}/held.lock")
    assert not pylok.is_locked(f"{root}/free.lock")
    assert pylok.lock(root, "held")["lock_file_status"] == "locked"
assert interrupted
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert pylok.is_locked(f"{root}/held.lock")
os.killpg(os.getpgid(pylok.original._client()._stub._process.pid), signal.SIGINT)  # a Ctrl-C is for all
assert pylok.is_locked(f"{root}/held.lock")
"""


class Forks(DaemonTest):
    maxDiff = None
    """Each program forks while it holds a lock."""

    def run_program(self, program: str) -> None:
        """Runs it, and sees in the history that the parent alone did what was done."""
        with Client() as client:
            first = client.info().revision
            done = subprocess.run(
                [sys.executable, "-c", program, str(ROUNDS)],
                env=dict(os.environ, PYTHONPATH=PYTHON_DIRECTORY),
                timeout=120,
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.stderr, "")
            self.assertEqual(done.returncode, 0)
            kinds = [event.type for event in client.history("x", after_revision=first)]
            self.assertEqual(kinds, [EventType.LOCKED, EventType.UNLOCKED] * ROUNDS)

    def test_fork(self) -> None:
        """os.fork."""
        self.run_program(SYNC)

    def test_multiprocessing(self) -> None:
        """The children of multiprocessing, where they are forked."""
        self.run_program(MULTIPROCESSING)

    def test_interrupted_helper(self) -> None:
        """The original's functions in a child: an interrupted call leaves no answer
        behind that the next one takes for its own."""
        done = subprocess.run(
            [sys.executable, "-c", HELPED, str(ROUNDS), self.daemon.root],
            process_group=0,
            env=dict(os.environ, PYTHONPATH=PYTHON_DIRECTORY),
            timeout=120,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.returncode, 0)

    def test_aio(self) -> None:
        """os.fork in an event loop."""
        self.run_program(AIO)
