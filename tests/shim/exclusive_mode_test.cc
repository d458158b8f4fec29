// locking_mode=EXCLUSIVE takes no shm lock: commits are known from COMMIT_PHASETWO and from the
// frames written, resets from the WAL header.
#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/wal_format.h"

namespace guildlite::testing {
namespace {

using Calls = std::vector<std::string>;

class ExclusiveMode : public ShimTest {
 protected:
  // With the wal-index on the heap: the mode is set before the WAL is opened.
  Connection OpenOnHeap() {
    OpenWal().Close();
    Connection c(Path("a.db"));
    c.Ok("PRAGMA locking_mode=EXCLUSIVE; PRAGMA wal_autocheckpoint=0");
    EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
    EXPECT_FALSE(FileExists(Path("a.db-shm")));
    Install(c.db());
    events_->Take();
    return c;
  }
  // Whole frames in a WAL file whose every frame is of its generation.
  std::string Frames() {
    return std::to_string((std::filesystem::file_size(Path("a.db-wal")) - kWalHeaderSize) /
                          (kFrameHeaderSize + 4096));
  }
};

TEST_F(ExclusiveMode, OnTheHeapACommitNamesItsFrame) {
  Connection c = OpenOnHeap();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"header", "committed@" + Frames()}));
  c.Ok("INSERT INTO t VALUES(randomblob(20000))");
  EXPECT_EQ(events_->Take(), Calls{"committed@" + Frames()});
  c.Ok("BEGIN IMMEDIATE; COMMIT");
  EXPECT_EQ(events_->Take(), Calls{"committed"});
  c.Ok("BEGIN; INSERT INTO t VALUES(1); ROLLBACK");
  EXPECT_EQ(events_->Take(), Calls{});
  c.Ok("INSERT INTO t VALUES(3)");
  EXPECT_EQ(events_->Take(), Calls{"committed@" + Frames()});
  EXPECT_EQ(events_->mapped(), 0u);
}

TEST_F(ExclusiveMode, ASpilledTransactionThatRewritesItsHeadersNamesItsLastFrame) {
  Connection c = OpenOnHeap();
  c.Ok("PRAGMA cache_size=2; PRAGMA cache_spill=1; CREATE TABLE u(a, b)");
  c.Ok(
      "INSERT INTO u SELECT x, randomblob(1000) FROM (WITH RECURSIVE n(x) AS "
      "(VALUES(1) UNION ALL SELECT x+1 FROM n LIMIT 100) SELECT x FROM n)");
  events_->Take();
  c.Ok(
      "BEGIN; UPDATE u SET b=randomblob(1000); UPDATE u SET b=randomblob(999);"
      "UPDATE u SET b=randomblob(998) WHERE a%5=0; COMMIT");
  EXPECT_EQ(events_->Take(), Calls{"committed@" + Frames()});
}

// Without SQLITE_IOCAP_POWERSAFE_OVERWRITE and with synchronous=FULL the commit frame is repeated
// to the end of the sector, and a write is split there.
TEST_F(ExclusiveMode, PaddingFramesAreCounted) {
  OpenWal().Close();
  Connection c("file:" + Path("a.db") + "?psow=0");
  c.Ok("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0");
  c.Ok("SELECT * FROM t");
  Install(c.db());
  for (int i = 0; i < 100; ++i) {
    c.Ok("INSERT INTO t VALUES(randomblob(" + std::to_string(i * 50) + "))");
    EXPECT_EQ(events_->TakeHooks().back(), "committed@" + Frames());
  }
}

TEST_F(ExclusiveMode, AnExistingWalIsNumberedByItsHeader) {
  {
    Connection live = OpenWal("live.db");
    live.Ok("INSERT INTO t VALUES(1)");
    std::filesystem::copy(Path("live.db"), Path("a.db"));
    std::filesystem::copy(Path("live.db-wal"), Path("a.db-wal"));
  }
  Connection c(Path("a.db"));
  c.Ok("PRAGMA locking_mode=EXCLUSIVE; PRAGMA wal_autocheckpoint=0");
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "1");
  Install(c.db());
  events_->Take();
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->Take(), Calls{"committed@" + Frames()});
}

TEST_F(ExclusiveMode, AResetAsksAtTheWalHeader) {
  Connection c = OpenOnHeap();
  c.Ok("INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); PRAGMA wal_checkpoint");
  events_->Take();
  events_->may_discard = false;
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(3)"), SQLITE_BUSY);
  EXPECT_EQ(sqlite3_get_autocommit(c.db()), 1);
  c.Ok("BEGIN; INSERT INTO t VALUES(4)");
  EXPECT_EQ(c.Run("COMMIT"), SQLITE_BUSY);
  c.Ok("ROLLBACK");
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "2");
  events_->Take();
  events_->may_discard = true;
  c.Ok("INSERT INTO t VALUES(5)");
  EXPECT_EQ(events_->Take(), (Calls{"discard:reset", "header", "committed@1"}));
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "3");
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

// There is no WRITE lock to be refused.
TEST_F(ExclusiveMode, AWriteIsRefusedAtTheWalHeader) {
  Connection c = OpenOnHeap();
  events_->exclusive_write_answer = Status(Tag::kFenced, "somebody else's");
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)") & 0xff, SQLITE_READONLY);
  EXPECT_EQ(events_->Take(), Calls{});
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
  events_->exclusive_write_answer = Status::Ok();
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "1");
}

// The index is restarted before SQLite truncates, so that a refusal meets the next commit too.
TEST_F(ExclusiveMode, ATruncateCheckpointIsRefusedAtTheTruncation) {
  Connection c = OpenOnHeap();
  c.Ok("INSERT INTO t VALUES(1)");
  events_->Take();
  events_->may_discard = false;
  EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(TRUNCATE)").substr(0, 2), "1|");
  EXPECT_EQ(events_->Take(), Calls{"discard:truncate"});
  EXPECT_GT(std::filesystem::file_size(Path("a.db-wal")), 0u);
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(2)"), SQLITE_BUSY);
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "1");
  events_->may_discard = true;
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "2");
}

TEST_F(ExclusiveMode, WithSharedMemoryTheIndexIsPublishedToo) {
  Connection c = OpenWal();
  c.Ok("PRAGMA locking_mode=EXCLUSIVE");
  events_->Take();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"discard:close", "committed@" + Frames()}));
  EXPECT_EQ(std::to_string(events_->ReadIndex()->max_frame), Frames());
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->Take(), Calls{"committed@" + Frames()});
  c.Ok("PRAGMA locking_mode=NORMAL; SELECT * FROM t");
  c.Ok("INSERT INTO t VALUES(3)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed"}));
}

TEST_F(ExclusiveMode, ARefusedEntryLeavesTheDatabaseToOthers) {
  Connection c = OpenWal();
  c.Ok("PRAGMA locking_mode=EXCLUSIVE");
  events_->may_discard = false;
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  Connection other(Path("a.db"));
  EXPECT_EQ(other.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(other.Close(), SQLITE_OK);
  events_->may_discard = true;
  c.Ok("INSERT INTO t VALUES(1)");
}

TEST_F(ExclusiveMode, ARefusedCloseKeepsTheWal) {
  Connection c = OpenOnHeap();
  c.Ok("INSERT INTO t VALUES(1)");
  events_->may_discard = false;
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_TRUE(FileExists(Path("a.db-wal")));
  events_->may_discard = true;
  Connection again(Path("a.db"));
  EXPECT_EQ(again.Text("SELECT count(*) FROM t"), "1");
}

// A commit frame whose sync failed is rolled back and overwritten: the next, empty commit must not
// bring it up.
TEST_F(ExclusiveMode, ACommitThatFailedIsNotReportedWithTheNextOne) {
  OpenWal().Close();
  Connection c(Path("a.db"), SQLITE_OPEN_READWRITE, "unix");
  c.Ok("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; SELECT * FROM t");
  c.Ok("INSERT INTO t VALUES(0)");

  sqlite3_file* wal = nullptr;
  sqlite3_file_control(c.db(), nullptr, SQLITE_FCNTL_JOURNAL_POINTER, &wal);
  static const sqlite3_io_methods* base;
  static bool fail;
  base = wal->pMethods;
  fail = false;
  sqlite3_io_methods faulty = *base;
  faulty.xSync = [](sqlite3_file* file, int flags) {
    return fail ? SQLITE_IOERR_FSYNC : base->xSync(file, flags);
  };
  wal->pMethods = &faulty;

  ASSERT_TRUE(Adopt(c.db()).ok());
  Install(c.db());
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->TakeHooks().back(), "committed@" + Frames());
  fail = true;
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(2)"), SQLITE_IOERR_FSYNC);
  fail = false;
  EXPECT_EQ(events_->TakeHooks(), Calls{});
  c.Ok("BEGIN IMMEDIATE; COMMIT");
  EXPECT_EQ(events_->TakeHooks(), Calls{"committed"});
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "2");
  EXPECT_EQ(c.Close(), SQLITE_OK);
}

}  // namespace
}  // namespace guildlite::testing
