"""Who asks: sockets, bearer tokens, certificates, and what the environment says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.server
import json
import os
import socket
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

import grpc

import pylok
from pylok import aio, connection, proof
from pylok.settings import Settings
from tests.daemon import Daemon

TOKENS = {name: f"pylok_s3cret-of-{name}" for name in ("alice", "bob")}
ACCESS = "callers:\n" + "".join(
    f"  - {{name: {name}, token: 'sha256:{hashlib.sha256(token.encode()).hexdigest()}'}}\n"
    for name, token in TOKENS.items()
) + """  - {unix: {}}
  - {certificate: {cn: deployer}}
rules:
  - {who: ["*"], may: [lock], locks: ["**"]}
"""


def environment(**variables: str) -> None:
    """Sets variables, and no others of pylok's."""
    for name in [name for name in os.environ if name.startswith("PYLOK_")]:
        if not name.startswith("PYLOK_TEST_"):
            del os.environ[name]
    os.environ.update(variables)


def jwt(**claims: object) -> str:
    """Returns a token with life seconds, which nobody has signed."""
    life = int(str(claims.pop("life")))
    text = json.dumps({"iat": 500, "exp": 500 + life, **claims}).encode()
    return f"e30.{base64.urlsafe_b64encode(text).decode().rstrip('=')}.c2ln"


class ProofTest(unittest.TestCase):
    """A test with a directory and an environment of its own."""

    def setUp(self) -> None:
        """Makes the directory."""
        directory = tempfile.TemporaryDirectory(prefix="pylok-proof-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        saved = mock.patch.dict(os.environ)
        saved.start()
        self.addCleanup(saved.stop)
        for name, token in TOKENS.items():
            self.write(f"{name}.token", token + "\n")
        self.write("access.yaml", ACCESS)

    def path(self, name: str) -> str:
        """Returns the path of a file."""
        return os.path.join(self.directory, name)

    def write(self, name: str, text: str) -> str:
        """Writes a file."""
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), 0o600)
        return self.path(name)

    def serve(self, *flags: str) -> Daemon:
        """Starts a daemon that tells callers apart."""
        daemon = Daemon("--access", self.path("access.yaml"), *flags)
        self.addCleanup(daemon.close)
        return daemon

    def caller(self, *args: object, **options: object) -> str:
        """Returns whom the server takes the client for, both kinds of it."""
        with pylok.Client(*args, **options) as client:  # type: ignore[arg-type]
            caller = client.info().caller

        async def ask() -> str:
            async with aio.Client(*args, **options) as client:  # type: ignore[arg-type]
                return (await client.info()).caller

        self.assertEqual(asyncio.run(ask()), caller)
        return caller


class Sockets(ProofTest):
    """A Unix socket says who one is, and a token may go over it to its owner."""

    def test_socket(self) -> None:
        """Every form of its address; the token goes before the socket's own word."""
        path = self.path("a b%20#.sock")
        self.serve("--socket", path)
        for address in (path, f"unix://{path}", f"unix:{path}"):
            self.assertTrue(self.caller(address).startswith("unix:"), address)
        environment(PYLOK_ADDRESS=path, PYLOK_TOKEN_FILE=self.path("alice.token"))
        self.assertEqual(self.caller(), "token:alice")
        self.assertEqual(self.caller(token_file=self.path("bob.token")), "token:bob")
        with pylok.Client(holder="me") as client:
            self.assertEqual(client.address, f"unix://{path}")
            client.lock("x")
        environment(PYLOK_ADDRESS=path)
        with pylok.Client(holder="me") as client, self.assertRaises(pylok.NotHolderError):
            client.unlock("x")

    def test_file(self) -> None:
        """A file that is replaced counts at once; one that is not good sends nothing."""
        path = self.path("pylok.sock")
        self.serve("--socket", path)
        token = self.write("token", TOKENS["alice"])
        with pylok.Client(path, token_file=token) as client:
            self.assertEqual(client.info().caller, "token:alice")
            os.replace(self.write("next", TOKENS["bob"]), token)
            self.assertEqual(client.info().caller, "token:bob")
            for bad in ("", "s3cret s3cret"):
                os.replace(self.write("next", bad), token)
                with self.assertRaises(pylok.CredentialError) as caught:
                    client.info()
                self.assertIn(token, str(caught.exception))
                self.assertNotIn("s3cret", str(caught.exception))
            os.replace(self.write("next", "pylok_s3cret-of-nobody"), token)
            with self.assertRaises(pylok.UnauthenticatedError) as refused:
                client.info()
            self.assertNotIn("s3cret", str(refused.exception))
            os.remove(token)
            with self.assertRaisesRegex(pylok.CredentialError, "No such file"):
                client.info()

    @unittest.skipUnless(os.geteuid() == 0, "only root can listen as somebody else")
    def test_listener(self) -> None:
        """A token does not go to the socket of somebody else."""
        path = self.path("other.sock")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        os.seteuid(12345)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        heard = []

        def answer() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                with accepted, contextlib.suppress(OSError):  # one comes to look only
                    accepted.sendall(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS of HTTP/2
                    while more := accepted.recv(4096):
                        heard.append(more)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pylok.Client(path, token_file=self.path("alice.token")) as client:
                with self.assertRaisesRegex(pylok.CredentialError, "belongs to the user 12345"):
                    client.info()
                os.remove(path)  # gRPC is connected still
                with self.assertRaisesRegex(pylok.UnreachableError, "nobody listens on the socket"):
                    client.info()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
        self.assertNotIn(b"s3cret", b"".join(heard))

    def test_directory(self) -> None:
        """A token does not go where others may have put a socket of theirs before."""
        os.mkdir(self.path("shared"))
        path = self.path("shared/pylok.sock")
        self.serve("--socket", path)
        with pylok.Client(path, token_file=self.path("alice.token")) as client:
            self.assertEqual(client.info().caller, "token:alice")
        for mode in (0o777, 0o775, 0o1777):
            os.chmod(self.path("shared"), mode)
            with (
                pylok.Client(path, token_file=self.path("alice.token")) as client,
                self.assertRaisesRegex(pylok.CredentialError, "may put a socket into"),
            ):
                client.info()

    def test_default(self) -> None:
        """The socket that is there is the address, and no TLS looks for it."""
        environment(XDG_RUNTIME_DIR=self.directory)
        os.mkdir(self.path("pylok"))
        with mock.patch.object(connection, "_SYSTEM_SOCKET", self.path("system.sock")):
            self.assertEqual(connection.find_address(), connection.DEFAULT_ADDRESS)
            system = "unix://" + self.write("system.sock", "")
            self.assertEqual(connection.find_address(), system)
            own = "unix://" + self.write("pylok/pylok.sock", "")
            with mock.patch.object(os, "geteuid", lambda: 1000):
                self.assertEqual(connection.find_address(), own)
            with mock.patch.object(os, "geteuid", lambda: 0):
                self.assertEqual(connection.find_address(), system)
            with pylok.Client() as client:
                self.assertEqual(client.address, system if os.geteuid() == 0 else own)
            self.assertEqual(connection.default_address(), connection.DEFAULT_ADDRESS)
            os.environ["PYLOK_TLS"] = "true"
            with pylok.Client() as client:
                self.assertEqual(client.address, connection.DEFAULT_ADDRESS)
            os.environ["PYLOK_ADDRESS"] = "localhost:1"
            with pylok.Client() as client:
                self.assertEqual(client.address, "localhost:1")

    def test_addresses(self) -> None:
        """What is no address, and where a token must not go."""
        token = self.path("alice.token")
        environment()
        for address, options, problem in (
            ("unix://run/x", {}, "no absolute path"),
            ("unix:", {}, "no path of a socket"),
            ("/" + "x" * 107, {}, "108 bytes; the system allows 107"),
            ("/x", {"credentials": grpc.ssl_channel_credentials()}, "has no TLS and needs none"),
            ("localhost:1", {"token_file": token}, "without TLS nothing tells who listens"),
            ("192.0.2.1:1", {"token_file": token, "insecure": True}, "without TLS nothing tells"),
        ):
            with self.subTest(address), self.assertRaisesRegex(ValueError, problem):
                pylok.Client(address, **options)  # type: ignore[arg-type]
        os.environ["PYLOK_TLS"] = "perhaps"
        with self.assertRaisesRegex(ValueError, "PYLOK_TLS is 'perhaps'"):
            pylok.Client("localhost:1")


class Certificates(ProofTest):
    """TLS as the environment asks for it."""

    def test_environment(self) -> None:
        """A CA, a token and a certificate, by files."""

        def openssl(*args: str) -> None:
            subprocess.run(["openssl", *args], cwd=self.directory, check=True, capture_output=True)

        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
        openssl("req", "-x509", *new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
        by_ca = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE")
        openssl("req", "-x509", *new, *by_ca, "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "server.key", "-out", "server.pem")
        openssl("req", "-x509", *new, *by_ca, "-subj", "/CN=deployer", "-addext", "extendedKeyUsage=clientAuth", "-keyout", "client.key", "-out", "client.pem")
        daemon = self.serve("--tls-cert", self.path("server.pem"), "--tls-key", self.path("server.key"), "--tls-client-ca", self.path("ca.pem"))
        environment(PYLOK_ADDRESS=daemon.address, PYLOK_CA=self.path("ca.pem"))
        self.assertEqual(self.caller(), "anonymous")
        os.environ["PYLOK_TOKEN_FILE"] = self.path("bob.token")
        self.assertEqual(self.caller(), "token:bob")
        del os.environ["PYLOK_TOKEN_FILE"]
        os.environ["PYLOK_CERT"] = self.path("client.pem")
        with self.assertRaisesRegex(ValueError, "go together"):
            pylok.Client()
        os.environ["PYLOK_KEY"] = self.path("client.key")
        self.assertEqual(self.caller(), "cert:deployer")

    def test_job(self) -> None:
        """A GitHub job asks for tokens with its secret, and again when one is about to end."""
        asked: list[tuple[str | None, str]] = []
        answers = iter(f"{{\"value\": \"{jwt(life=life, n=n)}\"}}" for n, life in enumerate((1, 3600)))

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.headers["Authorization"], self.path))
                answer = next(answers, None)
                self.send_response(200 if answer else 403)
                self.end_headers()
                self.wfile.write((answer or "no s3cret").encode())

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        environment(
            ACTIONS_ID_TOKEN_REQUEST_URL=f"http://127.0.0.1:{server.server_port}/token?api-version=2.0",
            ACTIONS_ID_TOKEN_REQUEST_TOKEN="s3cret",
        )
        self.assertTrue(proof.JobToken.is_there(Settings()))
        with mock.patch.dict(os.environ, PYLOK_CI_TOKEN="off"):
            self.assertFalse(proof.JobToken.is_there(Settings()))
        job = proof.JobToken("a b&c")
        with mock.patch("pylok.proof.time.time") as clock:
            clock.return_value = 1000.0
            first = job.token()
            self.assertEqual((job.token(), len(asked)), (first, 1))
            clock.return_value = 1000.8
            second = job.token()
            self.assertNotEqual(second, first)
            with self.assertRaisesRegex(proof.NoTokenError, "answers 403"):
                job.token(second)  # the server refuses it, and GitHub gives no other
            self.assertEqual((job.token(first), len(asked)), (second, 3))
            clock.return_value = 1000.8 + 3590
            self.assertEqual(job.token(), second)  # GitHub refuses, and that one has not ended
            clock.return_value = 1000.8 + 3601
            with self.assertRaises(proof.NoTokenError) as caught:
                job.token()
        self.assertRegex(str(caught.exception), "audience 'a b&c': 127.0.0.1:[0-9]+ answers 403 ")
        self.assertNotIn("s3cret", str(caught.exception))
        self.assertEqual(asked[0], ("Bearer s3cret", "/token?api-version=2.0&audience=a+b%26c"))
        with mock.patch.dict(os.environ, PYLOK_ID_TOKEN=" of-gitlab\n"):
            self.assertEqual(job.token(), "of-gitlab")
        for variable in ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "PYLOK_ID_TOKEN"):
            with mock.patch.dict(os.environ, {variable: "s3cret\ns3cret"}):
                with self.assertRaises(proof.NoTokenError) as bad:
                    job.token()
                self.assertNotIn("s3cret", str(bad.exception))
                self.assertIn(f"{variable} has a character", str(bad.exception))
        with mock.patch.dict(os.environ, PYLOK_ID_TOKEN=" ", ACTIONS_ID_TOKEN_REQUEST_URL=""):
            self.assertFalse(proof.JobToken.is_there(Settings()))

    def test_job_is_by_itself(self) -> None:
        """Only where the environment turns TLS on, and no other proof is meant."""
        with mock.patch.dict(os.environ, PYLOK_ID_TOKEN="of-gitlab", PYLOK_ADDRESS="localhost:1"):
            for variables, meant in (
                ({"PYLOK_TLS": "true"}, True),
                ({}, False),
                ({"PYLOK_TLS": "true", "PYLOK_ADDRESS": ""}, False),
                ({"PYLOK_TLS": "true", "PYLOK_CI_TOKEN": "off"}, False),
                ({"PYLOK_TLS": "true", "PYLOK_TOKEN_FILE": self.path("alice.token")}, False),
            ):
                with self.subTest(variables), mock.patch.dict(os.environ, variables):
                    with mock.patch.object(proof.JobToken, "__init__", return_value=None) as made:
                        connection.Endpoint(Settings(), None)
                    self.assertEqual(made.called, meant)

    def test_plaintext(self) -> None:
        """A token over loopback without TLS is for those who say so."""
        daemon = self.serve()
        environment(PYLOK_ADDRESS=daemon.address, PYLOK_TOKEN_FILE=self.path("alice.token"))
        with self.assertRaisesRegex(ValueError, "without TLS"):
            pylok.Client()
        os.environ["PYLOK_INSECURE"] = "true"
        self.assertEqual(self.caller(), "token:alice")
        os.environ["PYLOK_HOLDER"] = "me"
        with pylok.Client() as client:
            self.assertEqual(client.lock("x").holder, "me")
