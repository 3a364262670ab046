"""Consumers of other people through nsqlookupd: two nsqds, of which one is killed and comes back.

    python discovery.py NSQD NSQLOOKUPD -- COMMAND... [-- COMMAND...]

A command is a consumer: it is given nsqlookupd's HTTP address, a topic, a channel of its own and a poll interval in
seconds, and prints the body of each message as a line. Every consumer must get every message of both nsqds, go on with
one while the other is dead, and find that one again when it comes back. One line tells how each step ended.
"""

import collections
import contextlib
import http.client
import json
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 20.0  # seconds that anything may take on a busy machine
POLL = 2  # seconds between two questions of a consumer to nsqlookupd
RECONNECT = 10  # seconds in which pynsq tries the same nsqd at most once
TOPIC = "discovery"


class Mismatch(Exception):
    pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def request(port, method, target, body=None, allowed=(200,)):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, target, body)
        answer = connection.getresponse()
        if answer.status not in allowed:
            raise Mismatch(f"{method} {target}: {answer.status}")
        return answer.read()


def wait_until(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise Mismatch(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)


class Daemon:
    """A daemon that keeps its ports and its directory when it is started again."""

    def __init__(self, program, directory, *flags):
        self.name = pathlib.Path(program).name
        self.tcp, self.http = free_port(), free_port()
        self.log = directory / f"{self.name}-{self.tcp}.log"
        self.command = [program, f"-tcp-address=127.0.0.1:{self.tcp}", f"-http-address=127.0.0.1:{self.http}",
                        "-broadcast-address=127.0.0.1", *flags]
        self.process = None

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stderr=log)
        wait_until(f"{self.name} answers", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise Mismatch(f"{self.name} has ended with {self.process.returncode}")
        try:
            return request(self.http, "GET", "/ping") == b"OK"
        except OSError:
            return False

    def publish(self, bodies):
        request(self.http, "POST", f"/mpub?topic={TOPIC}", "\n".join(bodies))

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        if (status := self.process.wait(PATIENCE)) != 0:
            raise Mismatch(f"{self.name} exits with status {status}")


class Consumer:
    """A consumer in a process of its own, and what it has printed."""

    def __init__(self, command, lookupd):
        self.name = next(pathlib.Path(word).stem for word in command if word.endswith((".py", ".js")))
        words = [f"127.0.0.1:{lookupd.http}", TOPIC, self.name, str(POLL)]
        self.process = subprocess.Popen(command + words, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.got = collections.Counter()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def is_there(self):
        """Fails if it has ended."""
        if self.process.poll() is not None:
            raise Mismatch(f"{self.name} has ended with {self.process.returncode}")

    def gets(self, bodies, within=PATIENCE):
        """Exactly these, in any order."""
        wanted, end = collections.Counter(bodies), time.monotonic() + within
        got = collections.Counter()
        while got != wanted:
            with contextlib.suppress(queue.Empty):
                got[self.lines.get(timeout=max(0.0, end - time.monotonic()))] += 1
            self.is_there()
            if got - wanted or time.monotonic() > end:
                raise Mismatch(f"{self.name} after {within} s: too few {wanted - got}, too many {got - wanted}")

    def kill(self):
        self.process.kill()
        self.process.wait()


def listed(lookupd):
    """The TCP ports of the topic's producers, as consumers are told: none is a 404, as long as nsqlookupd has not heard
    of the topic."""
    answer = request(lookupd.http, "GET", f"/lookup?topic={TOPIC}", allowed=(200, 404))
    return {producer["tcp_port"] for producer in json.loads(answer).get("producers", [])}


def step(what, consumers, bodies, within=PATIENCE):
    since = time.monotonic()
    for consumer in consumers:
        consumer.gets(bodies, within)
    print(f"ok   {' and '.join(consumer.name for consumer in consumers)}: {what} ({time.monotonic() - since:.1f} s)",
          flush=True)


def story(lookupd, nsqds, commands, started):
    first, second = nsqds
    for daemon in (lookupd, first, second):
        started.callback(daemon.kill)
        daemon.start()
    first.publish([f"first {number}" for number in range(50)])
    second.publish([f"second {number}" for number in range(50)])
    wait_until("both nsqds are listed", lambda: listed(lookupd) == {first.tcp, second.tcp})
    # A channel exists from a topic's first consumer on: all are there before anybody takes a message.
    for nsqd in nsqds:
        request(nsqd.http, "POST", f"/topic/pause?topic={TOPIC}")
    consumers = []
    for command in commands:
        consumers.append(Consumer(command, lookupd))
        started.callback(consumers[-1].kill)
    for nsqd in nsqds:
        wait_until("all consumers are there", lambda: subscribed(nsqd, consumers))
        connected = time.monotonic()
        request(nsqd.http, "POST", f"/topic/unpause?topic={TOPIC}")
    step("all messages of two nsqds", consumers, [f"{which} {n}" for which in ("first", "second") for n in range(50)])

    for nsqd in nsqds:
        wait_until("all is finished", lambda: in_flight(nsqd) == 0)
    second.kill()
    first.publish(["alone"])
    step("goes on with one when the other is killed", consumers, ["alone"])
    wait_until("the dead nsqd is not listed", lambda: listed(lookupd) == {first.tcp})

    time.sleep(max(0, connected + RECONNECT - time.monotonic()))
    second.start()
    wait_until("the nsqd that has come back is listed", lambda: second.tcp in listed(lookupd))
    second.publish(["back"])
    # How soon is up to the client's own poll interval.
    step("found again when it has come back", consumers, ["back"])
    for daemon in (first, second, lookupd):
        daemon.end()
    print("ok   nsqds and nsqlookupd exit", flush=True)


def channels(nsqd):
    (topic,) = json.loads(request(nsqd.http, "GET", f"/stats?format=json&topic={TOPIC}"))["topics"]
    return topic["channels"]


def subscribed(nsqd, consumers):
    for consumer in consumers:
        consumer.is_there()
    return sum(channel["client_count"] for channel in channels(nsqd)) == len(consumers)


def in_flight(nsqd):
    return sum(channel["in_flight_count"] for channel in channels(nsqd))


def main(nsqd, nsqlookupd, *words):
    commands = []
    for word in words:
        commands.append([]) if word == "--" else commands[-1].append(word)
    # What was started ends however this does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        directory = pathlib.Path(directory)
        lookupd = Daemon(nsqlookupd, directory)
        nsqds = []
        for name in ("first", "second"):
            (directory / name).mkdir()
            flags = f"-lookupd-tcp-address=127.0.0.1:{lookupd.tcp}", f"-data-path={directory / name}"
            nsqds.append(Daemon(nsqd, directory, *flags))
        try:
            story(lookupd, nsqds, commands, started)
        except Mismatch as mismatch:
            print(f"FAIL discovery: {mismatch}", flush=True)
            for daemon in (lookupd, *nsqds):
                if daemon.log.exists():
                    print(f"-- {daemon.log.name}", *daemon.log.read_text().splitlines()[-20:], sep="\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
