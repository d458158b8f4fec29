#!/usr/bin/python3
"""The main job, shown on a moderation bot's database: replicate, kill -9, lose the disk, restore.

    scripts/quickstart          builds first
    scripts/quickstart.py       with the build there is

Everything happens below build/quickstart, which is made anew each time. Exits non-zero if what was
restored is not, byte for byte, what stock SQLite makes of the same transactions.
"""
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TREE, "ext", "python"))
import guildlite  # noqa: E402

FOLDER = os.path.join(TREE, "build", "quickstart")
DISK = os.path.join(FOLDER, "disk")          # what the machine loses
STORE = os.path.join(FOLDER, "store")        # what survives it
DATABASE = os.path.join(DISK, "bot.db")
URL = "file://" + STORE

GUILDS, MESSAGES, INFRACTIONS = 300, 160_000, 40_000
WRITE_SECONDS = 6
ACKNOWLEDGE_EVERY = 20

SCHEMA = """
create table guilds(id text primary key, name text not null, messages integer not null default 0);
create table messages(id integer primary key, guild_id text not null, author_id text not null,
                      content text not null);
create index messages_guild on messages(guild_id, id);
create table infractions(id integer primary key, guild_id text not null, user_id text not null,
                         kind text not null, reason text, expires_at integer);
create index infractions_user on infractions(guild_id, user_id);
create index infractions_expiry on infractions(expires_at);
create table audit_log(n integer primary key, action text not null);
"""
KINDS = ("note", "warn", "mute", "kick", "ban")
WORDS = ("spam raid link invite caps rude off topic please read the rules again welcome back "
         "thanks mods banned muted yesterday stream game night voice channel bot").split()


def guild(number):
    return str(81384788765712384 + number * 4194304)


def message(chance):
    return (guild(chance.randrange(GUILDS)), str(197038439483310086 + chance.randrange(50_000)),
            " ".join(chance.choices(WORDS, k=chance.randrange(3, 24))))


def infraction(chance):
    return (guild(chance.randrange(GUILDS)), str(197038439483310086 + chance.randrange(50_000)),
            chance.choice(KINDS), " ".join(chance.choices(WORDS, k=4)),
            1_750_000_000 + chance.randrange(10_000_000))


def grow(path):
    """The database as it was before anybody thought of backups."""
    chance = random.Random(1)
    db = sqlite3.connect(path)
    db.executescript(SCHEMA)
    db.executemany("insert into guilds(id, name) values (?, ?)",
                   ((guild(i), f"guild {i}") for i in range(GUILDS)))
    db.executemany("insert into messages(guild_id, author_id, content) values (?, ?, ?)",
                   (message(chance) for _ in range(MESSAGES)))
    db.executemany("insert into infractions(guild_id, user_id, kind, reason, expires_at) "
                   "values (?, ?, ?, ?, ?)", (infraction(chance) for _ in range(INFRACTIONS)))
    db.commit()
    # The page cache of a process that stays open must not matter to what follows.
    db.close()


def connect(path):
    return sqlite3.connect(path, isolation_level=None, timeout=30)


def transaction(db, n):
    """What the bot does in its n-th transaction; the same whoever runs it."""
    chance = random.Random(f"transaction {n}")
    db.execute("begin immediate")
    row = message(chance)
    db.execute("insert into messages(guild_id, author_id, content) values (?, ?, ?)", row)
    db.execute("update guilds set messages = messages + 1 where id = ?", (row[0],))
    if chance.random() < 0.3:
        db.execute("insert into infractions(guild_id, user_id, kind, reason, expires_at) "
                   "values (?, ?, ?, ?, ?)", infraction(chance))
    if chance.random() < 0.1:
        db.execute("delete from infractions where id = ?", (chance.randrange(1, INFRACTIONS),))
    db.execute("insert into audit_log values (?, ?)", (n, row[2][:20]))
    db.execute("commit")


def be_the_bot():
    """The process that is killed."""
    db = connect(DATABASE)
    guildlite.load(db)
    begun = time.monotonic()
    position = db.execute("select replication_start(?)", (URL,)).fetchone()[0]
    print(f"started {position} {(time.monotonic() - begun) * 1000:.1f}", flush=True)
    db.execute("select replication_sync(60000)").fetchone()
    print(f"covered {(time.monotonic() - begun) * 1000:.1f}", flush=True)
    n = 0
    while True:
        n += 1
        transaction(db, n)
        if n % ACKNOWLEDGE_EVERY == 0:
            position = db.execute("select replication_position()").fetchone()[0]
            done = db.execute("select replication_wait(?, 30000)", (position,)).fetchone()[0]
            print(f"{'acknowledged' if done == 1 else 'committed'} {n}", flush=True)
        else:
            print(f"committed {n}", flush=True)


def be_the_successor():
    """The process on the new machine."""
    db = connect(":memory:")
    guildlite.load(db)
    begun = time.monotonic()
    position = db.execute("select snapshot_restore(?, ?)", (DATABASE, URL)).fetchone()[0]
    print(f"{position} {time.monotonic() - begun:.3f}")


def run(role, **options):
    return subprocess.Popen([sys.executable, os.path.abspath(__file__), role], text=True,
                            stdout=subprocess.PIPE, **options)


def kill_while_writing():
    """(what the bot said last, by word) after kill -9 at a random moment."""
    bot = run("bot")
    said = {}
    deadline = None
    for line in bot.stdout:
        word, *rest = line.split()
        said[word] = rest
        if word == "covered":
            moment = WRITE_SECONDS * random.SystemRandom().uniform(0.7, 1.3)
            deadline = time.monotonic() + moment
        if deadline and time.monotonic() >= deadline and "acknowledged" in said:
            bot.send_signal(signal.SIGKILL)
            break
    # What was in the pipe still counts; the last line may be cut short.
    for line in bot.stdout.read().splitlines(keepends=True):
        if line.endswith("\n"):
            word, *rest = line.split()
            said[word] = rest
    bot.wait()
    if bot.returncode != -signal.SIGKILL:
        raise SystemExit(f"the bot ended by itself, with {bot.returncode}")
    said["seconds"] = moment
    return said


def folder_bytes(folder):
    return sum(os.path.getsize(os.path.join(where, name))
               for where, _, names in os.walk(folder) for name in names)


def differing_pages(one, other):
    with open(one, "rb") as f, open(other, "rb") as g:
        a, b = f.read(), g.read()
    size = int.from_bytes(a[16:18], "big")
    size = 65536 if size == 1 else size
    last = max(len(a), len(b))
    return len(a) // size, [at // size + 1 for at in range(0, last, size)
                            if a[at:at + size] != b[at:at + size]]


def say(text):
    print(text, flush=True)


def megabytes(count):
    return f"{count / 1e6:.2f} MB"


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(DISK)
    say(f"\n1. A database of {GUILDS + MESSAGES + INFRACTIONS:,} rows, made by stock SQLite")
    grow(DATABASE)
    before = os.path.getsize(DATABASE)
    reference = os.path.join(FOLDER, "reference.db")
    shutil.copyfile(DATABASE, reference)
    say(f"   {megabytes(before)}, journal_mode=delete")

    say(f"2. A bot loads guildlite, replicates it to {URL} and writes; then kill -9")
    said = kill_while_writing()
    committed = int((said.get("committed") or said["acknowledged"])[0])
    committed = max(committed, int(said["acknowledged"][0]))
    acknowledged = int(said["acknowledged"][0])
    first_copy_ms = float(said["covered"][0])
    say(f"   replication_start() returned after {said['started'][1]} ms; all of the database was "
        f"in the store after {first_copy_ms:.0f} ms")
    say(f"   {committed:,} transactions committed in {said['seconds']:.1f} s, transaction "
        f"{acknowledged:,} acknowledged")

    say("3. Its disk is gone")
    shutil.rmtree(DISK)
    os.mkdir(DISK)

    say("4. Another process restores it from the store")
    successor = run("successor")
    answer = successor.communicate()[0].split()
    if successor.returncode != 0:
        raise SystemExit("the restore failed")
    position, seconds = answer
    db = connect(DATABASE)
    intact = db.execute("pragma integrity_check").fetchone()[0]
    restored = db.execute("select max(n) from audit_log").fetchone()[0] or 0
    rows = sum(db.execute(f"select count(*) from {table}").fetchone()[0]
               for table in ("guilds", "messages", "infractions", "audit_log"))
    db.close()
    say(f"   {rows:,} rows, {megabytes(os.path.getsize(DATABASE))} in {seconds} s, "
        f"position {position}")

    say("5. Stock SQLite, on its own copy, runs the same transactions")
    db = connect(reference)
    db.execute("pragma journal_mode = wal").fetchone()
    db.execute("pragma wal_autocheckpoint = 0").fetchone()
    for n in range(1, restored + 1):
        transaction(db, n)
    wal_bytes = os.path.getsize(reference + "-wal") if restored else 0
    db.execute("pragma wal_checkpoint(truncate)").fetchone()
    db.close()
    pages, differing = differing_pages(DATABASE, reference)

    log_bytes = folder_bytes(os.path.join(STORE, "log"))
    store_bytes = folder_bytes(STORE)
    checks = [
        ("integrity_check", intact == "ok", intact),
        ("the last acknowledged transaction is there", restored >= acknowledged,
         f"acknowledged {acknowledged:,}, restored {restored:,}"),
        ("nothing that was not committed", restored <= committed + 1, f"committed {committed:,}"),
        ("page by page what stock SQLite has", not differing,
         f"{pages:,} pages, {f'these differ: {differing[:10]}' if differing else 'all equal'}"),
    ]
    say("\n   result")
    for name, good, detail in checks:
        say(f"   {'ok ' if good else 'BAD'}  {name}: {detail}")
    say("\n   figures")
    say(f"   commits                {committed:,} in {said['seconds']:.1f} s, every "
        f"{ACKNOWLEDGE_EVERY}th waited for")
    say(f"   shipped for them       {megabytes(log_bytes)}; the WAL of the restored ones has "
        f"{megabytes(wal_bytes)}"
        + (f" ({wal_bytes / log_bytes:.0f} times as much)" if log_bytes else ""))
    say(f"   snapshots              {megabytes(store_bytes - log_bytes)} for a database of "
        f"{megabytes(before)}")
    say(f"   restore                {seconds} s")
    say(f"\n   The database is {os.path.relpath(DATABASE, TREE)}, the store is "
        f"{os.path.relpath(STORE, TREE)}: look around.")
    return 0 if all(good for _, good, _ in checks) else 1


if __name__ == "__main__":
    ROLES = {"bot": be_the_bot, "successor": be_the_successor}
    sys.exit(ROLES[sys.argv[1]]() if len(sys.argv) > 1 else main())
