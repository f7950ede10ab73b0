"""What a program with redis-py does with default settings: argument 1 is the port."""

import sys

import redis

r = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]), decode_responses=True)
r3 = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]), decode_responses=True, protocol=3)


def same(got, want):
    assert got == want, f"{got!r}, not {want!r}"


def raises(kind, call, *args, **more):
    try:
        got = call(*args, **more)
    except kind as error:
        return str(error)
    raise AssertionError(f"{got!r}, not {kind.__name__}")


for r in (r, r3):
    r.flushall()
    same(r.ping(), True)
    hello = r.execute_command("HELLO", 3)
    hello = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2]))
    same((hello["server"], hello["proto"], hello["role"]), ("redis", 3, "master"))
    r.connection_pool.disconnect()

    # strings and counters
    same(r.set("k", "v"), True)
    same(r.get("k"), "v")
    same(r.get("none"), None)
    same(r.set("k", "w", nx=True), None)
    same(r.set("k", "w", xx=True, get=True), "v")
    same(r.mset({"a": 1, "b": 2}), True)
    same(r.mget("a", "b", "none"), ["1", "2", None])
    same((r.incr("n"), r.incrby("n", 9), r.decr("n")), (1, 10, 9))
    same((r.append("k", "x"), r.strlen("k")), (2, 2))
    binary = bytes(range(256))
    raw = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]))
    raw.set("binary", binary)
    same(raw.get("binary"), binary)

    # sets and hashes
    same(r.sadd("s", "a", "b", "c"), 3)
    same(set(r.smembers("s")), {"a", "b", "c"})
    same((bool(r.sismember("s", "a")), r.scard("s"), r.srem("s", "a", "x")), (True, 3, 1))
    same(list(map(bool, r.smismember("s", ["a", "b"]))), [False, True])
    r.sadd("t", "c", "d")
    same(set(r.sinter("s", "t")), {"c"})
    same(set(r.sunion("s", "t")), {"b", "c", "d"})
    same(r.hset("h", mapping={"f": 1, "g": "x"}), 2)
    same(r.hgetall("h"), {"f": "1", "g": "x"})
    same((r.hincrby("h", "f", 4), r.hget("h", "f"), r.hlen("h")), (5, "5", 2))
    same(r.hmget("h", "f", "none"), ["5", None])
    same((bool(r.hexists("h", "g")), r.hdel("h", "g")), (True, 1))

    # deadlines
    same((r.expire("k", 100), r.ttl("k") in (99, 100)), (True, True))
    same((r.persist("k"), r.ttl("k"), r.ttl("none")), (True, -1, -2))
    r.set("short", 1, px=10_000)
    same(0 < r.pttl("short") <= 10_000, True)

    # transactions, pipelines, optimistic locks
    with r.pipeline() as pipe:
        pipe.set("p", 1).incr("p").get("p").sadd("ps", "m")
        same(pipe.execute(), [True, 2, "2", 1])
    with r.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"many:{number}", number)
        same(pipe.execute(), [True] * 1000)
    with r.pipeline() as pipe:
        pipe.watch("p")
        r.set("p", 5)
        pipe.multi()
        pipe.set("p", 6)
        raises(redis.WatchError, pipe.execute)

    def bump(pipe):
        pipe.multi()
        pipe.incr("p")

    same(r.transaction(bump, "p"), [6])

    # iteration
    same({key for key in r.scan_iter(match="many:*", count=50)}, {f"many:{n}" for n in range(1000)})
    same(r.dbsize() > 1000, True)
    same(r.type("h"), "hash")
    same(r.delete("a", "b", "none"), 2)
    same(r.exists("a", "k"), 1)

    # errors, by their classes
    same("WRONGTYPE" in raises(redis.ResponseError, r.incrby, "s", 1), True)
    same("not an integer" in raises(redis.ResponseError, r.incr, "k"), True)
    same("unknown command" in raises(redis.ResponseError, r.execute_command, "NOSUCH", 1), True)
    same("wrong number" in raises(redis.ResponseError, r.execute_command, "GET"), True)
    with r.pipeline() as pipe:
        pipe.execute_command("GET")
        raises(redis.ResponseError, pipe.execute)
    with r.pipeline() as pipe:
        pipe.sadd("s2", 1).incr("s2").scard("s2")
        raises(redis.ResponseError, pipe.execute)
    same(r.scard("s2"), 1)

    # what is Lattis's own
    same(r.execute_command("SADD.CRDT", "own", "1", "2"), 2)
    same(r.execute_command("MAP.BIND", "twice", "own", "x*2") in ("OK", True), True)
    same(set(r.smembers("twice")), {"2", "4"})
    same("derived" in raises(redis.ResponseError, r.sadd, "twice", 1), True)
    same(len(r.execute_command("DIGEST.CRDT")), 32)
    same(r.info("server")["redis_mode"], "standalone")
    same(r.config_get("appendonly"), {"appendonly": "yes"})
    same("get" in r.command() or "GET" in r.command(), True)
    r.client_setname("smoke")
    same(r.client_getname(), "smoke")

print("redis-py", redis.__version__, "is served")
