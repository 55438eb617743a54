"""The same random sequences through a model of the original and through pylok."""

from __future__ import annotations

import collections
import copy
import os
import random
import unittest
from concurrent import futures
from typing import Any

import yaml

import pylok
from pylok.data import RESERVED_KEYS
from tests.daemon import DaemonTest
from tests.model import MESSAGES, Failure, Model

SEQUENCES = 1000

WORDS = [
    "App1",
    "server-cluster3w1-2",
    "Locking App1 on server-cluster3w1-2 for canary deployment",
    "2019-12-19 09:26:03.478039",
    "2019-12-20",
    "yes",
    "No",
    "null",
    "~",
    "",
    " ",
    "1",
    "1e3",
    "0x1F",
    "1:30",
    "012",
    "- a",
    "a: b",
    "# no comment",
    "two\nlines\n",
    "a tab\there",
    "trailing ",
    "'quoted' \"twice\"",
    "%",
    "*alias",
    "&anchor",
    "!tag",
    "{}",
    "grüße, 你好, 🔒",
    "\x85\u2028\ufeff",
    "=",
    "<<",
]
KEYS = ["msg", "data", "contact", "contact_email", "datetime", "status", "yes", "1", "a b", "naïve", "n"]


def random_value(r: random.Random, depth: int = 0) -> Any:
    """Makes a value that comes back from YAML and from the service alike."""
    kind = r.randrange(9 if depth < 4 else 6)
    if kind < 2:
        return r.choice(WORDS)
    if kind == 2:
        return r.choice([0, 1, -1, 80, 443, 2**31, 2**53, -(2**53), r.randrange(10**12)])
    if kind == 3:
        return r.choice([0.5, -1.25, 1e-7, 3.141592653589793, r.random()])
    if kind == 4:
        return r.random() < 0.5
    if kind == 5:
        return None
    if kind == 6:
        return [random_value(r, depth + 1) for _ in range(r.randrange(4))]
    return {r.choice(KEYS): random_value(r, depth + 1) for _ in range(r.randrange(4))}


def random_data(r: random.Random) -> dict[str, Any]:
    """Makes the lock_data of a call."""
    data = {r.choice(KEYS): random_value(r) for _ in range(r.randrange(5))}
    if r.random() < 0.3:
        data["lock_action"] = r.choice(["lock", "status", "unlock", "other"])
    if r.random() < 0.1:
        data["lock_file_location"] = r.choice([None, "/somewhere/else.lock"])
    if r.random() < 0.2:
        data["expire"] = r.choice(["2019-12-20 00:00:00", "2999-12-31 00:00:00", "tomorrow", 5])
    return data


class Differential(DaemonTest):
    """Two worlds, and nothing to tell them apart by."""

    def test_sequences(self) -> None:
        """Same results, same dictionaries, same exceptions."""
        seed = int(os.environ.get("PYLOK_TEST_SEED") or random.randrange(2**32))
        print(f"differential: PYLOK_TEST_SEED={seed}", flush=True)
        outcomes: collections.Counter[str] = collections.Counter()

        def run(sequence: int) -> collections.Counter[str]:
            directory = f"{self.daemon.root}/seq{sequence}"
            try:
                return self.run_sequence(random.Random(f"{seed}/{sequence}"), directory)
            except Exception as error:
                raise AssertionError(f"PYLOK_TEST_SEED={seed}, sequence {sequence}") from error

        # Side by side, as each waits for the disk most of the time.
        with futures.ThreadPoolExecutor(8) as pool:
            for counted in pool.map(run, range(SEQUENCES)):
                outcomes += counted
        print(f"differential: {SEQUENCES} sequences, outcomes {dict(sorted(outcomes.items()))}")
        for outcome in ("lock", "status", "unlock", "LockFilePresentError", "LockActionError"):
            self.assertGreater(outcomes[outcome], SEQUENCES / 10, outcome)

    def run_sequence(self, r: random.Random, directory: str) -> collections.Counter[str]:
        """Does one sequence of calls in both worlds, and counts what came of them."""
        model, outcomes = Model(), collections.Counter[str]()
        kept: tuple[dict[str, Any], dict[str, Any]] = ({}, {})  # dictionaries used again
        for step in range(r.randrange(3, 12)):
            # With its slash, without, and one below; the model needs the slash.
            below = directory + r.choices(["/", "/below/"], [4, 1])[0]
            name = r.choice(["a", "b"])
            given = below.removesuffix("/") if r.random() < 0.3 else below
            if r.random() < 0.2:
                function = r.choice(["is_locked", "ensure_lock", "ensure_unlock"])
                path = below + name + ".lock"
                want = outcome_of(getattr(model, function), path)
                got = outcome_of(getattr(pylok, function), path)
                self.assertEqual(got, want, f"step {step}: {function}({path!r})")
                continue
            action = r.choices(["lock", "unlock", "status", "bogus", None], [40, 30, 25, 3, 2])[0]
            flags = {}
            if r.random() < 0.4:
                flags["ensure_unlock_state"] = r.random() < 0.8
            if r.random() < 0.4:
                flags["ensure_lock_state"] = r.random() < 0.8
            if r.random() < 0.5:
                data = random_data(r)
                kept = (data, copy.deepcopy(data))
            how = r.randrange(4)
            if how == 0:
                arguments: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
                named: Any = {"lock_action": action} if action else {}
            else:
                arguments = (kept[0],), (kept[1],)
                named = {"lock_action": action}
            short = r.random() < 0.3
            real_flags = {k.removesuffix("_state") if short else k: v for k, v in flags.items()}
            want = outcome_of(model.lock, below, name, *arguments[0], **named, **flags)
            got = outcome_of(pylok.lock, given, name, *arguments[1], **named, **real_flags)
            call = f"step {step}: lock({given!r}, {name!r}, {arguments[1]!r}, {named}, {real_flags})"
            self.assertEqual(got, want, call)
            self.assertEqual(exactly(kept[1]), exactly(kept[0]), call)
            outcomes[got[0]] += 1
        for path, text in model.files.items():
            with open(path, encoding="utf-8") as file:
                self.assertEqual(users_own(file.read()), users_own(text), path)
        return outcomes


def users_own(text: str) -> str:
    """Returns what a lock file says, without what only the library or the server writes."""
    document = yaml.safe_load(text)
    return exactly({k: v for k, v in document.items() if k not in RESERVED_KEYS})


def outcome_of(function: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    """Calls a function and says all that its caller can see."""
    try:
        result = function(*arguments, **named)
    except Failure as error:
        return error.args
    except Exception as error:  # what it must be is compared with what it is
        return type(error).__name__, str(error)
    if isinstance(result, dict):
        same = len(arguments) < 3 or result is arguments[2]
        return str(result["lock_action"]), exactly(result) + f"the caller's own: {same}"
    return "a " + type(result).__name__, str(result)


def exactly(value: Any) -> str:
    """Returns a text that differs when values or their types do."""
    return yaml.dump(value, allow_unicode=True)


class Messages(unittest.TestCase):
    """The exceptions by themselves."""

    def test_default_messages(self) -> None:
        """Each has the original's message."""
        for name, message in MESSAGES.items():
            self.assertEqual(str(getattr(pylok, name)()), message)
            self.assertNotIsInstance(getattr(pylok, name)(), pylok.Error)
