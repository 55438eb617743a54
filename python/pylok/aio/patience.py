"""Work that is brought to its end although its task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def patiently(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Does work, which must take no more than some seconds, in a task of its own. A
    cancellation of this task is raised after it. asyncio.run, when its main coroutine
    has returned, cancels each task once, that of work too: then it is done anew."""
    cancelled: asyncio.CancelledError | None = None
    for _ in range(2):
        task = asyncio.ensure_future(work())
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
        if not task.cancelled():
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # it is seen; the cancellation is what counts
        raise cancelled
    return task.result()
