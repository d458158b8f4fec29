#!/usr/bin/python3
"""A proxy between an S3 client and a real server that does to requests what networks and stores do.

    tests/support/fault_proxy.py --upstream 127.0.0.1:7070 [--seed S] [--rate P] [--latency-ms L]
                                 [--faults latency,reset,...]

Prints the port it listens on, on 127.0.0.1. A line of standard input is another list of faults
from then on; when it ends, how often it did what is printed, as JSON. Which fault a request meets
is drawn from the seed and the number of the request; which request gets which number is up to the
client's threads.

  latency     answered later, by a random part of SPIKE_MS
  reset       the connection is reset before the server hears of the request
  lost        the server did it; the connection is reset instead of an answer
  403 409 412 429 500 503
              answered so, with S3's words, and the server never hears of it
  500done     the server did it, and the answer is 500
  truncated   an answer with a body ends half-way
  damaged     an answer's body has one wrong byte: its checksum does not fit any more
  corrupt     a request's body has one wrong byte: the server must see that, and refuse

Host and signature pass as they are: the server checks the signature of what the client sent. It
speaks what S3 clients and servers speak: bodies with a length, answers also chunked. Nothing sleeps
but latency.
"""
import argparse
import json
import random
import socket
import struct
import sys
import threading
import time

SPIKE_MS = 30
CODES = {403: "AccessDenied", 409: "ConditionalRequestConflict", 412: "PreconditionFailed",
         429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}
REASON = {403: "Forbidden", 409: "Conflict", 412: "Precondition Failed", 429: "Too Many Requests",
          500: "Internal Server Error", 503: "Slow Down"}
FAULTS = ["latency", "reset", "lost", "403", "409", "412", "429", "500", "503", "500done",
          "truncated", "damaged", "corrupt"]


class Closed(Exception):
    """One of the two has gone."""


class Stream:
    """Bytes from a socket, as HTTP cuts them."""

    def __init__(self, sock):
        self.sock = sock
        self.rest = b""

    def more(self):
        some = self.sock.recv(65536)
        if not some:
            raise Closed
        self.rest += some

    def until(self, mark):
        while mark not in self.rest:
            self.more()
        head, self.rest = self.rest.split(mark, 1)
        return head + mark

    def take(self, size):
        while len(self.rest) < size:
            self.more()
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


def headers_of(head):
    lines = head.decode("latin-1").split("\r\n")
    return lines[0], {name.strip().lower(): value.strip() for name, value in
                      (line.split(":", 1) for line in lines[1:] if ":" in line)}


def reset(sock):
    """RST, not FIN: whatever was on its way is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def flipped(body, at):
    return body[:at] + bytes([body[at] ^ 0x20]) + body[at + 1:]


class FaultProxy:
    """Serves from its construction to close(); `counts` tells how often each fault was met."""

    def __init__(self, upstream, seed=1, rate=0.0, latency_ms=0.0, faults=FAULTS):
        host, port = upstream.rsplit(":", 1)
        self.upstream = (host, int(port))
        self.seed = seed
        self.rate = rate
        self.latency_ms = latency_ms
        self.faults = list(faults)
        self.counts = {"requests": 0, **{fault: 0 for fault in FAULTS}}
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def draw(self):
        """(fault or None, dice) of the next request."""
        with self.lock:
            self.counts["requests"] += 1
            dice = random.Random(f"{self.seed}/{self.counts['requests']}")
            fault = dice.choice(self.faults) if dice.random() < self.rate else None
        return fault, dice

    def met(self, fault):
        with self.lock:
            self.counts[fault] += 1

    def serve(self, client):
        server = None
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            requests = Stream(client)
            while True:
                head = requests.until(b"\r\n\r\n")
                line, headers = headers_of(head)
                if headers.get("expect", "").lower() == "100-continue":
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = b"\r\n".join(field for field in head.split(b"\r\n")
                                        if not field.lower().startswith(b"expect:"))
                body = requests.take(int(headers.get("content-length", "0")))
                fault, dice = self.draw()
                delay_ms = self.latency_ms
                if fault == "latency":
                    delay_ms += dice.random() * SPIKE_MS
                    self.met(fault)
                if delay_ms:
                    time.sleep(delay_ms / 1000)
                if fault == "reset":
                    self.met(fault)
                    reset(client)
                    return
                if fault is not None and fault.isdigit():
                    self.met(fault)
                    client.sendall(self.refusal(int(fault), line))
                    continue
                if fault == "corrupt" and body:
                    self.met(fault)
                    body = flipped(body, dice.randrange(len(body)))
                if server is None:
                    server = socket.create_connection(self.upstream)
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    answers = Stream(server)
                server.sendall(head + body)
                head, body, keeps = self.answer(answers, line)
                if fault == "lost":
                    self.met(fault)
                    reset(client)
                    return
                if fault == "500done":
                    self.met(fault)
                    client.sendall(self.refusal(500, line))
                    continue
                if fault == "damaged" and body and head.startswith(b"HTTP/1.1 2"):
                    self.met(fault)
                    body = flipped(body, dice.randrange(len(body)))
                if fault == "truncated" and len(body) > 1:
                    self.met(fault)
                    client.sendall(head + body[:len(body) // 2])
                    client.close()
                    return
                client.sendall(head + body)
                if not keeps:
                    return
        except (Closed, OSError):
            pass
        finally:
            client.close()
            if server is not None:
                server.close()

    @staticmethod
    def answer(answers, request_line):
        """(head, body as sent, whether the connection goes on)."""
        head = answers.until(b"\r\n\r\n")
        status, headers = headers_of(head)
        keeps = headers.get("connection", "").lower() != "close"
        code = int(status.split()[1])
        if request_line.startswith("HEAD ") or code in (204, 304):
            return head, b"", keeps
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while True:
                size = answers.until(b"\r\n")
                chunk = answers.take(int(size.split(b";")[0], 16) + 2)
                body += size + chunk
                if int(size.split(b";")[0], 16) == 0:
                    return head, body, keeps
        return head, answers.take(int(headers.get("content-length", "0"))), keeps

    @staticmethod
    def refusal(code, request_line):
        body = b""
        if not request_line.startswith("HEAD "):
            body = (f"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{CODES[code]}</Code>"
                    "<Message>of the fault proxy</Message></Error>").encode()
        return (f"HTTP/1.1 {code} {REASON[code]}\r\nContent-Type: application/xml\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--faults", default=",".join(FAULTS))
    options = parser.parse_args()
    proxy = FaultProxy(options.upstream, options.seed, options.rate, options.latency_ms,
                       options.faults.split(","))
    print(proxy.port, flush=True)
    for line in sys.stdin:
        proxy.faults = line.strip().split(",")
    proxy.close()
    print(json.dumps(proxy.counts), flush=True)


if __name__ == "__main__":
    main()
