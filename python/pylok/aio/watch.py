"""An async iterator over changes that goes on after a broken stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from pylok.connection import PAUSE, Maker, not_for_children
from pylok.errors import Error, from_rpc_error
from pylok.messages import Event, event_from_message
from pylok.position import Position
from pylok.proof import Bearer
from pylok.v1 import lock_service_pb2 as pb


class Watch(AsyncIterator[Event]):
    """Changes in order, without a gap and without a repeat, from Client.watch; see
    pylok.Watch. It ends with close, or at the end of the `async with` statement that
    it is used in."""

    def __init__(
        self,
        rpc: Any,
        explained: Callable[[Error], Coroutine[Any, Any, Error]],
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
        self._closed = False
        self._maker = Maker()

    async def __anext__(self) -> Event:
        """Waits for the next event."""
        self._maker.check("this watch")
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self._stream is None:
                if not self._fruitful:
                    await asyncio.sleep(PAUSE)
                    if self._closed:
                        raise StopAsyncIteration
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
            try:
                response = await self._stream.read()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._closed and task is not None and not task.cancelling():
                    raise StopAsyncIteration from None  # another task has closed it
                self._stream = None  # it has ended with the reading
                raise
            except grpc.RpcError as error:
                if self._closed:
                    raise StopAsyncIteration from None
                if self._position.is_refused(error) and await asyncio.to_thread(
                    self._position.renewed
                ):
                    self._stream, self._fruitful = None, True
                    continue
                refusal = from_rpc_error(error, self._address)
                pause = self._position.again(refusal, begun=self._begun)
                if pause is None:
                    raise await self._explained(refusal) from None
                self._stream = None
                await asyncio.sleep(pause)
                continue
            if response is grpc.aio.EOF:
                self._stream = None
                continue
            self._begun = self._fruitful = True
            event = event_from_message(response.event)
            self._position.passed(event)
            return event

    async def close(self) -> None:
        """Ends the watch."""
        if not self._maker.is_here():
            return
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> Watch:
        """Returns the watch."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the watch."""
        await self.close()
