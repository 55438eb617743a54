"""The client for programs that are new: holds that renew themselves, tokens,
waits, watches, and an error for each reason."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import grpc

from pylok import connection, proof, requests
from pylok.errors import (
    ANSWERS,
    Error,
    NotHolderError,
    NotLockedError,
    TimeLimitError,
    from_rpc_error,
    is_fault,
    is_outcome_unknown,
    may_be_locked,
)
from pylok.hold import Hold, ends
from pylok.lease import Lease, now
from pylok.messages import (
    Event,
    EventCause,
    Info,
    Lock,
    Permission,
    Released,
    Verb,
    event_from_message,
    info_from_message,
    lock_from_message,
    permission_from_message,
    released_from_message,
)
from pylok.probe import explain
from pylok.requests import Seconds
from pylok.sending import ABSENT, Sending, Server
from pylok.settings import Settings
from pylok.taking import LeftError, Taking
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1.lock_service_pb2_grpc import LockServiceStub
from pylok.watch import Watch


class Client:
    """A connection to a server, for any number of threads. It connects when it is
    first needed and again after a loss.

    Every method raises an Error: one for each reason that the server refuses for,
    UnreachableError when there is no answer, TimeLimitError when there is none in
    time. Times without a unit are seconds.

    A lock or an acquire that raises an exception holds nothing, also when it is a
    KeyboardInterrupt, unless it is an Error with a request_id: then nobody tells
    whether the lock is held.

    gRPC does not survive a fork: in a process that was forked from one with a Client
    its methods raise ForkedError, and the end of a `with` block does nothing. Such a
    process cannot make a Client of its own.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        holder: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
        token_file: str | None = None,
        patience: Seconds | None = None,
        context: str | None = None,
    ) -> None:
        """Makes a client without waiting for the server.

        address is HOST:PORT or unix:///PATH; default PYLOK_ADDRESS, else that of the config
        file's default context, else the socket of this machine's server if there is one, else
        127.0.0.1:5625. context is the name of a context in the config file, which says how
        to talk to a server; see `pylok help context`. An argument counts first, then this
        context, then a variable, then the context that PYLOK_CONTEXT names or the default
        one. With address a context counts only when this names it, and with PYLOK_ADDRESS
        the default one does not, nor one that PYLOK_CONTEXT names with another address.

        holder is who its holds belong to; default PYLOK_HOLDER, else user@host. credentials
        turn TLS on: grpc.ssl_channel_credentials(); default what PYLOK_TLS, PYLOK_CA,
        PYLOK_CERT and PYLOK_KEY say. Without them only this machine is connected to, unless
        insecure or PYLOK_INSECURE. token_file has a bearer token that says who asks; default
        PYLOK_TOKEN_FILE. It goes only over TLS, or to a socket on which root or this user
        listens; with insecure over this machine's loopback too. Where variables or a context
        turn TLS on and give an address, a CI job without another proof says who it is by its
        OIDC token: GitHub's, for PYLOK_AUDIENCE or else the server's host, or GitLab's in
        PYLOK_ID_TOKEN; PYLOK_CI_TOKEN=off turns that off. A call whose token is refused is
        made once more if the file or GitHub has another.

        patience is how long a server that has answered before and has gone away is waited
        for, as for a restart; default 10 s. A lock's wait goes on to its end, a hold until it
        is lost, a watch without end.
        """
        chosen = Settings(
            context=context,
            address=address or None,
            insecure=insecure,
            token_file=token_file or None,
            holder=holder,
        )
        self._endpoint = connection.Endpoint(chosen, credentials)
        self.address = self._endpoint.address
        self.holder = chosen.of("holder").value if chosen.has("holder") else connection.default_holder()
        self._encrypted = self._endpoint.encrypted
        self._channel = connection.make_channel(
            grpc.insecure_channel, grpc.secure_channel, self._endpoint
        )
        make_stub: Any = LockServiceStub  # generated without types
        self._stub = make_stub(self._channel)
        self._maker = connection.Maker()
        self._server = Server(patience, self._endpoint.bearer)

    def acquire(
        self,
        name: str,
        *,
        data: Mapping[Any, Any] | None = None,
        holder: str | None = None,
        ttl: Seconds = 15.0,
        wait: Seconds = 0.0,
        margin: Seconds | None = None,
        on_lost: Callable[[Hold], None] | None = None,
    ) -> Hold:
        """Takes a lock and keeps it by renewing it in the background, until the
        `with` block that it is used in ends, or its release.

        ttl is how long the lock stays held when this process dies or is cut off. wait
        is how long to queue. A hold that is not renewed counts as lost before its ttl
        is over, by margin, which is the time that the work has to stop in before
        somebody else can get the lock: 0 to half of the ttl, a tenth of it unless it is
        given. on_lost is called from another thread when the hold is lost.
        """
        sent = now()
        lease = Lease(
            requests.seconds(ttl), sent, None if margin is None else requests.seconds(margin)
        )
        request = requests.lock(
            name, data, self._holder(holder), ttl, None, wait, str(uuid.uuid4()), False
        )

        def acquire(taking: Taking[Hold]) -> Hold:
            response, sent_again = self._lock(request, wait, taking)
            lock = lock_from_message(response.lock)
            if sent_again:  # it is unknown when the hold began
                begun = now()
                try:
                    lock = self.renew(name, lock.token)
                except Error as error:
                    if not self._give_back(lock):
                        may_be_locked(error, name, request.request_id)
                    raise
                lease.renewed(begun)
            else:
                lease.renewed(sent + response.queued.ToTimedelta().total_seconds())
            try:
                return Hold(self, lock, lease, on_lost)
            except RuntimeError:  # there is no thread to renew it
                self._give_back(lock)
                raise

        def release(hold: Hold) -> None:
            try:
                hold.release(reason=connection.LEFT)
            except Error:
                pass  # the ttl runs out

        return Taking(acquire, release, waits=requests.seconds(wait) > 0).take()

    def lock(
        self,
        name: str,
        *,
        data: Mapping[Any, Any] | None = None,
        holder: str | None = None,
        ttl: Seconds | None = None,
        expire_time: datetime.datetime | None = None,
        wait: Seconds = 0.0,
        request_id: str | None = None,
        overwrite: bool = False,
    ) -> Lock:
        """Takes a lock, which then is held until its unlock, or until it expires.

        holder "" takes it anonymously. request_id is a new one for each call unless
        one is given; with it a lost answer is asked for again. overwrite replaces a
        hold that is anonymous or has the same holder.
        """
        request_id = request_id or str(uuid.uuid4())
        request = requests.lock(
            name, data, self._holder(holder), ttl, expire_time, wait, request_id, overwrite
        )

        def take(taking: Taking[Lock]) -> Lock:
            return lock_from_message(self._lock(request, wait, taking)[0].lock)

        return Taking(take, self._give_back, waits=requests.seconds(wait) > 0).take()

    def unlock(
        self,
        name: str,
        token: int = 0,
        *,
        holder: str | None = None,
        force: bool = False,
        reason: str = "",
        data: Mapping[Any, Any] | None = None,
    ) -> Released:
        """Releases a hold and returns it as it was, or its name and token alone where the
        answer was lost and the hold of token is found to be over.

        With token exactly that hold: what a program wants that has taken one. Without,
        one that is anonymous or has the holder; two jobs of one user have the same
        holder, and one that was refused so releases the hold of the other.

        force breaks any hold, or only that of token, and needs a reason. reason and
        data, a closing message in place of the hold's data, go to those who watch
        and into the history.
        """
        request = requests.unlock(name, token, self._holder(holder), force, reason, data)
        try:
            response, _ = self._call(self._stub.Unlock, request, again=token != 0)
        except (NotLockedError, NotHolderError) as error:
            if token and error.sent_again:  # the first sending did it
                return Released(name=name, token=token)
            raise
        return released_from_message(response)

    def renew(
        self,
        name: str,
        token: int,
        *,
        ttl: Seconds | None = None,
        expire_time: datetime.datetime | None = None,
        data: Mapping[Any, Any] | None = None,
        holder: str | None = None,
    ) -> Lock:
        """Pushes a hold's deadline out, and replaces its data when data is given.

        holder is who does that, for the history.
        """
        request = requests.renew(name, token, ttl, expire_time, data, self._holder(holder))
        response, _ = self._call(self._stub.Renew, request)
        return lock_from_message(response.lock)

    def status(self, name: str) -> Lock:
        """Returns a lock, held or free."""
        response, _ = self._call(self._stub.Status, pb.StatusRequest(name=name))
        return lock_from_message(response.lock)

    def list(self, pattern: str = "") -> Iterator[Lock]:
        """Yields the held locks that match a pattern, in name order: `*` within a
        segment, `**` across segments, empty for all."""
        request = pb.ListRequest(pattern=pattern, page_size=requests.PAGE_SIZE)
        while True:
            response, _ = self._call(self._stub.List, request)
            yield from map(lock_from_message, response.locks)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def history(
        self,
        pattern: str = "",
        *,
        after_revision: int = 0,
        after_time: datetime.datetime | None = None,
        before_time: datetime.datetime | None = None,
        actor: str = "",
        cause: EventCause = EventCause.UNSPECIFIED,
        newest_first: bool = False,
    ) -> Iterator[Event]:
        """Yields past changes of the locks that match a pattern, oldest first, or with
        newest_first the newest, as far back as the server keeps them.

        Those after a revision, from a time on, before a time, by an actor and with a
        cause are selected. The default of each selects all."""
        request = requests.history(
            pattern, after_revision, after_time, before_time, actor, cause, newest_first
        )
        while True:
            response, _ = self._call(self._stub.History, request)
            yield from map(event_from_message, response.events)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def watch(self, pattern: str = "", *, after_revision: int = 0) -> Watch:
        """Returns an iterator over the changes of the locks that match a pattern, as
        they happen; without end, and through breaks of the connection."""
        self._maker.check("this client")
        return Watch(
            self._stub.Watch,
            self._explained,
            self.address,
            pattern,
            after_revision,
            self._server.bearer,
        )

    def info(self) -> Info:
        """Returns what the server is."""
        return info_from_message(self._call(self._stub.Info, pb.InfoRequest())[0])

    def may(self, verb: Verb | str, name: str = "", *, caller: str = "") -> Permission:
        """Asks whether the server's rules allow something, such as `"lock"`, to who asks.
        What they do not allow is an answer and no error. The name is left out for
        `"admin"`. With a caller's name, or `group:NAME`, the question is about that one,
        and needs the right admin."""
        request = requests.may(verb, name, caller)
        return permission_from_message(self._call(self._stub.May, request)[0])

    def close(self) -> None:
        """Ends all calls and the connection. Holds stay held until they expire."""
        if self._maker.is_here():
            self._channel.close()

    def __enter__(self) -> Client:
        """Returns the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the client."""
        self.close()

    def _holder(self, holder: str | None) -> str:
        return self.holder if holder is None else holder

    def _lock(
        self, request: pb.LockRequest, wait: Seconds, taking: Taking[Any]
    ) -> tuple[Any, bool]:
        """Asks for a lock. When it raises an exception nothing is held, or its
        request_id is set."""

        def send(request: pb.LockRequest, **options: Any) -> Any:
            return taking.send(self._stub.Lock, request, options)

        sending = Sending(request, self._server, wait)
        try:
            return self._call(send, request, sending=sending)
        except LeftError as left:
            if left.sent:
                self._undo(request, cut_off=sending.cut_off)
            raise
        except Error as error:
            if is_outcome_unknown(error):
                ask = taking.has_left() or isinstance(error, TimeLimitError) or is_fault(error)
                if not ask or not self._undo(request, cut_off=sending.cut_off):
                    may_be_locked(error, request.name, request.request_id)
            raise

    def _undo(self, request: pb.LockRequest, *, cut_off: bool) -> bool:
        """Releases what a request may have taken, and reports whether it is sure that
        nothing is held.

        The server knows a request that it has granted by its id, and is asked by
        sending it again. Of one that stood in line it is asked first whether the
        request's holder has the lock at all, so that nobody sees a free one come and
        go: a request that was cancelled is not granted any more. When it was cut off,
        the server may not know yet that nobody is there.
        """
        until = now() + connection.UNDO
        try:
            if request.HasField("wait") and not cut_off:
                asked = pb.StatusRequest(name=request.name)
                found = self._ask(self._stub.Status, asked, until - now()).lock
                if found.state != pb.LOCK_STATE_LOCKED or found.holder != request.holder:
                    return True
            again = requests.lock_again(request)
            response = self._ask(self._stub.Lock, again, until - now(), wait_for_ready=True)
        except grpc.RpcError as error:
            return isinstance(from_rpc_error(error, self.address), ANSWERS)
        return self._give_back(lock_from_message(response.lock), until)

    def _give_back(self, lock: Lock, until: float | None = None) -> bool:
        """Releases a lock that nobody will get to see, and reports whether that is
        done."""
        timeout = connection.UNDO if until is None else until - now()
        request = requests.unlock(lock.name, lock.token, self.holder, False, connection.LEFT, None)
        try:
            self._ask(self._stub.Unlock, request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error, self.address)
            return isinstance(refusal, (NotHolderError, NotLockedError))
        return True

    def _call(
        self, rpc: Any, request: Any, *, sending: Sending | None = None, again: bool = True
    ) -> tuple[Any, bool]:
        """Makes a call, and with again makes it anew while the connection is lost and
        there is patience. Returns the answer and whether it was made anew."""
        self._maker.check("this client")
        sending = sending or Sending(request, self._server)
        while True:
            try:
                response = rpc(request, **sending.begin())
                sending.answered()
                return response, sending.lost is not None
            except grpc.RpcError as error:
                if sending.is_refused(error) and sending.renewed():
                    continue
                lost = from_rpc_error(error, self.address, request)
            if not sending.failed(lost, again=again) or not self._is_there(sending):
                raise self._explained(sending.lost or lost)

    def _ask(self, rpc: Any, request: Any, timeout: float, **options: Any) -> Any:
        """Makes a call, and once more where its token is refused and there is another."""
        until = now() + timeout
        attempt = proof.Attempt(self._server.bearer)
        while True:
            try:
                return rpc(request, timeout=until - now(), **attempt.options(), **options)
            except grpc.RpcError as error:
                if attempt.second or not attempt.is_refused(error):
                    raise
                following = attempt.next()
                if following is None:
                    raise
                attempt = following

    def _is_there(self, sending: Sending) -> bool:
        """Waits for the server while there is patience, and reports whether it is there.
        Only the connection is in a hurry; the answer may take its time."""
        if sending.pause is not None:
            time.sleep(sending.pause)
            return True
        while True:
            time.sleep(connection.PAUSE)
            if (left := sending.left()) <= 0:
                return False
            try:
                self._ask(self._stub.Info, pb.InfoRequest(), left, wait_for_ready=True)
                return True
            except grpc.RpcError as error:
                if not isinstance(from_rpc_error(error, self.address), (*ABSENT, TimeLimitError)):
                    return True

    def _explained(self, error: Error) -> Error:
        """Returns error, which says why there is no connection, if that can be found
        out."""
        return explain(error, self.address, encrypted=self._encrypted)

    def _renew_hold(self, name: str, token: int, timeout: float) -> Lock:
        """Renews a hold, and waits with it for the server to be there."""
        self._maker.check("this client")
        try:
            request = pb.RenewRequest(name=name, token=token)
            response = self._ask(self._stub.Renew, request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        return lock_from_message(response.lock)

    def _end_of(self, lock: Lock) -> Event | None:
        """Returns the event that has ended a hold, if that comes soon."""
        request = pb.HistoryRequest(
            pattern=lock.name, after_revision=lock.revision, page_size=requests.PAGE_SIZE
        )
        until = now() + connection.EXPLAIN
        try:
            while (left := until - now()) > 0:
                response = self._ask(self._stub.History, request, left)
                for event in map(event_from_message, response.events):
                    if ends(event, lock):
                        return event
                request.page_token = response.next_page_token
                if not request.page_token:
                    break
        except (grpc.RpcError, ValueError):  # gRPC's word for a closed channel
            pass
        return None
