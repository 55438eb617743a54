"""The client for asyncio programs: what pylok.Client does, to be awaited.

    async with pylok.aio.Client() as client:
        async with client.acquire("lb/server-1") as hold:
            await deploy(fence=hold.token)
"""

from pylok.aio.client import Client as Client
from pylok.aio.hold import Hold as Hold
from pylok.aio.sets import Set as Set
from pylok.aio.watch import Watch as Watch
