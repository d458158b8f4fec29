// WAL content goes only with leave: while MayDiscardWal() says no, every way to lose it ends in
// BUSY or in a WAL that stays, never in a failed commit or a damaged database.
#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"
#include "vfs/shim/primary_file.h"

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

TEST_F(Gate, ACheckpointIsAnnouncedBeforeTheResetThatFollowsIt) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(0)");
  EXPECT_EQ(events_->Count("checkpoint"), 0u);
  c.Ok("PRAGMA wal_checkpoint");
  EXPECT_EQ(events_->Count("checkpoint"), 1u);
  EXPECT_EQ(events_->Count("header"), 0u);
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Count("checkpoint"), 1u);
  EXPECT_EQ(events_->Count("header"), 1u);
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

// Leave for a reset is good until the new generation has a commit: asked again at the WAL header, a
// refusal would fail a commit.
TEST_F(Gate, AGrantedResetIsNotTakenBack) {
  Connection c = OpenWal();
  Connection other(Path("a.db"));
  c.Ok("INSERT INTO t VALUES(1); PRAGMA wal_checkpoint(RESTART)");
  c.Ok("PRAGMA cache_size=2; PRAGMA cache_spill=1");
  events_->Take();
  c.Ok(
      "BEGIN; INSERT INTO t SELECT randomblob(3000) FROM (WITH RECURSIVE n(x) AS "
      "(VALUES(1) UNION ALL SELECT x+1 FROM n LIMIT 30) SELECT x FROM n); ROLLBACK");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "discard:reset", "header", "unlock"}));
  EXPECT_EQ(events_->ReadIndex()->max_frame, 0u);
  Lower();
  other.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->TakeHooks(), (Calls{"lock", "header", "unlock", "committed"}));
  EXPECT_EQ(other.Text("PRAGMA wal_checkpoint").substr(0, 2), "0|");
  other.Ok("INSERT INTO t VALUES(3)");
  EXPECT_EQ(events_->Take(), (Calls{"checkpoint", "lock", "discard:reset", "unlock", "committed"}));
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "3");
}

// An index that was restarted without us holds nothing, but the file may still hold what was not
// captured: the header that would overwrite it asks.
TEST_F(Gate, AResetWithoutLeaveIsAskedForAtTheHeader) {
  Connection c = OpenWal();
  const std::shared_ptr<Node> node = FindNode(c.db());
  node->Remove();
  c.Ok(
      "INSERT INTO t VALUES(1); PRAGMA wal_checkpoint; PRAGMA cache_size=2; PRAGMA cache_spill=1;"
      "BEGIN; INSERT INTO t SELECT randomblob(3000) FROM (WITH RECURSIVE n(x) AS "
      "(VALUES(1) UNION ALL SELECT x+1 FROM n LIMIT 30) SELECT x FROM n); ROLLBACK");
  node->Install(events_);
  events_->Take();
  Lower();
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(2)"), SQLITE_BUSY);
  EXPECT_EQ(sqlite3_get_autocommit(c.db()), 1);
  Lift();
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "discard:reset", "unlock", "lock", "discard:reset",
                                    "header", "unlock", "committed"}));
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
