"""A request for a lock that its caller may leave at any moment.

A Ctrl-C that comes between the grant and its use must not leave the lock held. Python
raises it in the main thread, between any two steps. So there the request is made in a
thread of its own, which nothing interrupts: it goes on until it knows whether it has
the lock, and releases what nobody is there to use.
"""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

from pylok import connection

T = TypeVar("T")


class Taking(Generic[T]):
    """One request for a lock."""

    def __init__(
        self, work: Callable[[Taking[T]], T], undo: Callable[[T], object], *, waits: bool
    ) -> None:
        """work takes the lock, and raises an exception when it has not; undo gives back
        what it returned. waits says that the request may stand in line."""
        self._work = work
        self._undo = undo
        self._waits = waits
        self._deciding = threading.Lock()
        self._left = False  # the caller has
        self._begun = False  # work has
        self._sent = False  # the request was
        self._over = False  # work is
        self._call: Any = None  # that can be cancelled
        # Work is finished, and what it took is given back: released then. They are no
        # Events, which break when a KeyboardInterrupt hits those who wait.
        self._finished = threading.Lock()
        self._finished.acquire()
        self._settled = threading.Lock()
        self._settled.acquire()
        self._result: T
        self._error: BaseException | None = None

    def take(self) -> T:
        """Returns what work returns. Where it is interrupted by another exception, that
        is raised when the lock is not held any more, or after some seconds."""
        if threading.get_ident() != threading.main_thread().ident:
            return self._work(self)
        try:
            try:
                # Thread.start breaks when a KeyboardInterrupt hits it.
                start_new_thread(self._run, ())
            except RuntimeError:  # no thread is to be had, as at the end of the interpreter
                self._run()
            self._finished.acquire()
            if self._error is not None:
                raise self._error
            return self._result
        except BaseException as error:
            if error is not self._error:
                self._leave()
            raise

    def send(self, rpc: Any, request: Any, options: dict[str, Any]) -> Any:
        """Makes the call for the lock, for work. One that waits ends when the caller
        leaves; another is answered at once and can tell what it did."""
        with self._deciding:
            if self._left:
                raise LeftError(sent=self._sent)
            self._sent = True
            if self._waits:
                self._call = rpc.future(request, **options)
        if self._call is None:
            return rpc(request, **options)
        try:
            return self._call.result()
        except grpc.FutureCancelledError:
            raise LeftError(sent=True) from None

    def has_left(self) -> bool:
        """Reports whether the caller has left."""
        return self._left

    def _run(self) -> None:
        with self._deciding:
            if self._left:
                return
            self._begun = True
        try:
            self._result = self._work(self)
        except BaseException as error:
            self._error = error
        with self._deciding:
            self._over = True
            left = self._left
        self._finished.release()
        if left:
            self._give_back()

    def _leave(self) -> None:
        """Has what was taken given back, and waits for that."""
        with self._deciding:
            self._left = True
            begun, over = self._begun, self._over
            if self._call is not None:
                self._call.cancel()
        if over:
            start_new_thread(self._give_back, ())
        if begun:
            self._settled.acquire(timeout=connection.UNDO)

    def _give_back(self) -> None:
        try:
            if self._error is None:
                self._undo(self._result)
        except Exception:
            pass  # nobody is there to be told
        finally:
            self._settled.release()


def finish(work: Callable[[], object]) -> None:
    """Does work, which is begun although this is interrupted; that is raised after it,
    or after some seconds."""
    begun: list[bool] = []
    errors: list[BaseException] = []

    def run(_: Taking[None]) -> None:
        begun.append(True)
        try:
            work()
        except BaseException as error:
            errors.append(error)

    interrupt: BaseException | None = None
    while not begun:
        try:
            Taking(run, lambda _: None, waits=False).take()
        except BaseException as error:
            if interrupt is not None:
                raise
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]


class LeftError(Exception):
    """The caller has left, and does not get to see this."""

    def __init__(self, *, sent: bool) -> None:
        """sent: the server may have got a request."""
        super().__init__()
        self.sent = sent
