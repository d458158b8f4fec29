// With the shim in between SQLite works as without it, one commit is reported in the order that
// wal.c and pager.c give it, and what an events object answers is what the application sees.
#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"

namespace guildlite::testing {
namespace {

using Calls = std::vector<std::string>;
using PassThrough = ShimTest;

TEST_F(PassThrough, IsTheDefaultVfsAndSaysSo) {
  EXPECT_STREQ(sqlite3_vfs_find(nullptr)->zName, "guildlite");
  Connection c = OpenWal();
  char* name = nullptr;
  ASSERT_EQ(sqlite3_file_control(c.db(), "main", SQLITE_FCNTL_VFSNAME, &name), SQLITE_OK);
  EXPECT_STREQ(name, "guildlite/unix");
  sqlite3_free(name);
}

TEST_F(PassThrough, RegisteringAgainChangesNothing) {
  EXPECT_EQ(RegisterShim(Host(), Routines()).value(), Registered::kAlreadyOurs);
  EXPECT_STREQ(sqlite3_vfs_find(nullptr)->zName, "guildlite");
  // sqlite3_shutdown() and sqlite3_initialize() would do this.
  sqlite3_vfs_register(sqlite3_vfs_find("unix"), 1);
  EXPECT_EQ(RegisterShim(Host(), Routines()).value(), Registered::kAlreadyOurs);
  EXPECT_STREQ(sqlite3_vfs_find(nullptr)->zName, "guildlite");
}

TEST_F(PassThrough, AnotherSqliteLibraryIsRefused) {
  const sqlite3_api_routines* const other =
      reinterpret_cast<const sqlite3_api_routines*>(std::malloc(65536));
  std::memcpy(const_cast<sqlite3_api_routines*>(other), Routines(), 2048);
  const Result<Registered> registered = RegisterShim(Host(), other);
  EXPECT_EQ(registered.status().tag(), Tag::kBadArgument);
  std::free(const_cast<sqlite3_api_routines*>(other));
}

TEST_F(PassThrough, OneCommitIsReportedInOrder) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed"}));
  c.Ok("BEGIN; INSERT INTO t VALUES(2); ROLLBACK");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock"}));
  c.Ok("SELECT * FROM t");
  EXPECT_EQ(events_->Take(), Calls{});
  c.Ok("BEGIN IMMEDIATE; COMMIT");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed"}));
}

TEST_F(PassThrough, WhenTheUnlockIsReportedTheCommitIsPublished) {
  Connection c = OpenWal();
  const uint32_t before = events_->ReadIndex()->max_frame;
  uint32_t at_unlock = 0;
  uint32_t at_commit = 0;
  events_->on_call = [&](const std::string& call) {
    if (call == "unlock") at_unlock = events_->ReadIndex()->max_frame;
    if (call == "committed") at_commit = events_->ReadIndex()->max_frame;
  };
  c.Ok("INSERT INTO t VALUES(1)");
  events_->on_call = nullptr;
  EXPECT_EQ(at_unlock, before + 1);
  EXPECT_EQ(at_commit, before + 1);
}

TEST_F(PassThrough, TheFirstCommitOfAWalWritesAHeaderWithoutAsking) {
  Connection c(Path("a.db"));
  c.Ok("PRAGMA journal_mode=WAL");
  Install(c.db());
  EXPECT_EQ(events_->TakeHooks(), Calls{});
  c.Ok("CREATE TABLE t(a)");
  // The first unlock: the index is built under the WRITE lock.
  EXPECT_EQ(events_->TakeHooks(), (Calls{"unlock", "lock", "header", "unlock", "committed"}));
}

TEST_F(PassThrough, ACommitThatResetsTheWalAsksFirst) {
  Connection c = OpenWal();
  c.Ok("PRAGMA wal_checkpoint(PASSIVE)");
  EXPECT_EQ(events_->Take(), Calls{"checkpoint"});
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "discard:reset", "header", "unlock", "committed"}));
}

TEST_F(PassThrough, CheckpointsOfAllModesWork) {
  Connection c = OpenWal();
  const std::vector<std::pair<std::string, Calls>> modes = {
      {"PASSIVE", {"checkpoint"}},
      {"FULL", {"checkpoint", "unlock"}},
      {"RESTART", {"checkpoint", "discard:reset", "unlock"}},
      {"TRUNCATE", {"checkpoint", "discard:reset", "unlock"}}};
  for (const auto& [mode, calls] : modes) {
    c.Ok("INSERT INTO t VALUES(randomblob(9000))");
    events_->Take();
    EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(" + mode + ")").substr(0, 2), "0|") << mode;
    EXPECT_EQ(events_->Take(), calls) << mode;
  }
  EXPECT_EQ(std::filesystem::file_size(Path("a.db-wal")), 0u);
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "header", "unlock", "committed"}));
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "5");
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(PassThrough, AWorkloadWithSpillSavepointsVacuumAndMmapKeepsIntegrity) {
  Connection c = OpenWal();
  Connection reader(Path("a.db"));
  c.Ok("PRAGMA cache_size=4; PRAGMA mmap_size=1000000; PRAGMA wal_autocheckpoint=20");
  reader.Ok("PRAGMA mmap_size=1000000");
  for (int i = 0; i < 30; ++i) {
    c.Ok(
        "BEGIN; INSERT INTO t SELECT randomblob(3000) FROM "
        "(WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM n LIMIT 20) SELECT x FROM n);"
        "SAVEPOINT s; UPDATE t SET a=randomblob(2000) WHERE rowid%3=0; RELEASE s;"
        "DELETE FROM t WHERE rowid%7=0; COMMIT");
    EXPECT_EQ(reader.Text("SELECT count(*)>0 FROM t"), "1");
  }
  c.Ok("VACUUM");
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
  EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
  EXPECT_EQ(reader.Text("PRAGMA integrity_check"), "ok");
  EXPECT_GT(events_->Count("header"), 0u);
}

TEST_F(PassThrough, RollbackJournalsWorkAndAreReportedAsCommits) {
  Connection c(Path("a.db"));
  Install(c.db());
  for (const char* mode : {"DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"}) {
    c.Ok(std::string("PRAGMA journal_mode=") + mode);
    c.Ok("CREATE TABLE IF NOT EXISTS t(a)");
    events_->Take();
    c.Ok("INSERT INTO t VALUES(1)");
    EXPECT_EQ(events_->Take(), Calls{"committed"}) << mode;
  }
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(PassThrough, GoingInAndOutOfWalModeWorks) {
  Connection c = OpenWal();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(c.Text("PRAGMA journal_mode=DELETE"), "delete");
    EXPECT_FALSE(FileExists(Path("a.db-wal")));
    c.Ok("INSERT INTO t VALUES(1)");
    EXPECT_EQ(c.Text("PRAGMA journal_mode=WAL"), "wal");
    c.Ok("INSERT INTO t VALUES(2)");
  }
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "6");
  EXPECT_EQ(events_->mapped(), 1u);
}

TEST_F(PassThrough, ARefusedWriteLockIsTheApplicationsErrorAndLeavesNoTrace) {
  Connection c = OpenWal();
  const std::optional<Published> before = events_->ReadIndex();
  struct Case {
    Status answer;
    int code;
  };
  for (const Case& refused : {Case{Status(Tag::kBusy, "claiming"), SQLITE_BUSY},
                              Case{Status(Tag::kFenced, "x"), SQLITE_READONLY_DBMOVED},
                              Case{Status(Tag::kOwned, "x"), SQLITE_READONLY},
                              Case{Status(Tag::kDiskFull, "x"), SQLITE_FULL},
                              Case{Status(Tag::kNoBackup, "x"), SQLITE_IOERR}}) {
    events_->write_lock_answer = refused.answer;
    EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), refused.code);
    EXPECT_EQ(c.Run("BEGIN IMMEDIATE"), refused.code);
    EXPECT_EQ(sqlite3_get_autocommit(c.db()), 1);
    EXPECT_EQ(events_->Take(), (Calls{"lock", "lock"}));
    EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
    EXPECT_EQ(events_->ReadIndex(), before);
  }
  events_->write_lock_answer = Status::Ok();
  c.Ok("INSERT INTO t VALUES(1)");
}

TEST_F(PassThrough, BusyFromTheWriteLockRunsTheBusyHandler) {
  Connection c = OpenWal();
  events_->write_lock_answer = Status(Tag::kBusy, "claiming");
  const auto settle = [](void* events, int) {
    static_cast<RecordingEvents*>(events)->write_lock_answer = Status::Ok();
    return 1;
  };
  sqlite3_busy_handler(c.db(), settle, events_.get());
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "lock", "unlock", "committed"}));
}

// A fenced database stays readable, also right after a crash, when the first reader rebuilds the
// index under the WRITE lock; and it can still be checkpointed.
TEST_F(PassThrough, ARefusedWriteLockStopsNeitherRecoveryNorCheckpoints) {
  {
    Connection c = OpenWal("live.db");
    c.Ok("INSERT INTO t VALUES(7)");
    std::filesystem::copy(Path("live.db"), Path("a.db"));
    std::filesystem::copy(Path("live.db-wal"), Path("a.db-wal"));
  }
  Connection c(Path("a.db"));
  Install(c.db());
  events_->Take();
  events_->write_lock_answer = Status(Tag::kFenced, "x");
  EXPECT_EQ(c.Text("SELECT a FROM t"), "7");
  EXPECT_EQ(events_->TakeHooks(), Calls{"unlock"});
  EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
  EXPECT_EQ(c.Run("DELETE FROM t"), SQLITE_READONLY_DBMOVED);
}

// With SQLITE_ENABLE_SETLK_TIMEOUT and a busy timeout the WRITE lock comes before any READ lock.
TEST_F(PassThrough, AWriterWithABusyTimeoutIsRefusedToo) {
  OpenWal().Close();
  Connection c(Path("a.db"));
  Install(c.db());
  sqlite3_busy_timeout(c.db(), 1000);
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
  events_->write_lock_answer = Status(Tag::kFenced, "x");
  EXPECT_EQ(c.Run("BEGIN IMMEDIATE"), SQLITE_READONLY_DBMOVED);
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), SQLITE_READONLY_DBMOVED);
  int timeout_ms = 5;  // as walEnableBlocking() sets it
  sqlite3_file_control(c.db(), nullptr, SQLITE_FCNTL_LOCK_TIMEOUT, &timeout_ms);
  EXPECT_EQ(c.Run("BEGIN IMMEDIATE"), SQLITE_READONLY_DBMOVED);
  events_->write_lock_answer = Status::Ok();
  c.Ok("INSERT INTO t VALUES(1)");
}

TEST_F(PassThrough, AnErrorOfCommittedIsReturnedByCommitWhileTheRowStays) {
  Connection c = OpenWal();
  Connection other(Path("a.db"));
  struct Case {
    Status answer;
    int code;
  };
  int rows = 0;
  for (const Case& refused : {Case{Status(Tag::kNotDurable, "x"), SQLITE_IOERR_FSYNC},
                              Case{Status(Tag::kFenced, "x"), SQLITE_READONLY_DBMOVED},
                              Case{Status(Tag::kTimeout, "x"), SQLITE_IOERR_FSYNC},
                              Case{Status(Tag::kDiskFull, "x"), SQLITE_FULL}}) {
    events_->commit_answer = refused.answer;
    EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), refused.code);
    EXPECT_EQ(sqlite3_get_autocommit(c.db()), 1);
    c.Ok("BEGIN; INSERT INTO t VALUES(2)");
    EXPECT_EQ(c.Run("COMMIT"), refused.code);
    EXPECT_EQ(sqlite3_get_autocommit(c.db()), 1);
    rows += 2;
    EXPECT_EQ(other.Text("SELECT count(*) FROM t"), std::to_string(rows));
    EXPECT_EQ(c.Text("SELECT count(*) FROM t"), std::to_string(rows));
  }
  events_->commit_answer = Status::Ok();
  c.Ok("INSERT INTO t VALUES(3)");
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(PassThrough, ExceptionsOfAnEventsObjectStopAtTheBorder) {
  Connection c = OpenWal();
  std::string thrower;
  events_->on_call = [&thrower](const std::string& call) {
    if (call == thrower) throw std::runtime_error(call);
  };
  thrower = "lock";
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), SQLITE_IOERR);
  thrower = "unlock";
  c.Ok("INSERT INTO t VALUES(2)");
  thrower = "committed";
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(3)"), SQLITE_IOERR_FSYNC);
  thrower = "discard:reset";
  c.Ok("PRAGMA wal_checkpoint");
  c.Ok("INSERT INTO t VALUES(4)");
  thrower = "discard:close";
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "3");
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_TRUE(FileExists(Path("a.db-wal")));
  events_->on_call = nullptr;
}

TEST_F(PassThrough, WithoutEventsNothingIsReported) {
  Connection c = OpenWal();
  FindNode(c.db())->Remove();
  events_->Take();
  c.Ok("INSERT INTO t VALUES(1); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->Take(), Calls{});
}

TEST_F(PassThrough, NamesWithSpacesAndUnicodeAndUriParameters) {
  std::filesystem::create_directory(Path("r\xc3\xa4ume und \xe6\x97\xa5\xe6\x9c\xac"));
  const std::string name = "r\xc3\xa4ume und \xe6\x97\xa5\xe6\x9c\xac/gu ild #1?.db";
  Connection c = OpenWal(name);
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(FindNode(c.db())->path(), Path(name));
  EXPECT_EQ(FindNode(c.db())->wal_path(), Path(name) + "-wal");

  Connection uri("file:" + Path("u.db") + "?mode=rwc&guild=7&empty=");
  uri.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
  const char* const file = sqlite3_db_filename(uri.db(), "main");
  EXPECT_STREQ(sqlite3_uri_parameter(file, "guild"), "7");
  EXPECT_STREQ(sqlite3_uri_parameter(file, "empty"), "");
  EXPECT_EQ(FindNode(uri.db())->path(), Path("u.db"));
  Install(uri.db());
  events_->Take();
  uri.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed"}));
}

TEST_F(PassThrough, ReadOnlyConnectionsReadAndCannotWrite) {
  Connection writer = OpenWal();
  writer.Ok("INSERT INTO t VALUES(1)");
  Connection reader("file:" + Path("a.db") + "?mode=ro");
  EXPECT_EQ(reader.Text("SELECT a FROM t"), "1");
  EXPECT_EQ(reader.Run("INSERT INTO t VALUES(2)") & 0xff, SQLITE_READONLY);
  EXPECT_EQ(FindNode(reader.db()), FindNode(writer.db()));
  EXPECT_TRUE(FindNode(reader.db())->writable());
}

TEST_F(PassThrough, AReadOnlyNodeIsNotWritable) {
  OpenWal().Close();
  Connection reader("file:" + Path("a.db") + "?mode=ro");
  EXPECT_FALSE(FindNode(reader.db())->writable());
  EXPECT_EQ(reader.Text("SELECT count(*) FROM t"), "0");
}

TEST_F(PassThrough, AttachedDatabasesHaveNodesOfTheirOwn) {
  Connection c = OpenWal();
  c.Ok("ATTACH '" + Path("b.db") + "' AS b");
  c.Ok("PRAGMA b.journal_mode=WAL; CREATE TABLE b.u(a)");
  const std::shared_ptr<Node> b = FindNodeByPath(Path("b.db"));
  ASSERT_NE(b, nullptr);
  EXPECT_NE(b, FindNode(c.db()));
  auto b_events = std::make_shared<RecordingEvents>();
  b->Install(b_events);
  events_->Take();
  c.Ok("INSERT INTO b.u VALUES(1)");
  EXPECT_EQ(b_events->TakeHooks(), (Calls{"lock", "unlock", "committed"}));
  EXPECT_EQ(events_->Take(), Calls{});
  c.Ok("BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.u VALUES(2); COMMIT");
  EXPECT_EQ(b_events->Take(), (Calls{"lock", "unlock", "committed"}));
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed"}));
  c.Ok("DETACH b");
  EXPECT_EQ(FindNodeByPath(Path("b.db")), nullptr);
}

TEST_F(PassThrough, InMemoryAndTemporaryDatabasesHaveNoNode) {
  Connection memory(":memory:");
  memory.Ok("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
  EXPECT_EQ(FindNode(memory.db()), nullptr);
  Connection temporary("");
  temporary.Ok("PRAGMA cache_size=2; CREATE TABLE t(a)");
  for (int i = 0; i < 50; ++i) temporary.Ok("INSERT INTO t VALUES(randomblob(5000))");
  EXPECT_EQ(FindNode(temporary.db()), nullptr);
  EXPECT_EQ(temporary.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(PassThrough, AFailedOpenIsReportedAsBefore) {
  Connection missing("file:" + Path("none/a.db"));
  EXPECT_EQ(missing.open_code(), SQLITE_CANTOPEN);
  Connection no_create("file:" + Path("a.db") + "?mode=rw");
  EXPECT_EQ(no_create.open_code(), SQLITE_CANTOPEN);
  Connection directory(directory_);
  EXPECT_EQ(directory.open_code(), SQLITE_CANTOPEN);
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);
}

TEST_F(PassThrough, JournalSizeLimitTruncatesWithoutAsking) {
  Connection c = OpenWal();
  for (int i = 0; i < 20; ++i) c.Ok("INSERT INTO t VALUES(randomblob(3000))");
  c.Ok("PRAGMA journal_size_limit=10000; PRAGMA wal_checkpoint");
  events_->Take();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "discard:reset", "header", "unlock", "committed"}));
  EXPECT_LE(std::filesystem::file_size(Path("a.db-wal")), 10000u);
}

}  // namespace
}  // namespace guildlite::testing
