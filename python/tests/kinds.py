"""One test for both kinds of client."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pylok
import pylok.aio

KINDS = ("sync", "aio")
"""The kinds of client."""


class Loop:
    """An event loop in a thread of its own, with a pylok.aio.Client that a test calls as if
    it were no such."""

    def __init__(self) -> None:
        """Starts it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Any) -> Any:
        """Has a coroutine done."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def client(self, *arguments: Any, **options: Any) -> Any:
        """Makes a client."""

        async def make() -> pylok.aio.Client:
            return pylok.aio.Client(*arguments, **options)

        return Called(self, self.run(make()))

    def close(self) -> None:
        """Ends it, and what goes on in it."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Called:
    """An object that lives in a Loop, where all is done to it."""

    def __init__(self, loop: Loop, target: Any) -> None:
        """Wraps target."""
        self._called = loop, target

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute; a method awaits what it returns."""
        loop, target = self._called

        async def get() -> Any:
            return getattr(target, name)

        value = loop.run(get())
        if not inspect.ismethod(value):
            return self._wrapped(value)

        async def call(arguments: Any, options: Any) -> Any:
            result = value(*arguments, **options)
            if inspect.isawaitable(result):
                result = await result
            elif isinstance(result, AsyncIterator):
                result = iter([item async for item in result])
            return result

        return lambda *arguments, **options: self._wrapped(loop.run(call(arguments, options)))

    def __getitem__(self, key: Any) -> Any:
        """Returns an item."""
        return self._wrapped(self._called[1][key])

    def __len__(self) -> int:
        """Returns its length."""
        return len(self._called[1])

    def __iter__(self) -> Iterator[Any]:
        """Returns an iterator over its items."""
        return iter([self._wrapped(item) for item in self._called[1]])

    def __enter__(self) -> Any:
        """Is `async with`, for one whose loss is nothing to the test's thread."""
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Ends it."""
        if hasattr(self._called[1], "holds") or hasattr(self._called[1], "token"):
            self.__getattr__("_end_block")()
        else:
            self.close()

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, (pylok.aio.Hold, pylok.aio.Set)):
            return Called(self._called[0], value)
        if isinstance(value, tuple) and value and isinstance(value[0], pylok.aio.Hold):
            return tuple(map(self._wrapped, value))
        return value
