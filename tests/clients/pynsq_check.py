"""pynsq against an nsqd: each check has a topic of its own, all run at the same time, one line tells how each ended.

    python pynsq_check.py TCP_ADDRESS HTTP_ADDRESS
"""

import asyncio
import json
import logging
import sys
import time

import nsq
from tornado.httpclient import AsyncHTTPClient

PATIENCE = 15.0  # seconds that anything may take on a busy machine
LARGE = bytes(i * 7 % 251 for i in range(100_000))


class Mismatch(Exception):
    pass


def expect(what, got, wanted):
    if got != wanted:
        raise Mismatch(f"{what}: {str(got)[:200]} instead of {str(wanted)[:200]}")


def expect_after(what, since, seconds):
    elapsed = time.monotonic() - since
    if elapsed < seconds:
        raise Mismatch(f"{what} after {elapsed:.3f} s, before {seconds} s")


async def within_patience(what, awaitable):
    try:
        return await asyncio.wait_for(awaitable, PATIENCE)
    except asyncio.TimeoutError:
        raise Mismatch(f"{what}: nothing in {PATIENCE} s") from None


class Consumer:
    """A reader whose messages wait in a queue until a check takes and answers them."""

    def __init__(self, tcp, topic, **options):
        self.messages = asyncio.Queue()
        self.heartbeats = 0
        self.reader = nsq.Reader(topic, "c", message_handler=self.take, nsqd_tcp_addresses=[tcp], **options)
        self.reader.heartbeat = self.beat

    def take(self, message):
        message.enable_async()
        self.messages.put_nowait(message)

    def beat(self, _conn):
        self.heartbeats += 1

    async def next(self):
        return await within_patience("a message", self.messages.get())

    async def nothing(self, seconds):
        await asyncio.sleep(seconds)
        expect("messages that must not come", self.messages.qsize(), 0)


class Bench:
    """One check's topic: publishing to it, consuming from it, its counters."""

    def __init__(self, name, writer, tcp, http):
        self.topic, self.writer, self.tcp, self.http = f"pynsq_{name}", writer, tcp, http

    async def publish(self, verb, *args, writer=None):
        answer = asyncio.get_running_loop().create_future()
        getattr(writer or self.writer, verb)(self.topic, *args, callback=lambda _conn, data: answer.set_result(data))
        return await within_patience(f"the answer to {verb}", answer)

    async def pub(self, body):
        expect("the answer to pub", await self.publish("pub", body), b"OK")

    def consume(self, **options):
        return Consumer(self.tcp, self.topic, **options)

    async def stats(self):
        url = f"http://{self.http}/stats?format=json&topic={self.topic}"
        return json.loads((await AsyncHTTPClient().fetch(url)).body)["topics"] or []

    async def settles(self, **wanted):
        """The channel's counters come to these; those not named to zero."""
        names = ("depth", "in_flight_count", "deferred_count", "requeue_count", "timeout_count", "client_count")
        wanted = {name: wanted.get(name, 0) for name in (*names, "message_count")}
        end = time.monotonic() + PATIENCE
        while True:
            (topic,) = await self.stats()
            (channel,) = topic["channels"]
            got = {name: channel[name] for name in wanted}
            if got == wanted and topic["depth"] == 0:
                return
            if time.monotonic() > end:
                raise Mismatch(f"/stats shows {got} instead of {wanted}, depth of the topic {topic['depth']}")
            await asyncio.sleep(0.05)


async def connected_writer(tcp):
    writer = nsq.Writer([tcp])
    end = time.monotonic() + PATIENCE
    while not writer.conns:
        if time.monotonic() > end:
            raise Mismatch("the writer does not get connected")
        await asyncio.sleep(0.01)
    return writer


async def one(bench, body):
    await bench.pub(body)
    consumer = bench.consume()
    message = await consumer.next()
    expect("the body", message.body, body)
    expect("attempts", message.attempts, 1)
    age = time.time() - message.timestamp / 1e9
    expect("a fresh timestamp", -1 < age < 60, True)
    message.finish()
    await consumer.nothing(0.3)
    consumer.reader.close()
    await bench.settles(message_count=1)


async def small(bench):
    await one(bench, b"hello")


async def large(bench):
    await one(bench, LARGE)


async def batch(bench):
    bodies = [b"%d " % i * (i + 1) for i in range(50)]
    expect("the answer to mpub", await bench.publish("mpub", bodies), b"OK")
    consumer = bench.consume(max_in_flight=7)
    got = []
    for _ in bodies:
        message = await consumer.next()
        got.append(message.body)
        message.finish()
    expect("the bodies", sorted(got), sorted(bodies))
    await consumer.nothing(0.3)
    consumer.reader.close()
    await bench.settles(message_count=50)


async def deferred(bench):
    consumer = bench.consume()
    since = time.monotonic()
    expect("the answer to dpub", await bench.publish("dpub", 700, b"later"), b"OK")
    message = await consumer.next()
    expect_after("the message came", since, 0.7)
    expect("the body", message.body, b"later")
    expect("attempts", message.attempts, 1)
    message.finish()
    consumer.reader.close()
    await bench.settles(message_count=1)


async def requeue(bench):
    await bench.pub(b"again")
    consumer = bench.consume()
    first = await consumer.next()
    since = time.monotonic()
    first.requeue(backoff=False, time_ms=700)
    second = await consumer.next()
    expect_after("it came again", since, 0.7)
    expect("the id", second.id, first.id)
    expect("the timestamp", second.timestamp, first.timestamp)
    second.requeue(backoff=False, time_ms=0)
    third = await consumer.next()
    expect("attempts", [m.attempts for m in (first, second, third)], [1, 2, 3])
    expect("the body", third.body, b"again")
    third.finish()
    consumer.reader.close()
    await bench.settles(message_count=1, requeue_count=2)


async def timeout(bench):
    since = time.monotonic()
    await bench.pub(b"slow")
    consumer = bench.consume(msg_timeout=1)
    first = await consumer.next()
    second = await consumer.next()
    expect_after("it came again", since, 1.0)
    expect("the id", second.id, first.id)
    expect("attempts", second.attempts, 2)
    second.finish()
    # Too late: an E_FIN_FAILED that must not end the connection.
    (conn,) = consumer.reader.conns.values()
    first.finish()
    await bench.pub(b"next")
    third = await consumer.next()
    expect("the body", third.body, b"next")
    third.finish()
    expect("the connection", list(consumer.reader.conns.values()), [conn])
    consumer.reader.close()
    await bench.settles(message_count=2, timeout_count=1)


async def touch(bench):
    await bench.pub(b"long")
    consumer = bench.consume(msg_timeout=2)
    message = await consumer.next()
    for _ in range(4):
        await asyncio.sleep(0.8)
        message.touch()
    message.finish()
    await consumer.nothing(0.3)
    consumer.reader.close()
    await bench.settles(message_count=1)


async def in_flight(bench):
    bodies = [b"%d" % i for i in range(30)]
    expect("the answer to mpub", await bench.publish("mpub", bodies), b"OK")
    consumer = bench.consume(max_in_flight=10)
    held = [await consumer.next() for _ in range(10)]
    await consumer.nothing(0.5)
    await bench.settles(message_count=30, in_flight_count=10, depth=20, client_count=1)
    got = []
    while held:
        expect("no more than RDY allows in flight", len(held) + consumer.messages.qsize() <= 10, True)
        message = held.pop()
        got.append(message.body)
        message.finish()
        if len(got) + len(held) < 30:
            held.append(await consumer.next())
    expect("the bodies", sorted(got), sorted(bodies))
    consumer.reader.close()
    await bench.settles(message_count=30)


async def close(bench):
    since = time.monotonic()
    expect("the answer to mpub", await bench.publish("mpub", [b"%d" % i for i in range(5)]), b"OK")
    leaver = bench.consume(max_in_flight=5, msg_timeout=2)
    held = [await leaver.next() for _ in range(5)]
    for message in held[:2]:
        message.finish()
    leaver.reader.close()
    await bench.settles(message_count=5, in_flight_count=3)
    heir = bench.consume(max_in_flight=5)
    inherited = [await heir.next() for _ in range(3)]
    expect_after("what was in flight came", since, 2.0)
    expect("its bodies", sorted(m.body for m in inherited), sorted(m.body for m in held[2:]))
    expect("attempts", [m.attempts for m in inherited], [2, 2, 2])
    for message in inherited:
        message.finish()
    await heir.nothing(0.3)
    heir.reader.close()
    await bench.settles(message_count=5, timeout_count=3)


async def heartbeat(bench):
    consumer = bench.consume(heartbeat_interval=1)
    await asyncio.sleep(3.5)
    expect("two heartbeats or more", consumer.heartbeats >= 2, True)
    (conn,) = consumer.reader.conns.values()
    await bench.pub(b"alive")
    message = await consumer.next()
    message.finish()
    expect("the connection", list(consumer.reader.conns.values()), [conn])
    consumer.reader.close()
    await bench.settles(message_count=1)


async def refused(bench):
    writer = await connected_writer(bench.tcp)
    answer = await bench.publish("dpub", 3_600_001, b"in over an hour", writer=writer)
    expect("an error", isinstance(answer, nsq.Error) and "E_INVALID" in str(answer), True)
    expect("its topics", await bench.stats(), [])


CHECKS = [small, large, batch, deferred, requeue, timeout, touch, in_flight, close, heartbeat, refused]


async def run(check, writer, tcp, http):
    try:
        await check(Bench(check.__name__, writer, tcp, http))
    except Exception as error:  # whatever it is, the other checks go on
        print(f"FAIL pynsq {check.__name__}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok   pynsq {check.__name__}", flush=True)
    return True


async def main(tcp, http):
    logging.disable()  # pynsq tells of every connection; what matters is checked
    writer = await connected_writer(tcp)
    passed = await asyncio.gather(*(run(check, writer, tcp, http) for check in CHECKS))
    return 0 if all(passed) else 1


sys.exit(asyncio.run(main(*sys.argv[1:])))
