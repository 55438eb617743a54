// Shows pylok from TypeScript on Node: locks with data, watches from a second
// connection, is refused as a third, and unlocks. PYLOK_ADDRESS says where the
// server is. Run it with `npm ci && npm start`.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { EventType, LockSchema, LockService, type WatchResponse } from "./gen/pylok/v1/lock_service_pb.js";

const name = "examples/server-1";

// Every client has a connection of its own, which closes when it is not used.
function connect() {
  const address = process.env.PYLOK_ADDRESS ?? "127.0.0.1:5625";
  return createClient(LockService, createGrpcTransport({ baseUrl: `http://${address}`, idleConnectionTimeoutMs: 100 }));
}

// Prints the events of a stream up to the first of a type.
async function follow(stream: AsyncIterator<WatchResponse>, last: EventType) {
  for (;;) {
    const { value, done } = await stream.next();
    if (done || !value.event) {
      throw new Error("the stream has ended");
    }
    const { type, lock } = value.event;
    if (lock) {
      console.log(`watching: ${EventType[type].toLowerCase()} by ${lock.holder}, ${lock.data?.status}`);
    }
    if (type === last) {
      return;
    }
  }
}

const [alice, watcher, bob] = [connect(), connect(), connect()];

const { lock: held } = await alice.lock({ name, holder: "alice", data: { backend: "App1", status: "MAINT" } });
console.log(`locked ${name}, token ${held?.token}`);

const stop = new AbortController();
const stream = watcher.watch({ pattern: "examples/*" }, { signal: stop.signal })[Symbol.asyncIterator]();
await follow(stream, EventType.SYNCED);

try {
  await bob.lock({ name, holder: "bob" });
} catch (error) {
  const refused = ConnectError.from(error);
  if (refused.code !== Code.FailedPrecondition) {
    throw error; // of Lock, LOCK_HELD alone has that code
  }
  const [present] = refused.findDetails(LockSchema);
  console.log(`refused: LOCK_HELD by ${present?.holder}`);
}

await alice.unlock({ name, token: held?.token, data: { backend: "App1", status: "READY" } });
console.log(`unlocked ${name}`);
await follow(stream, EventType.UNLOCKED);
stop.abort();
