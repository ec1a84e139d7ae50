"""What a Python program expects of the server, through redis-py or valkey-py, its sibling with the same names.

    redis_py.py PORT LOCKED_PORT PROTOCOL LIBRARY

The server at LOCKED_PORT wants the password `secret`; PROTOCOL is 2 or 3, LIBRARY is redis or valkey. Every check is a function whose
name says what holds. Each begins on an empty server, a failed one does not keep the others from running,
and the exit status tells whether all held. The same file must pass against a real Redis.
"""

import importlib
import sys
import time
import traceback

PORT, LOCKED_PORT, PROTOCOL = map(int, sys.argv[1:4])
LIBRARY = sys.argv[4]
redis = importlib.import_module(LIBRARY)
NoBackoff = importlib.import_module(LIBRARY + ".backoff").NoBackoff
Retry = importlib.import_module(LIBRARY + ".retry").Retry
# valkey-py has no public cache.
CacheConfig = importlib.import_module("redis.cache").CacheConfig if LIBRARY == "redis" else None
CHECKS = []
BINARY = bytes(range(256)) + b"\r\n$-1\r\n"


def check(function):
    CHECKS.append(function)
    return function


def connect(port=PORT, **options):
    # By default it makes ten attempts with pauses, even if the password is wrong.
    return redis.Redis(port=port, protocol=PROTOCOL, retry=Retry(NoBackoff(), 1), **options)


def eventually(what, condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.005)


def error_of(call, *args, **kwargs):
    """The error's class and its text, from which redis-py removes the code that selects the class."""
    try:
        call(*args, **kwargs)
    except redis.RedisError as error:
        return type(error), str(error)
    raise AssertionError("there was no error")


@check
def the_handshake_introduces_the_library(db):
    named = connect(client_name="worker", db=3)
    named.ping()
    me = named.client_info()
    assert me["name"] == "worker" and int(me["db"]) == 3, me
    assert int(me["resp"]) == PROTOCOL, me
    assert named.client_getname() in (b"worker", "worker")
    named.client_setname("renamed")
    mine = [other for other in db.client_list() if other["name"] == "renamed"]
    assert len(mine) == 1 and mine[0]["db"] == "3", mine
    assert mine[0]["cmd"] == "client|setname", mine
    # Redis stores the library's name since 7.2.
    if "lib-name" in me:
        assert me["lib-name"] == LIBRARY + "-py" and me["lib-ver"] == redis.__version__, me
    hello = db.execute_command("HELLO", PROTOCOL)
    pairs = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2]))
    assert pairs[b"proto"] == PROTOCOL and pairs[b"server"] == b"redis", pairs


@check
def info_is_parsed(db):
    info = db.info()
    assert info["redis_mode"] == "standalone" and info["role"] == "master", info
    assert info["loading"] == 0 and info["connected_clients"] >= 1, info
    db.set("k", "v", ex=100)
    assert db.info("keyspace")["db0"]["keys"] == 1
    assert db.info("keyspace")["db0"]["expires"] == 1


@check
def strings(db):
    assert db.set("greeting", "hello") is True
    assert db.get("greeting") == b"hello" and db.get("missing") is None
    assert db.set("greeting", "again", nx=True) is None
    assert db.set("greeting", "again", get=True) == b"hello"
    assert db.append("greeting", "!") == 6 and db.getrange("greeting", -2, -1) == b"n!"
    assert db.mset({"a": 1, "b": 2}) and db.mget("a", "b", "missing") == [b"1", b"2", None]
    assert db.incr("n", 41) == 41 and db.decr("n") == 40
    assert db.incrbyfloat("x", 0.1) == 0.1 and db.incrbyfloat("x", 0.2) == 0.3
    assert db.getdel("n") == b"40" and db.exists("n", "a", "a") == 2
    assert db.type("a") == b"string" and db.delete("a", "b", "missing") == 2
    assert db.setbit("bits", 7, 1) == 0 and db.get("bits") == b"\x01"
    assert db.pfadd("h", "a", "b") and db.pfcount("h") == 2
    assert connect(decode_responses=True).get("greeting") == "again!"


@check
def values_are_bytes_of_any_kind_and_size(db):
    assert db.set(BINARY, BINARY) and db.get(BINARY) == BINARY
    assert db.keys() == [BINARY]
    large = BINARY * 4096
    assert db.set("large", large) and db.get("large") == large
    assert db.hset("hash", mapping={BINARY: large}) == 1
    assert db.hgetall("hash") == {BINARY: large}


@check
def hashes(db):
    assert db.hset("user:1", mapping={"name": "ada", "born": 1815}) == 2
    assert db.hgetall("user:1") == {b"name": b"ada", b"born": b"1815"}
    assert db.hgetall("missing") == {}
    assert db.hget("user:1", "name") == b"ada" and db.hget("user:1", "none") is None
    assert db.hmget("user:1", "name", "none") == [b"ada", None]
    assert db.hincrby("user:1", "born") == 1816
    assert db.hincrbyfloat("user:1", "height", 1.5) == 1.5
    assert sorted(db.hkeys("user:1")) == [b"born", b"height", b"name"]
    assert db.hlen("user:1") == 3 and db.hexists("user:1", "name") is True
    assert db.hsetnx("user:1", "name", "bob") in (0, False)
    assert db.hdel("user:1", "name", "none") == 1
    assert db.type("user:1") == b"hash"


@check
def keys_expire(db):
    assert db.set("k", "v", ex=100) and 95 <= db.ttl("k") <= 100
    assert db.persist("k") is True and db.ttl("k") == -1 and db.ttl("missing") == -2
    assert db.expire("k", 50, nx=True) is True and db.expire("k", 60, nx=True) is False
    assert db.pexpireat("k", 9_999_999_999_000) is True and db.expiretime("k") == 9_999_999_999
    assert db.set("soon", "v", px=20)
    eventually("the key has expired", lambda: db.get("soon") is None)


@check
def replies_have_the_types_of_the_protocol(db):
    db.hset("h", mapping={"f": "v"})
    db.set_response_callback("HGETALL", lambda reply, **_: reply)
    resp3 = PROTOCOL == 3
    assert db.execute_command("HGETALL", "h") == ({b"f": b"v"} if resp3 else [b"f", b"v"])
    docs = db.execute_command("COMMAND DOCS", "get")
    assert isinstance(docs, dict if resp3 else list), docs
    assert isinstance(db.execute_command("INFO", "server"), dict)
    assert db.execute_command("GET", "missing") is None
    table = db.command()
    assert table["get"]["arity"] == 2 and db.command_count() == len(table)
    assert db.config_get("appendonl?") in ({"appendonly": "yes"}, {"appendonly": "no"})


@check
def errors_have_the_classes_of_redis_py(db):
    db.hset("h", "f", "v")
    kind, text = error_of(db.get, "h")
    assert kind is redis.ResponseError, kind
    assert text == "WRONGTYPE Operation against a key holding the wrong kind of value", text
    db.set("s", "text")
    assert error_of(db.incr, "s")[1] == "value is not an integer or out of range"
    kind, text = error_of(db.execute_command, "NOSUCH", "a", "b c")
    assert text == "unknown command 'NOSUCH', with args beginning with: 'a' 'b c' ", text
    assert error_of(db.execute_command, "GET")[1] == "wrong number of arguments for 'get' command"
    kind, text = error_of(db.execute_command, "CLIENT", "NOSUCH")
    assert text == "unknown subcommand 'NOSUCH'. Try CLIENT HELP.", text
    kind, text = error_of(db.execute_command, "HELLO", 9)
    assert text == "NOPROTO unsupported protocol version", text
    assert error_of(connect(db=99).ping)[1] == "DB index is out of range"
    assert db.ping() is True


@check
def a_pipeline_of_10000_commands(db):
    with db.pipeline(transaction=False) as pipe:
        for i in range(5000):
            pipe.set(f"key:{i}", i)
        for i in range(5000):
            pipe.get(f"key:{i}")
        replies = pipe.execute()
    assert replies == [True] * 5000 + [str(i).encode() for i in range(5000)]
    assert db.dbsize() == 5000
    with db.pipeline(transaction=False) as pipe:
        replies = pipe.set("s", "x").incr("s").get("s").execute(raise_on_error=False)
    assert replies[0] is True and replies[2] == b"x", replies
    assert isinstance(replies[1], redis.ResponseError), replies


@check
def a_pipeline_larger_than_all_buffers_is_written_before_the_first_reply_is_read(db):
    path = db.config_get("unixsocket")["unixsocket"]
    for client in (db, redis.Redis(unix_socket_path=path, protocol=PROTOCOL)):
        value = b"x" * 10_500
        with client.pipeline(transaction=False) as pipe:
            for _ in range(100):
                pipe.getset("k", value)
                pipe.get("k")
            assert pipe.execute()[1:] == [value] * 199
        with client.pipeline(transaction=False) as pipe:
            for _ in range(1200):
                pipe.echo(value)
            assert pipe.execute() == [value] * 1200
        client.delete("k")


@check
def a_transaction_runs_completely_or_not_at_all(db):
    assert db.pipeline().set("a", 1).incr("a").hset("h", "f", "v").get("a").execute() == [True, 2, 1, b"2"]
    with db.pipeline() as pipe:
        pipe.watch("a")
        seen = int(pipe.get("a"))
        db.set("a", 100)
        pipe.multi()
        pipe.set("a", seen + 1)
        assert error_of(pipe.execute)[0] is redis.WatchError
    assert db.get("a") == b"100"

    def add_one(pipe):
        seen = int(pipe.get("a"))
        pipe.multi()
        pipe.set("a", seen + 1)

    assert db.transaction(add_one, "a") == [True] and db.get("a") == b"101"
    # A failing command undoes nothing; one that cannot be queued aborts the transaction.
    pipe = db.pipeline().set("b", "text").incr("b").get("b")
    replies = pipe.execute(raise_on_error=False)
    assert replies[0] is True and replies[2] == b"text", replies
    assert isinstance(replies[1], redis.ResponseError), replies
    pipe = db.pipeline().set("b", "changed").execute_command("GET")
    kind, text = error_of(pipe.execute)
    assert "wrong number of arguments for 'get' command" in text, text
    assert db.get("b") == b"text"
    one = connect(single_connection_client=True)
    assert one.execute_command("MULTI") and one.execute_command("GET", "b") == b"QUEUED"
    assert error_of(one.execute_command, "GET")[0] is redis.ResponseError
    kind, text = error_of(one.execute_command, "EXEC")
    assert kind is redis.exceptions.ExecAbortError, kind
    assert text == "Transaction discarded because of previous errors.", text


@check
def messages_reach_their_subscribers(db):
    hub = db.pubsub()
    hub.subscribe("news", BINARY)
    hub.psubscribe("wea*")
    said = [hub.get_message(timeout=10) for _ in range(3)]
    assert [(one["type"], one["channel"], one["data"]) for one in said] == [
        ("subscribe", b"news", 1),
        ("subscribe", BINARY, 2),
        ("psubscribe", b"wea*", 3),
    ], said
    assert db.publish("news", BINARY) == 1 and db.publish("weather", "rain") == 1
    assert db.publish("nobody", "hears") == 0
    said = [hub.get_message(timeout=10) for _ in range(2)]
    assert said == [
        {"type": "message", "pattern": None, "channel": b"news", "data": BINARY},
        {"type": "pmessage", "pattern": b"wea*", "channel": b"weather", "data": b"rain"},
    ], said
    assert db.pubsub_numsub("news", "none") == [(b"news", 1), (b"none", 0)]
    assert sorted(db.pubsub_channels()) == sorted([BINARY, b"news"]) and db.pubsub_numpat() == 1
    hub.ping("still there?")
    assert hub.get_message(timeout=10)["data"] == b"still there?"
    hub.unsubscribe()
    hub.punsubscribe()
    left = [hub.get_message(timeout=10) for _ in range(3)]
    assert {one["type"] for one in left} == {"unsubscribe", "punsubscribe"}, left
    assert left[-1]["data"] == 0 and db.pubsub_channels() == []
    hub.close()


@check
def monitor_shows_what_others_send(db):
    with db.monitor() as monitor:
        connect(db=2).set("k", "with \"quotes\"\n")
        for seen in monitor.listen():
            if seen["command"].startswith("SET"):
                break
        assert seen["db"] == 2 and seen["client_type"] == "tcp", seen
        assert seen["command"] == 'SET k with "quotes"\\n', seen


@check
def scans_return_every_key_and_field(db):
    with db.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"key:{i}", i)
            pipe.hset("hash", f"field:{i}", i)
        pipe.execute()
    keys = {f"key:{i}".encode() for i in range(1000)}
    assert set(db.scan_iter("key:*", count=50)) == keys
    assert set(db.scan_iter(_type="hash")) == {b"hash"}
    assert set(db.scan_iter("key:99?")) == {f"key:99{i}".encode() for i in range(10)}
    fields = dict(db.hscan_iter("hash", count=50))
    assert fields == {f"field:{i}".encode(): str(i).encode() for i in range(1000)}
    assert dict(db.hscan_iter("hash", match="field:77")) == {b"field:77": b"77"}


@check
def a_killed_connection_is_replaced(db):
    worker = connect(client_name="worker")
    first = worker.client_id()
    assert db.client_kill_filter(_id=first) == 1
    eventually("the connection has gone", lambda: not db.execute_command("CLIENT", "LIST", "ID", first))
    assert worker.set("k", "v") is True and worker.get("k") == b"v"
    assert worker.client_id() > first
    assert worker.client_getname() in (b"worker", "worker")


@check
def a_password_is_required(db):
    assert connect(LOCKED_PORT, password="secret").ping() is True
    assert connect(LOCKED_PORT, username="default", password="secret", db=1).set("k", "v") is True
    kind, text = error_of(connect(LOCKED_PORT, password="wrong").ping)
    assert kind is redis.AuthenticationError, kind
    assert text == "invalid username-password pair or user is disabled.", text
    kind, text = error_of(connect(LOCKED_PORT, username="nobody", password="secret").ping)
    assert kind is redis.AuthenticationError, kind
    kind, text = error_of(connect(LOCKED_PORT).ping)
    assert kind is redis.AuthenticationError, kind
    # In RESP3 the handshake itself is refused.
    wanted = {2: "Authentication required.", 3: "HELLO must be called with the client already authenticated"}
    assert text.startswith(wanted[PROTOCOL]), text


@check
def clients_may_cache(db):
    version = db.info("server")["redis_version"].split(".")
    if CacheConfig is None or PROTOCOL == 2 or tuple(map(int, version[:2])) < (7, 4):
        return  # redis-py caches only with RESP3 and a server of 7.4 or newer
    db.set("k", "old")
    caching = connect(cache_config=CacheConfig())
    assert caching.get("k") == b"old" and caching.get_cache().size == 1
    db.set("k", "new")
    eventually("the cache has heard of the change", lambda: caching.get("k") == b"new")


def holds(function):
    with connect() as db:
        db.flushall()
        try:
            function(db)
        except Exception:
            print(f"FAILED: {function.__name__}\n{traceback.format_exc(limit=2)}", flush=True)
            return False
    print(f"ok: {function.__name__}", flush=True)
    return True


sys.exit(not all([holds(function) for function in CHECKS]))
