"""Which server to talk to, how, and as whom: what arguments, variables and the config
file say, and which of them counts."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pylok.contexts import KEYS, SWITCHES, Contexts


@dataclass(frozen=True)
class Found:
    """What a setting is, and who says so."""

    value: str = ""
    by: str = ""
    """Such as PYLOK_CA, or the context."""


class Settings:
    """The settings of one client, by the keys of the config file.

    An argument counts first. A context that is asked for by an argument counts before the
    variables, and any other after them. With an address from elsewhere no context counts
    that was not asked for, nor with PYLOK_ADDRESS one that PYLOK_CONTEXT names, unless it is
    that server's: its credentials go there alone."""

    def __init__(self, *, context: str | None = None, **arguments: str | bool | None) -> None:
        """arguments are the client's, those of them that are settings; None and False: not
        given. ValueError says what must not be."""
        if context == "":
            raise ValueError("context needs a name")
        address = bool(arguments.get("address"))
        name = context or ("" if address else os.environ.get("PYLOK_CONTEXT", ""))
        in_context: dict[str, str] = {}
        if name or not address and not os.environ.get("PYLOK_ADDRESS"):
            contexts = Contexts()
            name = name or contexts.default
            if name:
                in_context = contexts.get(name)
        variable_address = os.environ.get("PYLOK_ADDRESS", "")
        if name and not context and variable_address:
            from pylok.connection import is_same_server  # here, since it needs this module

            if not is_same_server(in_context.get("address", ""), variable_address):
                in_context = {}
        self._found: dict[str, Found] = {}
        for key in KEYS:
            argument = arguments.get(key)
            variable = f"PYLOK_{key.upper()}"
            value = os.environ.get(variable, "")
            if argument is not None and argument is not False:
                self._found[key] = Found("true" if argument is True else argument, key)
            elif key in in_context and (context or not value):
                self._found[key] = Found(in_context[key], f"{key} of the context {name}")
            elif value:
                self._found[key] = Found(value, variable)
        for key in SWITCHES:
            switch = self.of(key)
            if switch.value.lower() not in ("", "0", "1", "true", "false", "t", "f"):
                raise ValueError(f"{switch.by} is {switch.value!r}; it can be true or false")

    def of(self, key: str) -> Found:
        """Returns a setting; an empty one where nobody says anything."""
        return self._found.get(key, Found())

    def has(self, key: str) -> bool:
        """Reports whether somebody says something, and be it the empty text."""
        return key in self._found

    def is_on(self, key: str) -> bool:
        """Returns one that is true or false."""
        return self.of(key).value.lower() in ("1", "true", "t")

    def want_tls(self) -> bool:
        """Reports whether they ask for TLS."""
        if self.of("tls").value:
            return self.is_on("tls")
        return any(self.of(key).value for key in ("ca", "cert", "key"))
