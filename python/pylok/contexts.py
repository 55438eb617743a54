"""The config file, which has servers under names; `pylok help context` tells of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

PATHS = ("ca", "cert", "key", "token_file")
"""The keys of a context that are paths."""

SWITCHES = ("tls", "insecure")
"""Those that are true or false."""

KEYS = (
    "address",
    "tls",
    "ca",
    "cert",
    "key",
    "tls_min_version",
    "token_file",
    "ci_token",
    "audience",
    "insecure",
    "holder",
)
"""All of them."""

_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"


def config_path() -> str:
    """Returns where the config file is; empty: nowhere."""
    for variable, *parts in (("XDG_CONFIG_HOME",), ("HOME", ".config")):
        directory = os.environ.get(variable, "")
        if os.path.isabs(directory):
            return os.path.join(directory, *parts, "pylok", "config.yaml")
    return ""


class Contexts:
    """What the config file has."""

    def __init__(self) -> None:
        """Reads the file; one that is not there has no contexts. ValueError says what is
        wrong in it, by its line."""
        self.path = config_path()
        self.default = ""
        """The name of the context that counts unless told otherwise; empty: none."""
        self._contexts: dict[str, dict[str, str]] = {}
        try:
            if self.path:
                with open(self.path, "rb") as file:
                    self._parse(file.read())
        except FileNotFoundError:
            pass

    def get(self, name: str) -> dict[str, str]:
        """Returns what a context has, by key. Paths are absolute."""
        if name in self._contexts:
            return self._contexts[name]
        where = f"in {self.path or 'a config file'}"
        where = where if self._contexts else f"and no other {where}"
        raise ValueError(f"there is no context {name!r} {where}")

    def _parse(self, text: bytes) -> None:
        import yaml  # here, since most programs have no such file

        try:
            documents = list(yaml.compose_all(text.decode("utf-8-sig"), Loader=yaml.SafeLoader))
        except UnicodeDecodeError as error:
            raise self._problem(text[: error.start].count(b"\n"), "it is not UTF-8") from None
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            raise self._problem(mark.line, str(error.problem)) from None
        except yaml.reader.ReaderError as error:
            before = text.decode("utf-8-sig")[: error.position]
            raise self._problem(before.count("\n"), "it has a character that YAML has not") from None
        if len(documents) > 1:
            line = documents[1].start_mark.line
            raise self._problem(line, "the file has more than one document")
        if not documents or _is_null(documents[0]):
            return
        default: Any = None
        for key, value in self._each(documents[0], "the file"):
            if key == "default":
                default, self.default = value, self._text(value)
            elif key == "contexts":
                for name, context in self._each(value, "contexts"):
                    self._contexts[name] = self._context(name, context)
            else:
                problem = f"{key!r} is no key here; there are default and contexts"
                raise self._problem(value.start_mark.line, problem)
        if default is not None and self.default not in self._contexts:
            problem = f"default is {self.default!r}, and contexts has none of that name"
            raise self._problem(default.start_mark.line, problem)

    def _context(self, name: str, node: Any) -> dict[str, str]:
        if not name:
            raise self._problem(node.start_mark.line, "a context needs a name")
        context: dict[str, str] = {}
        for key, value in self._each(node, f"the context {name}"):
            line = value.start_mark.line
            if key not in KEYS:
                problem = f"{key!r} is no key of a context; there are {', '.join(KEYS)}"
                raise self._problem(line, problem)
            text = self._text(value)
            if key in PATHS and text:
                text = self._absolute(text)
            # YAML 1.1, which is PyYAML's, has yes and no too, and other programs do not.
            if key in SWITCHES and (value.tag != _BOOL or text.lower() not in ("true", "false")):
                raise self._problem(line, f"{key} can be true or false")
            context[key] = text
        return context

    def _each(self, node: Any, what: str) -> Iterator[tuple[str, Any]]:
        """Yields keys and values of a mapping; null is one that has nothing yet."""
        if _is_null(node):
            return
        if node.id != "mapping":
            problem = f"{what} must be a mapping of keys and values"
            raise self._problem(node.start_mark.line, problem)
        seen = set()
        for key, value in node.value:
            if key.id != "scalar" or key.value in seen:
                what = repr(key.value) if key.id == "scalar" else "this"
                problem = f"{what} is there twice, or is no key"
                raise self._problem(key.start_mark.line, problem)
            seen.add(key.value)
            yield key.value, value

    def _text(self, node: Any) -> str:
        if node.id != "scalar" or _is_null(node):
            raise self._problem(node.start_mark.line, "the value must be one text")
        return str(node.value)

    def _problem(self, line: int, problem: str) -> ValueError:
        """Makes the error for a line, from 0."""
        return ValueError(f"the config file: {self.path}, line {line + 1}: {problem}")

    def _absolute(self, path: str) -> str:
        """Returns a path of the file: ~ is the home directory, and what is relative is so
        to the directory of the file."""
        if path == "~" or path.startswith("~/"):
            return os.path.normpath(os.environ.get("HOME", "") + path[1:])
        return os.path.normpath(os.path.join(os.path.dirname(self.path), path))


def _is_null(node: Any) -> bool:
    return bool(node.id == "scalar" and node.tag == _NULL)
