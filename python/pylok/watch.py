"""An iterator over changes that goes on after a broken stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from pylok.connection import PAUSE, Maker, not_for_children
from pylok.errors import Error, from_rpc_error
from pylok.messages import Event, event_from_message
from pylok.position import Position
from pylok.proof import Bearer
from pylok.v1 import lock_service_pb2 as pb


class Watch(Iterator[Event]):
    """Changes in order, without a gap and without a repeat, from Client.watch.

    Without after_revision the present state comes first: RESET, a LOCKED for each
    held lock, SYNCED. When the stream breaks, the next one goes on after the last
    event. When the server no longer knows every change since then, RESET comes
    again: forget what you know. It ends with close, or at the end of the `with`
    statement that it is used in; an error is raised for a server that was never
    there, and for one that refuses.
    """

    def __init__(
        self,
        rpc: Any,
        explained: Callable[[Error], Error],
        address: str,
        pattern: str,
        after_revision: int,
        token: int,
        bearer: Bearer | None,
    ) -> None:
        """Is for Client.watch."""
        self._rpc = rpc
        self._explained = explained
        self._address = address
        self._pattern = pattern
        self._token = token
        self._position = Position(after_revision, bearer)
        self._stream: Any = None
        self._begun = False  # an event has come
        self._fruitful = True  # this stream has brought an event
        self._changing = threading.Lock()  # of _stream, against close
        self._closed = threading.Event()
        self._maker = Maker()

    def __next__(self) -> Event:
        """Waits for the next event."""
        self._maker.check("this watch")
        while True:
            try:
                self._open()
                response = next(self._stream)
            except StopIteration:
                if self._closed.is_set():
                    raise
            except grpc.RpcError as error:
                if self._closed.is_set():
                    raise StopIteration from None
                if self._position.is_refused(error) and self._position.renewed():
                    self._stream, self._fruitful = None, True
                    continue
                refusal = from_rpc_error(error, self._address)
                pause = self._position.again(refusal, begun=self._begun)
                if pause is None:
                    raise self._explained(refusal) from None
                self._closed.wait(pause)
            else:
                self._begun = self._fruitful = True
                event = event_from_message(response.event)
                self._position.passed(event)
                return event
            self._stream = None

    def close(self) -> None:
        """Ends the watch, also from another thread."""
        if not self._maker.is_here():
            return
        with self._changing:
            self._closed.set()
            if self._stream is not None:
                self._stream.cancel()

    def __enter__(self) -> Watch:
        """Returns the watch."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the watch."""
        self.close()

    def _open(self) -> None:
        """Opens a stream where there is none."""
        if self._stream is not None:
            return
        if not self._fruitful:
            self._closed.wait(PAUSE)
        with self._changing:
            if self._closed.is_set():
                raise StopIteration
            self._fruitful = False
            self._stream = not_for_children(
                self._rpc(
                    pb.WatchRequest(
                        pattern=self._pattern,
                        after_revision=self._position.after_revision,
                        token=self._token,
                    ),
                    wait_for_ready=self._begun,
                    **self._position.open(),
                )
            )
