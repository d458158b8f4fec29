// WAL content goes only with leave: while MayDiscardWal() says no, every way to lose it ends in BUSY or
// in a WAL that stays, never in a failed commit or a damaged database.
#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"

namespace guildlite::testing {
namespace {

using Calls = std::vector<std::string>;

class Gate : public ShimTest {
 protected:
  void Lower() { events_->may_discard = false; }
  void Lift() { events_->may_discard = true; }
  uint32_t Salt() { return events_->ReadIndex()->salt1; }
};

TEST_F(Gate, WritersAppendWhileAResetIsRefused) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(0)");
  const uint32_t salt = Salt();
  Lower();
  uint32_t frames = events_->ReadIndex()->max_frame;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(c.Text("PRAGMA wal_checkpoint").substr(0, 2), "0|");  // PASSIVE still copies all
    c.Ok("INSERT INTO t VALUES(1)");
    EXPECT_EQ(Salt(), salt);
    EXPECT_GT(events_->ReadIndex()->max_frame, frames);
    frames = events_->ReadIndex()->max_frame;
  }
  EXPECT_EQ(events_->Count("header"), 0u);
  Lift();
  c.Ok("PRAGMA wal_checkpoint; INSERT INTO t VALUES(1)");
  EXPECT_NE(Salt(), salt);
  EXPECT_EQ(events_->Count("header"), 1u);
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "52");
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(Gate, ARestartOrTruncateCheckpointIsToldBusy) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(1)");
  const uint32_t salt = Salt();
  Lower();
  for (const char* mode : {"RESTART", "TRUNCATE"}) {
    const std::string sql = std::string("PRAGMA wal_checkpoint(") + mode + ")";
    EXPECT_EQ(c.Text(sql).substr(0, 2), "1|") << mode;
  }
  EXPECT_EQ(Salt(), salt);
  EXPECT_GT(std::filesystem::file_size(Path("a.db-wal")), 0u);
  Lift();
  EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
  EXPECT_EQ(std::filesystem::file_size(Path("a.db-wal")), 0u);
}

// Refused after the reset itself was granted: the index is restarted, the file keeps its old frames, all
// of them checkpointed.
TEST_F(Gate, ARefusedTruncationIsToldBusyAndHarmsNothing) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(1)");
  events_->on_call = [this](const std::string& call) {
    events_->may_discard = call != "discard:truncate";
  };
  EXPECT_EQ(c.Run("PRAGMA wal_checkpoint(TRUNCATE)"), SQLITE_OK);
  EXPECT_GT(std::filesystem::file_size(Path("a.db-wal")), 0u);
  events_->on_call = nullptr;
  Lift();
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "1");
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "2");
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(Gate, TheLastCloseKeepsTheWal) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(1)");
  events_->Take();
  Lower();
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(events_->TakeHooks(), Calls{"discard:close"});
  EXPECT_GT(std::filesystem::file_size(Path("a.db-wal")), 0u);
  Lift();
  Connection again(Path("a.db"));
  EXPECT_EQ(again.Text("SELECT a FROM t"), "1");
  EXPECT_EQ(again.Close(), SQLITE_OK);
  EXPECT_FALSE(FileExists(Path("a.db-wal")));
}

TEST_F(Gate, TheLastCloseDeletesTheWalWithLeave) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(1)");
  events_->Take();
  EXPECT_EQ(c.Close(), SQLITE_OK);
  // For the lock, and for the deletion under it.
  EXPECT_EQ(events_->TakeHooks(), (Calls{"discard:close", "discard:close"}));
  EXPECT_FALSE(FileExists(Path("a.db-wal")));
}

TEST_F(Gate, OnlyTheLastCloseAsks) {
  Connection a = OpenWal();
  Connection b(Path("a.db"));
  EXPECT_EQ(b.Text("SELECT count(*) FROM t"), "0");
  events_->Take();
  EXPECT_EQ(b.Close(), SQLITE_OK);
  EXPECT_EQ(events_->TakeHooks(), Calls{});
  a.Ok("INSERT INTO t VALUES(1)");
}

// The EXCLUSIVE lock must be given back, or nobody could read any more.
TEST_F(Gate, LeavingWalModeIsRefusedAndTheConnectionGoesOn) {
  Connection c = OpenWal();
  Connection other(Path("a.db"));
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(other.Text("SELECT count(*) FROM t"), "1");
  EXPECT_EQ(other.Close(), SQLITE_OK);
  Lower();
  EXPECT_EQ(c.Run("PRAGMA journal_mode=DELETE"), SQLITE_BUSY);
  Connection reader(Path("a.db"));
  EXPECT_EQ(reader.Text("SELECT count(*) FROM t"), "1");
  EXPECT_EQ(reader.Text("PRAGMA journal_mode"), "wal");
  EXPECT_EQ(reader.Close(), SQLITE_OK);
  c.Ok("INSERT INTO t VALUES(2)");
  Lift();
  EXPECT_EQ(c.Text("PRAGMA journal_mode=DELETE"), "delete");
  EXPECT_FALSE(FileExists(Path("a.db-wal")));
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "2");
}

TEST_F(Gate, APersistentWalIsNotTruncatedAtTheLastClose) {
  Connection c = OpenWal();
  int persist = 1;
  sqlite3_file_control(c.db(), "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
  c.Ok("PRAGMA journal_size_limit=0; INSERT INTO t VALUES(1)");
  events_->Take();
  events_->on_call = [this](const std::string& call) {
    events_->may_discard = call != "discard:truncate";
  };
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(events_->TakeHooks(), (Calls{"discard:close", "discard:truncate"}));
  EXPECT_GT(std::filesystem::file_size(Path("a.db-wal")), 0u);
  events_->on_call = nullptr;
}

// pagerOpenWalIfPresent() deletes the WAL beside an empty database.
TEST_F(Gate, AStaleWalBesideAnEmptyDatabaseStays) {
  OpenWal().Close();
  std::filesystem::resize_file(Path("a.db"), 0);
  {
    Connection w = OpenWal("w.db");
    w.Ok("INSERT INTO t VALUES(1)");
    std::filesystem::copy(Path("w.db-wal"), Path("a.db-wal"));
  }
  Connection c(Path("a.db"));
  Install(c.db());
  Lower();
  EXPECT_EQ(c.Run("SELECT * FROM sqlite_master"), SQLITE_BUSY);
  EXPECT_TRUE(FileExists(Path("a.db-wal")));
  Lift();
  c.Ok("SELECT * FROM sqlite_master");
  EXPECT_FALSE(FileExists(Path("a.db-wal")));
}

TEST_F(Gate, RollbackModeLocksAreNotAsked) {
  Connection c(Path("a.db"));
  c.Ok("CREATE TABLE t(a)");
  Install(c.db());
  Lower();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), Calls{"committed"});
}

}  // namespace
}  // namespace guildlite::testing
