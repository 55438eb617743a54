"""The client for programs that are new: holds that renew themselves, tokens,
waits, watches, and an error for each reason."""

from __future__ import annotations

import datetime
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from pylok import answers, connection, proof, requests
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
from pylok.hold import Hold
from pylok.keeper import Keeper, Kept
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
from pylok.sets import MOST, Set, is_standing, release_together
from pylok.settings import Settings
from pylok.taking import LeftError, Taking, finish
from pylok.v1 import lock_service_pb2 as pb
from pylok.v1.lock_service_pb2_grpc import LockServiceStub
from pylok.wanted import FOREVER, Wanted, WantedSet, is_released, release_of, unsupported
from pylok.watch import Watch

H = TypeVar("H", Hold, Set)


class Client:
    """A connection to a server, for any number of threads. It connects when it is
    first needed and again after a loss.

    Every method raises an Error: one for each reason that the server refuses for,
    UnreachableError when there is no answer, TimeLimitError when there is none in
    time. Times without a unit are seconds.

    A lock, an acquire or one of a set that raises an exception holds nothing, also when it
    is a KeyboardInterrupt, unless it is an Error with a request_id: then nobody tells
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
    ) -> Hold:
        """Takes a lock and keeps it by renewing it in the background, until the
        `with` block that it is used in ends, or its release.

        ttl is how long the lock stays held when this process dies or is cut off. wait
        is how long to queue; math.inf: without an end. A hold that is not renewed counts as
        lost before its ttl is over, by margin, which is the time that the work has to stop
        in before somebody else can get the lock: 0 to half of the ttl, a tenth of it unless
        it is given. shared, limit, tree, drain, through_freeze, replace_stale, on_expiry and
        refuse_manual are as for lock.

        These are called from another thread: on_lost when the hold is lost; on_asked when
        somebody asks for it, with Client.ask or `pylok ask`; on_at_risk, with why, when it
        has not been renewed for two thirds of its time, so that the last third is left, once
        until it is renewed again. A hold with on_asked watches its lock, and knows at once
        when it is over.
        """
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

        return self._acquire(Wanted(request), ttl, wait, margin, keep)

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
    ) -> Set:
        """Takes several locks, all or none, as lock_set does, and keeps them as acquire
        keeps one. What is said once counts for each; on_at_risk is called for the one that
        ends first.

            client.acquire_set(["db/a", "db/b"], wait=60)
            client.acquire_set(choices=[pylok.Choice(["patch/slot-1", "patch/slot-2"])])
        """
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

        return self._acquire(WantedSet(request), ttl, wait, margin, keep)

    def adopt(
        self,
        name: str,
        token: int,
        *,
        margin: Seconds | None = None,
        on_lost: Callable[[Hold], None] | None = None,
        on_asked: Callable[[Hold, Ask], None] | None = None,
        on_at_risk: Callable[[Hold, Error], None] | None = None,
    ) -> Hold:
        """Makes a Hold for a hold that exists, for a job that goes on under a lock that
        whoever started it has: sees that it stands, renews it with the ttl that it has, and
        keeps it from then on. Two that renew one hold do no harm. LostError if it is over.

        The end of a `with` block leaves such a hold to whoever has taken the lock, as
        Hold.leave does, and so does close; its release unlocks the lock.
        """

        def adopt(_: Taking[Hold]) -> Hold:
            found = self.status(name)
            check_adoptable(found, token)
            ttl = math.inf if found.ttl is None else requests.seconds(found.ttl)
            lease = Lease(ttl, now(), None if margin is None else requests.seconds(margin))
            if found.ttl is not None:
                try:
                    found = self.renew(name, token)
                except (NotHolderError, NotLockedError) as error:
                    raise lost_error(found, error, None) from error
            elif found.caller:  # and there is no renewal that would tell
                check_owner(found, self.info().caller)
            return self._keep(found, lease, on_lost, on_asked, on_at_risk, adopted=True)

        def leave(hold: Hold) -> None:
            hold._begin_release()

        return Taking(adopt, leave, waits=False).take()

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
        """Takes a lock, which then is held until its unlock, or until it expires.

        holder "" takes it anonymously. wait is at most 24 h, or math.inf: without an end.
        request_id is a new one for each call unless one is given; with it a lost answer is
        asked for again. overwrite replaces a hold that is anonymous or has the same holder.

        shared takes a hold beside other shared ones: readers. It has a name of its own,
        NAME/_+NUMBER. While one stands, nobody gets the lock itself, as a writer does; while
        that is held or waited for, nobody gets a new shared one. limit does so while fewer
        than that stand.

        tree takes a hold that covers every name below too, and with the name `_all` every
        name: nobody gets a new hold there, and what is held goes on. drain does so only when
        nothing below is held, and needs a wait. Both need the right freeze.

        through_freeze takes the lock although a tree covers it, and replace_stale replaces
        a stale hold, whoever's it was. Both need a reason, which the history keeps.

        on_expiry="keep" has the hold become stale when its time is over: it stays held
        until somebody has looked. refuse_manual waits for no hold, and behind no request,
        that has no end of its own: for no person.
        """
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
        return self._take(Wanted(request), wait)[0]

    def lock_set(
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
        """Takes several locks, all or none, in one step: all of names, and of each of
        choices as many as it says, whichever are free first; at most 64 names together. It
        returns the holds, in name order. What is said once counts for each, as for lock.
        """
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
        return self._take(WantedSet(request), wait)

    def unlock(
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
        """Releases a hold and returns it as it was, or its name and token alone where the
        answer was lost and the hold of token is found to be over.

        With token exactly that hold: what a program wants that has taken one. Without,
        one that is anonymous or has the holder; two jobs of one user have the same
        holder, and one that was refused so releases the hold of the other.

        force breaks any hold, or only that of token, and needs a reason. stale releases a
        stale one, whoever's it was, and needs a reason too: that somebody has looked.
        reason and data, a closing message in place of the hold's data, go to those who
        watch and into the history.
        """
        request = requests.unlock(
            name, token, self._holder(holder), force=force, stale=stale, reason=reason, data=data
        )
        try:
            response, _ = self._call(self._stub.Unlock, request, again=token != 0)
        except (NotLockedError, NotHolderError) as error:
            if token and error.sent_again:  # the first sending did it
                return Released(name=name, token=token)
            raise
        return released_from_message(response)

    def unlock_set(
        self,
        holds: Iterable[HoldRef] = (),
        *,
        set: SetRef | int | None = None,
        holder: str | None = None,
        force: bool = False,
        reason: str = "",
        data: Mapping[Any, Any] | None = None,
    ) -> tuple[SetAnswer, ...]:
        """Releases several holds, as far as they still stand, in one step: those of holds,
        each a Lock or a Hold or a name and a token, or what is left of a set, given by
        Lock.set. It returns what became of each, in name order; what unlock would have
        raised for one is its answer's error. The rest is as for unlock."""
        request = requests.unlock_set(
            holds, set, self._holder(holder), force=force, reason=reason, data=data
        )
        response, sent_again = self._call(self._stub.UnlockSet, request)
        made = answers.from_messages(response.answers)
        return answers.released_before(made) if sent_again else made

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

    def renew_set(
        self,
        holds: Iterable[HoldRef],
        *,
        ttl: Seconds | None = None,
        expire_time: datetime.datetime | None = None,
        holder: str | None = None,
    ) -> tuple[SetAnswer, ...]:
        """Pushes the deadline of several holds out, each a Lock or a Hold or a name and a
        token. It returns what became of each, in name order; what renew would have raised
        for one is its answer's error."""
        request = requests.renew_set(holds, ttl, expire_time, self._holder(holder))
        return answers.from_messages(self._call(self._stub.RenewSet, request)[0].answers)

    def hand_over(
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
        """Has a hold go on under another holder, without a gap. The answer has the new
        holder's token; the old one is refused from then on, and a Hold that has it is lost.

        to is the new holder, "" for nobody by name; caller is whose the hold is from now
        on, an authenticated name, which a server with an access file needs. Its expiry
        stays, a ttl anew, unless ttl, expire_time or never, for none, says another. data
        replaces the hold's. holder is who hands over, and reason says why, for the history.
        """
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
        response, _ = self._call(self._stub.HandOver, request)
        return HandOverAnswer(lock_from_message(response.lock), tuple(response.warnings))

    def ask(
        self, name: str, message: str, *, token: int = 0, holder: str | None = None
    ) -> AskAnswer:
        """Asks the holder of a lock to let go, or with token that of this hold alone. Who
        watches for the holder is told, as a Hold with on_asked is; nothing follows from it
        by itself. holder is who asks."""
        request = pb.AskRequest(
            name=name, token=token, message=message, holder=self._holder(holder)
        )
        response, _ = self._call(self._stub.Ask, request, again=False)  # lest it is asked twice
        return AskAnswer(lock_from_message(response.lock), response.heard)

    def dismiss(self, name: str, place: int, *, reason: str, holder: str | None = None) -> Waiter:
        """Puts who waits for a lock at a place, as Lock.waiting has it, out of the line,
        and returns it as it was, or its place alone where the answer was lost. It is told
        that holder did it, and the reason. That needs the right break."""
        request = pb.DismissRequest(
            name=name, place=place, reason=reason, holder=self._holder(holder)
        )
        try:
            response, _ = self._call(self._stub.Dismiss, request)
        except NotLockedError as error:
            if error.sent_again:  # the first sending did it
                return Waiter(place)
            raise
        return waiter_from_message(response.waiter)

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

    def watch(self, pattern: str = "", *, after_revision: int = 0, token: int = 0) -> Watch:
        """Returns an iterator over the changes of the locks that match a pattern, as
        they happen; without end, and through breaks of the connection. A pattern that is
        one name has that lock's shared holds too. With the token of a hold of that one lock
        it has what is asked of its holder too: ASKED."""
        self._maker.check("this client")
        return Watch(
            self._stub.Watch,
            self._explained,
            self.address,
            pattern,
            after_revision,
            token,
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

    def close(self, *, release_all: bool = False) -> None:
        """Ends all calls and the connection. Holds stay held until they expire, but with
        release_all those of acquire and acquire_set are released, within some seconds, and
        an Error is raised for one that may stay locked."""
        if not self._maker.is_here():
            return
        failures: list[Error] = []
        try:
            if release_all:
                finish(lambda: failures.extend(self._release_all()))
        finally:
            self._channel.close()
        if failures:
            raise failures[0]

    def _release_all(self) -> Sequence[Error]:
        """Releases what is kept, and returns why some may stay locked."""
        until = now() + connection.RELEASE_ALL
        failures: list[Error] = []
        left = [hold for taken in self._kept.close() for hold in (taken.holds if isinstance(taken, Set) else (taken,))]
        while left and now() < until:
            some, left = left[:MOST], left[MOST:]
            failures += release_together(self, some, "", None)[1]
        if left:
            failures.append(TimeLimitError(f"{left[0].name} and {len(left) - 1} more could not be released in time"))
        return failures

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

    def _acquire(
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

        def acquire(taking: Taking[H]) -> H:
            locks, queued = self._lock(wanted, wait, taking)
            begun = now() if queued is None else sent + queued
            if queued is None:  # it is unknown when the holds began
                try:
                    locks = self._renewed(locks)
                except Error as error:
                    if not self._give_back(locks):
                        may_be_locked(error, wanted.name, wanted.request.request_id)
                    raise
            leases = [Lease(requests.seconds(ttl), begun, before) for _ in locks]
            try:
                kept = keep(locks, leases)
            except RuntimeError:  # there is no thread to renew it
                self._give_back(locks)
                raise
            if not self._kept.keep(kept):
                release(kept)
                raise Error("the client is closed")
            if not is_standing(kept):  # and was not before it was kept
                self._kept.forget(kept)
            return kept

        def release(kept: H) -> None:
            try:
                kept.release(reason=connection.LEFT)
            except Error:
                pass  # the ttl runs out

        return Taking(acquire, release, waits=wanted.waits).take()

    def _renewed(self, locks: tuple[Lock, ...]) -> tuple[Lock, ...]:
        """Renews holds that were just taken."""
        if len(locks) == 1:
            return (self.renew(locks[0].name, locks[0].token),)
        return answers.renewed(self.renew_set(locks))

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
        keeper: Keeper[Hold] = Keeper(on_at_risk)
        hold = Hold(self, lock, lease, on_lost, on_asked, keeper, adopted=adopted)
        try:
            keeper.keep((hold,))
        except RuntimeError:  # there is no thread
            hold._begin_release()
            raise
        return hold

    def _take(self, wanted: Wanted, wait: Seconds) -> tuple[Lock, ...]:
        """Takes locks and returns them."""

        def take(taking: Taking[tuple[Lock, ...]]) -> tuple[Lock, ...]:
            return self._lock(wanted, wait, taking)[0]

        return Taking(take, self._give_back, waits=wanted.waits).take()

    def _lock(
        self, wanted: Wanted, wait: Seconds, taking: Taking[Any]
    ) -> tuple[tuple[Lock, ...], float | None]:
        """Asks for a lock or a set. Returns the holds, and how many seconds the request stood
        in line, None where that is not known because it was sent again. When it raises an
        exception nothing is held, or its request_id is set."""

        def send(request: Any, **options: Any) -> Any:
            return taking.send(getattr(self._stub, wanted.method), request, options)

        sending = Sending(wanted.request, self._server, wait)
        try:
            response, sent_again = self._call(send, wanted.request, sending=sending)
        except LeftError as left:
            if left.sent:
                self._undo(wanted, cut_off=sending.cut_off)
            raise
        except Error as error:
            if is_outcome_unknown(error):
                ask = taking.has_left() or isinstance(error, TimeLimitError) or is_fault(error)
                if not ask or not self._undo(wanted, cut_off=sending.cut_off):
                    may_be_locked(error, wanted.name, wanted.request.request_id)
            elif error.sent_again and not self._undo_rest(wanted, error):
                may_be_locked(error, wanted.name, wanted.request.request_id)
            elif isinstance(error, LockHeldError) and requests.seconds(wait) == math.inf:
                if not self._knows_forever():
                    raise unsupported(self.address, "a wait without an end") from error
            raise
        locks = wanted.locks(response)
        if what := wanted.missing(locks):
            older = unsupported(self.address, what)
            if not self._give_back(locks):
                may_be_locked(older, wanted.name, wanted.request.request_id)
            raise older
        return locks, None if sent_again else response.queued.ToTimedelta().total_seconds()

    def _undo(self, wanted: Wanted, *, cut_off: bool) -> bool:
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
            if wanted.waits and not cut_off:
                for method, probe in wanted.probes():
                    found = self._ask(getattr(self._stub, method), probe, until - now())
                    if wanted.may_be_held(found):
                        break
                else:
                    return True
            again, rpc = wanted.again(), getattr(self._stub, wanted.method)
            response = self._ask(rpc, again, until - now(), wait_for_ready=True)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error, self.address)
            return isinstance(refusal, ANSWERS) and self._undo_rest(wanted, refusal)
        return self._give_back(wanted.locks(response), until)

    def _undo_rest(self, wanted: Wanted, refusal: Error) -> bool:
        """Releases what is left of a request that was granted, as its refusal says, and
        reports whether nothing is left."""
        if not wanted.is_partly_held(refusal):
            return True
        rest = wanted.rest(refusal)
        return rest is not None and self._release(*rest, connection.UNDO)

    def _knows_forever(self) -> bool:
        """Reports whether the server is not known to be too old for waits without an end."""
        try:
            return FOREVER in self.info().features
        except Error:
            return True

    def _give_back(self, locks: tuple[Lock, ...], until: float | None = None) -> bool:
        """Releases locks that nobody will get to see, and reports whether that is
        done."""
        timeout = connection.UNDO if until is None else until - now()
        return self._release(*release_of(locks, self.holder), timeout)

    def _release(self, method: str, request: Any, timeout: float) -> bool:
        try:
            response = self._ask(getattr(self._stub, method), request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error, self.address)
            return isinstance(refusal, (NotHolderError, NotLockedError))
        return is_released(response)

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
                self._ask(self._stub.Info, pb.InfoRequest(), min(left, connection.LONG), wait_for_ready=True)
                return True
            except grpc.RpcError as error:
                if not isinstance(from_rpc_error(error, self.address), (*ABSENT, TimeLimitError)):
                    return True

    def _explained(self, error: Error) -> Error:
        """Returns error, which says why there is no connection, if that can be found
        out."""
        return explain(error, self.address, encrypted=self._encrypted)

    def _renew_holds(self, holds: Sequence[Hold], timeout: float) -> Sequence[Lock | Error]:
        """Renews holds that were taken together, and waits with it for the server to be
        there. One that needs none is looked at."""
        self._maker.check("this client")
        method, request = renewal(holds)
        try:
            response = self._ask(getattr(self._stub, method), request, timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        return renewal_answers(holds, response)

    def _end_of(self, lock: Lock) -> Event | None:
        """Returns the event that has ended a hold, if that comes soon."""
        request = pb.HistoryRequest(
            pattern=lock.name, after_revision=lock.revision, page_size=requests.PAGE_SIZE
        )
        until, ending = now() + connection.EXPLAIN, Ending(lock)
        try:
            while (left := until - now()) > 0:
                response = self._ask(self._stub.History, request, left)
                if any(ending.passed(event) for event in map(event_from_message, response.events)):
                    break
                request.page_token = response.next_page_token
                if not request.page_token:
                    break
        except (grpc.RpcError, ValueError):  # gRPC's word for a closed channel
            pass
        return ending.event
