"""The original's functions where they meet the service: directories, values, holds
of others, files by hand, processes."""

from __future__ import annotations

import asyncio
import datetime
import enum
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

import grpc
import yaml

import pylok
import pylok.aio
from tests.daemon import PYTHON_DIRECTORY, Daemon, DaemonTest


class Directories(DaemonTest):
    """A directory is one at or under the server's root."""

    def test_forms_of_one_directory(self) -> None:
        """All forms mean the same lock, and the result has the form that was given."""
        root = self.daemon.root
        link = os.path.join(os.path.dirname(root), "link")
        os.symlink(root, link)
        pylok.lock(root, "forms", lock_action="lock")
        relative = os.path.relpath(root)
        for directory in (root, root + "/", link, f"{root}/x/..", relative, pathlib.Path(root)):
            with self.subTest(directory=directory):
                found = pylok.lock(directory, "forms")
                text = os.fspath(directory)
                path = text + ("" if text.endswith("/") else "/") + "forms.lock"
                want = {
                    "lock_file_location": path,
                    "lock_file_status": "locked",
                    "lock_action": "status",
                }
                self.assertEqual(found, want)
                self.assertTrue(pylok.is_locked(path))
                self.assertTrue(pylok.is_locked(pathlib.Path(path)))

    def test_below_the_root(self) -> None:
        """Directories below are made, as the original makes them."""
        path = f"{self.daemon.root}/lb/west/x.lock"
        pylok.lock(f"{self.daemon.root}/lb/west", "x", lock_action="lock")
        self.assertTrue(os.path.exists(path))
        self.assertEqual(pylok.Client().status("lb/west/x").lock_file_location, path)

    def test_outside(self) -> None:
        """A clear error, and nothing else."""
        data: dict[str, Any] = {"lock_action": "lock"}
        for directory in ("/elsewhere/locks/", self.daemon.root + "-not", "/", "", self.daemon.root + "/.."):
            with self.subTest(directory=directory):
                for action in ("lock", "unlock", "status"):
                    with self.assertRaisesRegex(pylok.DirectoryError, f"not under {self.daemon.root}, .* server at {self.daemon.address}"):
                        pylok.lock(directory, "x", data, action)
        self.assertEqual(data, {"lock_action": "lock"})
        with self.assertRaises(pylok.DirectoryError):
            pylok.is_locked("/elsewhere/x.lock")

    def test_what_is_no_lock_file(self) -> None:
        """is_locked is False where there can be no lock file, as the original's is."""
        for path in (None, 7, self.daemon.root, self.daemon.root + "/x", b"/x.lock"):
            self.assertIs(pylok.is_locked(path), False, path)
        with self.assertRaises(pylok.InvalidNameError):
            pylok.lock(self.daemon.root, "no blanks", lock_action="lock")

    def test_no_server(self) -> None:
        """Without a server nothing is known, and nobody is told that a lock is free."""
        with mock.patch.dict(os.environ, PYLOK_ADDRESS="127.0.0.1:1"), mock.patch(
            "pylok.connection.PATIENCE", 0.2
        ):
            for call in (
                lambda: pylok.is_locked(self.daemon.root + "/x.lock"),
                lambda: pylok.lock(self.daemon.root, "x", lock_action="unlock"),
            ):
                with self.assertRaisesRegex(pylok.UnreachableError, "127.0.0.1:1.*PYLOK_ADDRESS"):
                    call()

    def test_configure(self) -> None:
        """configure goes before the environment, and can be undone."""
        self.addCleanup(pylok.configure)
        with mock.patch.dict(os.environ, PYLOK_ADDRESS="127.0.0.1:1"):
            pylok.configure(self.daemon.address)
            self.assertEqual(pylok.lock(self.daemon.root, "y")["lock_file_status"], "unlocked")
        pylok.configure("locks.example.com:5625")
        with self.assertRaisesRegex(ValueError, "another machine"):
            pylok.lock(self.daemon.root, "y")


class Encrypted(unittest.TestCase):
    """A server that speaks TLS."""

    def test_tls(self) -> None:
        """The original's functions with one line more, in a forked process too; and a
        Client."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        certificate, key = (os.path.join(directory.name, name) for name in ("cert", "key"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-days", "2", "-subj", "/CN=pylok", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-keyout", key, "-out", certificate],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        daemon = Daemon("--tls-cert", certificate, "--tls-key", key)
        self.addCleanup(daemon.close)
        program = f"""
import os, pylok
roots = open({certificate!r}, "rb").read()
pylok.configure({daemon.address!r}, tls=True, root_certificates=roots)
pylok.lock({daemon.root!r}, "x", lock_action="lock")
child = os.fork()
assert pylok.is_locked({daemon.root!r} + "/x.lock")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
        environment = dict(os.environ, PYTHONPATH=PYTHON_DIRECTORY)
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
        with open(certificate, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        with pylok.Client(daemon.address, credentials=credentials) as client:
            self.assertTrue(client.status("x").locked)
        plain = Daemon()
        self.addCleanup(plain.close)
        strangers = grpc.ssl_channel_credentials()  # that do not vouch for the daemon
        for address, given, says in (
            (daemon.address, None, "speaks TLS: give credentials"),
            (plain.address, credentials, "does not speak TLS: leave credentials out"),
            (daemon.address, strangers, "something listens at .*, but no connection comes about: .*certificate"),
        ):
            with self.subTest(says=says):
                with pylok.Client(address, credentials=given) as client:
                    with self.assertRaisesRegex(pylok.UnreachableError, says):
                        client.info()
                    with self.assertRaisesRegex(pylok.UnreachableError, says):
                        next(client.watch())
                asyncio.run(self.refused(address, given, says))

    async def refused(self, address: str, credentials: Any, says: str) -> None:
        """The same with asyncio."""
        async with pylok.aio.Client(address, credentials=credentials) as client:
            with self.assertRaisesRegex(pylok.UnreachableError, says):
                await client.info()
            with self.assertRaisesRegex(pylok.UnreachableError, says):
                await anext(client.watch())


class Word(str, enum.Enum):
    """A str that is more than a str."""

    MAINT = "MAINT"


class Values(DaemonTest):
    """What becomes of Python values: the table of pylok.data."""

    def test_values(self) -> None:
        """Each comes back as the table says, and the caller's stays what it was."""
        zone = datetime.timezone(datetime.timedelta(hours=2))
        moment = datetime.datetime(2019, 12, 19, 9, 26, 3, 478039)
        for sent, want in (
            (2.0, 2),
            (-0.5, -0.5),
            (1e300, 1e300),
            (2**53, 2**53),
            (2**53 + 1, "9007199254740993"),
            (-(10**30), "-1" + "0" * 30),
            (True, True),
            (Word.MAINT, "MAINT"),
            (datetime.date(2019, 12, 20), "2019-12-20"),
            (moment, "2019-12-19 09:26:03.478039"),
            (moment.replace(microsecond=0, tzinfo=zone), "2019-12-19T09:26:03+02:00"),
            ((1, (2,)), [1, [2]]),
            ({1: "a", "t": 2, None: 3, 2.5: 4}, {"1": "a", "t": 2, "null": 3, "2.5": 4}),
            ({False: {datetime.date(2020, 1, 2): ()}}, {"false": {"2020-01-02": []}}),
            ({1e16: 1, 1e-5: 2, 1.5e-7: 3}, {"1.0e+16": 1, "1.0e-05": 2, "1.5e-07": 3}),
            ({float("inf"): 1, float("-inf"): 2, float("nan"): 3}, {".inf": 1, "-.inf": 2, ".nan": 3}),
        ):
            with self.subTest(sent=sent):
                data = {"value": sent}
                self.assertIs(pylok.lock(self.daemon.root, "v", data, "lock"), data)
                self.assertIs(data["value"], sent)
                got = pylok.lock(self.daemon.root, "v")["value"]
                self.assertEqual((got, type(got)), (want, type(want)))
                with open(f"{self.daemon.root}/v.lock", encoding="utf-8") as file:
                    self.assertEqual(yaml.safe_load(file)["value"], want)

    def test_values_that_no_lock_file_holds(self) -> None:
        """The error says where it is; unlock never looks at the data."""
        deep: Any = 1
        for _ in range(5000):
            deep = {"a": [deep]}
        deeper: list[Any] = []
        for _ in range(31):
            deeper = [deeper]
        endless: list[Any] = []
        endless.append(endless)
        for sent, kind, message in (
            ({1, 2}, TypeError, r"data\['value'\] is a set, which a lock file cannot hold"),
            ([{"x": b""}], TypeError, r"data\['value'\]\[0\]\['x'\] is a bytes"),
            ({(1, 2): 3}, TypeError, r"data\['value'\] has a key that is a tuple"),
            ({1: 2, "1": 3}, ValueError, r"two keys that both become '1'"),
            (float("nan"), ValueError, "numbers must be finite"),
            (["\udcff"], ValueError, r"data\['value'\]\[0\] is no text in Unicode"),
            ({"\udcff": 1}, ValueError, r"data\['value'\] has a key that is no text in Unicode"),
            (deep, ValueError, r"data\['value'\]\['a'\]\[0\]\['a'\].* is nested deeper than 32 levels"),
            (endless, ValueError, r"data\['value'\]\[0\]\[0\].* is nested deeper than 32 levels"),
            (deeper, pylok.InvalidArgumentError, "nested deeper than 32 levels"),
            ("x" * 70_000, pylok.DataTooLargeError, "64 KiB|65536"),
        ):
            with self.subTest(message=message):
                with self.assertRaisesRegex(kind, message):
                    pylok.lock(self.daemon.root, "w", {"value": sent}, "lock")
                self.assertFalse(pylok.is_locked(self.daemon.root + "/w.lock"))
                pylok.lock(self.daemon.root, "w", lock_action="lock")
                pylok.lock(self.daemon.root, "w", {"value": sent}, "unlock")
                self.assertFalse(pylok.is_locked(self.daemon.root + "/w.lock"))

    def test_actions(self) -> None:
        """The enum's members do as their values."""
        data = pylok.lock(self.daemon.root, "e", lock_action=pylok.LockAction.LOCK)
        self.assertEqual(data["lock_action"], "lock")
        for action in (None, "LOCK", [], 1):
            with self.assertRaises(pylok.LockActionError):
                pylok.lock(self.daemon.root, "e", lock_action=action)  # type: ignore[arg-type]

    def test_default_is_not_shared(self) -> None:
        """The original's mutable default is not kept."""
        pylok.lock(self.daemon.root, "d", {"a": 1}, "lock")
        self.assertIsNot(pylok.lock(self.daemon.root, "d"), pylok.lock(self.daemon.root, "d"))
        self.assertNotIn("a", pylok.lock(self.daemon.root, "other"))


class Others(DaemonTest):
    """Beside others who use the same directory."""

    def test_holds_with_a_holder(self) -> None:
        """They are neither overwritten nor unlocked, and the cause says whose they are."""
        with pylok.Client(holder="alice@ci-7") as alice:
            hold = alice.lock("named", data={"msg": "mine"})
            for flag in (False, True):
                with self.assertRaises(pylok.LockFilePresentError) as present:
                    pylok.lock(self.daemon.root, "named", {}, "lock", ensure_unlock_state=flag)
                self.assertIsInstance(present.exception.__cause__, pylok.LockHeldError)
            with self.assertRaisesRegex(pylok.LockFileNotPresentForRemoval, "alice@ci-7"):
                pylok.lock(self.daemon.root, "named", {}, "unlock")
            self.assertEqual(pylok.lock(self.daemon.root, "named")["msg"], "mine")
            self.assertEqual(alice.status("named").token, hold.token)

    def test_expire(self) -> None:
        """The data key expire ends the hold: the scraper that the README leaves to the
        user."""
        with pylok.Client() as client, client.watch("leased") as watch:
            until(watch, pylok.EventType.SYNCED)
            soon = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=0.4)
            pylok.lock(self.daemon.root, "leased", {"expire": soon}, "lock", ensure_unlock=True)
            until(watch, pylok.EventType.LOCKED)
            event = until(watch, pylok.EventType.UNLOCKED)
            self.assertEqual(event.cause, pylok.EventCause.EXPIRED)
        self.assertFalse(pylok.is_locked(self.daemon.root + "/leased.lock"))

    def test_closing_message(self) -> None:
        """lock_data of unlock reaches those who watch."""
        with pylok.Client() as client, client.watch("canary") as watch:
            until(watch, pylok.EventType.SYNCED)
            data = pylok.lock(self.daemon.root, "canary", {"status": "MAINT"}, "lock")
            data["status"] = "READY"
            pylok.lock(self.daemon.root, "canary", data, "unlock")
            event = until(watch, pylok.EventType.UNLOCKED)
            assert event.lock is not None
            self.assertEqual(event.lock.data, {"status": "READY"})

    def test_files_of_the_original(self) -> None:
        """docs/migration.md: scripts that write files and those that call the service
        see each other's locks."""
        path = f"{self.daemon.root}/old/server-1.lock"
        with pylok.Client() as client, client.watch("old/*") as watch:
            until(watch, pylok.EventType.SYNCED)
            # As the original does it, while the daemon runs.
            os.makedirs(os.path.dirname(path), exist_ok=True)
            document = {
                "msg": "by hand",
                "n": {"port": 80},
                "day": datetime.date(2019, 12, 20),
                "lock_file_location": path,
                "lock_file_status": "locked",
            }
            with open(path, "w", encoding="utf-8") as file:
                yaml.dump(document, file)
            # It may be seen half written first, and then as it is.
            event = until(watch, pylok.EventType.LOCKED)
            self.assertEqual(event.cause, pylok.EventCause.FILE)
            while not event.lock or "day" not in event.lock.data:
                event = next(watch)
            with self.assertRaises(pylok.LockFilePresentError):
                pylok.lock(self.daemon.root + "/old", "server-1", {}, "lock", ensure_unlock_state=True)
            want = {
                "msg": "by hand",
                "n": {"port": 80},
                "day": "2019-12-20",
                "lock_file_location": path,
                "lock_file_status": "locked",
                "lock_action": "status",
            }
            self.assertEqual(pylok.lock(self.daemon.root + "/old", "server-1"), want)
            os.remove(path)
            self.assertEqual(until(watch, pylok.EventType.UNLOCKED).cause, pylok.EventCause.FILE)
            # And the other way round: what the service writes, the original reads.
            pylok.lock(self.daemon.root + "/old", "server-1", {"msg": "by call"}, "lock")
            with open(path, encoding="utf-8") as file:
                read = yaml.safe_load(file)
            self.assertEqual(read["msg"], "by call")
            self.assertEqual(read["lock_file_status"], "locked")
            self.assertEqual(read["lock_file_location"], path)
            os.remove(path)
            until(watch, pylok.EventType.UNLOCKED)
            with self.assertRaises(pylok.LockFileNotPresentError):
                pylok.ensure_lock(path)


def until(watch: pylok.Watch, kind: pylok.EventType) -> pylok.Event:
    """Waits for an event of a type."""
    return next(event for event in watch if event.type == kind)


CONTENDER = """
import sys, pylok
root, number = sys.argv[1:]
for line in sys.stdin:
    try:
        pylok.lock(root, "prize", {"number": number, "round": line.strip()}, "lock", ensure_unlock_state=True)
        print("won", flush=True)
    except pylok.LockFilePresentError:
        print("lost", flush=True)
"""

FORKER = """
import os, sys, pylok
root = sys.argv[1]
for number in range(10):
    pylok.lock(root, "parent", lock_action="lock")
    child = os.fork()
    if child == 0:
        assert pylok.is_locked(f"{root}/parent.lock")
        pylok.lock(root, f"child-{number}", {"number": number}, "lock")
        try:
            pylok.Client()
        except RuntimeError as error:
            assert "forked" in str(error)
        else:
            raise AssertionError("it could hang")
        try:
            pylok.lock(root, "parent", lock_action="lock", ensure_unlock=True)
        except pylok.LockFilePresentError as error:
            assert error.__cause__.lock.locked
        else:
            raise AssertionError("it is locked")
        sys.exit(0)
    pylok.lock(root, "meanwhile", lock_action="lock")
    assert os.waitpid(child, 0)[1] == 0
    assert pylok.lock(root, f"child-{number}", lock_action="status")["number"] == number
    pylok.lock(root, f"child-{number}", lock_action="unlock")
"""


class Processes(DaemonTest):
    """Many processes at once."""

    CONTENDERS, ROUNDS = 32, 200

    def test_one_winner(self) -> None:
        """Of 32 processes that take one lock with ensure_unlock_state, one gets it."""
        contenders = [self.start(CONTENDER, str(number)) for number in range(self.CONTENDERS)]
        data: dict[str, Any] = {}
        for round_number in range(self.ROUNDS):
            for contender in contenders:
                contender.stdin.write(f"{round_number}\n")
            for contender in contenders:
                contender.stdin.flush()
            answers = [contender.stdout.readline().strip() for contender in contenders]
            self.assertEqual(answers.count("won"), 1, answers)
            self.assertEqual(answers.count("lost"), self.CONTENDERS - 1, answers)
            data = pylok.lock(self.daemon.root, "prize")
            winner = str(answers.index("won"))
            self.assertEqual((data["number"], data["round"]), (winner, str(round_number)))
            pylok.lock(self.daemon.root, "prize", lock_action="unlock")
        for contender in contenders:
            contender.stdin.close()
            self.assertEqual(contender.wait(timeout=30), 0)

    def test_fork(self) -> None:
        """A process that has used the service may fork, and so may use it again."""
        forker = self.start(FORKER)
        self.assertEqual(forker.wait(timeout=120), 0)

    def start(self, program: str, *arguments: str) -> Any:
        """Starts a Python process, which ends with the test."""
        process = subprocess.Popen(
            [sys.executable, "-c", program, self.daemon.root, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=PYTHON_DIRECTORY),
        )

        def end() -> None:
            process.kill()
            process.wait()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.stdout.close()

        self.addCleanup(end)
        return process

    def test_threads(self) -> None:
        """One winner of many threads, too."""
        won: list[int] = []
        together = threading.Barrier(16)

        def contend(number: int) -> None:
            together.wait()
            try:
                pylok.lock(self.daemon.root, "threads", {}, "lock", ensure_unlock_state=True)
                won.append(number)
            except pylok.LockFilePresentError:
                pass

        threads = [threading.Thread(target=contend, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(won), 1)


class Restart(DaemonTest):
    """The service may come and go between calls, and come back as another."""

    def test_restart(self) -> None:
        """A lock outlives a restart; a new root at the same address is noticed."""
        pylok.lock(self.daemon.root, "r", {"a": 1}, "lock")
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(pylok.lock(self.daemon.root, "r")["a"], 1)
        other = Daemon()
        self.addCleanup(other.close)
        other.stop()
        self.daemon.stop()
        other.address = self.daemon.address
        other.start()
        with self.assertRaises(pylok.DirectoryError):
            pylok.is_locked(self.daemon.root + "/r.lock")
        self.assertFalse(pylok.is_locked(other.root + "/r.lock"))
