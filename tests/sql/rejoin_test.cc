// on_diverged=use_store: a database that another writer left behind goes on from the store, and
// what it held alone is under orphans/; or the file stays as it is.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RejoinTest : public SqlTest {
 protected:
  static inline const SqlProcess::Environment kUseStore = {{"GUILDLITE_ON_DIVERGED", "use_store"}};

  RejoinTest() {
    fs::create_directory(Path("one"));
    fs::create_directory(Path("two"));
  }
  SqlProcess::Environment Pod(const std::string& name,
                              const SqlProcess::Environment& more = {}) const {
    // Nothing ships but what is waited for.
    SqlProcess::Environment all = {{"GUILDLITE_URL", Url()},
                                   {"GUILDLITE_MATCH", Path(name + "/app.db")},
                                   {"GUILDLITE_SYNC_INTERVAL_MS", "3600000"}};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // `one` dies with a row that nobody else has; `two` takes over and writes another.
  void Succeed() {
    {
      SqlProcess process(Pod("one"));
      OpenLoaded(process, ":memory:");
      Connection db = process.Open(Path("one/app.db"));
      db.Ok("CREATE TABLE t(x); INSERT INTO t VALUES ('shared')");
      db.Ok("SELECT replication_sync()");
      db.Ok("INSERT INTO t VALUES ('alone')");
      alone_ = db.Text("SELECT replication_position()");
      process.Kill();
    }
    SqlProcess process(Pod("two"));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("two/app.db"));
    db.Ok("INSERT INTO t VALUES ('two')");
    db.Ok("SELECT replication_sync()");
    ASSERT_EQ(db.Close(), SQLITE_OK);
  }
  static std::string Rows(Connection& db) { return db.Text("SELECT group_concat(x) FROM t"); }
  std::string RowsAt(const std::string& position) {
    const std::string path = Path("at-" + position);
    const Answer restored = RestoreTo(path, Url(), position);
    if (!restored.ok()) return restored.Text();
    return Shell(path, "SELECT group_concat(x) FROM t").output;
  }

  std::string alone_;
};

TEST_F(RejoinTest, SavesWhatItHeldAndGoesOnFromTheStore) {
  Succeed();
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  EXPECT_EQ(Rows(db), "shared,two") << process.Log();
  db.Ok("INSERT INTO t VALUES ('again')");
  ExpectInStore(db, Url());
  EXPECT_THAT(RowsAt(alone_), HasSubstr("shared,alone"));
  EXPECT_EQ(db.Text("SELECT position FROM snapshot_list WHERE kind = 'orphan'"), alone_);
  EXPECT_EQ(db.Number("SELECT epoch FROM replication_status"), 3);
}

TEST_F(RejoinTest, IsNotDoneUnlessAskedFor) {
  Succeed();
  SqlProcess process(Pod("one"));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  EXPECT_EQ(Rows(db), "shared,alone");
  EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("DIVERGED", SQLITE_READONLY));
  EXPECT_EQ(db.Run("INSERT INTO t VALUES (1)").code & 0xff, SQLITE_READONLY);
}

TEST_F(RejoinTest, AFileThatOthersHaveOpenStaysAsItIs) {
  Succeed();
  SqlProcess stock;
  Connection reader = stock.Open(Path("one/app.db"));
  ASSERT_EQ(Rows(reader), "shared,alone");
  {
    SqlProcess process(Pod("one", kUseStore));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("one/app.db"));
    EXPECT_EQ(Rows(db), "shared,alone");
    EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("DIVERGED", SQLITE_READONLY));
    EXPECT_THAT(process.Log(), HasSubstr("the file is as it was"));
  }
  ASSERT_EQ(reader.Close(), SQLITE_OK);
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  EXPECT_EQ(Rows(db), "shared,two") << process.Log();
}

TEST_F(RejoinTest, AStoreThatCannotBeRestoredLeavesTheFileAsItIs) {
  Succeed();
  for (const auto& entry : fs::directory_iterator(Path("store/snapshot"))) {
    WriteFileBytes(entry.path(), "not a snapshot");
  }
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  EXPECT_EQ(Rows(db), "shared,alone");
  EXPECT_THAT(process.Log(), HasSubstr("the file is as it was"));
  EXPECT_EQ(db.Run("INSERT INTO t VALUES (1)").code & 0xff, SQLITE_READONLY);
}

TEST_F(RejoinTest, AStatementMayAskForItFirstOfAll) {
  Succeed();
  SqlProcess process;
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  db.Ok("SELECT replication_start(?, '{\"on_diverged\":\"use_store\"}')", {Url()});
  EXPECT_EQ(Rows(db), "shared,two") << process.Log();
  db.Ok("INSERT INTO t VALUES ('again')");
  ExpectInStore(db, Url());
  EXPECT_THAT(RowsAt(alone_), HasSubstr("shared,alone"));
}

TEST_F(RejoinTest, ADatabaseTheStoreNeverHadIsSavedWhole) {
  Succeed();
  for (const std::string& name : NamesIn(Path("one"))) fs::remove_all(Path("one/" + name));
  EXPECT_EQ(
      Shell(Path("one/app.db"), "CREATE TABLE t(x); INSERT INTO t VALUES ('stranger')").status, 0);
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  EXPECT_EQ(Rows(db), "shared,two") << process.Log();
  EXPECT_THAT(RowsAt(db.Text("SELECT position FROM snapshot_list WHERE kind = 'orphan'")),
              HasSubstr("stranger"));
}

TEST_F(RejoinTest, NeverReplacesASecondDatabaseOfTheProcess) {
  Succeed();
  SqlProcess process(Pod("two"));
  OpenLoaded(process, ":memory:");
  Connection owner = process.Open(Path("two/app.db"));
  ASSERT_EQ(Rows(owner), "shared,two");
  ASSERT_EQ(Shell(Path("one/other.db"), "CREATE TABLE t(x); INSERT INTO t VALUES ('other')").status,
            0);
  Connection other = process.Open(Path("one/other.db"));
  EXPECT_THAT(other.Run("SELECT replication_start(?, '{\"on_diverged\":\"use_store\"}')", {Url()}),
              Fails("PREFIX_CLASH", SQLITE_CANTOPEN));
  EXPECT_EQ(Rows(other), "other") << process.Log();
}

TEST_F(RejoinTest, NobodyOpensWhatAnotherProcessIsReplacing) {
  Succeed();
  const int folder = ::open(Path("one/app.db-guildlite").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(folder, LOCK_EX | LOCK_NB), 0);
  {
    SqlProcess process(
        Pod("one", {{"GUILDLITE_ON_DIVERGED", "use_store"}, {"GUILDLITE_OPEN_WAIT_MS", "50"}}));
    OpenLoaded(process, ":memory:");
    EXPECT_EQ(process.Open(Path("one/app.db")).open_code() & 0xff, SQLITE_BUSY);
    EXPECT_THAT(process.Log(), HasSubstr("is being replaced"));
  }
  // Without the setting nobody waits, nor does anybody whose file is what the store ends in.
  {
    SqlProcess process(Pod("two", kUseStore));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("two/app.db"));
    EXPECT_EQ(Rows(db), "shared,two");
  }
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(":memory:");  // opened with the module in place, as ATTACH will be
  db.Send("ATTACH '" + Path("one/app.db") + "' AS a; SELECT group_concat(x) FROM a.t");
  ::flock(folder, LOCK_UN);
  ::close(folder);
  EXPECT_EQ(db.Receive().Text(), "shared,two") << process.Log();
}

// It would go on with the new file's WAL.
TEST_F(RejoinTest, AConnectionThatHasNotReadYetDoesNotGoOnWithAFileThatWasReplaced) {
  Succeed();
  SqlProcess process(Pod("two", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection first = process.Open(Path("two/app.db"));
  ASSERT_EQ(Rows(first), "shared,two");
  Connection second = process.Open(Path("two/app.db"));
  ASSERT_EQ(first.Close(), SQLITE_OK);
  fs::copy_file(Path("two/app.db"), Path("two/new.db"));
  fs::rename(Path("two/new.db"), Path("two/app.db"));
  EXPECT_EQ(second.Run("SELECT * FROM t").code & 0xff, SQLITE_CANTOPEN);
  EXPECT_THAT(process.Log(), HasSubstr("close it and open it again"));
  ASSERT_EQ(second.Close(), SQLITE_OK);
  Connection third = process.Open(Path("two/app.db"));
  EXPECT_EQ(Rows(third), "shared,two");
}

TEST_F(RejoinTest, TheFileKeepsItsMode) {
  Succeed();
  const auto mode = fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read;
  fs::permissions(Path("one/app.db"), mode);
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  ASSERT_EQ(Rows(db), "shared,two") << process.Log();
  EXPECT_EQ(fs::status(Path("one/app.db")).permissions(), mode);
}

// A tail needs the log that it continues, and what is replaced must need nothing; nor does its size
// excuse it.
TEST_F(RejoinTest, WhatIsReplacedIsSavedWholeWhateverItsSize) {
  Succeed();
  for (const std::string& name : NamesIn(Path("one"))) fs::remove_all(Path("one/" + name));
  {
    SqlProcess process(Pod("one"));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("one/app.db"));
    db.Ok("CREATE TABLE big(b); INSERT INTO big VALUES (zeroblob(70000000))");
    db.Ok("INSERT INTO big VALUES (randomblob(20000000))");
    db.Ok("SELECT replication_sync()");
    db.Ok("INSERT INTO t VALUES ('large')");
    alone_ = db.Text("SELECT replication_position()");
    process.Kill();
  }
  {
    SqlProcess process(Pod("two", {{"GUILDLITE_ON_DIVERGED", "use_store"}}));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("two/app.db"));
    db.Ok("INSERT INTO t VALUES ('later')");
    db.Ok("SELECT replication_sync()");
  }
  SqlProcess process(Pod("one", kUseStore));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("one/app.db"));
  ASSERT_EQ(Rows(db), "shared,two,later") << process.Log();
  std::vector<fs::path> objects;
  std::vector<fs::path> parts;
  for (const auto& entry : fs::recursive_directory_iterator(Path("store/orphans"))) {
    if (!entry.is_regular_file()) continue;
    const bool part = entry.path().filename().string().find('-') != std::string::npos;
    (part ? parts : objects).push_back(entry.path());
  }
  ASSERT_FALSE(parts.empty());
  ASSERT_GE(objects.size(), 2u) << "the tail and, last, the snapshot";
  std::sort(objects.begin(), objects.end());
  objects.pop_back();
  for (const fs::path& tail : objects) fs::remove(tail);
  EXPECT_THAT(RowsAt(alone_), HasSubstr("shared,two,large"));
  fs::remove(parts.front());
  fs::remove(Path("at-" + alone_));
  EXPECT_THAT(RowsAt(alone_), HasSubstr("CHAIN_BROKEN"));
}

}  // namespace
}  // namespace guildlite::testing
