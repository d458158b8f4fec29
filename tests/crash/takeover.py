#!/usr/bin/python3
"""Writers that lose their log to another one: frozen, killed, thawed, reopened.

    tests/crash/takeover.py [--takeovers N] [--kill-points N] [--seed S] [--module guildlite.so]

frozen      A writer is stopped (SIGSTOP) with commits that nobody has; another one restores into an
            empty folder, takes over and writes; the first goes on (SIGCONT). It must find itself
            FENCED, put nothing into the log, keep its durable position, and leave its commits under
            orphans/, each restorable by its position. Reopened with on_diverged=use_store it goes
            on from what the other wrote.
killed      The same reopening, killed at a system call that changes files or names, one after the
            other; opened once more it always ends in the same place, and nothing is lost.
takeovers   Writers in three folders take the log from each other under load, by SIGKILL or SIGSTOP.
            Every takeover finds a whole database with every row that was ever called durable.
"""
import argparse
import json
import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HANG_SECONDS = 120       # longer than anything here takes: a process that is stuck, not slow

# Kills the process right before the n-th call that changes a file or a name.
COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>
static long limit = -1;
static long count = 0;
__attribute__((constructor)) static void begin(void) {
  const char* n = getenv("KILL_AT_CALL");
  if (n != NULL) limit = atol(n);
}
static void step(void) {
  if (limit > 0 && __sync_add_and_fetch(&count, 1) == limit) kill(getpid(), SIGKILL);
}
#define NEXT(name) static __typeof__(&name) next; \
  if (next == NULL) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
  step()
int rename(const char* a, const char* b) { NEXT(rename); return next(a, b); }
int link(const char* a, const char* b) { NEXT(link); return next(a, b); }
int linkat(int d, const char* a, int e, const char* b, int f) {
  NEXT(linkat);
  return next(d, a, e, b, f);
}
int unlink(const char* a) { NEXT(unlink); return next(a); }
int mkdir(const char* a, mode_t m) { NEXT(mkdir); return next(a, m); }
int fsync(int f) { NEXT(fsync); return next(f); }
int fdatasync(int f) { NEXT(fdatasync); return next(f); }
int ftruncate(int f, off_t n) { NEXT(ftruncate); return next(f, n); }
int ftruncate64(int f, off64_t n) { NEXT(ftruncate64); return next(f, n); }
ssize_t pwrite(int f, const void* b, size_t n, off_t o) { NEXT(pwrite); return next(f, b, n, o); }
ssize_t pwrite64(int f, const void* b, size_t n, off64_t o) {
  NEXT(pwrite64);
  return next(f, b, n, o);
}
"""


class Wrong(Exception):
    """An invariant does not hold."""


def expect(condition, message):
    if not condition:
        raise Wrong(message)


# The process that loads the extension. It does as it is told, a line at a time.

def serve(module):
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(module)
    db = None

    def commit(n, who):
        db.execute("insert into t values (?, ?, randomblob(?))", (n, who, 50 + n % 700))

    for line in sys.stdin:
        task = json.loads(line)
        what = task.pop("do")
        answer = None
        try:
            if what == "open":
                db = sqlite3.connect(task["path"], isolation_level=None, timeout=30)
                db.execute("create table if not exists t(n integer primary key, who text, x blob)")
            elif what == "commit":
                answer = []
                for n in range(task["first"], task["last"] + 1):
                    commit(n, task["who"])
                    answer.append(
                        [n, db.execute("select replication_position()").fetchone()[0]])
            elif what == "sql":
                answer = db.execute(task["sql"], task.get("with", [])).fetchall()
            elif what == "loader":
                answer = loader.execute(task["sql"], task.get("with", [])).fetchall()
            elif what == "close":
                db.close()
            elif what == "load":
                # Until it may not write any more.
                n = db.execute("select coalesce(max(n), 0) from t").fetchone()[0]
                waiting = []
                while True:
                    n += 1
                    commit(n, task["who"])
                    waiting.append(n)
                    position = db.execute("select replication_position()").fetchone()[0]
                    if n % 7 == 0 and db.execute("select replication_wait(?, 30000)",
                                                 (position,)).fetchone()[0] == 1:
                        os.write(1, json.dumps({"durable": waiting}).encode() + b"\n")
                        waiting = []
            reply = {"ok": answer}
        except sqlite3.Error as error:
            reply = {"error": str(error)}
        os.write(1, json.dumps(reply).encode() + b"\n")


class Pod:
    def __init__(self, options, url, path, **environment):
        env = dict(os.environ, GUILDLITE_URL=url, GUILDLITE_MATCH=path, GUILDLITE_LOG="warn",
                   **{"GUILDLITE_SYNC_INTERVAL_MS": "20", **environment})
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.path = path
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--module", options.module, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=env)
        self.buffer = b""

    def line(self):
        """The next line it says; None when it is gone."""
        deadline = time.monotonic() + HANG_SECONDS
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Wrong("a writer hangs\n" + self.said())
            some = os.read(self.process.stdout.fileno(), 65536)
            if not some:
                return None
            self.buffer += some
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def tell(self, do, **task):
        self.process.stdin.write(json.dumps({"do": do, **task}).encode() + b"\n")
        self.process.stdin.flush()

    def reply(self, do, **task):
        self.tell(do, **task)
        return self.line()

    def ask(self, do, **task):
        reply = self.reply(do, **task)
        expect(reply is not None and "ok" in reply, f"{do} {task}: {reply}\n{self.said()}")
        return reply["ok"]

    def one(self, sql, *values):
        return self.ask("sql", sql=sql, **{"with": values})[0][0]

    def open(self):
        self.ask("open", path=self.path)
        return self

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.stdin.close()
        expect(self.process.wait(timeout=HANG_SECONDS) == 0, "it did not end well\n" + self.said())

    def said(self):
        self.log.seek(0)
        return self.log.read().decode()[-3000:]


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(where, name), folder)
                  for where, _, names in os.walk(folder) for name in names)


class World:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.store = os.path.join(folder, "store")
        self.url = "file://" + self.store
        self.copies = 0

    def path(self, name):
        return os.path.join(self.folder, name, "app.db")

    def pod(self, name, **environment):
        return Pod(self.options, self.url, self.path(name), **environment)

    def restored(self, at=None):
        """{n: who} of a restore, proven whole by stock SQLite too."""
        self.copies += 1
        copy = os.path.join(self.folder, f"copy-{self.copies}.db")
        pod = Pod(self.options, self.url, self.path("nobody"))
        pod.ask("loader", sql="select snapshot_restore(?, ?, ?)",
                **{"with": [copy, self.url, at]})
        pod.end()
        return rows_of(copy)

    def log(self):
        return files_below(os.path.join(self.store, "log"))


def rows_of(path):
    db = sqlite3.connect(path)
    try:
        expect(db.execute("pragma integrity_check").fetchall() == [("ok",)], f"{path} is damaged")
        return dict(db.execute("select n, who from t"))
    finally:
        db.close()


def until(pod, sql, wanted):
    """Asks until the answer has it."""
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        answer = pod.one(sql)
        if answer is not None and wanted in answer:
            return answer
        expect(time.monotonic() < deadline, f"{sql} still says {answer}\n{pod.said()}")


def pod_with_tail(world, name):
    """An owner with five rows in the store and five of its own. [[n, position]] of those."""
    # Nothing ships but what is waited for.
    pod = world.pod(name, GUILDLITE_SYNC_INTERVAL_MS="3600000").open()
    pod.ask("commit", first=1, last=5, who=name)
    pod.one("select replication_sync(30000)")
    return pod, pod.ask("commit", first=6, last=10, who=name)


def frozen(options, folder):
    world = World(options, folder)
    first, tail = pod_with_tail(world, "first")
    durable = first.one("select replication_durable()")
    first.stop()

    second = world.pod("second").open()
    expect(second.one("select max(n) from t") == 5, "the second did not begin where the log ends")
    second.ask("commit", first=101, last=105, who="second")
    second.one("select replication_sync(30000)")
    log = world.log()
    newest = {n: "first" for n in range(1, 6)} | {n: "second" for n in range(101, 106)}

    first.go_on()
    refused = first.reply("sql", sql="select replication_sync(30000)")
    expect("FENCED" in refused.get("error", ""), f"the first is not fenced: {refused}")
    story = until(first, "select replication_error()", tail[-1][1])
    expect("5 transactions" in story, story)
    expect(first.one("select replication_durable()") == durable, "its durable position moved")
    expect(first.one("select state from replication_status") == "fenced", "it is not fenced")
    refused = first.reply("sql", sql="insert into t values (99, 'first', null)")
    expect("readonly" in refused.get("error", ""), f"a write after the FENCE: {refused}")
    expect(world.log() == log, "something of the first is in the log after the FENCE")
    for n, position in tail:
        rows = world.restored(position)
        expect(rows == {i: "first" for i in range(1, n + 1)}, f"{position} restores {rows}")
    listed = first.ask("sql", sql="select position from snapshot_list where kind = 'orphan'")
    expect([tail[-1][1]] in listed, f"snapshot_list has {listed}")
    expect(world.restored() == newest, "the newest state is not the second's")

    # Its connections are open: it stays what it is until they are not.
    first.ask("close")
    first.end()
    second.ask("close")
    second.end()
    first = world.pod("first", GUILDLITE_ON_DIVERGED="use_store").open()
    expect(dict(first.ask("sql", sql="select n, who from t")) == newest,
           "it did not rejoin\n" + first.said())
    first.ask("commit", first=201, last=203, who="first")
    first.one("select replication_sync(30000)")
    expect(world.restored() == newest | {n: "first" for n in range(201, 204)},
           "what it wrote after it rejoined is not the newest")
    for n, position in tail:
        expect(len(world.restored(position)) == n, f"{position} is gone")
    first.end()


def copy_world(world, template):
    """The folder as it was, with the inodes that its sidecars remember."""
    shutil.rmtree(world.folder)
    shutil.copytree(template, world.folder)
    path = world.path("first")
    state_path = path + "-guildlite/state"
    with open(state_path, encoding="utf-8") as file:
        state = json.load(file)
    stat = os.stat(path)
    state["device"], state["inode"] = f"{stat.st_dev:016x}", f"{stat.st_ino:016x}"
    state["url"] = world.url
    with open(state_path, "w", encoding="utf-8") as file:
        json.dump(state, file)


def killed(options, folder, dice):
    library = os.path.join(folder, "counter.so")
    source = os.path.join(folder, "counter.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write(COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    world = World(options, os.path.join(folder, "world"))
    first, tail = pod_with_tail(world, "first")
    first.kill()  # it never learns what happened next
    second = world.pod("second").open()
    second.ask("commit", first=101, last=105, who="second")
    second.one("select replication_sync(30000)")
    second.ask("close")
    second.end()
    newest = {n: "first" for n in range(1, 6)} | {n: "second" for n in range(101, 106)}
    template = os.path.join(folder, "template")
    shutil.copytree(world.folder, template)

    calls = 1
    done = 0
    while True:
        copy_world(world, template)
        pod = world.pod("first", GUILDLITE_ON_DIVERGED="use_store", LD_PRELOAD=library,
                        KILL_AT_CALL=str(calls))
        reply = pod.reply("open", path=pod.path)
        rejoined = reply is not None
        if rejoined:
            expect("ok" in reply, f"{reply}\n{pod.said()}")
            reply = pod.reply("sql", sql="select replication_sync(30000)")
            rejoined = reply is not None
        pod.kill()
        # Nothing of what it had is gone: it is in the file, or in the store.
        again = world.pod("first", GUILDLITE_ON_DIVERGED="use_store").open()
        what = f"killed at call {calls}"
        found = dict(again.ask("sql", sql="select n, who from t"))
        expect(found == newest, f"{what}: it holds {sorted(found)}\n{again.said()}")
        again.ask("commit", first=301, last=301, who="first")
        again.one("select replication_sync(30000)")
        again.end()
        for n, position in tail[-1:]:
            try:
                rows = world.restored(position)
            except Wrong:
                # Where the tail could not be told any more, the whole database was saved.
                orphans = world.pod("nobody")
                at = [row[0] for row in orphans.ask(
                    "loader", sql="select position from snapshot_list(?) where kind = 'orphan'",
                    **{"with": [world.url]})]
                orphans.end()
                expect(at, f"{what}: nothing is under orphans/")
                rows = world.restored(at[-1])
            expect(rows == {i: "first" for i in range(1, n + 1)}, f"{what}: {sorted(rows)}")
        done += 1
        if rejoined or done >= options.kill_points > 0:
            break
        calls += 1 if options.kill_points == 0 else dice.randrange(1, 12)
    return done


def takeovers(options, folder, dice):
    world = World(options, folder)
    durable = {}
    frozen_pods = []
    owner = None
    names = ["one", "two", "three"]
    at = -1
    for number in range(options.takeovers + 1):
        busy = {pod.path for pod in frozen_pods}
        while True:
            at = (at + dice.randrange(1, 3)) % len(names)
            name = names[at]
            if world.path(name) not in busy:
                break
        if dice.random() < 0.3:
            shutil.rmtree(os.path.dirname(world.path(name)), ignore_errors=True)
        owner = world.pod(name, GUILDLITE_ON_DIVERGED="use_store").open()
        owner.one("select replication_sync(30000)")  # the log is its own from here
        rows = dict(owner.ask("sql", sql="select n, who from t"))
        lost = {n: who for n, who in durable.items() if rows.get(n) != who}
        expect(not lost, f"takeover {number} by {name}: durable rows are missing: {lost}\n"
               + owner.said())
        if number % 10 == 0:
            expect(world.restored().items() >= durable.items(), "the restore lacks durable rows")
        for pod in frozen_pods:
            pod.go_on()
        who = f"{name}-{number}"
        owner.tell("load", who=who)
        for _ in range(dice.randrange(1, 6)):
            line = owner.line()
            expect(line is not None and "durable" in line, f"{line}\n{owner.said()}")
            durable.update({n: who for n in line["durable"]})
        # The thawed ones: what they call durable from here on would have to be in the log.
        for pod in frozen_pods:
            while True:
                line = pod.line()
                if "durable" not in line:
                    break
                durable.update({n: pod.who for n in line["durable"]})
            expect("error" in line, f"a deposed writer ended with {line}")
            pod.end()
        frozen_pods = []
        owner.who = who
        if number == options.takeovers:
            break
        if dice.random() < 0.5:
            owner.kill()
        else:
            owner.stop()
            frozen_pods.append(owner)
    owner.kill()
    rows = world.restored()
    lost = {n: who for n, who in durable.items() if rows.get(n) != who}
    expect(not lost, f"in the end durable rows are missing: {lost}")
    return len(durable)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--takeovers", type=int,
                        default=int(os.environ.get("GUILDLITE_TAKEOVERS", "10")))
    parser.add_argument("--kill-points", type=int, help="0: every one",
                        default=int(os.environ.get("GUILDLITE_KILL_POINTS", "20")))
    parser.add_argument("--seed", default=os.environ.get("GUILDLITE_SEED")
                        or str(random.SystemRandom().getrandbits(32)))
    parser.add_argument("--module", default=os.environ.get("GUILDLITE_MODULE")
                        or os.path.join(TREE, "build", "guildlite.so"))
    parser.add_argument("--only", choices=["frozen", "killed", "takeovers"])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.module)
        return 0
    options.module = os.path.abspath(options.module)
    print(f"takeovers: GUILDLITE_SEED={options.seed}", flush=True)
    scratch = tempfile.mkdtemp(prefix="guildlite-takeover-")
    begun = time.monotonic()
    said = []
    for what in ("frozen", "killed", "takeovers"):
        if options.only not in (None, what):
            continue
        folder = os.path.join(scratch, what)
        os.mkdir(folder)
        dice = random.Random(f"{what} {options.seed}")
        try:
            if what == "frozen":
                frozen(options, folder)
                said.append("1 thaw")
            elif what == "killed":
                said.append(f"{killed(options, folder, dice)} kills while rejoining")
            else:
                rows = takeovers(options, folder, dice)
                said.append(f"{options.takeovers} takeovers, {rows} durable rows")
        except Exception as error:
            print(f"WRONG: {what}, left in {folder}: {error}", flush=True)
            if not isinstance(error, Wrong):
                raise
            return 1
    shutil.rmtree(scratch)
    print(f"takeovers passed: {', '.join(said)}, {time.monotonic() - begun:.0f} s, "
          f"seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
