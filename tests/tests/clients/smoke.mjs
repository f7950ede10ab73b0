// What a program with node-redis does with default settings: argument 1 is the port.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createClient, ErrorReply, WatchError } from "redis";

const url = `redis://127.0.0.1:${process.argv[2]}`;

async function smoke(options) {
    const client = createClient({ url, ...options });
    client.on("error", (error) => {
        throw error;
    });
    await client.connect();
    await client.flushAll();
    assert.equal(await client.ping(), "PONG");

    // strings and counters
    assert.equal(await client.set("k", "v"), "OK");
    assert.equal(await client.get("k"), "v");
    assert.equal(await client.get("none"), null);
    assert.equal(await client.set("k", "w", { NX: true }), null);
    assert.equal(await client.incr("n"), 1);
    assert.equal(await client.incrBy("n", 9), 10);
    await client.mSet({ a: "1", b: "2" });
    assert.deepEqual(await client.mGet(["a", "b", "none"]), ["1", "2", null]);

    // sets and hashes
    assert.equal(await client.sAdd("s", ["a", "b", "c"]), 3);
    assert.deepEqual([...(await client.sMembers("s"))].sort(), ["a", "b", "c"]);
    assert.equal(Boolean(await client.sIsMember("s", "a")), true);
    assert.equal(await client.hSet("h", { f: "1", g: "x" }), 2);
    assert.deepEqual({ ...(await client.hGetAll("h")) }, { f: "1", g: "x" });
    assert.equal(await client.hIncrBy("h", "f", 4), 5);

    // deadlines
    assert.equal(Boolean(await client.expire("k", 100)), true);
    assert.ok([99, 100].includes(await client.ttl("k")));

    // transactions and pipelines
    assert.deepEqual(await client.multi().set("p", "1").incr("p").get("p").exec(), ["OK", 2, "2"]);
    const many = Array.from({ length: 1000 }, (_, n) => client.set(`many:${n}`, `${n}`));
    assert.ok((await Promise.all(many)).every((reply) => reply === "OK"));
    const watching = await client.duplicate().connect();
    await watching.watch("p");
    await client.set("p", "5");
    await assert.rejects(watching.multi().set("p", "6").exec(), WatchError);
    watching.destroy();

    // iteration
    const found = new Set();
    for await (const keys of client.scanIterator({ MATCH: "many:*", COUNT: 50 })) {
        for (const key of [keys].flat()) found.add(key);
    }
    assert.equal(found.size, 1000);

    // errors
    await assert.rejects(client.incr("s"), (error) => {
        return error instanceof ErrorReply && error.message.startsWith("WRONGTYPE");
    });
    await assert.rejects(client.sendCommand(["NOSUCH"]), /unknown command/);

    // what is Lattis's own
    await client.sendCommand(["SADD.CRDT", "own", "1", "2"]);
    assert.equal(await client.sendCommand(["MAP.BIND", "twice", "own", "x*2"]), "OK");
    assert.deepEqual([...(await client.sMembers("twice"))].sort(), ["2", "4"]);
    await assert.rejects(client.sAdd("twice", "1"), /READONLY/);
    assert.equal((await client.sendCommand(["DIGEST.CRDT"])).length, 32);
    await client.close();
}

await smoke({});
await smoke({ RESP: 2 });
await smoke({ RESP: 3 });
const { version } = createRequire(import.meta.url)("redis/package.json");
console.log("node-redis", version, "is served");
