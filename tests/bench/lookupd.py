"""An nsqlookupd with many registrations: fake nsqds that register topics and stay, and queries timed one by one.

In: its two addresses. Out: how long each query took. The rule: every query opens a connection of its own, as consumers do
that poll once a minute, and reads the answer to its end.
"""
import json, socket, struct, time


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def read(stream, size):
    data = bytearray()
    while len(data) < size:
        part = stream.recv(min(size - len(data), 1 << 16))
        if not part:
            raise SystemExit("nsqlookupd closed a connection")
        data += part
    return bytes(data)


def register(tcp, number, topics):
    """The connection of nsqd `number`, after all its topics, each with a channel, are registered."""
    identity = {"broadcast_address": f"nsqd-{number}.example", "hostname": f"nsqd-{number}", "http_port": 4151,
                "tcp_port": 4150, "version": "1.4.0"}
    body = json.dumps(identity).encode()
    stream = socket.create_connection(tcp)
    stream.sendall(b"  V1IDENTIFY\n" + struct.pack(">I", len(body)) + body)
    read(stream, struct.unpack(">I", read(stream, 4))[0])
    stream.sendall(b"".join(b"REGISTER topic_%04d archive\n" % topic for topic in range(topics)))
    answers = read(stream, 6 * topics)
    if answers != b"\0\0\0\x02OK" * topics:
        raise SystemExit(f"nsqlookupd does not take registrations: {answers[:100]}")
    return stream


def query(http, target):
    """Seconds until the whole answer was there, and the answer's body."""
    request = f"GET {target} HTTP/1.0\r\n\r\n".encode()
    parts = []
    begin = time.perf_counter()
    with socket.create_connection(http) as stream:
        stream.sendall(request)
        while part := stream.recv(1 << 20):
            parts.append(part)
    took = time.perf_counter() - begin
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise SystemExit(f"GET {target}: {head.decode()}")
    return took, body


def measure(tcp, http, nsqds, topics, queries, cpu):
    """For each of the queries, a target and a number of times: the target, its sorted times, the server's CPU time for one,
    the answer's size. All answers must list all nsqds; `cpu` tells the server's CPU time so far."""
    peers = [register(address(tcp), number, topics) for number in range(nsqds)]
    results = []
    for target, times in queries:
        before = cpu()
        answers = [query(address(http), target) for _ in range(times)]
        cost = (cpu() - before) / times
        for _, body in answers:
            found = len(json.loads(body)["producers"])
            if found != nsqds:
                raise SystemExit(f"GET {target} lists {found} producers, not {nsqds}")
        results.append((target, sorted(took for took, _ in answers), cost, len(answers[0][1])))
    for peer in peers:
        peer.close()
    return results
