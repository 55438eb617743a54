"""pylok.Client for asyncio."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio

from pylok import connection, proof, requests
from pylok.aio.hold import Hold
from pylok.aio.patience import patiently
from pylok.aio.watch import Watch
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
from pylok.hold import ends
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
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1.lock_service_pb2_grpc import LockServiceStub

T = TypeVar("T")


class Client:
    """A connection to a server, for the tasks of one event loop. It connects when it
    is first needed and again after a loss. Errors and units are those of
    pylok.Client. A lock or an acquire that is cancelled ends when it is sure that it
    holds nothing, or after some seconds."""

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
        """Makes a client without waiting for the server; the arguments are those of
        pylok.Client."""
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
        self._opened: tuple[Any, Any] | None = None  # channel and stub, of the running loop
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
    ) -> Acquisition:
        """Takes a lock and keeps it, as pylok.Client.acquire does. Use it in `async
        with`, where the loss of the hold also cancels the block and raises LostError;
        or await it for a Hold to release. on_lost is called in the event loop."""

        async def acquire() -> Hold:
            sent = now()
            lease = Lease(
                requests.seconds(ttl), sent, None if margin is None else requests.seconds(margin)
            )
            request = requests.lock(
                name, data, self._holder(holder), ttl, None, wait, str(uuid.uuid4()), False
            )

            async def hold(response: pb.LockResponse, sent_again: bool) -> Hold:
                lock = lock_from_message(response.lock)
                if sent_again:  # it is unknown when the hold began
                    begun = now()
                    try:
                        lock = await self.renew(name, lock.token)
                    except Error as error:
                        if not await self._give_back(lock):
                            may_be_locked(error, name, request.request_id)
                        raise
                    lease.renewed(begun)
                else:
                    lease.renewed(sent + response.queued.ToTimedelta().total_seconds())
                return Hold(self, lock, lease, on_lost)

            async def release(hold: Hold) -> None:
                try:
                    await hold.release(reason=connection.LEFT)
                except Error:
                    pass  # the ttl runs out

            return await self._take(request, wait, hold, release)

        return Acquisition(acquire)

    async def lock(
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
        """Takes a lock, as pylok.Client.lock does."""
        request_id = request_id or str(uuid.uuid4())
        request = requests.lock(
            name, data, self._holder(holder), ttl, expire_time, wait, request_id, overwrite
        )

        async def lock(response: pb.LockResponse, _: bool) -> Lock:
            return lock_from_message(response.lock)

        return await self._take(request, wait, lock, self._give_back)

    async def unlock(
        self,
        name: str,
        token: int = 0,
        *,
        holder: str | None = None,
        force: bool = False,
        reason: str = "",
        data: Mapping[Any, Any] | None = None,
    ) -> Released:
        """Releases a hold, as pylok.Client.unlock does."""
        request = requests.unlock(name, token, self._holder(holder), force, reason, data)
        try:
            response, _ = await self._call("Unlock", request, again=token != 0)
        except (NotLockedError, NotHolderError) as error:
            if token and error.sent_again:  # the first sending did it
                return Released(name=name, token=token)
            raise
        return released_from_message(response)

    async def renew(
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
        response, _ = await self._call("Renew", request)
        return lock_from_message(response.lock)

    async def status(self, name: str) -> Lock:
        """Returns a lock, held or free."""
        response, _ = await self._call("Status", pb.StatusRequest(name=name))
        return lock_from_message(response.lock)

    async def list(self, pattern: str = "") -> AsyncIterator[Lock]:
        """Yields the held locks that match a pattern, in name order."""
        request = pb.ListRequest(pattern=pattern, page_size=requests.PAGE_SIZE)
        while True:
            response, _ = await self._call("List", request)
            for lock in response.locks:
                yield lock_from_message(lock)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def history(
        self,
        pattern: str = "",
        *,
        after_revision: int = 0,
        after_time: datetime.datetime | None = None,
        before_time: datetime.datetime | None = None,
        actor: str = "",
        cause: EventCause = EventCause.UNSPECIFIED,
        newest_first: bool = False,
    ) -> AsyncIterator[Event]:
        """Yields past changes of the locks that match a pattern, as
        pylok.Client.history does."""
        request = requests.history(
            pattern, after_revision, after_time, before_time, actor, cause, newest_first
        )
        while True:
            response, _ = await self._call("History", request)
            for event in response.events:
                yield event_from_message(event)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def watch(self, pattern: str = "", *, after_revision: int = 0) -> Watch:
        """Returns an async iterator over the changes of the locks that match a
        pattern, as pylok.Client.watch does."""
        return Watch(
            self._open()[1].Watch,
            self._explained,
            self.address,
            pattern,
            after_revision,
            self._server.bearer,
        )

    async def info(self) -> Info:
        """Returns what the server is."""
        response, _ = await self._call("Info", pb.InfoRequest())
        return info_from_message(response)

    async def may(self, verb: Verb | str, name: str = "", *, caller: str = "") -> Permission:
        """Asks whether the server's rules allow something, as pylok.Client.may does."""
        response, _ = await self._call("May", requests.may(verb, name, caller))
        return permission_from_message(response)

    async def close(self) -> None:
        """Ends all calls and the connection. Holds stay held until they expire."""
        if self._opened is not None and self._maker.is_here():
            await self._opened[0].close()

    async def __aenter__(self) -> Client:
        """Returns the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the client."""
        await self.close()

    def _open(self) -> tuple[Any, Any]:
        """Returns channel and stub. They belong to the loop that first needs them."""
        self._maker.check("this client")
        if self._opened is None:
            channel = connection.make_channel(
                grpc.aio.insecure_channel, grpc.aio.secure_channel, self._endpoint
            )
            make_stub: Any = LockServiceStub  # generated without types
            self._opened = channel, make_stub(channel)
        return self._opened

    def _holder(self, holder: str | None) -> str:
        return self.holder if holder is None else holder

    async def _take(
        self,
        request: pb.LockRequest,
        wait: Seconds,
        use: Callable[[pb.LockResponse, bool], Coroutine[Any, Any, T]],
        undo: Callable[[T], Coroutine[Any, Any, object]],
    ) -> T:
        """Takes a lock and returns what use makes of the answer. Where the task is
        cancelled, undo gives that back.

        The request has a task of its own, which goes on. One that waits is cancelled
        too; another is answered at once and can tell what it did.
        """
        taking = asyncio.ensure_future(self._lock(request, wait, use))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            waits = requests.seconds(wait) > 0

            async def give_back() -> None:
                await asyncio.wait((taking,), timeout=0 if waits else connection.UNDO)
                taking.cancel()
                await asyncio.wait((taking,))
                if not taking.cancelled() and taking.exception() is None:
                    await undo(taking.result())

            await patiently(give_back)
            raise

    async def _lock(
        self,
        request: pb.LockRequest,
        wait: Seconds,
        use: Callable[[pb.LockResponse, bool], Coroutine[Any, Any, T]],
    ) -> T:
        """Asks for a lock. When it raises an exception nothing is held, or its
        request_id is set."""
        sending = Sending(request, self._server, wait)
        try:
            try:
                answer = await self._call("Lock", request, sending=sending)
            except Error as error:
                if is_outcome_unknown(error):
                    ask = isinstance(error, TimeLimitError) or is_fault(error)
                    if not ask or not await self._undo(request, cut_off=sending.cut_off):
                        may_be_locked(error, request.name, request.request_id)
                raise
            return await use(*answer)
        except asyncio.CancelledError:
            await self._undo(request, cut_off=sending.cut_off)
            raise

    async def _undo(self, request: pb.LockRequest, *, cut_off: bool) -> bool:
        """Releases what a request may have taken, as pylok.Client does."""
        until = now() + connection.UNDO
        try:
            if request.HasField("wait") and not cut_off:
                asked = pb.StatusRequest(name=request.name)
                found = (await self._ask("Status", asked, until - now())).lock
                if found.state != pb.LOCK_STATE_LOCKED or found.holder != request.holder:
                    return True
            again = requests.lock_again(request)
            response = await self._ask("Lock", again, until - now(), wait_for_ready=True)
        except grpc.RpcError as error:
            return isinstance(from_rpc_error(error, self.address), ANSWERS)
        return await self._give_back(lock_from_message(response.lock), until)

    async def _give_back(self, lock: Lock, until: float | None = None) -> bool:
        """Releases a lock that nobody will get to see, and reports whether that is
        done."""
        timeout = connection.UNDO if until is None else until - now()
        request = requests.unlock(lock.name, lock.token, self.holder, False, connection.LEFT, None)
        try:
            await self._ask("Unlock", request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error, self.address)
            return isinstance(refusal, (NotHolderError, NotLockedError))
        return True

    async def _call(
        self, method: str, request: Any, *, sending: Sending | None = None, again: bool = True
    ) -> tuple[Any, bool]:
        """Makes a call as pylok.Client does, anew after a loss of the connection."""
        _, stub = self._open()
        rpc = getattr(stub, method)
        sending = sending or Sending(request, self._server)
        while True:
            try:
                response = await rpc(request, **sending.begin())
                sending.answered()
                return response, sending.lost is not None
            except grpc.RpcError as error:
                if sending.is_refused(error) and await asyncio.to_thread(sending.renewed):
                    continue
                lost = from_rpc_error(error, self.address, request)
            if not sending.failed(lost, again=again) or not await self._is_there(sending):
                raise await self._explained(sending.lost or lost)

    async def _ask(self, method: str, request: Any, timeout: float, **options: Any) -> Any:
        """Makes a call, and once more where its token is refused and there is another."""
        rpc = getattr(self._open()[1], method)
        until = now() + timeout
        attempt = proof.Attempt(self._server.bearer)
        while True:
            try:
                return await rpc(request, timeout=until - now(), **attempt.options(), **options)
            except grpc.RpcError as error:
                if attempt.second or not attempt.is_refused(error):
                    raise
                following = await asyncio.to_thread(attempt.next)
                if following is None:
                    raise
                attempt = following

    async def _is_there(self, sending: Sending) -> bool:
        """Waits for the server while there is patience, and reports whether it is there.
        Only the connection is in a hurry; the answer may take its time."""
        if sending.pause is not None:
            await asyncio.sleep(sending.pause)
            return True
        while True:
            await asyncio.sleep(connection.PAUSE)
            if (left := sending.left()) <= 0:
                return False
            try:
                await self._ask("Info", pb.InfoRequest(), left, wait_for_ready=True)
                return True
            except grpc.RpcError as error:
                if not isinstance(from_rpc_error(error, self.address), (*ABSENT, TimeLimitError)):
                    return True

    async def _explained(self, error: Error) -> Error:
        """Returns error, which says why there is no connection, if that can be found
        out."""
        encrypted = self._endpoint.encrypted
        return await asyncio.to_thread(explain, error, self.address, encrypted=encrypted)

    async def _renew_hold(self, name: str, token: int, timeout: float) -> Lock:
        """Renews a hold, and waits with it for the server to be there."""
        request = pb.RenewRequest(name=name, token=token)
        try:
            response = await self._ask("Renew", request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        return lock_from_message(response.lock)

    async def _end_of(self, lock: Lock) -> Event | None:
        """Returns the event that has ended a hold, if that comes soon."""
        request = pb.HistoryRequest(
            pattern=lock.name, after_revision=lock.revision, page_size=requests.PAGE_SIZE
        )
        until = now() + connection.EXPLAIN
        try:
            while (left := until - now()) > 0:
                response = await self._ask("History", request, left)
                for event in map(event_from_message, response.events):
                    if ends(event, lock):
                        return event
                request.page_token = response.next_page_token
                if not request.page_token:
                    break
        except (grpc.RpcError, grpc.aio.UsageError):  # gRPC's word for a closed channel
            pass
        return None


class Acquisition:
    """What Client.acquire returns: await it, or use it in `async with`."""

    def __init__(self, acquire: Callable[[], Any]) -> None:
        """Is for Client.acquire."""
        self._acquire = acquire
        self._hold: Hold | None = None

    def __await__(self) -> Generator[Any, None, Hold]:
        """Takes the lock and returns the hold, which is to be released."""
        hold: Hold = yield from self._acquire().__await__()
        return hold

    async def __aenter__(self) -> Hold:
        """Takes the lock and returns the hold."""
        hold: Hold = await self._acquire()
        self._hold = hold
        return await hold.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlocks the lock, as Hold does."""
        assert self._hold is not None
        await self._hold.__aexit__(kind, error, traceback)
