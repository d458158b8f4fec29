// A program that is told by its environment alone what to replicate: which databases, into which
// journal mode, what is in place when it opens them, and what happens where the store does not say.
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string FillSql(int64_t rows) {
  return "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < " +
         std::to_string(rows) + ") INSERT INTO t(b) SELECT randomblob(1000) FROM n";
}

class EnvironmentTest : public SqlTest {
 protected:
  EnvironmentTest() {
    fs::create_directory(Path("data"));
    fs::create_directory(Path("stores"));
  }
  SqlProcess::Environment Named(const SqlProcess::Environment& more = {}) const {
    SqlProcess::Environment all = {{"GUILDLITE_URL", Url("stores/{name}")},
                                   {"GUILDLITE_MATCH", Path("data/*.db")}};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // A volume that the stores are on, and that can be away.
  void Unmount() { fs::rename(Path("stores"), Path("away")); }
  void Mount() { fs::rename(Path("away"), Path("stores")); }
  // A database with a backup under its name, and then without its files.
  std::string Lost(const std::string& name) {
    SqlProcess process(Named());
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("data/" + name));
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(200));
    db.Ok("SELECT replication_sync()");
    std::string content = db.Content();
    EXPECT_EQ(process.Exit(), 0);
    fs::remove_all(Path("data"));
    fs::create_directory(Path("data"));
    return content;
  }
  static std::string State(Connection& db) {
    return db.Text("SELECT state FROM replication_status");
  }
};

// -- Which databases -----------------------------------------------------------------------------

TEST_F(EnvironmentTest, WhatMatchesIsReplicatedUnderItsNameAndNothingElse) {
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection a = process.Open(Path("data/a.db"));
  Connection b = process.Open(Path("data/b.db"));
  Connection c = process.Open(Path("c.db"));
  Connection d = process.Open(Path("data/d.sqlite"));
  a.Ok("ATTACH ? AS other", {Path("attached.db")});
  a.Ok("CREATE TABLE other.t(x)");
  for (Connection* db : {&a, &b, &c, &d}) {
    db->Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  }
  ExpectInStore(a, Url("stores/a"));
  ExpectInStore(b, Url("stores/b"));
  EXPECT_EQ(NamesIn(Path("stores")), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(a.Number("SELECT count(*) FROM replication_status"), 2);
  EXPECT_THAT(c.Run("SELECT replication_sync()"), Fails("NOT_REPLICATED", SQLITE_ERROR));
}

TEST_F(EnvironmentTest, TheConnectionThatLoadsIsReplicated) {
  SqlProcess process(Named());
  Connection db = process.Open(Path("data/a.db"));
  ASSERT_TRUE(db.Load().ok());
  db.Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  ExpectInStore(db, Url("stores/a"));
}

TEST_F(EnvironmentTest, AMissingDatabaseComesBackFromTheStore) {
  std::string content;
  {
    SqlProcess process(Named());
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("data/a.db"));
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(500));
    db.Ok("SELECT replication_sync()");
    content = db.Content();
    process.Kill();
  }
  fs::remove_all(Path("data"));
  fs::create_directory(Path("data"));
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"));
  ASSERT_EQ(db.open_code(), SQLITE_OK);
  EXPECT_EQ(Difference(content, db.Content()), "");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(db, Url("stores/a"));
  EXPECT_EQ(db.Number("SELECT epoch FROM replication_status"), 2);
}

TEST_F(EnvironmentTest, RestoreNeverLeavesAMissingDatabaseMissing) {
  {
    SqlProcess process(Named());
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("data/a.db"));
    db.Ok("CREATE TABLE t(x)");
    db.Ok("SELECT replication_sync()");
  }
  fs::remove_all(Path("data"));
  fs::create_directory(Path("data"));
  auto environment = Named();
  environment.emplace_back("GUILDLITE_RESTORE", "never");
  SqlProcess process(environment);
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"));
  const Answer used = db.Run("SELECT * FROM t");
  EXPECT_EQ(used.code & 0xff, SQLITE_CANTOPEN) << used.Text();
  EXPECT_FALSE(fs::exists(Path("data/a.db")));
  EXPECT_THAT(process.Log(), HasSubstr("RESTORE_NEEDED"));
}

TEST_F(EnvironmentTest, ARestartResumesAndTwoDatabasesMayNotShareAUrl) {
  for (int round = 0; round < 3; ++round) {
    SqlProcess process(SqlProcess::Environment{{"GUILDLITE_URL", Url("stores/one")},
                                               {"GUILDLITE_MATCH", Path("data/*.db")}});
    OpenLoaded(process, ":memory:");
    Connection a = process.Open(Path("data/a.db"));
    a.Ok("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1)");
    ExpectInStore(a, Url("stores/one"));
    EXPECT_EQ(a.Text("SELECT epoch FROM replication_status"), "1");
    Connection b = process.Open(Path("data/b.db"));
    const Answer used = b.Run("CREATE TABLE t(x)");
    EXPECT_EQ(used.code & 0xff, SQLITE_CANTOPEN) << used.Text();
    EXPECT_FALSE(fs::exists(Path("data/b.db")));
  }
}

TEST_F(EnvironmentTest, ANameWithoutAMatchIsRefused) {
  SqlProcess process(SqlProcess::Environment{{"GUILDLITE_URL", Url("stores/{name}")}});
  Connection db = process.Open(Path("data/a.db"));
  const Answer loaded = db.Load();
  EXPECT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.message, HasSubstr("GUILDLITE_MATCH"));
}

TEST_F(EnvironmentTest, WhatIsAttachedOrWrittenByVacuumIsNotReplicated) {
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection a = process.Open(Path("data/a.db"));
  a.Ok("ATTACH ? AS b", {Path("data/b.db")});
  a.Ok("CREATE TABLE t(x); CREATE TABLE b.t(x); INSERT INTO b.t VALUES (1)");
  a.Ok("VACUUM INTO ?", {Path("data/copy.db")});
  ExpectInStore(a, Url("stores/a"));
  EXPECT_EQ(NamesIn(Path("stores")), std::vector<std::string>{"a"});
  EXPECT_FALSE(fs::exists(Path("data/b.db-guildlite")));
  EXPECT_EQ(a.Text("PRAGMA b.journal_mode"), "delete");

  // Once somebody has it as main, what the other one writes is replicated, too.
  Connection b = process.Open(Path("data/b.db"));
  EXPECT_EQ(b.Text("PRAGMA journal_mode"), "wal");
  a.Ok("INSERT INTO b.t VALUES (2)");
  ExpectInStore(b, Url("stores/b"));
  EXPECT_EQ(b.Text("SELECT x FROM t"), "1\n2");
}

TEST_F(EnvironmentTest, TwoPathsMayNotShareAUrlWhetherTheFileIsThereOrNot) {
  fs::create_directory(Path("data/sub"));
  Shell(Path("data/sub/b.db"), "CREATE TABLE t(x)");
  SqlProcess process(SqlProcess::Environment{
      {"GUILDLITE_URL", Url("stores/{name}")},
      {"GUILDLITE_MATCH", Path("data/*.db") + "," + Path("data/sub/*.db")}});
  OpenLoaded(process, ":memory:");
  Connection a = process.Open(Path("data/a.db"));
  Connection b = process.Open(Path("data/b.db"));
  for (Connection* db : {&a, &b}) db->Ok("CREATE TABLE t(x)");
  EXPECT_EQ(process.Open(Path("data/sub/a.db")).open_code() & 0xff, SQLITE_CANTOPEN);
  EXPECT_FALSE(fs::exists(Path("data/sub/a.db")));
  EXPECT_EQ(process.Open(Path("data/sub/b.db")).open_code() & 0xff, SQLITE_CANTOPEN);
  EXPECT_THAT(process.Log(), HasSubstr("PREFIX_CLASH"));
  EXPECT_THAT(process.Log(), HasSubstr(Path("data/sub/b.db") + " and " + Path("data/b.db")));
  // Attaching it replicates nothing, so nothing clashes.
  a.Ok("ATTACH ? AS other", {Path("data/sub/b.db")});
  a.Ok("INSERT INTO other.t VALUES (1)");
  ExpectInStore(a, Url("stores/a"));
  ExpectInStore(b, Url("stores/b"));
}

// -- Into WAL mode -------------------------------------------------------------------------------

TEST_F(EnvironmentTest, ADatabaseInDeleteModeIsSwitchedAndReplicatedWithWhatItHeld) {
  Shell(Path("data/a.db"), "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  Shell(Path("data/b.db"), "CREATE TABLE t(x); INSERT INTO t VALUES (2)");
  SqlProcess process(Named());
  Connection a = OpenLoaded(process, Path("data/a.db"));
  Connection b = process.Open(Path("data/b.db"));
  for (Connection* db : {&a, &b}) {
    EXPECT_EQ(db->Text("PRAGMA journal_mode"), "wal");
    db->Ok("INSERT INTO t VALUES (3)");
  }
  ExpectInStore(a, Url("stores/a"));
  ExpectInStore(b, Url("stores/b"));
  EXPECT_EQ(b.Text("SELECT x FROM t"), "2\n3");
  EXPECT_EQ(process.Log(), "");
}

TEST_F(EnvironmentTest, WalFalseLeavesTheSwitchToTheProgram) {
  Shell(Path("data/a.db"), "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  SqlProcess process(Named({{"GUILDLITE_WAL", "false"}}));
  OpenLoaded(process, ":memory:");
  Connection a = process.Open(Path("data/a.db"));
  ASSERT_EQ(a.open_code(), SQLITE_OK);
  EXPECT_EQ(a.Text("PRAGMA journal_mode"), "delete");
  EXPECT_EQ(State(a), "not_wal");
  EXPECT_THAT(process.Log(), HasSubstr(Path("data/a.db") + ": not in WAL mode"));
  a.Ok("INSERT INTO t VALUES (2)");
  EXPECT_THAT(a.Run("SELECT replication_sync()"), Fails("NOT_REPLICATED", SQLITE_ERROR));
  EXPECT_EQ(a.Text("PRAGMA journal_mode=WAL"), "wal");
  ExpectInStore(a, Url("stores/a"));
  EXPECT_EQ(State(a), "replicating");
  // A new one may be given its page size first.
  Connection b = process.Open(Path("data/b.db"));
  b.Ok("PRAGMA page_size=8192; PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  EXPECT_EQ(b.Text("PRAGMA page_size"), "8192");
  ExpectInStore(b, Url("stores/b"));
}

TEST_F(EnvironmentTest, ADatabaseInUseElsewhereIsOpenedAsItIsAndSwitchedByALaterOpen) {
  SqlProcess stock;
  Connection reader = stock.Open(Path("data/a.db"));
  reader.Ok("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES (1)");
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection a = process.Open(Path("data/a.db"));
  ASSERT_EQ(a.open_code(), SQLITE_OK);
  EXPECT_THAT(process.Log(), HasSubstr("BUSY " + Path("data/a.db") + ": not in WAL mode"));
  EXPECT_EQ(a.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(State(a), "not_wal");
  reader.Ok("COMMIT");
  EXPECT_EQ(a.Close(), SQLITE_OK);
  Connection again = process.Open(Path("data/a.db"));
  EXPECT_EQ(again.Text("PRAGMA journal_mode"), "wal");
  ExpectInStore(again, Url("stores/a"));
}

TEST_F(EnvironmentTest, ALoadInsideATransactionSwitchesNothing) {
  SqlProcess process(Named());
  Connection db = process.Open(Path("data/a.db"));
  db.Ok("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES (1)");
  ASSERT_TRUE(db.Load().ok());
  EXPECT_THAT(process.Log(), HasSubstr("not in WAL mode (loaded inside a transaction)"));
  db.Ok("COMMIT");
  EXPECT_EQ(State(db), "not_wal");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  ExpectInStore(db, Url("stores/a"));
}

TEST_F(EnvironmentTest, AReadOnlyConnectionChangesNothing) {
  Shell(Path("data/a.db"), "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  const std::string before = FileBytes(Path("data/a.db"));
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"), SQLITE_OPEN_READONLY);
  EXPECT_EQ(db.Text("SELECT x FROM t"), "1");
  EXPECT_EQ(db.Text("SELECT count(*) FROM replication_status"), "0");
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_EQ(FileBytes(Path("data/a.db")), before);
  EXPECT_EQ(NamesIn(Path("data")), std::vector<std::string>{"a.db"});
  EXPECT_EQ(process.Log(), "");
}

TEST_F(EnvironmentTest, AWriterBesideAReaderThatCameFirstIsReplicated) {
  Shell(Path("data/a.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection reader = process.Open(Path("data/a.db"), SQLITE_OPEN_READONLY);
  EXPECT_EQ(reader.Text("SELECT x FROM t"), "1");
  Connection db = process.Open(Path("data/a.db"));
  db.Ok("INSERT INTO t VALUES (2)");
  ExpectInStore(db, Url("stores/a"));
}

TEST_F(EnvironmentTest, WhatAFolderRemembersIsResumedForAWriterBesideAReaderThatCameFirst) {
  {
    SqlProcess process;
    Connection db = OpenStarted(process, Path("data/a.db"), Url());
    db.Ok("CREATE TABLE t(x); SELECT replication_sync()");
    EXPECT_EQ(db.Close(), SQLITE_OK);
  }
  SqlProcess process;
  OpenLoaded(process, ":memory:");
  Connection reader = process.Open(Path("data/a.db"), SQLITE_OPEN_READONLY);
  EXPECT_EQ(reader.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(reader.Number("SELECT count(*) FROM replication_status"), 0);
  Connection db = process.Open(Path("data/a.db"));
  db.Ok("INSERT INTO t VALUES (2)");
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Number("SELECT epoch FROM replication_status"), 1);
  EXPECT_EQ(process.Log(), "");
}

// -- What is in place at open --------------------------------------------------------------------

TEST_F(EnvironmentTest, AnEmptyFileIsReplacedByItsBackupWhoeverMadeIt) {
  const std::string content = Lost("a.db");
  WriteFileBytes(Path("data/a.db"), "");
  {
    SqlProcess process(Named());
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("data/a.db"));
    EXPECT_EQ(Difference(content, db.Content()), "");
    db.Ok("INSERT INTO t(b) VALUES (1)");
    ExpectInStore(db, Url("stores/a"));
  }
  fs::remove_all(Path("data"));
  fs::create_directory(Path("data"));
  SqlProcess process(Named());
  Connection db = process.Open(Path("data/a.db"));
  EXPECT_EQ(fs::file_size(Path("data/a.db")), 0u);
  const Answer loaded = db.Load();
  ASSERT_TRUE(loaded.ok()) << loaded.Text();
  EXPECT_EQ(db.Text("SELECT count(*) FROM t"), "201");
  db.Ok("INSERT INTO t(b) VALUES (2)");
  ExpectInStore(db, Url("stores/a"));
  EXPECT_EQ(db.Text("SELECT epoch FROM replication_status"), "3");
}

TEST_F(EnvironmentTest, WithoutAWordFromTheStoreNoFileIsMade) {
  const std::string content = Lost("a.db");
  Unmount();
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  for (const char* name : {"data/a.db", "data/new.db"}) {
    EXPECT_EQ(process.Open(Path(name)).open_code(), SQLITE_CANTOPEN);
    EXPECT_EQ(process.Open(Path(name)).open_code(), SQLITE_CANTOPEN) << "again";
  }
  EXPECT_THAT(NamesIn(Path("data")), ::testing::IsEmpty());
  EXPECT_THAT(process.Log(), HasSubstr("NO_BUCKET " + Path("data/a.db")));
  // Nor by attaching it: an empty one would stand in the way of the backup.
  Connection other = process.Open(":memory:");
  EXPECT_EQ(other.Run("ATTACH ? AS a", {Path("data/a.db")}).code & 0xff, SQLITE_CANTOPEN);
  EXPECT_THAT(NamesIn(Path("data")), ::testing::IsEmpty());
  Mount();
  Connection db = process.Open(Path("data/a.db"));
  EXPECT_EQ(Difference(content, db.Content()), "");
}

TEST_F(EnvironmentTest, AMissingDatabaseIsNotMadeForWhoeverDoesNotAskForIt) {
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"), SQLITE_OPEN_READWRITE);
  EXPECT_EQ(db.open_code(), SQLITE_CANTOPEN);
  EXPECT_TRUE(NamesIn(Path("data")).empty());
}

// Two workers start together on an empty disk: until the first has written, the second sees an
// empty file that is replicated, but has no backup yet.
TEST_F(EnvironmentTest, AnEmptyDatabaseThatAnotherProcessHasBegunIsOpenedAsItIs) {
  const SqlProcess::Environment own_switch = {{"GUILDLITE_WAL", "false"}};
  SqlProcess first(Named(own_switch));
  OpenLoaded(first, ":memory:");
  Connection a = first.Open(Path("data/a.db"));
  ASSERT_EQ(a.open_code(), SQLITE_OK);
  SqlProcess second(Named(own_switch));
  OpenLoaded(second, ":memory:");
  Connection b = second.Open(Path("data/a.db"));
  ASSERT_EQ(b.open_code(), SQLITE_OK) << second.Log();
  a.Ok("PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  b.Ok("INSERT INTO t VALUES (2)");
  ExpectInStore(a, Url("stores/a"));
}

// Both find it missing and the store full: neither may put its restored file over the other's.
TEST_F(EnvironmentTest, TwoProcessesThatRestoreAtOnceOpenOneFile) {
  const std::string content = Lost("a.db");
  SqlProcess first(Named());
  SqlProcess second(Named());
  OpenLoaded(first, ":memory:");
  OpenLoaded(second, ":memory:");
  Connection a;
  std::thread other([&] { a = first.Open(Path("data/a.db")); });
  Connection b = second.Open(Path("data/a.db"));
  other.join();
  ASSERT_EQ(a.open_code(), SQLITE_OK) << first.Log();
  ASSERT_EQ(b.open_code(), SQLITE_OK) << second.Log();
  EXPECT_EQ(a.Content(), content);
  a.Ok("INSERT INTO t(b) VALUES ('a')");
  EXPECT_EQ(b.Number("SELECT count(*) FROM t"), 201);
}

// What is open for the first time, and closed before the worker came to the first scan.
TEST_F(EnvironmentTest, WhatIsWrittenAndClosedAtOnceIsInTheStore) {
  SqlProcess process(Named());
  OpenLoaded(process, ":memory:");
  for (int i = 0; i < 10; ++i) {
    const std::string name = "quick" + std::to_string(i);
    Connection db = process.Open(Path("data/" + name + ".db"));
    db.Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    const std::string content = db.Content();
    db.Close();
    EXPECT_EQ(Restored(Url("stores/" + name)), content) << name << "\n" << process.Log();
  }
}

TEST_F(EnvironmentTest, AFileTheHostMadeIsNotFilledWhileTheStoreIsAway) {
  const std::string content = Lost("a.db");
  Unmount();
  SqlProcess process(Named());
  Connection db = process.Open(Path("data/a.db"));
  for (int attempt = 0; attempt < 3; ++attempt) {
    const Answer loaded = db.Load();
    EXPECT_FALSE(loaded.ok());
    EXPECT_THAT(loaded.message, HasSubstr("NO_BUCKET: "));
    EXPECT_EQ(db.Run("CREATE TABLE t(x)").code & 0xff, SQLITE_READONLY);
    EXPECT_EQ(db.Run("PRAGMA journal_mode=WAL").code & 0xff, SQLITE_READONLY);
  }
  EXPECT_EQ(fs::file_size(Path("data/a.db")), 0u);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  Mount();
  Connection again = process.Open(Path("data/a.db"));
  EXPECT_EQ(Difference(content, again.Content()), "");
}

TEST_F(EnvironmentTest, AStatementRestoresAnEmptyDatabaseOnlyWhereItSaysSo) {
  std::string content = Lost("a.db");
  for (const bool opened_before_the_load : {true, false}) {
    SqlProcess process;
    if (!opened_before_the_load) OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("data/a.db"));
    if (opened_before_the_load) {
      EXPECT_TRUE(db.Load().ok());
    }
    for (const char* options : {"", R"({"restore":"never"})"}) {
      const Answer refused =
          db.Run("SELECT replication_start(?, ?)", {Url("stores/a"), std::string(options)});
      EXPECT_THAT(refused, Fails("RESTORE_NEEDED", SQLITE_CANTOPEN));
      EXPECT_EQ(fs::file_size(Path("data/a.db")), 0u);
    }
    db.Ok("SELECT replication_start(?, ?)",
          {Url("stores/a"), std::string(R"({"restore":"if_missing"})")});
    EXPECT_EQ(Difference(content, db.Content()), "");
    db.Ok("INSERT INTO t(b) VALUES (1)");
    ExpectInStore(db, Url("stores/a"));
    content = db.Content();
    EXPECT_EQ(db.Close(), SQLITE_OK);
    fs::remove_all(Path("data"));
    fs::create_directory(Path("data"));
  }
}

// Its folder is there, the file is not: begun anew it would be replicated by nobody.
TEST_F(EnvironmentTest, AMissingDatabaseWhoseFolderRemembersAUrlIsNotBegunAnew) {
  {
    SqlProcess process;
    Connection db = OpenStarted(process, Path("data/a.db"), Url());
    db.Ok("CREATE TABLE t(x); SELECT replication_sync()");
    EXPECT_EQ(db.Close(), SQLITE_OK);
  }
  fs::remove(Path("data/a.db"));
  SqlProcess process;
  OpenLoaded(process, ":memory:");
  EXPECT_EQ(process.Open(Path("data/a.db")).open_code(), SQLITE_CANTOPEN);
  EXPECT_FALSE(fs::exists(Path("data/a.db")));
  EXPECT_THAT(process.Log(), HasSubstr("RESTORE_NEEDED " + Path("data/a.db")));
  Connection reader = process.Open(":memory:");
  reader.Ok("SELECT snapshot_restore(?, ?)", {Path("data/a.db"), Url()});
  Connection db = process.Open(Path("data/a.db"));
  db.Ok("SELECT replication_start(?)", {Url()});
  db.Ok("INSERT INTO t VALUES (1)");
  ExpectInStore(db, Url());
}

TEST_F(EnvironmentTest, AStatementWinsOverTheEnvironmentAndThatOverTheDefaults) {
  Shell(Path("a.db"), "CREATE TABLE t(x)");
  SqlProcess process(SqlProcess::Environment{{"GUILDLITE_WAL", "false"}});
  Connection db = OpenLoaded(process, Path("a.db"));
  EXPECT_THAT(db.Run("SELECT replication_start(?)", {Url()}), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete");
  db.Ok("SELECT replication_start(?, ?)", {Url(), std::string(R"({"wal":true})")});
  ExpectInStore(db, Url());
}

// -- While the store is away ---------------------------------------------------------------------

TEST_F(EnvironmentTest, UntilTheClaimIsSettledReadsWorkAndWritesAreBusy) {
  Shell(Path("data/a.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  Unmount();
  SqlProcess process(Named({{"GUILDLITE_OPEN_WAIT_MS", "3600000"}}));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"));
  ASSERT_EQ(db.open_code(), SQLITE_OK);
  db.Ok("PRAGMA busy_timeout=0");
  EXPECT_EQ(db.Text("SELECT x FROM t"), "1");
  EXPECT_EQ(db.Run("INSERT INTO t VALUES (2)").code, SQLITE_BUSY);
  EXPECT_EQ(db.Run("PRAGMA user_version=7").code, SQLITE_BUSY);
  EXPECT_EQ(State(db), "starting");
  Mount();
  db.Ok("PRAGMA busy_timeout=60000");
  db.Ok("INSERT INTO t VALUES (3)");
  ExpectInStore(db, Url("stores/a"));
}

TEST_F(EnvironmentTest, AfterOpenWaitMsADatabaseGoesOnUnshippedAndReconcilesLater) {
  {
    SqlProcess process(Named());
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("data/known.db"));
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(50));
    db.Ok("SELECT replication_sync()");
  }
  Shell(Path("data/new.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
  Unmount();
  SqlProcess process(Named({{"GUILDLITE_OPEN_WAIT_MS", "100"}}));
  OpenLoaded(process, ":memory:");
  for (const std::string name : {"known", "new"}) {
    SCOPED_TRACE(name);
    Connection db = process.Open(Path("data/" + name + ".db"));
    ASSERT_EQ(db.open_code(), SQLITE_OK);
    db.Ok("INSERT INTO t(b) VALUES ('unshipped')");
    EXPECT_EQ(State(db), "unshipped");
    EXPECT_THAT(process.Log(),
                HasSubstr(Path("data/" + name + ".db") + ": commits go on but nothing is shipped"));
    EXPECT_THAT(db.Text("SELECT last_error FROM replication_status"), HasSubstr("NO_BUCKET"));
    Mount();
    db.Ok("INSERT INTO t(b) VALUES ('shipped')");
    db.Ok("SELECT replication_sync(60000)");
    EXPECT_EQ(State(db), "replicating");
    ExpectInStore(db, Url("stores/" + name));
    EXPECT_EQ(db.Close(), SQLITE_OK);
    Unmount();
  }
  Mount();
}

// -- A store that hangs --------------------------------------------------------------------------

TEST_F(EnvironmentTest, AHangingStoreHoldsUpNeitherCloseNorReopenNorExit) {
  SqlProcess process(Named({{"GUILDLITE_CLOSE_TIMEOUT_MS", "100"}}));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"));
  db.Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1); SELECT replication_sync()");
  process.HoldStores(true);
  db.Ok("INSERT INTO t VALUES (2)");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_THAT(process.Log(),
              HasSubstr("NOT_DURABLE " + Path("data/a.db") + ": closed before txid"));
  // Again in the same process, though the first put still hangs.
  Connection again = process.Open(Path("data/a.db"));
  again.Ok("INSERT INTO t VALUES (3)");
  EXPECT_EQ(process.Exit(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));

  SqlProcess next(Named());
  OpenLoaded(next, ":memory:");
  Connection later = next.Open(Path("data/a.db"));
  EXPECT_EQ(later.Text("SELECT x FROM t"), "1\n2\n3");
  ExpectInStore(later, Url("stores/a"));
  EXPECT_EQ(later.Text("SELECT heals FROM replication_status"), "0");
}

TEST_F(EnvironmentTest, AfterAHangTheSameProcessShipsOn) {
  SqlProcess process(Named({{"GUILDLITE_CLOSE_TIMEOUT_MS", "100"}}));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("data/a.db"));
  db.Ok("CREATE TABLE t(x); SELECT replication_sync()");
  process.HoldStores(true);
  for (int i = 0; i < 2; ++i) {
    db.Ok("INSERT INTO t VALUES (1)");
    EXPECT_EQ(db.Close(), SQLITE_OK);
    db = process.Open(Path("data/a.db"));
    ASSERT_EQ(db.open_code(), SQLITE_OK);
  }
  process.HoldStores(false);
  db.Ok("INSERT INTO t VALUES (2)");
  ExpectInStore(db, Url("stores/a"));
  EXPECT_EQ(db.Text("SELECT count(*) FROM t"), "3");
}

TEST_F(EnvironmentTest, StoresThatHangDoNotStopTheDatabasesOfAnother) {
  SqlProcess process(Named({{"GUILDLITE_CLOSE_TIMEOUT_MS", "100"}}));
  OpenLoaded(process, ":memory:");
  std::vector<Connection> hung;
  for (int i = 0; i < 10; ++i) {
    hung.push_back(process.Open(Path("data/hung" + std::to_string(i) + ".db")));
    hung.back().Ok("CREATE TABLE t(x); SELECT replication_sync()");
  }
  process.HoldStores(true, "/hung");
  for (Connection& db : hung) db.Ok("INSERT INTO t VALUES (1); SELECT replication_sync(0)");
  Connection db = process.Open(Path("data/well.db"));
  db.Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  ExpectInStore(db, Url("stores/well"));
  process.HoldStores(false);
  for (Connection& h : hung) h.Ok("SELECT replication_sync()");
}

// -- Copied and moved ----------------------------------------------------------------------------

TEST_F(EnvironmentTest, ACopyOfFileAndFolderIsNoSecondWriterAndAMovedOneGoesOn) {
  Connection original;
  SqlProcess first;
  original = OpenStarted(first, Path("data/a.db"), Url());
  original.Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1); SELECT replication_sync()");
  fs::create_directory(Path("copy"));
  fs::copy(Path("data"), Path("copy"), fs::copy_options::recursive);
  {
    SqlProcess second;
    Connection copy = OpenLoaded(second, Path("copy/a.db"));
    EXPECT_EQ(copy.Text("SELECT x FROM t"), "1");
    const Answer written = copy.Run("INSERT INTO t VALUES ('by the copy')");
    EXPECT_EQ(written.code & 0xff, SQLITE_READONLY) << written.Text();
    EXPECT_EQ(State(copy), "diverged");
    EXPECT_THAT(second.Log(), HasSubstr("copied or replaced"));
  }
  original.Ok("INSERT INTO t VALUES (2)");
  ExpectInStore(original, Url());
  EXPECT_EQ(original.Text("SELECT epoch FROM replication_status"), "1");
  EXPECT_EQ(original.Close(), SQLITE_OK);
  EXPECT_EQ(first.Exit(), 0);

  fs::rename(Path("data"), Path("moved"));
  SqlProcess third;
  Connection moved = OpenLoaded(third, Path("moved/a.db"));
  moved.Ok("INSERT INTO t VALUES (3)");
  ExpectInStore(moved, Url());
  EXPECT_EQ(moved.Text("SELECT epoch FROM replication_status"), "1");
}

// -- Loading -------------------------------------------------------------------------------------

TEST_F(EnvironmentTest, LoadedTwiceAndByTwoCopiesItSwitchesAndReplicatesOnce) {
  fs::copy_file(GUILDLITE_MODULE, Path("copy.so"));
  Shell(Path("data/a.db"), "CREATE TABLE t(x)");
  SqlProcess process(Named());
  Connection a = process.Open(Path("data/a.db"));
  for (const std::string& module : {std::string(GUILDLITE_MODULE), Path("copy.so"),
                                    std::string(GUILDLITE_MODULE), Path("copy.so")}) {
    const Answer loaded = a.Load(module);
    ASSERT_TRUE(loaded.ok()) << loaded.Text();
  }
  Connection b = process.Open(Path("data/a.db"));
  ASSERT_TRUE(b.Load(Path("copy.so")).ok());
  for (Connection* db : {&a, &b}) db->Ok("INSERT INTO t VALUES (1)");
  EXPECT_EQ(a.Text("SELECT count(*), sum(txid) FROM replication_status"),
            "1|" + a.Text("SELECT txid FROM replication_status"));
  ExpectInStore(b, Url("stores/a"));
  EXPECT_EQ(process.Log(), "");
}

}  // namespace
}  // namespace guildlite::testing
