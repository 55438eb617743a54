"""Patches servers, two at a time whoever else does the same: each needs a slot of a pool
and its own lock, both or neither. PYLOK_ADDRESS says where the server is."""

import pylok

SLOTS = pylok.Choice(["patch/slot-1", "patch/slot-2"])


def patch(client: pylok.Client, server: str) -> None:
    """Patches a server when its turn has come."""
    with client.acquire_set([f"lb/{server}"], choices=[SLOTS], wait=600) as locks:
        locks.check()  # before each step: LostError when a lock is lost
        print(f"patched {server} with {' and '.join(locks.names)}")


with pylok.Client(holder="alice") as alice, pylok.Client(holder="bob") as bob:
    patch(alice, "web-1")
    with bob.acquire("patch/slot-1"):  # one slot is as good as the other
        patch(alice, "web-2")
