// The journal mode of a connection's main database, as the file tells it, and the switch to WAL.
#include "vfs/shim/wal_mode.h"

#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"

namespace guildlite::testing {
namespace {

class WalMode : public ShimTest {};

TEST_F(WalMode, IsReadFromTheFileWithoutAStatement) {
  Connection c(Path("a.db"));
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kEmpty);
  c.Ok("CREATE TABLE t(a)");
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kRollback);
  c.Ok("PRAGMA journal_mode=TRUNCATE; INSERT INTO t VALUES(1)");
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kRollback);
  c.Ok("PRAGMA journal_mode=WAL");
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kWal);
  c.Ok("BEGIN EXCLUSIVE; INSERT INTO t VALUES(2)");
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kWal);
  c.Ok("COMMIT");
}

TEST_F(WalMode, OfWhatIsNoDatabaseOrNotUnderTheShimIsUnknown) {
  ASSERT_TRUE(ReplaceFile(Path("a.db"), std::string(4096, 'x')).ok());
  Connection garbage(Path("a.db"));
  EXPECT_EQ(FileModeOf(garbage.db()), FileMode::kUnknown);
  Connection memory(":memory:");
  EXPECT_EQ(FileModeOf(memory.db()), FileMode::kUnknown);
  Connection below(Path("b.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix");
  EXPECT_EQ(FileModeOf(below.db()), FileMode::kUnknown);
}

TEST_F(WalMode, IsEnteredFromAnEmptyFileAndFromRollbackMode) {
  Connection c(Path("a.db"));
  EXPECT_TRUE(SwitchToWal(c.db()).ok());
  EXPECT_EQ(c.Text("PRAGMA journal_mode"), "wal");
  c.Ok("CREATE TABLE t(a); PRAGMA journal_mode=DELETE");
  EXPECT_TRUE(SwitchToWal(c.db()).ok());
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kWal);
  EXPECT_TRUE(SwitchToWal(c.db()).ok()) << "again";
}

TEST_F(WalMode, WaitsForAnotherConnectionButNotForEver) {
  Connection other(Path("a.db"));
  other.Ok("CREATE TABLE t(a); BEGIN; SELECT * FROM t; INSERT INTO t VALUES(1)");
  Connection c(Path("a.db"));
  const Status refused = SwitchToWal(c.db());
  EXPECT_EQ(refused.tag(), Tag::kBusy) << refused.ToString();
  EXPECT_EQ(FileModeOf(c.db()), FileMode::kRollback);
  other.Ok("COMMIT");
  EXPECT_TRUE(SwitchToWal(c.db()).ok());
}

TEST_F(WalMode, SaysAtOnceWhereWaitingDoesNotHelp) {
  Connection(Path("a.db")).Ok("CREATE TABLE t(a)");
  Connection reader(Path("a.db"), SQLITE_OPEN_READONLY);
  EXPECT_EQ(SwitchToWal(reader.db()).tag(), Tag::kBadArgument);
  Connection c(Path("a.db"));
  c.Ok("BEGIN; SELECT * FROM t");
  EXPECT_EQ(SwitchToWal(c.db()).tag(), Tag::kBadArgument);
  c.Ok("COMMIT");
}

// A write in rollback mode, as that of the switch, may be refused; reading goes on.
TEST_F(WalMode, ARollbackWriteIsRefusedWithTheTagsCode) {
  Connection c(Path("a.db"));
  c.Ok("CREATE TABLE t(a)");
  Install(c.db());
  events_->rollback_write_answer = Status(Tag::kDiverged, "x");
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), SQLITE_READONLY);
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(SwitchToWal(c.db()).tag(), Tag::kBadArgument);
  events_->rollback_write_answer = Status(Tag::kBusy, "x");
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  events_->rollback_write_answer = Status::Ok();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_TRUE(SwitchToWal(c.db()).ok());
}

}  // namespace
}  // namespace guildlite::testing
