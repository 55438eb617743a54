"""The scenarios of the original's README, kept here as original_readme.md."""

from __future__ import annotations

import doctest
import os
import textwrap
from types import SimpleNamespace

import pylok
from tests.daemon import PYTHON_DIRECTORY, DaemonTest

TESTS = os.path.join(PYTHON_DIRECTORY, "tests")


def read(name: str) -> str:
    """Returns the text of a file beside this one."""
    with open(os.path.join(TESTS, name), encoding="utf-8") as file:
        return file.read()


class Readme(DaemonTest):
    """The scenarios run as they stand, but for the directory."""

    def test_load_balancer(self) -> None:
        """The first scenario."""
        self.check(
            "readme_load_balancer.txt",
            # The README leaves these to the reader.
            deploy_to=SimpleNamespace(Server=lambda name: print(f"deployed to {name}")),
            setserverto=SimpleNamespace(ready=lambda name: print(f"{name} is ready")),
        )

    def test_maintenance(self) -> None:
        """The second scenario."""
        self.check("readme_maintenance.txt")

    def test_refused_job(self) -> None:
        """The idiom of docs/migration.md: a job that is refused does not free the lock
        of the one that runs."""
        with open(os.path.join(PYTHON_DIRECTORY, "..", "docs", "migration.md"), encoding="utf-8") as file:
            blocks = file.read().split("\n\n")
        [idiom] = [block for block in blocks if "nightly()" in block and block.startswith("    ")]
        program = compile(
            textwrap.dedent(idiom).replace("/tmp/locks", self.daemon.root), "migration.md", "exec"
        )
        path = f"{self.daemon.root}/x.lock"

        def nightly() -> None:
            for _ in range(2):
                with self.assertRaises(pylok.LockFilePresentError):
                    exec(program, dict(lock=pylok.lock, nightly=self.fail))
                self.assertTrue(pylok.is_locked(path))

        exec(program, dict(lock=pylok.lock, nightly=nightly))
        self.assertFalse(pylok.is_locked(path))

    def check(self, name: str, **names: object) -> None:
        """Runs a scenario, whose words must be the README's."""
        parser, text = doctest.DocTestParser(), read(name)
        readme = " ".join(read("original_readme.md").split())
        examples = parser.get_examples(text)
        self.assertGreater(len(examples), 5)
        for example in examples:
            self.assertIn(" ".join(example.source.split()), readme)
        text = text.replace("/tmp/locks/", self.daemon.root + "/")
        report: list[str] = []
        flags = doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF
        runner = doctest.DocTestRunner(optionflags=flags)
        test = parser.get_doctest(text, dict(names), name, name, 0)
        result = runner.run(test, out=report.append)
        self.assertEqual(result.failed, 0, "".join(report))
        self.assertEqual(result.attempted, len(examples))
