// The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (sqlite.org/wal.html#walresetbug), forced without
// threads: a checkpoint has read the header and calls xUnfetch(0,0) (sqlite3WalCheckpoint() of
// wal.c, the header was new to it); there another connection commits and resets the WAL. The
// checkpoint goes on by the old header and marks frames as backfilled that nobody copied; once the
// WAL has grown to that number again, readers take the database file for current.
#include "tests/shim/shim_fixture.h"

namespace guildlite::testing {
namespace {

class WalReset : public ShimTest {
 protected:
  static constexpr int kCommits = 10;

  // The counter that readers see after kCommits more commits, the first of them in the middle of a
  // checkpoint; it should be 2 * kCommits.
  std::string Force(Connection& writer) {
    Connection checkpointer(Path("a.db"));
    writer.Ok("INSERT INTO t VALUES(0); PRAGMA wal_checkpoint(TRUNCATE)");
    checkpointer.Ok("SELECT * FROM t");
    for (int i = 0; i < kCommits; ++i) writer.Ok("UPDATE t SET a=a+1");
    writer.Ok("PRAGMA wal_checkpoint");

    // A table over ours: what we look up is not in pMethods for a file of ours.
    static sqlite3_file* file;
    static const sqlite3_io_methods* below;
    static Connection* overtaking;
    sqlite3_file_control(checkpointer.db(), nullptr, SQLITE_FCNTL_FILE_POINTER, &file);
    below = file->pMethods;
    overtaking = &writer;
    static sqlite3_io_methods hooked;
    hooked = *below;
    hooked.xUnfetch = [](sqlite3_file* f, sqlite3_int64 offset, void* page) {
      if (overtaking != nullptr && offset == 0 && page == nullptr) {
        std::exchange(overtaking, nullptr)->Ok("UPDATE t SET a=a+1");
      }
      return below->xUnfetch(f, offset, page);
    };
    file->pMethods = &hooked;
    checkpointer.Ok("PRAGMA wal_checkpoint");
    EXPECT_EQ(overtaking, nullptr);
    file->pMethods = below;

    for (int i = 1; i < kCommits; ++i) writer.Ok("UPDATE t SET a=a+1");
    return Connection(Path("a.db")).Text("SELECT a FROM t");
  }
};

TEST_F(WalReset, AGuardedDatabaseLosesNothing) {
  Connection writer = OpenWal();
  EXPECT_EQ(Force(writer), std::to_string(2 * kCommits));
  EXPECT_EQ(writer.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
  EXPECT_EQ(writer.Text("SELECT a FROM t"), std::to_string(2 * kCommits));
}

// What the guard is there for; on a fixed SQLite nothing is lost without it either.
TEST_F(WalReset, AnUnguardedDatabaseShowsTheBugWhereSqliteHasIt) {
  Connection writer = OpenWal();
  FindNode(writer.db())->Remove();
  const std::string seen = Force(writer);
  if (WalResetGuardActive()) {
    EXPECT_NE(seen, std::to_string(2 * kCommits));
  } else {
    EXPECT_EQ(seen, std::to_string(2 * kCommits));
  }
}

TEST_F(WalReset, TheGuardDoesNotDisturbCheckpointsAmongWriters) {
  Connection a = OpenWal();
  Connection b(Path("a.db"));
  b.Ok("PRAGMA wal_autocheckpoint=0");
  for (int i = 0; i < 40; ++i) {
    a.Ok("INSERT INTO t VALUES(randomblob(5000))");
    const char* const modes[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
    EXPECT_EQ(b.Text(std::string("PRAGMA wal_checkpoint(") + modes[i % 4] + ")").substr(0, 2),
              "0|");
  }
  EXPECT_EQ(b.Text("SELECT count(*) FROM t"), "40");
}

}  // namespace
}  // namespace guildlite::testing
