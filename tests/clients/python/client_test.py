"""Debian's Python, its sqlite3 module unchanged: the tour as in Node; fork, threads, signals.

Run by scripts/test, or by hand:
    /usr/bin/python3 -m unittest discover -v -s tests/clients/python -p '*_test.py'
"""
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest

TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
PACKAGES = os.path.join(TREE, "ext", "python")
sys.path.insert(0, PACKAGES)
import guildlite  # noqa: E402

POSITION = re.compile(r"^[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}$")
NOTES = "create table if not exists notes(id integer primary key, text)"


def dump(path):
    """The whole content as SQL, by the stock shell in a process of its own."""
    return subprocess.run(["sqlite3", path, ".dump"], check=True, capture_output=True).stdout


class ClientTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="guildlite-python-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = self.file("app.db")
        self.url = "file://" + self.file("store")

    def file(self, name):
        return os.path.join(self.folder, name)

    def open(self, path=None, **more):
        db = sqlite3.connect(path or self.path, isolation_level=None, timeout=20, **more)
        self.addCleanup(db.close)
        return db

    def loaded(self, path=None, **more):
        db = self.open(path, **more)
        guildlite.load(db)
        return db

    def replicated(self, **more):
        db = self.loaded(**more)
        db.execute("select replication_start(?)", (self.url,))
        db.execute(NOTES)
        return db

    def value(self, db, sql, *values):
        return db.execute(sql, values).fetchone()[0]

    def assert_restores(self, db, path=None, url=None):
        """Ships what is committed, restores it beside the original, proves the two equal."""
        copy = self.file(f"copy-{len(os.listdir(self.folder))}.db")
        self.value(db, "select replication_sync()")
        position = self.value(db, "select snapshot_restore(?, ?)", copy, url or self.url)
        self.assertRegex(position, POSITION)
        restored = self.open(copy)
        self.assertEqual(self.value(restored, "pragma integrity_check"), "ok")
        self.assertEqual(dump(copy), dump(path or self.path))

    def assert_fails(self, tag, db, sql, *values):
        with self.assertRaises(sqlite3.Error) as caught:
            db.execute(sql, values).fetchall()
        self.assertRegex(str(caught.exception), f"^{tag}\\b")
        return caught.exception

    def child(self, program, *values, environment=None):
        """Runs a program in a Python of its own; it sees guildlite, sqlite3, os and `values`."""
        source = ("import guildlite, json, os, signal, sqlite3, sys\n"
                  "values = json.loads(sys.argv[1])\n" + textwrap.dedent(program))
        return subprocess.run(
            [sys.executable, "-c", source, json.dumps(values)], capture_output=True, text=True,
            timeout=60, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": PACKAGES, **(environment or {})})

    def restored_count(self, url=None):
        """Rows of notes, restored by a process that never saw the original."""
        copy = self.file(f"count-{len(os.listdir(self.folder))}.db")
        result = self.child("""
            db = sqlite3.connect(":memory:")
            guildlite.load(db)
            db.execute("select snapshot_restore(?, ?)", values)
            """, copy, url or self.url)
        self.assertEqual(result.returncode, 0, result.stderr)
        db = self.open(copy)
        self.assertEqual(self.value(db, "pragma integrity_check"), "ok")
        return self.value(db, "select count(*) from notes")


class Tour(ClientTest):
    def test_a_new_database_is_switched_to_wal_replicated_and_restored(self):
        db = self.loaded()
        db.execute("create table members(id text primary key, score integer)")
        self.assertEqual(self.value(db, "pragma journal_mode"), "delete")
        position = self.value(db, "select replication_start(?)", self.url)
        self.assertRegex(position, POSITION)
        self.assertEqual(self.value(db, "pragma journal_mode"), "wal")
        db.execute("begin")
        db.executemany("insert into members values (?, ?)",
                       [(str(10 ** 17 + i), i % 7) for i in range(2000)])
        db.execute("commit")
        db.execute("delete from members where score = 3")
        db.execute("begin")
        db.execute("delete from members")
        db.execute("rollback")
        self.assert_restores(db)
        self.assertRegex(self.value(db, "select guildlite_version()"), r"\d+\.\d+")

    def test_the_implicit_transactions_of_the_module_are_replicated(self):
        db = sqlite3.connect(self.path)
        self.addCleanup(db.close)
        guildlite.load(db)
        db.execute("select replication_start(?)", (self.url,)).fetchall()
        with db:
            db.execute(NOTES)
            db.execute("insert into notes(text) values ('kept')")
        with self.assertRaises(ZeroDivisionError), db:
            db.execute("insert into notes(text) values ('taken back')")
            raise ZeroDivisionError
        self.assert_restores(db)
        self.assertEqual(self.restored_count(), 1)

    def test_a_position_waited_for_is_in_the_store(self):
        db = self.replicated()
        for i in range(5):
            db.execute("insert into notes(text) values (?)", (f"note {i}",))
            position = self.value(db, "select replication_position()")
            self.assertEqual(self.value(db, "select replication_wait(?, 20000)", position), 1)
            copy = self.file(f"at-{i}.db")
            self.value(db, "select snapshot_restore(?, ?, ?)", copy, self.url, position)
            self.assertEqual(self.value(self.open(copy), "select count(*) from notes"), i + 1)

    def test_status_has_the_row_of_this_database(self):
        db = self.replicated()
        self.value(db, "select replication_sync()")
        row = db.execute("select database, url, lag_ms, last_error from replication_status")
        self.assertEqual(row.fetchall(), [(os.path.realpath(self.path), self.url, 0, None)])

    def test_backup_of_the_module_works(self):
        db = self.replicated()
        db.executemany("insert into notes(text) values (?)", [("x" * 500,)] * 2000)
        target = self.open(self.file("backup.db"))
        db.backup(target, pages=50)
        target.close()
        self.assertEqual(dump(self.file("backup.db")), dump(self.path))
        self.assert_restores(db)

    def test_vacuum_and_checkpoints_by_the_application_change_nothing(self):
        db = self.replicated()
        db.executemany("insert into notes(text) values (?)", [("y" * 300,)] * 3000)
        db.execute("delete from notes where id % 3 = 0")
        db.execute("vacuum")
        db.execute("pragma wal_checkpoint(truncate)").fetchall()
        db.execute("insert into notes(text) values ('after')")
        self.assert_restores(db)


class Errors(ClientTest):
    def test_each_error_opens_with_its_tag(self):
        db = self.loaded()
        self.assert_fails("NOT_REPLICATED", db, "select replication_sync()")
        self.assert_fails("BAD_URL", db, "select replication_start('gopher://x')")
        self.assert_fails("BAD_ARGUMENT", db, "select replication_start(?, ?)", self.url,
                          '{"no_such_option": 1}')
        self.assert_fails("NO_BACKUP", db, "select snapshot_restore(?, ?)", self.file("c.db"),
                          "file://" + self.file("nothing"))
        db.execute("select replication_start(?)", (self.url,)).fetchall()
        db.execute(NOTES)
        self.value(db, "select replication_sync()")
        self.assert_fails("EXISTS", db, "select snapshot_restore(?, ?)", self.path, self.url)
        self.assert_fails("NO_SUCH_POINT", db, "select snapshot_restore(?, ?, 123456)",
                          self.file("c.db"), self.url)
        db.execute("begin")
        db.execute("insert into notes(text) values ('x')")
        self.assert_fails("IN_TRANSACTION", db, "select replication_sync()")
        db.execute("rollback")
        self.assertFalse([name for name in os.listdir(self.folder) if name.startswith("c.db")])

    def test_a_file_that_is_no_database_is_refused_and_left_alone(self):
        with open(self.path, "w", encoding="ascii") as f:
            f.write("this is not a database, " * 200)
        before = os.stat(self.path)
        db = self.loaded()
        with self.assertRaises(sqlite3.Error):
            self.value(db, "select replication_start(?)", self.url)
        after = os.stat(self.path)
        self.assertEqual((before.st_size, before.st_mtime_ns), (after.st_size, after.st_mtime_ns))

    def test_ids_are_text_or_integer(self):
        db = self.loaded(":memory:")
        for guild in (102860784329052160, 81384788765712384, 197038439483310086):
            for shards in (1, 16, 1021):
                expected = (guild >> 22) % shards
                for given in (guild, str(guild)):
                    self.assertEqual(self.value(db, "select guild_shard(?, ?)", given, shards),
                                     expected)
        high = 2 ** 64 - 1
        self.assertEqual(self.value(db, "select guild_shard(?, 1021)", str(high)),
                         (high >> 22) % 1021)
        self.assert_fails("BAD_ID", db, "select guild_shard(?, 16)", 197038439483310086.0)
        self.assert_fails("BAD_ID", db, "select guild_shard('-5', 16)")

    def test_a_store_that_cannot_be_written_says_so(self):
        with open(self.file("store"), "w", encoding="ascii") as f:
            f.write("a file where the directory should be")
        db = self.loaded()
        with self.assertRaises(sqlite3.Error) as caught:
            self.value(db, "select replication_start(?)", self.url)
            self.value(db, "select replication_sync(2000)")
        self.assertRegex(str(caught.exception), "^[A-Z_]+: ")


class Processes(ClientTest):
    WRITE_AND_END = """
        path, url, rows, end = values
        db = sqlite3.connect(path, isolation_level=None)
        guildlite.load(db)
        db.execute("select replication_start(?)", (url,)).fetchall()
        db.execute("create table if not exists notes(id integer primary key, text)")
        for i in range(rows):
            db.execute("insert into notes(text) values (?)", (f"note {i}",))
        if end == "close":
            db.close()
        if end == "exit":
            sys.exit(0)
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        """

    def test_a_process_that_ends_has_shipped_all_of_it(self):
        total = 0
        for end in ("close", "exit", "return"):
            with self.subTest(end=end):
                result = self.child(self.WRITE_AND_END, self.path, self.url, 300, end)
                self.assertEqual(result.returncode, 0, result.stderr)
                total += 300
                self.assertEqual(self.restored_count(), total)

    def test_kill_9_then_a_plain_load_ships_what_was_left(self):
        result = self.child(self.WRITE_AND_END, self.path, self.url, 900, "kill")
        self.assertEqual(result.returncode, -signal.SIGKILL)
        db = self.loaded()
        self.assertEqual(self.value(db, "select count(*) from notes"), 900)
        self.assert_restores(db)

    def test_kill_9_and_a_lost_disk_go_on_from_the_restored_copy(self):
        result = self.child(self.WRITE_AND_END, self.path, self.url, 200, "close")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.child(self.WRITE_AND_END, self.path, self.url, 200, "kill")
        for name in os.listdir(self.folder):
            if name.startswith("app.db"):
                subprocess.run(["rm", "-r", self.file(name)], check=True)
        loader = self.loaded(":memory:")
        before = self.value(loader, "select snapshot_restore(?, ?)", self.path, self.url)
        db = self.replicated()
        self.assertGreaterEqual(self.value(db, "select count(*) from notes"), 200)
        after = self.value(db, "select replication_position()")
        self.assertEqual(before.split("-")[0], after.split("-")[0], "the lineage goes on")
        self.assertGreater(after.split("-")[1], before.split("-")[1], "in a new epoch")
        db.execute("insert into notes(text) values ('on the new disk')")
        self.assert_restores(db)

    def test_a_forked_child_neither_ships_nor_harms(self):
        db = self.replicated()
        db.execute("insert into notes(text) values ('before the fork')")
        child = os.fork()
        if child == 0:
            # It has our memory and none of our threads; it ends without touching the database.
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        db.execute("insert into notes(text) values ('after the fork')")
        self.assert_restores(db)

    def test_a_forked_child_that_runs_exit_handlers_ends_at_once(self):
        result = self.child("""
            path, url = values
            db = sqlite3.connect(path, isolation_level=None)
            guildlite.load(db)
            db.execute("select replication_start(?)", (url,)).fetchall()
            db.execute("create table notes(id integer primary key, text)")
            child = os.fork()
            if child == 0:
                sys.exit(7)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 7, status
            db.execute("insert into notes(text) values ('by the parent')")
            db.execute("select replication_sync()").fetchall()
            """, self.path, self.url)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.restored_count(), 1)

    def test_a_forked_child_opens_its_own_connection_to_another_database(self):
        result = self.child("""
            path, url, other, other_url = values
            db = sqlite3.connect(path, isolation_level=None)
            guildlite.load(db)
            db.execute("select replication_start(?)", (url,)).fetchall()
            db.execute("create table notes(id integer primary key, text)")
            child = os.fork()
            if child == 0:
                mine = sqlite3.connect(other, isolation_level=None)
                mine.execute("create table notes(id integer primary key, text)")
                mine.execute("insert into notes(text) values ('by the child')")
                mine.close()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
            db.execute("insert into notes(text) values ('by the parent')")
            db.execute("select replication_sync()").fetchall()
            """, self.path, self.url, self.file("other.db"), "file://" + self.file("other"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.restored_count(), 1)

    def test_environment_mode_replicates_what_matches(self):
        os.mkdir(self.file("stores"))
        result = self.child("""
            folder, = values
            loader = sqlite3.connect(":memory:")
            guildlite.load(loader)
            for name in ("red.sqlite3", "plain.db"):
                db = sqlite3.connect(f"{folder}/{name}", isolation_level=None)
                db.execute("create table notes(id integer primary key, text)")
                db.execute("insert into notes(text) values ('x')")
                if name == "red.sqlite3":
                    db.execute("select replication_sync()").fetchall()
                db.close()
            """, self.folder, environment={
                "GUILDLITE_URL": f"file://{self.file('stores')}/{{name}}",
                "GUILDLITE_MATCH": f"{self.folder}/*.sqlite3"})
        self.assertEqual(result.returncode, 0, result.stderr)
        stores = os.listdir(self.file("stores"))
        self.assertEqual(len(stores), 1)
        self.assertEqual(self.restored_count(f"file://{self.file('stores')}/{stores[0]}"), 1)

    def test_an_open_that_environment_mode_refuses_says_why(self):
        result = self.child("""
            folder, = values
            for place in ("one", "two"):
                os.mkdir(f"{folder}/{place}")
                db = sqlite3.connect(f"{folder}/{place}/app.db", isolation_level=None)
                db.execute("create table notes(id integer primary key)")
                db.close()
            loader = sqlite3.connect(":memory:")
            guildlite.load(loader)
            kept = sqlite3.connect(f"{folder}/one/app.db")
            try:
                sqlite3.connect(f"{folder}/two/app.db")
            except sqlite3.OperationalError as error:
                print(error)
            """, self.folder, environment={
                "GUILDLITE_URL": self.url, "GUILDLITE_MATCH": f"{self.folder}/*/app.db"})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("PREFIX_CLASH", result.stdout)

    def test_stdout_stays_the_programs_own(self):
        result = self.child(self.WRITE_AND_END, self.path, self.url, 10, "close",
                            environment={"GUILDLITE_LOG": "debug"})
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)


class Threads(ClientTest):
    def test_threads_with_a_connection_each(self):
        db = self.replicated()
        failures = []

        def work(number):
            try:
                mine = sqlite3.connect(self.path, isolation_level=None, timeout=30)
                for i in range(100):
                    mine.execute("insert into notes(text) values (?)", (f"{number}/{i}",))
                position = mine.execute("select replication_position()").fetchone()[0]
                done = mine.execute("select replication_wait(?, 20000)", (position,)).fetchone()[0]
                if done != 1:
                    failures.append(f"thread {number}: not durable")
                mine.close()
            except sqlite3.Error as error:
                failures.append(f"thread {number}: {error}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.value(db, "select count(*) from notes"), 400)
        self.assert_restores(db)

    def test_one_connection_handed_between_threads(self):
        db = self.replicated(check_same_thread=False)

        def work():
            for i in range(50):
                db.execute("insert into notes(text) values (?)", (f"note {i}",))

        for _ in range(3):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        self.assertEqual(self.value(db, "select count(*) from notes"), 150)
        self.assert_restores(db)


if __name__ == "__main__":
    unittest.main()
