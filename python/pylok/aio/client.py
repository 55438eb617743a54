"""pylok.Client for asyncio."""

from __future__ import annotations

import asyncio
import datetime
import math
import uuid
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from pylok import answers, connection, proof, requests
from pylok.aio.hold import Held, Hold
from pylok.aio.keeper import Keeper
from pylok.aio.patience import patiently
from pylok.aio.sets import Set, release_together
from pylok.aio.watch import Watch
from pylok.answers import SetAnswer
from pylok.errors import (
    ANSWERS,
    Error,
    LockHeldError,
    NotHolderError,
    NotLockedError,
    TimeLimitError,
    from_rpc_error,
    is_fault,
    is_outcome_unknown,
    may_be_locked,
)
from pylok.keeper import Kept
from pylok.lease import Lease, now
from pylok.loss import Ending, lost_error
from pylok.messages import (
    Ask,
    AskAnswer,
    Choice,
    Event,
    EventCause,
    HandOverAnswer,
    Info,
    Lock,
    OnExpiry,
    Permission,
    Released,
    SetRef,
    Verb,
    Waiter,
    event_from_message,
    info_from_message,
    lock_from_message,
    permission_from_message,
    released_from_message,
    waiter_from_message,
)
from pylok.probe import explain
from pylok.renewal import check_adoptable, check_owner, renewal, renewal_answers
from pylok.requests import HoldRef, Seconds
from pylok.sending import ABSENT, Sending, Server
from pylok.sets import MOST
from pylok.settings import Settings
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1.lock_service_pb2_grpc import LockServiceStub
from pylok.wanted import FOREVER, Wanted, WantedSet, is_released, release_of, unsupported

T = TypeVar("T")
H = TypeVar("H", bound=Held)


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
        self._kept = Kept()

    def acquire(
        self,
        name: str,
        *,
        data: Mapping[Any, Any] | None = None,
        holder: str | None = None,
        ttl: Seconds = 15.0,
        wait: Seconds = 0.0,
        margin: Seconds | None = None,
        shared: bool = False,
        limit: int = 0,
        tree: bool = False,
        drain: bool = False,
        through_freeze: bool = False,
        replace_stale: bool = False,
        reason: str = "",
        on_expiry: OnExpiry | str = "release",
        refuse_manual: bool = False,
        on_lost: Callable[[Hold], None] | None = None,
        on_asked: Callable[[Hold, Ask], None] | None = None,
        on_at_risk: Callable[[Hold, Error], None] | None = None,
    ) -> Acquisition[Hold]:
        """Takes a lock and keeps it, as pylok.Client.acquire does. Use it in `async
        with`, where the loss of the hold also cancels the block and raises LostError;
        or await it for a Hold to release. on_lost, on_asked and on_at_risk are called in the
        event loop, and must not block it."""

        async def acquire() -> Hold:
            request = requests.lock(
                name,
                data=data,
                holder=self._holder(holder),
                ttl=ttl,
                expire_time=None,
                wait=wait,
                request_id=str(uuid.uuid4()),
                overwrite=False,
                shared=shared,
                limit=limit,
                tree=tree,
                drain=drain,
                through_freeze=through_freeze,
                replace_stale=replace_stale,
                reason=reason,
                on_expiry=on_expiry,
                refuse_manual=refuse_manual,
            )


            def keep(locks: Sequence[Lock], leases: Sequence[Lease]) -> Hold:
                return self._keep(locks[0], leases[0], on_lost, on_asked, on_at_risk)

            return await self._acquire(Wanted(request), ttl, wait, margin, keep)

        return Acquisition(acquire)

    def acquire_set(
        self,
        names: Iterable[str] = (),
        *,
        choices: Iterable[Choice] = (),
        data: Mapping[Any, Any] | None = None,
        holder: str | None = None,
        ttl: Seconds = 15.0,
        wait: Seconds = 0.0,
        margin: Seconds | None = None,
        through_freeze: bool = False,
        reason: str = "",
        on_expiry: OnExpiry | str = "release",
        refuse_manual: bool = False,
        on_lost: Callable[[Hold], None] | None = None,
        on_asked: Callable[[Hold, Ask], None] | None = None,
        on_at_risk: Callable[[Hold, Error], None] | None = None,
    ) -> Acquisition[Set]:
        """Takes several locks, all or none, and keeps them, as pylok.Client.acquire_set
        does. It is used as acquire is: in `async with` the loss of the first hold cancels
        the block."""

        async def acquire() -> Set:
            request = requests.lock_set(
                names,
                choices,
                data=data,
                holder=self._holder(holder),
                ttl=ttl,
                expire_time=None,
                wait=wait,
                request_id=str(uuid.uuid4()),
                through_freeze=through_freeze,
                reason=reason,
                on_expiry=on_expiry,
                refuse_manual=refuse_manual,
            )


            def keep(locks: Sequence[Lock], leases: Sequence[Lease]) -> Set:
                return Set(self, locks, leases, on_lost, on_asked, on_at_risk)

            return await self._acquire(WantedSet(request), ttl, wait, margin, keep)

        return Acquisition(acquire)

    def adopt(
        self,
        name: str,
        token: int,
        *,
        margin: Seconds | None = None,
        on_lost: Callable[[Hold], None] | None = None,
        on_asked: Callable[[Hold, Ask], None] | None = None,
        on_at_risk: Callable[[Hold, Error], None] | None = None,
    ) -> Acquisition[Hold]:
        """Makes a Hold for a hold that exists, as pylok.Client.adopt does. It is used as
        acquire is, and the end of an `async with` block leaves the hold to whoever has taken
        the lock."""

        async def adopt() -> Hold:
            found = await self.status(name)
            check_adoptable(found, token)
            ttl = math.inf if found.ttl is None else requests.seconds(found.ttl)
            lease = Lease(ttl, now(), None if margin is None else requests.seconds(margin))
            if found.ttl is not None:
                try:
                    found = await self.renew(name, token)
                except (NotHolderError, NotLockedError) as error:
                    raise lost_error(found, error, None) from error
            elif found.caller:  # and there is no renewal that would tell
                check_owner(found, (await self.info()).caller)
            return self._keep(found, lease, on_lost, on_asked, on_at_risk, adopted=True)

        return Acquisition(adopt)

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
        shared: bool = False,
        limit: int = 0,
        tree: bool = False,
        drain: bool = False,
        through_freeze: bool = False,
        replace_stale: bool = False,
        reason: str = "",
        on_expiry: OnExpiry | str = "release",
        refuse_manual: bool = False,
    ) -> Lock:
        """Takes a lock, as pylok.Client.lock does."""
        request = requests.lock(
            name,
            data=data,
            holder=self._holder(holder),
            ttl=ttl,
            expire_time=expire_time,
            wait=wait,
            request_id=request_id or str(uuid.uuid4()),
            overwrite=overwrite,
            shared=shared,
            limit=limit,
            tree=tree,
            drain=drain,
            through_freeze=through_freeze,
            replace_stale=replace_stale,
            reason=reason,
            on_expiry=on_expiry,
            refuse_manual=refuse_manual,
        )
        return (await self._take(Wanted(request), wait, _as_they_are, self._give_back))[0]


    async def lock_set(
        self,
        names: Iterable[str] = (),
        *,
        choices: Iterable[Choice] = (),
        data: Mapping[Any, Any] | None = None,
        holder: str | None = None,
        ttl: Seconds | None = None,
        expire_time: datetime.datetime | None = None,
        wait: Seconds = 0.0,
        request_id: str | None = None,
        through_freeze: bool = False,
        reason: str = "",
        on_expiry: OnExpiry | str = "release",
        refuse_manual: bool = False,
    ) -> tuple[Lock, ...]:
        """Takes several locks, all or none, as pylok.Client.lock_set does."""
        request = requests.lock_set(
            names,
            choices,
            data=data,
            holder=self._holder(holder),
            ttl=ttl,
            expire_time=expire_time,
            wait=wait,
            request_id=request_id or str(uuid.uuid4()),
            through_freeze=through_freeze,
            reason=reason,
            on_expiry=on_expiry,
            refuse_manual=refuse_manual,
        )
        return await self._take(WantedSet(request), wait, _as_they_are, self._give_back)


    async def unlock(
        self,
        name: str,
        token: int = 0,
        *,
        holder: str | None = None,
        force: bool = False,
        stale: bool = False,
        reason: str = "",
        data: Mapping[Any, Any] | None = None,
    ) -> Released:
        """Releases a hold, as pylok.Client.unlock does."""
        request = requests.unlock(
            name, token, self._holder(holder), force=force, stale=stale, reason=reason, data=data
        )
        try:
            response, _ = await self._call("Unlock", request, again=token != 0)
        except (NotLockedError, NotHolderError) as error:
            if token and error.sent_again:  # the first sending did it
                return Released(name=name, token=token)
            raise
        return released_from_message(response)

    async def unlock_set(
        self,
        holds: Iterable[HoldRef] = (),
        *,
        set: SetRef | int | None = None,
        holder: str | None = None,
        force: bool = False,
        reason: str = "",
        data: Mapping[Any, Any] | None = None,
    ) -> tuple[SetAnswer, ...]:
        """Releases several holds, as pylok.Client.unlock_set does."""
        request = requests.unlock_set(
            holds, set, self._holder(holder), force=force, reason=reason, data=data
        )
        response, sent_again = await self._call("UnlockSet", request)
        made = answers.from_messages(response.answers)
        return answers.released_before(made) if sent_again else made


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

    async def renew_set(
        self,
        holds: Iterable[HoldRef],
        *,
        ttl: Seconds | None = None,
        expire_time: datetime.datetime | None = None,
        holder: str | None = None,
    ) -> tuple[SetAnswer, ...]:
        """Pushes the deadline of several holds out, as pylok.Client.renew_set does."""
        request = requests.renew_set(holds, ttl, expire_time, self._holder(holder))
        return answers.from_messages((await self._call("RenewSet", request))[0].answers)


    async def hand_over(
        self,
        name: str,
        token: int,
        *,
        to: str = "",
        caller: str = "",
        ttl: Seconds | None = None,
        expire_time: datetime.datetime | None = None,
        never: bool = False,
        data: Mapping[Any, Any] | None = None,
        reason: str = "",
        request_id: str | None = None,
        holder: str | None = None,
    ) -> HandOverAnswer:
        """Has a hold go on under another holder, as pylok.Client.hand_over does."""
        request = requests.hand_over(
            name,
            token,
            to=to,
            caller=caller,
            ttl=ttl,
            expire_time=expire_time,
            never=never,
            data=data,
            reason=reason,
            request_id=request_id or str(uuid.uuid4()),
            holder=self._holder(holder),
        )
        response, _ = await self._call("HandOver", request)
        return HandOverAnswer(lock_from_message(response.lock), tuple(response.warnings))


    async def ask(
        self, name: str, message: str, *, token: int = 0, holder: str | None = None
    ) -> AskAnswer:
        """Asks the holder of a lock to let go, as pylok.Client.ask does."""
        request = pb.AskRequest(
            name=name, token=token, message=message, holder=self._holder(holder)
        )
        response, _ = await self._call("Ask", request, again=False)  # lest it is asked twice
        return AskAnswer(lock_from_message(response.lock), response.heard)


    async def dismiss(self, name: str, place: int, *, reason: str, holder: str | None = None) -> Waiter:
        """Puts a waiter out of the line, as pylok.Client.dismiss does."""
        request = pb.DismissRequest(
            name=name, place=place, reason=reason, holder=self._holder(holder)
        )
        try:
            response, _ = await self._call("Dismiss", request)
        except NotLockedError as error:
            if error.sent_again:  # the first sending did it
                return Waiter(place)
            raise
        return waiter_from_message(response.waiter)


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

    def watch(self, pattern: str = "", *, after_revision: int = 0, token: int = 0) -> Watch:
        """Returns an async iterator over the changes of the locks that match a
        pattern, as pylok.Client.watch does."""
        return Watch(
            self._open()[1].Watch,
            self._explained,
            self.address,
            pattern,
            after_revision,
            token,
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

    async def close(self, *, release_all: bool = False) -> None:
        """Ends all calls and the connection, as pylok.Client.close does."""
        if self._opened is None or not self._maker.is_here():
            return
        failures: Sequence[Error] = ()
        try:
            if release_all:
                failures = await patiently(self._release_all)
        finally:
            await self._opened[0].close()
        if failures:
            raise failures[0]

    async def _release_all(self) -> Sequence[Error]:
        """Releases what is kept, and returns why some may stay locked."""
        until = now() + connection.RELEASE_ALL
        failures: Sequence[Error] = ()
        left = [hold for taken in self._kept.close() for hold in (taken.holds if isinstance(taken, Set) else (taken,))]
        while left and now() < until:
            some, left = left[:MOST], left[MOST:]
            failures = (*failures, *(await release_together(self, some, "", None))[1])
        if left:
            late = TimeLimitError(f"{left[0].name} and {len(left) - 1} more could not be released in time")
            failures = (*failures, late)
        return failures

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

    async def _acquire(
        self,
        wanted: Wanted,
        ttl: Seconds,
        wait: Seconds,
        margin: Seconds | None,
        keep: Callable[[Sequence[Lock], Sequence[Lease]], H],
    ) -> H:
        """Takes what is wanted, and keeps it."""
        sent = now()
        before = None if margin is None else requests.seconds(margin)
        Lease(requests.seconds(ttl), sent, before)  # it is one

        async def hold(locks: tuple[Lock, ...], queued: float | None) -> H:
            begun = now() if queued is None else sent + queued
            if queued is None:  # it is unknown when the holds began
                try:
                    locks = await self._renewed(locks)
                except Error as error:
                    if not await self._give_back(locks):
                        may_be_locked(error, wanted.name, wanted.request.request_id)
                    raise
            kept = keep(locks, [Lease(requests.seconds(ttl), begun, before) for _ in locks])
            if not self._kept.keep(kept):
                await release(kept)
                raise Error("the client is closed")
            return kept

        async def release(kept: H) -> None:
            try:
                await kept.release(reason=connection.LEFT)
            except Error:
                pass  # the ttl runs out

        return await self._take(wanted, wait, hold, release)

    async def _renewed(self, locks: tuple[Lock, ...]) -> tuple[Lock, ...]:
        """Renews holds that were just taken."""
        if len(locks) == 1:
            return (await self.renew(locks[0].name, locks[0].token),)
        return answers.renewed(await self.renew_set(locks))

    def _keep(
        self,
        lock: Lock,
        lease: Lease,
        on_lost: Callable[[Hold], None] | None,
        on_asked: Callable[[Hold, Ask], None] | None,
        on_at_risk: Callable[[Hold, Error], None] | None,
        *,
        adopted: bool = False,
    ) -> Hold:
        keeper = Keeper(on_at_risk)
        hold = Hold(self, lock, lease, on_lost, on_asked, keeper, adopted=adopted)
        keeper.keep((hold,))
        return hold

    async def _take(
        self,
        wanted: Wanted,
        wait: Seconds,
        use: Callable[[tuple[Lock, ...], float | None], Coroutine[Any, Any, T]],
        undo: Callable[[T], Coroutine[Any, Any, object]],
    ) -> T:
        """Takes locks and returns what use makes of them. Where the task is cancelled,
        undo gives that back.

        The request has a task of its own, which goes on. One that waits is cancelled
        too; another is answered at once and can tell what it did.
        """
        taking = asyncio.ensure_future(self._lock(wanted, wait, use))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:

            async def give_back() -> None:
                await asyncio.wait((taking,), timeout=0 if wanted.waits else connection.UNDO)
                taking.cancel()
                await asyncio.wait((taking,))
                if not taking.cancelled() and taking.exception() is None:
                    await undo(taking.result())

            await patiently(give_back)
            raise

    async def _lock(
        self,
        wanted: Wanted,
        wait: Seconds,
        use: Callable[[tuple[Lock, ...], float | None], Coroutine[Any, Any, T]],
    ) -> T:
        """Asks for a lock or a set, and has the holds used, and how many seconds the request
        stood in line, None where that is not known because it was sent again. When it raises
        an exception nothing is held, or its request_id is set."""
        sending = Sending(wanted.request, self._server, wait)
        try:
            try:
                response, sent_again = await self._call(wanted.method, wanted.request, sending=sending)
            except Error as error:
                if is_outcome_unknown(error):
                    ask = isinstance(error, TimeLimitError) or is_fault(error)
                    if not ask or not await self._undo(wanted, cut_off=sending.cut_off):
                        may_be_locked(error, wanted.name, wanted.request.request_id)
                elif error.sent_again and not await self._undo_rest(wanted, error):
                    may_be_locked(error, wanted.name, wanted.request.request_id)
                elif isinstance(error, LockHeldError) and requests.seconds(wait) == math.inf:
                    if not await self._knows_forever():
                        raise unsupported(self.address, "a wait without an end") from error
                raise
            locks = wanted.locks(response)
            if what := wanted.missing(locks):
                older = unsupported(self.address, what)
                if not await self._give_back(locks):
                    may_be_locked(older, wanted.name, wanted.request.request_id)
                raise older
            return await use(locks, None if sent_again else response.queued.ToTimedelta().total_seconds())
        except asyncio.CancelledError:
            await self._undo(wanted, cut_off=sending.cut_off)
            raise

    async def _undo(self, wanted: Wanted, *, cut_off: bool) -> bool:
        """Releases what a request may have taken, as pylok.Client does."""
        until = now() + connection.UNDO
        try:
            if wanted.waits and not cut_off:
                for method, probe in wanted.probes():
                    if wanted.may_be_held(await self._ask(method, probe, until - now())):
                        break
                else:
                    return True
            again = wanted.again()
            response = await self._ask(wanted.method, again, until - now(), wait_for_ready=True)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error, self.address)
            return isinstance(refusal, ANSWERS) and await self._undo_rest(wanted, refusal)
        return await self._give_back(wanted.locks(response), until)

    async def _undo_rest(self, wanted: Wanted, refusal: Error) -> bool:
        """Releases what is left of a request that was granted, as its refusal says, and
        reports whether nothing is left."""
        if not wanted.is_partly_held(refusal):
            return True
        rest = wanted.rest(refusal)
        return rest is not None and await self._release(*rest, connection.UNDO)

    async def _knows_forever(self) -> bool:
        """Reports whether the server is not known to be too old for waits without an end."""
        try:
            return FOREVER in (await self.info()).features
        except Error:
            return True

    async def _give_back(self, locks: tuple[Lock, ...], until: float | None = None) -> bool:
        """Releases locks that nobody will get to see, and reports whether that is
        done."""
        timeout = connection.UNDO if until is None else until - now()
        return await self._release(*release_of(locks, self.holder), timeout)

    async def _release(self, method: str, request: Any, timeout: float) -> bool:
        try:
            response = await self._ask(method, request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error, self.address)
            return isinstance(refusal, (NotHolderError, NotLockedError))
        return is_released(response)

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
                await self._ask(
                    "Info", pb.InfoRequest(), min(left, connection.LONG), wait_for_ready=True
                )
                return True
            except grpc.RpcError as error:
                if not isinstance(from_rpc_error(error, self.address), (*ABSENT, TimeLimitError)):
                    return True

    async def _explained(self, error: Error) -> Error:
        """Returns error, which says why there is no connection, if that can be found
        out."""
        encrypted = self._endpoint.encrypted
        return await asyncio.to_thread(explain, error, self.address, encrypted=encrypted)

    async def _renew_holds(self, holds: Sequence[Hold], timeout: float) -> Sequence[Lock | Error]:
        """Renews holds that were taken together, as pylok.Client does."""
        method, request = renewal(holds)
        try:
            response = await self._ask(method, request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        return renewal_answers(holds, response)

    async def _end_of(self, lock: Lock) -> Event | None:
        """Returns the event that has ended a hold, if that comes soon."""
        request = pb.HistoryRequest(
            pattern=lock.name, after_revision=lock.revision, page_size=requests.PAGE_SIZE
        )
        until, ending = now() + connection.EXPLAIN, Ending(lock)
        try:
            while (left := until - now()) > 0:
                response = await self._ask("History", request, left)
                if any(ending.passed(event) for event in map(event_from_message, response.events)):
                    break
                request.page_token = response.next_page_token
                if not request.page_token:
                    break
        except (grpc.RpcError, grpc.aio.UsageError):  # gRPC's word for a closed channel
            pass
        return ending.event


async def _as_they_are(locks: tuple[Lock, ...], _: float | None) -> tuple[Lock, ...]:
    return locks


class Acquisition(Generic[H]):
    """What Client.acquire, acquire_set and adopt return: await it, or use it in `async
    with`."""

    def __init__(self, acquire: Callable[[], Coroutine[Any, Any, H]]) -> None:
        """Is for the Client."""
        self._acquire = acquire
        self._held: H | None = None

    def __await__(self) -> Generator[Any, None, H]:
        """Takes what is to be taken and returns it; it is to be released."""
        held: H = yield from self._acquire().__await__()
        return held

    async def __aenter__(self) -> H:
        """Takes what is to be taken and returns it."""
        self._held = held = await self._acquire()
        return await held.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlocks it, as Hold does."""
        assert self._held is not None
        await self._held.__aexit__(kind, error, traceback)
