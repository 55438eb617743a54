"""The config file with named contexts, and what counts before what."""

from __future__ import annotations

import os
from unittest import mock

import grpc

import pylok
from pylok import aio, connection, contexts
from pylok.settings import Settings
from tests.test_proof import ProofTest, environment

CONFIG = """# servers
default: prod
contexts:
  prod: {address: "prod.example:1", tls: true, token_file: prod.token, holder: of-prod}
  home:
    address: home.example:1
    tls: true
    token_file: ~/sub/../home.token
    audience: locks
    tls_min_version: 1.2
  open: {address: "localhost:1", insecure: true, holder: ""}
  bare: {ci_token: off}
"""


class Contexts(ProofTest):
    """Tests with a config file."""

    def setUp(self) -> None:
        """Makes the directory of the file, which is the user's."""
        super().setUp()
        os.mkdir(self.path("pylok"))
        environment(XDG_CONFIG_HOME=self.directory, HOME="/home/x")

    def configure(self, text: str) -> str:
        """Writes the file."""
        return self.write("pylok/config.yaml", text)

    def test_precedence(self) -> None:
        """An argument, the context that is asked for, a variable, any other context; and
        that at its own address alone. Both kinds of client choose the same."""
        self.configure(CONFIG)
        prod, home = self.path("pylok/prod.token"), "/home/x/home.token"
        tls = grpc.ssl_channel_credentials()
        of_variable = {"PYLOK_TOKEN_FILE": "/variable"}
        for what, variables, arguments, address, token in (
            ("the default", {}, {}, "prod.example:1", prod),
            ("context", {}, {"context": "home"}, "home.example:1", home),
            ("PYLOK_CONTEXT", {"PYLOK_CONTEXT": "home"}, {}, "home.example:1", home),
            ("context before PYLOK_CONTEXT", {"PYLOK_CONTEXT": "home"}, {"context": "prod"}, "prod.example:1", prod),
            ("a variable before the default", of_variable, {}, "prod.example:1", "/variable"),
            ("a variable before PYLOK_CONTEXT", {**of_variable, "PYLOK_CONTEXT": "home"}, {}, "home.example:1", "/variable"),
            ("context before a variable", {**of_variable, "PYLOK_ADDRESS": "localhost:2"}, {"context": "home"}, "home.example:1", home),
            ("an argument before all", of_variable, {"context": "home", "token_file": "/argument"}, "home.example:1", "/argument"),
            ("address without the default's token", {}, {"address": "localhost:2"}, "localhost:2", None),
            ("address without PYLOK_CONTEXT's token", {"PYLOK_CONTEXT": "home"}, {"address": "localhost:2"}, "localhost:2", None),
            ("address with context", {}, {"address": "x.example:2", "context": "home"}, "x.example:2", home),
            ("PYLOK_ADDRESS without the default's token", {"PYLOK_ADDRESS": "localhost:2"}, {}, "localhost:2", None),
            ("as run hands it on", {"PYLOK_ADDRESS": "home.example:1", "PYLOK_CONTEXT": "home"}, {}, "home.example:1", home),
            ("PYLOK_ADDRESS without PYLOK_CONTEXT's token", {"PYLOK_ADDRESS": "localhost:2", "PYLOK_CONTEXT": "home"}, {}, "localhost:2", None),
            ("credentials", {}, {"credentials": tls}, "prod.example:1", prod),
            ("plaintext", {}, {"context": "open"}, "localhost:1", None),
            ("plaintext by a variable", {"PYLOK_TLS": "0", "PYLOK_CONTEXT": "open", **of_variable}, {}, "localhost:1", "/variable"),
        ):
            for kind in (pylok.Client, aio.Client):
                with self.subTest(what, kind=kind), mock.patch.dict(os.environ, variables):
                    client = kind(**arguments)
                    endpoint = client._endpoint
                    path = endpoint.bearer and endpoint.bearer.source.path
                    self.assertEqual((client.address, path), (address, token))
                    self.assertEqual(endpoint.encrypted, ".example:" in address)
                    if isinstance(client, pylok.Client):
                        client.close()

    def test_holder(self) -> None:
        """It counts as the rest does; the empty one is anonymous."""
        self.configure(CONFIG)
        for variable, arguments, want in (
            ("", {}, "of-prod"),
            ("me", {}, "me"),
            ("me", {"context": "prod"}, "of-prod"),
            ("me", {"context": "open"}, ""),
            ("me", {"context": "home"}, "me"),
            ("", {"context": "home"}, connection.default_holder()),
            ("me", {"context": "prod", "holder": "x"}, "x"),
            ("me", {"holder": ""}, ""),
        ):
            for kind in (pylok.Client, aio.Client):
                with self.subTest(arguments, kind=kind), mock.patch.dict(os.environ, PYLOK_HOLDER=variable):
                    client = kind(**arguments)
                    self.assertEqual(client.holder, want)
                    if isinstance(client, pylok.Client):
                        client.close()

    def test_served(self) -> None:
        """A context is all it takes to be known to a server."""
        path = self.path("pylok.sock")
        self.serve("--socket", path)
        self.configure(
            f"default: bob\ncontexts:\n  alice: {{address: 'unix://{path}', token_file: ../alice.token}}\n"
            f"  bob: {{address: {path}, token_file: {self.path('bob.token')}, tls: true}}\n"
        )
        self.assertEqual(self.caller(), "token:bob")
        self.assertEqual(self.caller(context="alice"), "token:alice")
        os.environ["PYLOK_CONTEXT"] = "alice"
        self.assertEqual(self.caller(), "token:alice")
        with mock.patch.dict(os.environ, PYLOK_ADDRESS=f"unix:{path}"):
            self.assertEqual(self.caller(), "token:alice")
        self.assertTrue(self.caller(path).startswith("unix:"))

    def test_mistakes(self) -> None:
        """What is wrong in the file is named by its line, and is no matter to a client
        that does not need the file."""
        path = contexts.config_path()
        for text, line, problem in (
            ("contexts:\n  a:\n    adress: x\n", 3, "'adress' is no key of a context; there are address, tls"),
            ("context:\n  a: {}\n", 2, "'context' is no key here; there are default and contexts"),
            ("contexts:\n  a:\n    tls: maybe\n", 3, "tls can be true or false"),
            ("contexts:\n  a:\n    tls: yes\n", 3, "tls can be true or false"),
            ("contexts:\n  a:\n    insecure: 'true'\n", 3, "insecure can be true or false"),
            ("contexts:\n  a:\n    ca: [x]\n", 3, "the value must be one text"),
            ("contexts:\n  a:\n    ca:\n", 3, "the value must be one text"),
            ("contexts: [a]\n", 1, "contexts must be a mapping"),
            ("contexts:\n  a: x\n", 2, "the context a must be a mapping"),
            ("contexts:\n  a: {}\n  a: {}\n", 3, "'a' is there twice"),
            ("contexts:\n  ? [a]\n  : {}\n", 2, "this is there twice, or is no key"),
            ("contexts:\n  '': {}\n", 2, "a context needs a name"),
            ("default: b\ncontexts:\n  a: {}\n", 1, "default is 'b', and contexts has none of that name"),
            ("\na: b: c\n", 2, "mapping values are not allowed"),
            ("contexts:\n\t- a\n", 2, "cannot start any token"),
            ("contexts: *a\n", 1, "undefined alias"),
            ("contexts: {}\n---\na: b\n", 3, "more than one document"),
            ("contexts:\n  a: \x01\n", 2, "a character that YAML has not"),
        ):
            self.configure(text)
            with self.subTest(text):
                for kind in (pylok.Client, aio.Client):
                    with self.assertRaises(ValueError) as caught:
                        kind()
                    self.assertIn(f"the config file: {path}, line {line}: ", str(caught.exception))
                    self.assertIn(problem, str(caught.exception))
                pylok.Client("localhost:1").close()
        with open(path, "wb") as file:
            file.write(b"# x\n\xff\n")
        with self.assertRaisesRegex(ValueError, "line 2: it is not UTF-8"):
            Settings()

    def test_names(self) -> None:
        """A context that is not there, and settings that are none."""
        with self.assertRaisesRegex(ValueError, "no context 'x' and no other in .*config.yaml"):
            Settings(context="x")
        with self.assertRaisesRegex(ValueError, "context needs a name"):
            Settings(context="")
        for text in ("", "# nothing\n", "contexts:\n", "---\n"):
            self.configure(text)
            self.assertEqual(Settings().of("address").value, "")
        self.configure(CONFIG)
        with self.assertRaisesRegex(ValueError, "no context 'prd' in .*config.yaml"):
            pylok.Client(context="prd")
        os.environ["PYLOK_INSECURE"] = "perhaps"
        with self.assertRaisesRegex(ValueError, "PYLOK_INSECURE is 'perhaps'; it can be true or false"):
            pylok.Client()
        del os.environ["PYLOK_INSECURE"]
        for least, problem in (("1.3", "takes TLS 1.2 as well"), ("1.1", "'1.1'; it can be 1.2 or 1.3")):
            os.environ["PYLOK_TLS_MIN_VERSION"] = least
            with self.assertRaisesRegex(ValueError, f"PYLOK_TLS_MIN_VERSION is .*{problem}"):
                pylok.Client()
            pylok.Client(context="home").close()

    def test_place(self) -> None:
        """Where the file is."""
        os.environ["XDG_CONFIG_HOME"] = "relative"
        self.assertEqual(contexts.config_path(), "/home/x/.config/pylok/config.yaml")
        os.environ["HOME"] = ""
        self.assertEqual(contexts.config_path(), "")
        with self.assertRaisesRegex(ValueError, "no other in a config file"):
            Settings(context="x")

    def test_original(self) -> None:
        """The original's functions are asked for no context."""
        self.configure(CONFIG)
        os.environ["PYLOK_CONTEXT"] = "home"
        with mock.patch.object(pylok.original, "_clients", {}):
            client = pylok.original._client()
            self.addCleanup(client.close)
            self.assertEqual((client.address, client.holder), (connection.DEFAULT_ADDRESS, ""))
            self.assertIsNone(client._server.bearer)
