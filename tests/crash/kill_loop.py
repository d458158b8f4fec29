#!/usr/bin/python3
"""Kills a writer with SIGKILL at random moments, again and again, and checks what is left of it.

    tests/crash/kill_loop.py [--kills N] [--seed S] [--module guildlite.so] [--keep]

Transaction n is a pure function of (seed, n), so the content after it is known to this process,
which runs stock SQLite and never loads the extension. A writer process commits transactions and
reports "c n" when n is committed and "d n" when replication_wait() called it durable. It is
killed; sometimes a stock program read, wrote, checkpointed or vacuumed beside it or afterwards.
Then, by the dice:

  lost disk   the folder of the database is deleted and the store restored. The next writer goes on
              from the restored copy.
  kept disk   the database is reopened with the extension and synced.

Checked every time, whatever the timing:
  1. What SQLite said was committed is on the disk (no harm done by being loaded).
  2. The restored file passes integrity_check and holds exactly the state after some transaction n:
     nothing torn, nothing invented.
  3. n is at least the last transaction ever called durable.
  4. Page by page it is what stock SQLite makes of the killed disk at that transaction, where the
     WAL still shows it.
  5. After a kept disk and a sync, n is the newest, the bytes are those of the database file, and
     what was shipped for it is a part of the database, not all of it.
  6. A lost disk begins a new epoch; positions and durable transactions never go back.
"""
import argparse
import hashlib
import json
import os
import random
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MEMBERS = 3000           # ids that transactions touch
LEDGER_ROWS = 400        # how many transactions back the ledger goes
HANG_SECONDS = 60        # longer than anything here takes: a process that is stuck, not slow

SCHEMA = """
create table if not exists ledger(n integer primary key, operations integer, spell text);
create table if not exists members(id integer primary key, guild integer, name text, score integer,
                                   note blob);
create index if not exists members_guild on members(guild, score);
create index if not exists members_name on members(name);
"""


class Wrong(Exception):
    """An invariant does not hold."""


def expect(condition, message):
    if not condition:
        raise Wrong(message)


# The transactions, and the model of what they add up to.

def operations(seed, n):
    """What transaction n does: (id, row) to put, (id, None) to delete. Depends on nothing else."""
    chance = random.Random(f"{seed}/{n}")
    size = chance.choice([1, 1, 1, 2, 3, 8, 30]) if chance.random() > 0.02 else 400
    if n == 1:
        size = MEMBERS
    result = []
    for _ in range(size):
        member = chance.randrange(MEMBERS)
        if n > 1 and chance.random() < 0.15:
            result.append((member, None))
            continue
        length = chance.choice([0, 20, 200, 200, 900, 6000])
        result.append((member, (chance.randrange(50), f"member {chance.getrandbits(40):010x}",
                                chance.randrange(1000), chance.randbytes(length))))
    return result


def commit_next(db, seed, chance=None):
    """Commits the transaction after the newest one in `db` and returns its number."""
    db.execute("begin immediate")
    try:
        n = (db.execute("select max(n) from ledger").fetchone()[0] or 0) + 1
        todo = operations(seed, n)
        for at, (member, row) in enumerate(todo):
            if chance is not None and at == 5 and chance.random() < 0.3:
                # Work that is taken back must leave no trace.
                db.execute("savepoint detour")
                db.execute("update members set note = randomblob(3000) where id < 200")
                db.execute("rollback to detour")
            if row is None:
                db.execute("delete from members where id = ?", (member,))
            else:
                db.execute("insert into members values (?, ?, ?, ?, ?) on conflict(id) do update "
                           "set guild = excluded.guild, name = excluded.name, "
                           "score = excluded.score, note = excluded.note", (member, *row))
        db.execute("insert into ledger values (?, ?, ?)", (n, len(todo), f"spell {n * n % 9973}"))
        db.execute("delete from ledger where n <= ?", (n - LEDGER_ROWS,))
        if chance is not None and chance.random() < 0.05:
            db.execute("rollback")
            return n - 1
        db.execute("commit")
        return n
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise


class Model:
    """The digest of the members after each transaction: a sum over rows, so kept in O(changed)."""

    def __init__(self, seed):
        self.seed = seed
        self.rows = {}
        self.digests = [0]

    @staticmethod
    def row_digest(row):
        return int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=8).digest(), "big")

    def digest(self, n):
        while len(self.digests) <= n:
            total = self.digests[-1]
            for member, row in operations(self.seed, len(self.digests)):
                total -= self.rows.pop(member, 0)
                if row is not None:
                    self.rows[member] = self.row_digest((member, *row))
                    total += self.rows[member]
            self.digests.append(total)
        return self.digests[n]


def stock(path):
    """Stock SQLite on a scratch copy, which nobody needs to survive a power loss."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma synchronous = off")
    return db


def state_of(path, model):
    """The transaction whose state this database holds, proven; stock SQLite reads it."""
    db = stock(path)
    try:
        damage = [row[0] for row in db.execute("pragma integrity_check")]
        expect(damage == ["ok"], f"{path}: integrity_check says {damage[:5]}")
        if not db.execute("select 1 from sqlite_master where name = 'members_name'").fetchone():
            return 0
        ledger = db.execute("select n, operations, spell from ledger order by n").fetchall()
        n = ledger[-1][0] if ledger else 0
        expect([row[0] for row in ledger] == list(range(max(1, n - LEDGER_ROWS + 1), n + 1)),
               f"{path}: the ledger has gaps")
        for number, size, spell in ledger[-20:]:
            expect(size == len(operations(model.seed, number))
                   and spell == f"spell {number * number % 9973}",
                   f"{path}: ledger row {number} is wrong")
        total = sum(model.row_digest(row) for row in db.execute(
            "select id, guild, name, score, note from members"))
        expect(total == model.digest(n), f"{path}: the members are not those after transaction {n}")
        return n
    finally:
        db.close()


# The processes that load the extension.

def connect(path, module):
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    db.enable_load_extension(True)
    db.load_extension(module)
    return db


def start(db, url, options):
    return db.execute("select replication_start(?, ?)", (url, json.dumps(options))).fetchone()[0]


def writer(task):
    """Commits until killed."""
    chance = random.Random(task["dice"])
    if task["page_size"]:
        plain = sqlite3.connect(task["path"])
        plain.execute(f"pragma page_size = {task['page_size']}")
        plain.execute(f"pragma auto_vacuum = {task['auto_vacuum']}")
        plain.executescript("pragma journal_mode = delete;" + SCHEMA)
        plain.close()
    db = connect(task["path"], task["module"])
    for pragma in task["pragmas"]:
        db.execute("pragma " + pragma).fetchall()
    position = start(db, task["url"], task["options"])
    db.executescript(SCHEMA)

    def say(line):
        os.write(1, line.encode() + b"\n")

    say(f"r {position}")
    reader = None
    if task["reader"]:
        reader = sqlite3.connect(task["path"], isolation_level=None)
    burst = 0
    while True:
        n = commit_next(db, task["seed"], chance)
        say(f"c {n}")
        burst += 1
        if reader is not None and chance.random() < 0.02:
            # A snapshot that stays open holds the WAL back; closing it lets it go again.
            reader.execute("rollback" if reader.in_transaction else "begin")
            if reader.in_transaction:
                reader.execute("select count(*) from ledger").fetchone()
        if burst >= task["burst"]:
            burst = 0
            position = db.execute("select replication_position()").fetchone()[0]
            done = db.execute("select replication_wait(?, ?)", (position, task["wait_ms"]))
            if done.fetchone()[0] == 1:
                say(f"d {n}")
            elif chance.random() < 0.5:
                db.execute("select replication_sync(30000)").fetchone()
                say(f"d {n}")
        if chance.random() < task["vacuum"]:
            db.execute("vacuum")


def reopener(task):
    """What a program does after a crash, with its disk still there."""
    db = connect(task["path"], task["module"])
    if not task["plain_load"]:
        start(db, task["url"], task["options"])
    position = db.execute("select replication_sync(30000)").fetchone()[0]
    db.close()
    print(position)


def restorer(task):
    db = connect(":memory:", task["module"])
    print(db.execute("select snapshot_restore(?, ?)", (task["copy"], task["url"])).fetchone()[0])


ROLES = {"writer": writer, "reopener": reopener, "restorer": restorer}


# What a killed disk looks like to stock SQLite.

def frames_of(wal_path):
    """(page size, indexes of the commit frames) of the WAL as its header and salts show it."""
    with open(wal_path, "rb") as f:
        wal = f.read()
    if len(wal) < 32:
        return 0, []
    page_size, _, salts = struct.unpack(">II8s", wal[8:24])
    commits = []
    for index in range((len(wal) - 32) // (page_size + 24)):
        at = 32 + index * (page_size + 24)
        _, size, frame_salts = struct.unpack(">II8s", wal[at:at + 16])
        if frame_salts != salts:
            break
        if size:
            commits.append(index + 1)
    return page_size, commits


def backfilled(shm_path):
    """How many frames a checkpoint may have copied into the database (nBackfillAttempted)."""
    try:
        with open(shm_path, "rb") as f:
            f.seek(128)
            return struct.unpack("=I", f.read(4))[0]
    except (OSError, struct.error):
        return 0


def copy_disk(source, target, wal_frames=None, page_size=0):
    shutil.copyfile(source, target)
    if os.path.exists(source + "-wal"):
        shutil.copyfile(source + "-wal", target + "-wal")
        if wal_frames is not None:
            os.truncate(target + "-wal", 32 + wal_frames * (24 + page_size))


def lost_by_sqlite(path, exclusive):
    """Whether SQLite's ROLLBACK TO bug (before its fix; 3.40.1 has it) is in this WAL: committed
    frames with a zero checksum, which recovery after a kill cannot pass. The index still covers
    them."""
    try:
        with open(path + "-wal", "rb") as file:
            wal = file.read()
        index = bytes(48)
        if not exclusive:  # then the index is on the heap: any such frame makes the disk no witness
            with open(path + "-shm", "rb") as file:
                index = file.read(48)
    except FileNotFoundError:
        return False
    if len(index) < 48 or len(wal) < 32:
        return False
    page_size = struct.unpack_from(">I", wal, 8)[0]
    frames = (len(wal) - 32) // (24 + page_size) if exclusive else struct.unpack_from(
        "=I", index, 16)[0]
    for frame in range(frames):
        at = 32 + frame * (24 + page_size)
        if at + 24 <= len(wal) and wal[at + 8:at + 24] == bytes(16):
            return True
    return False


def settle(path):
    """Everything into the one file, by a stock checkpoint."""
    db = stock(path)
    db.execute("pragma wal_checkpoint(truncate)").fetchall()
    db.close()
    return path


def newest(path):
    db = stock(path)
    try:
        return db.execute("select max(n) from ledger").fetchone()[0] or 0
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()


def same_pages(one, other):
    """None, or the first page that differs."""
    with open(one, "rb") as f, open(other, "rb") as g:
        a, b = f.read(), g.read()
    if a == b:
        return None
    page_size = struct.unpack(">H", a[16:18])[0] if len(a) > 18 else 0
    page_size = 65536 if page_size == 1 else page_size or 4096
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} bytes"
    at = next(i for i in range(0, len(a), page_size) if a[i:i + page_size] != b[i:i + page_size])
    return f"page {at // page_size + 1}"


def bytes_below(folder):
    return sum(os.path.getsize(os.path.join(where, name))
               for where, _, names in os.walk(folder) for name in names)


class Loop:
    def __init__(self, options, scratch):
        self.seed = options.seed
        self.dice = random.Random(f"loop {options.seed}")
        self.module = options.module
        self.scratch = scratch
        self.disk = os.path.join(scratch, "disk")
        self.path = os.path.join(self.disk, "app.db")
        self.store = os.path.join(scratch, "store")
        self.url = "file://" + self.store
        self.model = Model(self.seed)
        self.durable = 0         # newest transaction ever called durable
        self.epoch = 0
        self.disk_lost = False
        self.begun = False
        self.totals = {"lost": 0, "kept": 0, "exact": 0, "startup": 0, "strangers": 0,
                       "broken": 0}
        self.what = ""
        self.exclusive = False
        os.mkdir(self.disk)

    def spawn(self, role, **task):
        task.update(module=self.module, url=self.url, path=self.path, seed=self.seed)
        return subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--role", role, json.dumps(task)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def ask(self, role, **task):
        """Runs a process that must end well; its line of output."""
        process = self.spawn(role, **task)
        try:
            out, err = process.communicate(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Wrong(f"the {role} hangs") from None
        if process.returncode != 0:
            raise Wrong(f"the {role} ended with {process.returncode}: {err.decode()[-1500:]}")
        return out.decode().strip()

    def scratch_file(self, name):
        path = os.path.join(self.scratch, name)
        for end in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(path + end):
                os.remove(path + end)
        return path

    def write_and_kill(self):
        """One writer's life. Returns the newest transaction it reported committed."""
        dice = self.dice
        pragmas = [f"synchronous = {dice.choice(['normal', 'normal', 'full', 'off'])}",
                   f"wal_autocheckpoint = {dice.choice([1000, 1000, 50, 5, 0])}"]
        if dice.random() < 0.25:
            pragmas.append("cache_size = 4")
        if dice.random() < 0.1:
            pragmas.append("locking_mode = exclusive")
        exclusive = self.exclusive = "locking_mode = exclusive" in pragmas
        new = not os.path.exists(self.path)
        task = {
            "dice": dice.getrandbits(32),
            "page_size": dice.choice([512, 1024, 4096, 4096, 4096, 65536]) if new else 0,
            "auto_vacuum": dice.choice([0, 0, 1, 2]),
            "pragmas": pragmas,
            "options": {"sync_interval_ms": dice.choice([1, 10, 50, 1000])},
            "burst": dice.choice([1, 5, 20, 100, 1000]),
            "wait_ms": dice.choice([0, 50, 2000]),
            "vacuum": dice.choice([0, 0, 0, 0.01]),
            "reader": dice.random() < 0.2 and not exclusive,
        }
        at_start = dice.random() < 0.12
        seconds = dice.random() ** 2 * (0.12 if at_start else 0.4)
        meddle = not exclusive and not at_start and dice.random() < 0.3
        self.what = (f"writer {json.dumps(task)}, killed {seconds * 1000:.0f} ms after "
                     f"{'its start' if at_start else 'its first commit'}")
        process = self.spawn("writer", **task)
        lines = b""
        if not at_start:
            lines = self.read_until(process, b"\nc ")
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if meddle and left < seconds / 2:
                self.meddle(beside=True)
                meddle = False
            if select.select([process.stdout], [], [], max(0, left))[0]:
                some = os.read(process.stdout.fileno(), 65536)
                if not some:
                    break
                lines += some
        if process.poll() is not None:
            raise Wrong(f"the writer ended by itself with {process.returncode}: "
                        + process.stderr.read().decode()[-1500:])
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=HANG_SECONDS)
        committed = 0
        # The last line may be cut short by the kill.
        for line in (lines + rest).decode().split("\n")[:-1]:
            kind, word = line.split()
            if kind == "r":
                self.entered(word)
            elif kind == "c":
                committed = int(word)
            elif kind == "d":
                expect(int(word) >= self.durable, f"durable went back to {word}")
                self.durable = int(word)
        self.totals["startup"] += at_start
        return committed

    def read_until(self, process, what):
        lines = b""
        deadline = time.monotonic() + HANG_SECONDS
        while what not in lines:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                process.kill()
                raise Wrong("the writer commits nothing")
            some = os.read(process.stdout.fileno(), 65536)
            if not some:
                process.wait()
                raise Wrong(f"the writer ended with {process.returncode}: "
                            + process.stderr.read().decode()[-1500:])
            lines += some
        return lines

    def entered(self, position):
        epoch = int(position.split("-")[1], 16)
        if self.disk_lost:
            expect(epoch > self.epoch, f"epoch {epoch} after a restore, and it was {self.epoch}")
        else:
            expect(epoch >= self.epoch, f"epoch {epoch}, and it was {self.epoch}")
        self.epoch = epoch
        self.disk_lost = False

    def meddle(self, beside):
        """Stock SQLite on the same database."""
        how = self.dice.choice(["read", "write", "write", "checkpoint", "vacuum"])
        self.what += f"; stock {how} {'beside it' if beside else 'after it'}"
        self.totals["strangers"] += 1
        # Less patient than the writer: a RESTART that waits for the writer's own open snapshot
        # holds the WRITE lock for all of its timeout; with equal ones the writer may fail first.
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        try:
            if how == "read":
                db.execute("select count(*) from members").fetchone()
            elif how == "write":
                for _ in range(self.dice.choice([1, 3, 30])):
                    commit_next(db, self.seed)
            elif how == "checkpoint":
                mode = self.dice.choice(["passive", "full", "restart", "truncate"])
                db.execute(f"pragma wal_checkpoint({mode})").fetchall()
            else:
                db.execute("vacuum")
        except sqlite3.OperationalError as error:
            # A stranger may be told to come back; it must not be told anything else.
            expect("locked" in str(error) or "no such table" in str(error),
                   f"stock {how} failed: {error}")
        finally:
            db.close()

    def restore(self):
        """Restores the store's newest state; (path, transaction), or (None, 0) before the first."""
        copy = self.scratch_file("restored.db")
        try:
            self.ask("restorer", copy=copy)
        except Wrong as error:
            nothing_yet = "NO_BACKUP" in str(error) or "NO_SUCH_POINT" in str(error)
            if nothing_yet and self.durable == 0 and not self.begun:
                return None, 0
            raise
        # It must be good as it is: compared before anything opens it.
        as_restored = self.scratch_file("as-restored.db")
        shutil.copyfile(copy, as_restored)
        return as_restored, state_of(copy, self.model)

    def check_pages(self, restored, n):
        """Invariant 4: the killed disk, cut at a commit frame of transaction n, is that file."""
        wal = self.path + "-wal"
        whole = self.scratch_file("whole.db")
        copy_disk(self.path, whole)
        local = state_of(whole, self.model)
        if local == n and same_pages(settle(whole), restored) is None:
            self.totals["exact"] += 1
            return local
        if self.exclusive:
            return local  # no -shm tells how far a checkpoint has copied: no cut can be judged
        page_size, commits = frames_of(wal) if os.path.exists(wal) else (0, [])
        # Cut below what a checkpoint has copied already, the database file is too new for the WAL.
        done = backfilled(self.path + "-shm")
        commits = [frame for frame in commits if frame >= done]
        candidates = []
        low, high = 0, len(commits)
        while low < high:  # first commit frame that shows n or more
            middle = (low + high) // 2
            if self.cut(commits[middle], page_size)[1] < n:
                low = middle + 1
            else:
                high = middle
        for frame in commits[low:]:
            path, at = self.cut(frame, page_size)
            if at != n:
                break
            candidates.append(same_pages(settle(path), restored))
            if candidates[-1] is None:
                self.totals["exact"] += 1
                return local
        # A VACUUM makes another file of the same transaction; unless the WAL goes back to the
        # transaction before, the one that was restored may be older than it.
        expect(low == 0 or not candidates, "the restored file differs from stock SQLite's at "
               f"transaction {n}: {candidates}; the disk shows {local}")
        return local

    def cut(self, frame, page_size):
        path = self.scratch_file("cut.db")
        copy_disk(self.path, path, frame, page_size)
        return path, newest(path)

    # Not what was joined: that is in the store already.
    def shipped_bytes(self):
        return bytes_below(self.store) - bytes_below(os.path.join(self.store, "segments"))

    def one(self):
        committed = self.write_and_kill()
        if not os.path.exists(self.path):
            return
        # A copy that replication was never started on is nobody's yet: what a stranger writes to it
        # makes it another database, by design.
        stranger = not self.disk_lost and self.dice.random() < 0.2
        # What was not shipped yet is at most this: still in the WAL, or spooled.
        unshipped = bytes_below(self.path + "-guildlite")
        if os.path.exists(self.path + "-wal"):
            unshipped += os.path.getsize(self.path + "-wal")
        broken = lost_by_sqlite(self.path, self.exclusive)
        restored, n = self.restore()
        if restored is not None:
            expect(n >= self.durable, f"restored transaction {n}; {self.durable} was durable")
            self.begun = True
        if broken:
            # What the disk shows is not what was committed, through no fault of ours; the store has
            # what was durable. Go on from there.
            self.totals["broken"] += 1
            if restored is None:
                return
            local = committed = n
        elif restored is not None:
            local = self.check_pages(restored, n)
        else:
            whole = self.scratch_file("whole.db")
            copy_disk(self.path, whole)
            local = state_of(whole, self.model)
        expect(local >= committed, f"the disk shows {local}; SQLite had committed {committed}")
        expect(n <= local, f"restored {n}, which the disk ({local}) never had")

        if restored is not None and (self.dice.random() < 0.5 or broken):
            self.what += "; disk lost"
            shutil.rmtree(self.disk)
            os.mkdir(self.disk)
            shutil.copyfile(restored, self.path)
            self.disk_lost = True
            self.durable = n
            self.totals["lost"] += 1
            return
        if stranger:
            self.meddle(beside=False)
            local = newest(self.path)
        self.what += "; disk kept"
        before = self.shipped_bytes()
        plain = self.begun and not self.disk_lost and self.dice.random() < 0.5
        position = self.ask("reopener", plain_load=plain, options={})
        self.entered(position)
        grown = self.shipped_bytes() - before
        if restored is not None and not stranger:
            size = os.path.getsize(self.path)
            expect(grown <= unshipped + size // 4 + (64 << 10), f"{grown} bytes shipped after the "
                   f"reopen; WAL and spool had {unshipped}, the database has {size}")
        synced, n = self.restore()
        expect(synced is not None, "nothing to restore after a sync")
        self.begun = True
        expect(n == local, f"synced, and the store gives {n} where the disk has {local}")
        difference = same_pages(settle(self.path), synced)
        expect(difference is None, f"synced, and the files differ: {difference}")
        self.totals["exact"] += 1
        self.durable = n
        self.totals["kept"] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", default=os.environ.get("GUILDLITE_SEED")
                        or str(random.SystemRandom().getrandbits(32)))
    parser.add_argument("--module", default=os.environ.get("GUILDLITE_MODULE")
                        or os.path.join(TREE, "build", "guildlite.so"))
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder")
    parser.add_argument("--role", choices=sorted(ROLES), help=argparse.SUPPRESS)
    parser.add_argument("task", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        ROLES[options.role](json.loads(options.task))
        return 0

    options.module = os.path.abspath(options.module)
    if not os.path.isfile(options.module):
        print(f"{options.module} is not there: build it first")
        return 2
    print(f"kill loop: {options.kills} kills, GUILDLITE_SEED={options.seed}", flush=True)
    scratch = tempfile.mkdtemp(prefix="guildlite-kill-")
    begun = time.monotonic()
    done = 0
    series = 0
    totals = {}
    try:
        while done < options.kills:
            # A series on one database; then another, with another page size.
            folder = os.path.join(scratch, f"series-{series}")
            os.mkdir(folder)
            loop = Loop(argparse.Namespace(seed=f"{options.seed}-{series}", module=options.module),
                        folder)
            for _ in range(min(25, options.kills - done)):
                try:
                    loop.one()
                except Exception:
                    print(f"kill {done + 1}, series {series}: {loop.what}\nleft in {folder}",
                          flush=True)
                    options.keep = True
                    raise
                done += 1
            transactions = len(loop.model.digests) - 1
            for name, count in {**loop.totals, "transactions": transactions}.items():
                totals[name] = totals.get(name, 0) + count
            print(f"  {done} kills, {time.monotonic() - begun:.0f} s, {totals}", flush=True)
            shutil.rmtree(folder)
            series += 1
        if done >= 50:
            idle = [name for name, count in totals.items() if count == 0 and name != "broken"]
            expect(not idle, f"in {done} kills there was none of: {idle}")
    except Wrong as error:
        print(f"WRONG: {error}", flush=True)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(scratch)
    print(f"{done} kills, {totals['lost']} disks lost, {totals['kept']} kept, {totals['startup']} "
          f"during start-up, {totals['strangers']} stock meddlers, {totals['transactions']} "
          f"transactions, {totals['exact']} page-exact comparisons, "
          f"{time.monotonic() - begun:.0f} s, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
