"""Shows pylok from Python: locks with data, watches from a second connection, is
refused as a third, and unlocks. PYLOK_ADDRESS says where the server is."""

import pylok

NAME = "examples/server-1"


def follow(watch: pylok.Watch, last: pylok.EventType) -> None:
    """Prints the events of a watch up to the first of a type."""
    for event in watch:
        if event.lock:
            kind = event.type.name.lower()
            print(f"watching: {kind} by {event.lock.holder}, {event.lock.data['status']}")
        if event.type == last:
            return


with pylok.Client(holder="alice") as alice, pylok.Client() as watcher, pylok.Client(holder="bob") as bob:
    # alice.acquire(NAME) in a `with` statement would also renew the hold.
    held = alice.lock(NAME, data={"backend": "App1", "status": "MAINT"})
    print(f"locked {NAME}, token {held.token}")

    with watcher.watch("examples/*") as watch:
        follow(watch, pylok.EventType.SYNCED)

        try:
            bob.lock(NAME)
        except pylok.LockHeldError as refused:
            print(f"refused: {refused.reason} by {refused.lock.holder}")

        alice.unlock(NAME, held.token, data={"backend": "App1", "status": "READY"})
        print(f"unlocked {NAME}")
        follow(watch, pylok.EventType.UNLOCKED)
