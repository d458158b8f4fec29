#!/usr/bin/python3
"""Lag of a commit to a bucket: from COMMIT returned to durable, on a real server (versitygw) behind
a proxy that answers 50 ms late (tests/support/fault_proxy.py).

    tests/bench/bucket_lag.py [--databases 1] [--latency-ms 50] [--commits 40]
                              [--module build/guildlite.so]

With several databases all of them commit at once, in one process. Durable is what
replication_wait(position, 0) says, which never hurries the shipper; it is asked every 0.2 ms.
"""
import argparse
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def await_port(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the S3 server did not start")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--databases", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--module", default=os.path.join(TREE, "build", "guildlite.so"))
    options = parser.parse_args()
    program = subprocess.run([os.path.join(TREE, "scripts", "get_s3_server")], check=True,
                             text=True, stdout=subprocess.PIPE).stdout.strip()
    os.environ.update(AWS_ACCESS_KEY_ID="AKIAGUILDLITETEST",
                      AWS_SECRET_ACCESS_KEY="of-a-server-on-loopback")
    port = free_port()
    # Beside the build: a tmpfs has no extended attributes, which the server needs.
    with tempfile.TemporaryDirectory(dir=os.path.join(TREE, "build")) as scratch:
        os.makedirs(os.path.join(scratch, "store", "bucket"))
        server = subprocess.Popen(
            [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix",
             os.path.join(scratch, "store")],
            env={**os.environ, "ROOT_ACCESS_KEY": os.environ["AWS_ACCESS_KEY_ID"],
                 "ROOT_SECRET_KEY": os.environ["AWS_SECRET_ACCESS_KEY"]},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await_port(port)
        proxy = subprocess.Popen(
            [os.path.join(TREE, "tests", "support", "fault_proxy.py"), "--upstream",
             f"127.0.0.1:{port}", "--latency-ms", str(options.latency_ms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            endpoint = f"http://127.0.0.1:{int(proxy.stdout.readline())}"
            lags = measure(scratch, endpoint, options)
        finally:
            proxy.stdin.close()
            proxy.wait()
            server.terminate()
            server.wait()
    every = [lag for database in lags for lag in database]
    median = statistics.median(every)
    slowest = max(statistics.median(database) for database in lags)
    print(json.dumps({"databases": len(lags), "commits": len(every),
                      "latency_ms": options.latency_ms, "lag_median_ms": round(median, 1),
                      "lag_max_ms": round(max(every), 1),
                      "max_to_median": round(max(every) / median, 2),
                      "slowest_database_to_median": round(slowest / median, 2)}))


def open_database(path, url, module):
    db = sqlite3.connect(path, isolation_level=None)
    db.enable_load_extension(True)
    db.load_extension(module)
    db.execute("pragma synchronous = normal")
    db.execute("select replication_start(?, ?)", (url, json.dumps({"sync_interval_ms": 0})))
    db.execute("create table t(a)")
    db.execute("select replication_sync(60000)")
    return db


def measure(scratch, endpoint, options):
    """The lags of each database, in milliseconds."""
    databases = [open_database(os.path.join(scratch, f"{i}.db"),
                               f"s3://bucket/lag-{i}?endpoint={endpoint}", options.module)
                 for i in range(options.databases)]
    lags = [[] for _ in databases]
    for _ in range(options.commits):
        time.sleep(0.3)  # idle, as between two messages
        waiting = {}
        for i, db in enumerate(databases):
            db.execute("insert into t values (randomblob(100))")
            committed = time.monotonic()
            waiting[i] = committed, db.execute("select replication_position()").fetchone()[0]
        while waiting:
            for i, (committed, position) in list(waiting.items()):
                asked = databases[i].execute("select replication_wait(?, 0)", (position,))
                if asked.fetchone()[0] == 1:
                    lags[i].append((time.monotonic() - committed) * 1000)
                    del waiting[i]
            time.sleep(0.0002)
    for db in databases:
        db.close()
    return lags


if __name__ == "__main__":
    main()
