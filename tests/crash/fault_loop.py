#!/usr/bin/python3
"""Writes to a bucket and restores from it, all through a proxy that does to requests what networks
and stores do (tests/support/fault_proxy.py).

    tests/crash/fault_loop.py [--commits N] [--seed S] [--rate P] [--module guildlite.so] [--url U]

GUILDLITE_TEST_S3, or --url, names a bucket on a server: s3://bucket?endpoint=http://host:port; the
usual variables open it (scripts/test s3 starts one). Checked:
  1. Nothing the writer does with its database fails or waits for the store.
  2. What replication_wait() called durable is restored exactly, page by page: some of it at once,
     by other processes through the proxy, in the end all of it from the server itself. A restore
     through the proxy may fail, with one of the tags of a store in trouble; it may not be wrong.
  3. In the end everything is durable, and nothing was healed: each commit is a restore point.
  4. Every fault was met.
"""
import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE_MS = 120_000    # far more than any run of faults lasts: then it hangs
TRIES = 50               # of a restore through the proxy
TROUBLE = ("STORE_UNREACHABLE", "STORE_THROTTLED", "STORE_DENIED", "OUTCOME_UNKNOWN", "TIMEOUT")
# A 412 for a condition that held is a lie, and the probe of a server is there to find that; and no
# hundred requests pass without a 403.
PROBED_WITH = ["latency", "reset", "lost", "429", "500", "503", "500done", "truncated", "damaged",
               "corrupt"]
OPTIONS = {"sync_interval_ms": 5, "snapshot_min_bytes": 65536, "join_slots": 20,
           "retention_ms": 3_600_000, "delete_after_ms": 1}


def connect(path, module):
    db = sqlite3.connect(path, isolation_level=None)
    db.enable_load_extension(True)
    db.load_extension(module)
    return db


def tag_of(error):
    return str(error).split(":")[0]


def expect(condition, message):
    if not condition:
        sys.exit(f"fault loop: {message}")


def first_difference(one, other):
    size = 4096
    if len(one) != len(other):
        return f"{len(one)} bytes instead of {len(other)}"
    for at in range(0, len(one), size):
        if one[at:at + size] != other[at:at + size]:
            return f"page {at // size + 1} differs"
    return None


def restorer(task):
    """Restores one position; prints "ok" or the tag of the error."""
    db = connect(":memory:", task["module"])
    try:
        db.execute("select snapshot_restore(?, ?, ?)", (task["copy"], task["url"], task["at"]))
        print("ok")
    except sqlite3.Error as error:
        print(tag_of(error), error, sep="\n")


class Loop:
    def __init__(self, options, scratch, proxy, proxy_port):
        self.proxy = proxy
        self.options = options
        self.scratch = scratch
        self.dice = random.Random(f"fault loop {options.seed}")
        bucket, query = options.url.split("?", 1)
        bucket += f"/faults-{os.getpid()}"
        self.url = f"{bucket}?{query}"
        server = query.split("endpoint=http://", 1)[1].split("&")[0]
        self.through = f"{bucket}?{query.replace(server, f'127.0.0.1:{proxy_port}')}"
        self.content = {}   # position -> the database after that commit
        self.durable = []
        self.restores = 0
        self.refused = {}   # tag -> how often a restore through the proxy failed with it

    def restore(self, position, url):
        """The error's tag, or None if what came back is what was committed."""
        copy = os.path.join(self.scratch, "copy.db")
        if os.path.exists(copy):
            os.remove(copy)
        task = {"module": self.options.module, "copy": copy, "url": url, "at": position}
        told = subprocess.run(
            [sys.executable, os.path.abspath(__file__), "--restore", json.dumps(task)],
            stdout=subprocess.PIPE, timeout=PATIENCE_MS / 1000, check=True, text=True).stdout
        answer, _, message = told.partition("\n")
        if answer != "ok":
            expect(not os.path.exists(copy), f"{position}: {answer}, and a file all the same")
            expect(url != self.url, f"{position}: {message}")
            expect(answer in TROUBLE, f"{position} through the proxy: {message}")
            return answer
        with open(copy, "rb") as file:
            difference = first_difference(file.read(), self.content[position])
        expect(difference is None, f"{position} restored: {difference}")
        self.restores += 1
        return None

    def restore_through_proxy(self):
        position = self.dice.choice(self.durable)
        for _ in range(TRIES):
            tag = self.restore(position, self.through)
            if tag is None:
                return
            self.refused[tag] = self.refused.get(tag, 0) + 1
        expect(False, f"{position} was not restored in {TRIES} tries: {self.refused}")

    def start(self, db):
        """What was asked for just now is told of trouble at once; a program would try again."""
        for _ in range(TRIES):
            try:
                db.execute("select replication_start(?, ?)", (self.through, json.dumps(OPTIONS)))
                return
            except sqlite3.Error as error:
                expect(tag_of(error) in TROUBLE, f"replication_start: {error}")
        expect(False, f"replication did not start in {TRIES} tries")

    def run(self):
        dice = self.dice
        db = connect(os.path.join(self.scratch, "app.db"), self.options.module)
        self.start(db)
        print(",".join(PROBED_WITH + ["403", "409", "412"]), file=self.proxy.stdin, flush=True)
        db.execute("create table t(id integer primary key, b blob)")
        waiting = []
        for n in range(self.options.commits):
            db.execute("begin immediate")
            for _ in range(dice.choice([1, 1, 3, 40])):
                db.execute("insert or replace into t values (?, ?)",
                           (dice.randrange(300), dice.randbytes(dice.choice([10, 300, 3000]))))
            db.execute("commit")
            position = db.execute("select replication_position()").fetchone()[0]
            self.content[position] = db.serialize()
            waiting.append(position)
            if dice.random() < 0.3:
                done = db.execute("select replication_wait(?, ?)",
                                  (position, PATIENCE_MS)).fetchone()[0]
                expect(done == 1, f"commit {n} was not durable within {PATIENCE_MS} ms: "
                       f"{db.execute('select replication_error()').fetchone()[0]}")
                self.durable += waiting
                waiting.clear()
                self.restore_through_proxy()
        db.execute("select replication_sync(?)", (PATIENCE_MS,))
        self.durable += waiting
        heals, epoch, snapshots = db.execute(
            "select heals, epoch, snapshots from replication_status").fetchone()
        expect(heals == 0 and epoch == 1, f"{heals} heals, epoch {epoch}")
        db.close()
        expect(sorted(set(self.durable)) == sorted(self.content), "a commit is not durable")
        for position in self.content:
            self.restore(position, self.url)
        return snapshots


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--commits", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("GUILDLITE_SEED", "1")))
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--module", default=os.path.join(TREE, "build", "guildlite.so"))
    parser.add_argument("--url", default=os.environ.get("GUILDLITE_TEST_S3"))
    parser.add_argument("--restore")
    options = parser.parse_args()
    if options.restore:
        restorer(json.loads(options.restore))
        return
    expect(options.url, "GUILDLITE_TEST_S3 names no bucket")
    server = options.url.split("endpoint=http://", 1)[1].split("&")[0]
    proxy = subprocess.Popen(
        [os.path.join(TREE, "tests", "support", "fault_proxy.py"), "--upstream", server,
         "--seed", str(options.seed), "--rate", str(options.rate),
         "--faults", ",".join(PROBED_WITH)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port = int(proxy.stdout.readline())
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="guildlite-faults-") as scratch:
        loop = Loop(options, scratch, proxy, port)
        snapshots = loop.run()
    counts = json.loads(proxy.communicate()[0])
    missing = [fault for fault, count in counts.items() if count == 0]
    expect(not missing, f"never met: {missing}")
    print(json.dumps(counts))
    print(f"{len(loop.content)} commits, {loop.restores} restores, {snapshots} snapshots, "
          f"{sum(counts.values()) - counts['requests']} faults in {counts['requests']} requests; "
          f"restores refused through the proxy: {loop.refused}")


if __name__ == "__main__":
    main()
