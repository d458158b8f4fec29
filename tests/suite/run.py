"""Runs files of SQLite's own test suite with stock SQLite and with guildlite as the default VFS,
replicating while they run, and compares. Called by scripts/sqlite_suite, which builds what it
needs.

A file fails when with guildlite it
  - has a failing test that stock SQLite passes, unless tests/suite/allowed has it with a reason;
  - ends early (crash, timeout, no tally), or reports leaks or open files that stock does not;
  - leaves a database whose replica differs, or cannot be restored (tests/suite/witness.cc).

Environment mode with GUILDLITE_WAL=false: every *.db in the test's folder that a connection has as
its main database is claimed and watched from its first open, and captured whenever the test itself
has put it into WAL mode. As "wal:x.test", SQLite's own permutation "wal" does that for every
connection of x.test.

What stock SQLite does is measured once a build and kept; --stock measures again.
"""

import argparse
import collections
import fnmatch
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TALLY = re.compile(r"^(\d+) errors out of (\d+) tests", re.M)
FAILURES = re.compile(r"^!Failures on these tests: ?(.*)$", re.M)
AFTER_TALLY = re.compile(r"^(?:Unfreed memory: .*|\d+ files were left open)$", re.M)
NOBODY = 65534
# tester.tcl moves SQLite's lock page from 1 GiB to 64 KiB, of which guildlite knows nothing: what
# it replicates has it where it always is, here for both, and stock SQLite fails where a test counts
# on the other place. These grow a database to it, and are run as they are, without replication.
NEED_EARLY_LOCK_PAGE = {"autovacuum.test", "backup.test", "backup_ioerr.test", "incrvacuum3.test"}
# A process that crashes keeps its unsynced writes in test6.c, above guildlite, which would see them
# published but not in the file, as after a power loss that no boot id tells of. It goes without, as
# another program whose power fails; whoever opens what it leaves has guildlite again.
CRASHING_CHILD = ("exec [info nameofexec] crash.tcl",
                  "exec env -u SUITE_LOAD [info nameofexec] crash.tcl")
MOVES_LOCK_PAGE = "sqlite3_test_control_pending_byte 0x0010000"


def test_list(name):
    """The files listed in tests/suite/files; `name` is "all" or "ci"."""
    chosen = []
    for line in (HERE / "files").read_text().splitlines():
        words = line.split("#")[0].split()
        if words and (name == "all" or name in words[1:]):
            chosen.append(words[0])
    return chosen


def allowed():
    """[(file pattern, test pattern, reason)] of tests/suite/allowed."""
    entries = []
    for line in (HERE / "allowed").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            file, test, reason = line.split(None, 2)
            entries.append((file, test, reason))
    return entries


class Place:
    """A working folder that an ordinary user may use: root is refused by no file mode, and some
    tests are about just that. In memory where there is room: the tests' power losses are simulated
    (testfixture is built with SQLITE_NO_SYNC), so no disk is needed for them."""

    def __init__(self, build, modules):
        shm = pathlib.Path("/dev/shm")
        roomy = shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 2 << 30
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="guildlite-suite-",
                                                  dir=shm if roomy else None))
        self.root.chmod(0o755)
        # Copies, because the tree may lie where nobody else may look.
        self.fixture = self.root / "testfixture"
        shutil.copy(build / "testfixture", self.fixture)
        for part in ("test", "ext"):
            shutil.copytree(build / "source" / part, self.root / "source" / part)
        self.tester = (self.root / "source" / "test" / "tester.tcl").read_text()
        assert MOVES_LOCK_PAGE in self.tester and CRASHING_CHILD[0] in self.tester
        self.modules = []
        for module in modules:
            shutil.copy(module, self.root / module.name)
            subprocess.run(["strip", "-g", self.root / module.name], check=True)
            self.modules.append(self.root / module.name)

    def folder(self, name):
        folder = self.root / name.replace(":", "-")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "store").mkdir(parents=True)
        (folder / "here").mkdir()
        if os.geteuid() == 0:
            for path in (folder, folder / "store", folder / "here"):
                os.chown(path, NOBODY, NOBODY)
        return folder

    def remove(self):
        shutil.rmtree(self.root, ignore_errors=True)


def run(place, name, with_guildlite, seconds, log):
    """One file in one process: what it said at its end."""
    folder = place.folder(name)
    permutation, _, file = name.rpartition(":")
    tests = place.root / "source" / "test"
    command = [place.fixture, tests / file]
    if permutation:
        command = [place.fixture, tests / "permutations.test", permutation, file]
    environment = {k: v for k, v in os.environ.items()
                   if not k.startswith(("GUILDLITE_", "AWS_", "SUITE_"))}
    tester = tests / "tester.tcl"
    early = name in NEED_EARLY_LOCK_PAGE
    text = place.tester.replace(*CRASHING_CHILD)
    tester.write_text(text if early else text.replace(MOVES_LOCK_PAGE, ""))
    if with_guildlite:
        environment |= {
            "SUITE_LOAD": ":".join(str(m) for m in place.modules),
            "SUITE_REPORT": str(folder / "report"),
            "GUILDLITE_URL": f"file://{folder}/store/{{name}}",
            "GUILDLITE_MATCH": "/nothing" if early else f"{folder}/here/testdir/*.db",
            "GUILDLITE_WAL": "false",
            # The machine may be busy; nothing may be left unproven because of that.
            "GUILDLITE_CLOSE_TIMEOUT_MS": "60000",
            # Tcl's exec takes every word on stderr for an error.
            "GUILDLITE_LOG": os.environ.get("SUITE_LOG", "off"),
        }
    as_user = dict(user=NOBODY, group=NOBODY, extra_groups=[]) if os.geteuid() == 0 else {}
    began = time.monotonic()
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=folder / "here", env=environment, stdout=out,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True, **as_user)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = "timeout"
        finally:
            # Its children too: the process group is the session we gave it.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    text = pathlib.Path(log).read_text(errors="replace")
    tally = TALLY.findall(text)
    failures = FAILURES.findall(text)
    report = folder / "report"
    result = {
        "code": code,
        "tests": int(tally[-1][1]) if tally else None,
        "failed": sorted(set(failures[-1].split())) if failures else [],
        "after": AFTER_TALLY.findall(text),
        "seconds": round(time.monotonic() - began, 1),
        "replicas": report.read_text().splitlines() if report.exists() else [],
    }
    shutil.rmtree(folder, ignore_errors=True)
    return result


def suspicious(result):
    return result["tests"] is None or result["failed"] or result["after"]


def judge(name, stock, ours, exceptions):
    """[what is wrong], [what was allowed]; `stock` may be None if `ours` is not suspicious."""
    wrong, let = [], []
    stock = stock or ours

    def note(what, test):
        reason = next((r for f, t, r in exceptions
                       if fnmatch.fnmatchcase(name, f) and fnmatch.fnmatchcase(test, t)), None)
        (let if reason else wrong).append(f"{what}: {reason}" if reason else what)

    for test in ours["failed"]:
        if test not in stock["failed"]:
            note(f"test {test}", test)
    for line in ours["replicas"]:
        if line.startswith(("differs", "unproven")):
            note(line, line.split()[0])
    if ours["tests"] is None:
        wrong.append(f"ended early ({ours['code']})")
    for line in ours["after"]:
        if line not in stock["after"]:
            wrong.append(line)
    return wrong, let


def tests_of(result):
    if result is None:
        return "not run"
    return "no tally" if result["tests"] is None else (
        f"{result['tests']} tests {len(result['failed'])} failed {result['seconds']} s")


def main():
    parser = argparse.ArgumentParser(prog="scripts/sqlite_suite")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--module", type=pathlib.Path, action="append", help=argparse.SUPPRESS)
    parser.add_argument("--list", default="all", help="all or ci: files of tests/suite/files")
    parser.add_argument("--lazy", action="store_true",
                        help="run stock SQLite only where a test fails with guildlite")
    parser.add_argument("--stock", action="store_true", help="measure stock SQLite again")
    parser.add_argument("--seconds", type=int, default=1800, help="at most, a file")
    parser.add_argument("files", nargs="*", help="instead of a list")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    logs = build / "logs"
    logs.mkdir(exist_ok=True)
    kept = build / "stock"
    kept.mkdir(exist_ok=True)
    exceptions = allowed()
    names = arguments.files or test_list(arguments.list)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    totals = collections.Counter()
    bad = []
    print(f"SQLite {build.name.split('-')[0]}, {len(names)} files", flush=True)
    place = Place(build, [m.resolve() for m in arguments.module])
    try:
        for name in names:
            memory = kept / f"{name}.json"
            ours = run(place, name, True, arguments.seconds, logs / f"{name}.log")
            if arguments.stock or not memory.exists() and (not arguments.lazy or suspicious(ours)):
                memory.write_text(json.dumps(
                    run(place, name, False, arguments.seconds, logs / f"{name}.stock.log")))
            stock = json.loads(memory.read_text()) if memory.exists() else None
            wrong, let = judge(name, stock, ours, exceptions)
            replicas = collections.Counter(line.split()[0] for line in ours["replicas"])
            shown = ", ".join(f"{n} {verdict}" for verdict, n in sorted(replicas.items())) or "none"
            print(f"{'BAD ' if wrong else 'ok  '}{name}: stock {tests_of(stock)}; guildlite"
                  f" {tests_of(ours)}; replicas: {shown}", flush=True)
            for line in list(dict.fromkeys(wrong))[:20]:
                print(f"      {line}", flush=True)
            for line in let:
                print(f"      allowed: {line}", flush=True)
            totals += collections.Counter(
                files=1, tests=ours["tests"] or 0,
                stock_tests=stock and stock["tests"] or 0,
                stock_failed=len(stock["failed"]) if stock else 0,
                failed=len(ours["failed"]), allowed=len(let),
                **{f"replicas {k}": v for k, v in replicas.items()})
            if wrong:
                bad.append(name)
    finally:
        place.remove()
    print(", ".join(f"{n} {what}" for what, n in totals.items()))
    if not arguments.files and not totals["replicas equal"]:
        bad.append("(no replica was compared)")
    print(f"{len(names) - len(bad)} files passed, {len(bad)} failed{': ' if bad else ''}"
          f"{' '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
