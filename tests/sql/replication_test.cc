// What replication promises a program that owns its database: whatever it does with it in SQL, and
// however it ends, what comes back from the store is what it committed, page by page; and what was
// shipped once is not shipped again.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/sql/sql_process.h"
#include "vfs/base/file_io.h"

namespace guildlite::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kHourly[] = R"({"sync_interval_ms":3600000})";
constexpr int64_t kMegabyte = 1 << 20;

// `rows` rows of a kilobyte that does not compress.
std::string FillSql(int64_t rows) {
  return "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < " +
         std::to_string(rows) + ") INSERT INTO t(b) SELECT randomblob(1000) FROM n";
}

// GUILDLITE_SEED=n repeats a run.
uint32_t Seed() {
  const char* given = std::getenv("GUILDLITE_SEED");
  const uint32_t seed =
      given ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
  std::cout << "GUILDLITE_SEED=" << seed << std::endl;
  return seed;
}

class ReplicationTest : public SqlTest {
 protected:
  // A replicated database of some `megabytes`, all of it in the store.
  Connection StartedWith(SqlProcess& process, int64_t megabytes) {
    Connection db = OpenStarted(process, Path("a.db"), Url());
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    if (megabytes > 0) db.Ok(FillSql(megabytes * 1000));
    db.Ok("SELECT replication_sync()");
    return db;
  }
  static int64_t Txid(Connection& db) { return db.Number("SELECT txid FROM replication_status"); }
  static int64_t Heals(Connection& db) { return db.Number("SELECT heals FROM replication_status"); }
  static std::string Position(Connection& db) { return db.Text("SELECT replication_position()"); }
  uint64_t StoreBytes(const std::string& name = "store") const { return BytesBelow(Path(name)); }
};

// A store on a volume that can be away.
class VolumeTest : public ReplicationTest {
 protected:
  VolumeTest() { fs::create_directory(Path("volume")); }
  std::string VolumeUrl() const { return Url("volume/store"); }
  void Unmount() { fs::rename(Path("volume"), Path("away")); }
  void Mount() { fs::rename(Path("away"), Path("volume")); }
};

// -- Start ---------------------------------------------------------------------------------------

TEST_F(ReplicationTest, ANewDatabaseIsReplicatedFromItsFirstCommit) {
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete");
  db.Ok("SELECT replication_start(?)", {Url()});
  db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  ExpectInStore(db, Url());
}

TEST_F(ReplicationTest, ADatabaseInDeleteModeIsReplicatedWithWhatItHeldBefore) {
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  ASSERT_TRUE(db.Load().ok());
  db.Ok("INSERT INTO t VALUES (2)");
  db.Ok("SELECT replication_start(?)", {Url()});
  db.Ok("INSERT INTO t VALUES (3)");
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT a FROM t"), "1\n2\n3");
}

TEST_F(ReplicationTest, ADatabaseInWalModeIsReplicatedWithWhatItsWalHeldBefore) {
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  db.Ok("PRAGMA wal_checkpoint; INSERT INTO t VALUES (2)");
  ASSERT_TRUE(db.Load().ok());
  db.Ok("SELECT replication_start(?)", {Url()});
  ExpectInStore(db, Url());
}

// Back in WAL mode without a frame to tell of it: what was written between is found all the same.
TEST_F(ReplicationTest, AWriteInAnotherJournalModeIsInTheStoreOnceSyncReturns) {
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  ASSERT_TRUE(db.Load().ok());
  db.Ok("SELECT replication_start(?)", {Url()});
  db.Ok("SELECT replication_sync()");
  db.Ok("PRAGMA journal_mode=DELETE");
  db.Ok("UPDATE t SET a = 2");
  db.Ok("PRAGMA journal_mode=WAL");
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT a FROM t"), "2");
}

TEST_F(ReplicationTest, AChangedPageSizeIsRefusedBySyncAndNotCalledDurable) {
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  ASSERT_TRUE(db.Load().ok());
  db.Ok("SELECT replication_start(?)", {Url()});
  db.Ok("SELECT replication_sync()");
  db.Ok("PRAGMA journal_mode=DELETE");
  db.Ok("PRAGMA page_size=1024");
  db.Ok("VACUUM");
  db.Ok("PRAGMA journal_mode=WAL");
  EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("DIVERGED", SQLITE_READONLY));
}

TEST_F(ReplicationTest, ALargeDatabaseIsWrittenToWhileItsScanRunsAndSyncWaitsForTheScan) {
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(20000));
  ASSERT_TRUE(db.Load().ok());
  db.Ok("SELECT replication_start(?)", {Url()});
  for (int i = 1; i <= 200; ++i) {
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 200 = ?", {int64_t{i - 1}});
    if (i % 50 == 0) db.Ok("PRAGMA wal_checkpoint");
  }
  const std::string position = Position(db);
  EXPECT_EQ(db.Text("SELECT replication_sync()"), position);
  // (The log has outgrown the first snapshot by now: the next one may be under way.)
  EXPECT_EQ(db.Text("SELECT state, heals FROM replication_status"), "replicating|0");
  ExpectInStore(db, Url());
}

// Nothing but the obstacle keeps the scan from its end: so start does not wait for it.
TEST_F(ReplicationTest, StartDoesNotWaitForTheFirstCopy) {
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(2000));
  ASSERT_TRUE(db.Load().ok());
  // A file where the store wants a directory.
  fs::create_directory(Path("store"));
  WriteFileBytes(Path("store/snapshot"), "in the way");
  db.Ok("SELECT replication_start(?)", {Url()});
  db.Ok("INSERT INTO t(b) VALUES (1)");
  EXPECT_EQ(db.Run("SELECT replication_durable()").rows[0][0], Value());
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 0)", {Position(db)}), "0");
  EXPECT_EQ(db.Text("SELECT state FROM replication_status"), "scanning");
  EXPECT_THAT(db.Run("SELECT replication_sync(1)"), Fails("TIMEOUT", SQLITE_BUSY));
  fs::remove(Path("store/snapshot"));
  ExpectInStore(db, Url());
}

// -- Connections ---------------------------------------------------------------------------------

TEST_F(ReplicationTest, ConnectionsOpenedBeforeAndAfterTheLoadAreReplicatedToo) {
  SqlProcess process;
  Connection before = process.Open(Path("a.db"));
  before.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
  Connection loads = process.Open(Path("a.db"));
  loads.Ok("SELECT * FROM t");
  ASSERT_TRUE(loads.Load().ok());
  Connection after = process.Open(Path("a.db"));
  loads.Ok("SELECT replication_start(?)", {Url()});
  Connection last = process.Open(Path("a.db"));
  for (int64_t i = 0; i < 30; ++i) {
    for (Connection* c : {&before, &loads, &after, &last}) {
      c->Ok("INSERT INTO t VALUES (?)", {i});
    }
  }
  EXPECT_EQ(loads.Number("SELECT count(*) FROM t"), 120);
  ExpectInStore(loads, Url());
  EXPECT_EQ(Heals(loads), 0);
}

// What a connection from before the load resets, it does without asking us.
TEST_F(ReplicationTest, AConnectionFromBeforeTheLoadMayCheckpointAndResetTheWal) {
  SqlProcess process;
  Connection before = process.Open(Path("a.db"));
  before.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
  Connection loads = OpenStarted(process, Path("a.db"), Url());
  for (int i = 0; i < 20; ++i) {
    loads.Ok("INSERT INTO t VALUES (randomblob(3000))");
    before.Ok("INSERT INTO t VALUES (randomblob(3000)); PRAGMA wal_checkpoint(TRUNCATE)");
  }
  ExpectInStore(loads, Url());
}

TEST_F(ReplicationTest, AConnectionFromBeforeTheLoadGoesOnAfterTheLoadedOneClosed) {
  SqlProcess process;
  Connection before = process.Open(Path("a.db"));
  before.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
  Connection loads = OpenStarted(process, Path("a.db"), Url());
  EXPECT_EQ(loads.Close(), SQLITE_OK);
  before.Ok("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (2)");
  Connection again = process.Open(Path("a.db"));
  ExpectInStore(again, Url());
}

TEST_F(ReplicationTest, AnAttachedDatabaseIsNotReplicatedUnlessItIsSomeonesMain) {
  SqlProcess process;
  Connection a = OpenStarted(process, Path("a.db"), Url("store-a"));
  a.Ok("ATTACH ? AS b", {Path("b.db")});
  a.Ok("CREATE TABLE main.t(x); CREATE TABLE b.u(x)");
  a.Ok("BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); COMMIT");
  EXPECT_EQ(a.Number("SELECT count(*) FROM replication_status"), 1);
  ExpectInStore(a, Url("store-a"));

  Connection b = process.Open(Path("b.db"));
  b.Ok("SELECT replication_start(?)", {Url("store-b")});
  a.Ok("BEGIN; INSERT INTO t VALUES (2); INSERT INTO u VALUES (2); COMMIT");
  b.Ok("INSERT INTO u VALUES (3)");
  ExpectInStore(a, Url("store-a"));
  ExpectInStore(b, Url("store-b"));
  EXPECT_EQ(b.Text("SELECT x FROM u"), "1\n2\n3");
  a.Ok("DETACH b");
  a.Ok("INSERT INTO t VALUES (4)");
  b.Ok("INSERT INTO u VALUES (4)");
  ExpectInStore(a, Url("store-a"));
  ExpectInStore(b, Url("store-b"));
}

TEST_F(ReplicationTest, TwoDatabasesAtOnceDoNotMix) {
  SqlProcess process;
  Connection a = OpenStarted(process, Path("a.db"), Url("store-a"));
  Connection b = OpenStarted(process, Path("b.db"), Url("store-b"));
  for (Connection* db : {&a, &b}) db->Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
  for (int i = 0; i < 50; ++i) {
    a.Ok("INSERT INTO t(b) VALUES (randomblob(2000))");
    b.Ok("INSERT INTO t(b) VALUES (randomblob(500)), (randomblob(500))");
  }
  ExpectInStore(a, Url("store-a"));
  ExpectInStore(b, Url("store-b"));
  EXPECT_NE(Position(a).substr(0, 16), Position(b).substr(0, 16)) << "a lineage each";
}

TEST_F(ReplicationTest, ASecondDatabaseOfTheProcessMayNotShareAUrl) {
  SqlProcess process;
  Connection a = StartedWith(process, 0);
  Connection b = OpenLoaded(process, Path("b.db"));
  const Answer answer = b.Run("SELECT replication_start(?)", {Url()});
  EXPECT_THAT(answer, Fails("PREFIX_CLASH", SQLITE_CANTOPEN));
  EXPECT_THAT(answer.message, HasSubstr(Path("a.db")));
  a.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(a, Url());
}

// However the url is spelled, and whoever asks: the first one's history stays whole.
TEST_F(ReplicationTest, NorTheSameUrlSpelledOtherwiseAndNothingIsLeftOfTheTry) {
  fs::create_directory(Path("stores"));
  fs::create_directory_symlink(Path("stores"), Path("link"));
  SqlProcess process;
  Connection a = OpenStarted(process, Path("a.db"), Url("stores/one"));
  Connection b = process.Open(Path("b.db"));
  b.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  for (const std::string& url : {Url("stores/one/"), Url("link/one"), Url("stores/%6fne")}) {
    EXPECT_THAT(b.Run("SELECT replication_start(?)", {url}), Fails("PREFIX_CLASH", SQLITE_CANTOPEN))
        << url;
  }
  EXPECT_FALSE(fs::exists(Path("b.db-guildlite")));
}

TEST_F(ReplicationTest, AnotherDatabaseIsRefusedAUrlThatHoldsAHistory) {
  SqlProcess process, other;
  Connection a = StartedWith(process, 0);
  fs::create_symlink(Path("store"), Path("link"));
  for (SqlProcess* p : {&process, &other}) {
    for (const std::string& url : {Url() + "/", Url("./store"), Url("link"), Url()}) {
      Connection b = OpenLoaded(*p, Path("b.db"));
      b.Ok("CREATE TABLE IF NOT EXISTS mine(x)");
      const Answer answer = b.Run("SELECT replication_start(?)", {url});
      EXPECT_FALSE(answer.ok()) << url;
      EXPECT_THAT(answer.tag(), AnyOf("PREFIX_CLASH", "DIVERGED", "BAD_URL")) << answer.Text();
      EXPECT_EQ(b.Close(), SQLITE_OK);
    }
  }
  a.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(a, Url());
}

// -- Stop ----------------------------------------------------------------------------------------

TEST_F(ReplicationTest, StopShipsWhatIsLeftAndForgetsTheUrl) {
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  db.Ok("SELECT replication_start(?, ?)", {Url(), std::string(kHourly)});
  db.Ok("CREATE TABLE t(a)");
  for (int i = 0; i < 20; ++i) db.Ok("INSERT INTO t VALUES (randomblob(2000))");
  const std::string position = Position(db);
  EXPECT_EQ(db.Text("SELECT replication_stop()"), position);
  const std::string stopped = db.Content();
  EXPECT_EQ(Difference(stopped, Restored(Url())), "");
  EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("NOT_REPLICATED", SQLITE_ERROR));
  EXPECT_THAT(db.Run("SELECT replication_start()"), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  db.Ok("INSERT INTO t VALUES (1)");
  EXPECT_EQ(db.Close(), SQLITE_OK);
  SqlProcess next;
  Connection again = OpenLoaded(next, Path("a.db"));
  EXPECT_EQ(again.Number("SELECT count(*) FROM replication_status"), 0);
  EXPECT_EQ(Difference(stopped, Restored(Url())), "");
}

// What was written meanwhile is in the WAL, and follows.
TEST_F(ReplicationTest, StartAfterStopBringsWhatTheWalHasSince) {
  for (const char* meanwhile :
       {"", "INSERT INTO t(b) VALUES ('meanwhile')", "DELETE FROM t WHERE id > 900; VACUUM"}) {
    SCOPED_TRACE(meanwhile);
    const std::string name = "stop" + std::to_string(std::string(meanwhile).size());
    SqlProcess process;
    Connection db = OpenStarted(process, Path(name + ".db"), Url(name));
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(1000));
    db.Ok("SELECT replication_stop()");
    db.Ok(meanwhile);
    db.Ok("SELECT replication_start(?)", {Url(name)});
    db.Ok("INSERT INTO t(b) VALUES ('after')");
    ExpectInStore(db, Url(name));
  }
}

// Nothing tells a file that was written meanwhile from one that somebody put in its place.
TEST_F(ReplicationTest, StartAfterStopOnAFileThatChangedGoesOnOrRefusesButDoesNotMix) {
  for (const char* meanwhile :
       {"UPDATE t SET b = 'x' WHERE id < 5; PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA journal_mode=DELETE; UPDATE t SET b = 'y' WHERE id = 7; PRAGMA journal_mode=WAL"}) {
    SCOPED_TRACE(meanwhile);
    const std::string name = "stop" + std::to_string(std::string(meanwhile).size());
    SqlProcess process;
    Connection db = OpenStarted(process, Path(name + ".db"), Url(name));
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(1000));
    db.Ok("SELECT replication_stop()");
    const std::string stopped = db.Content();
    db.Ok(meanwhile);
    const Answer started = db.Run("SELECT replication_start(?)", {Url(name)});
    db.Ok("INSERT INTO t(b) VALUES ('after')");
    if (started.ok()) {
      ExpectInStore(db, Url(name));
      continue;
    }
    EXPECT_THAT(started, Fails("DIVERGED", SQLITE_READONLY));
    EXPECT_EQ(Difference(stopped, Restored(Url(name))), "");
    db.Ok("SELECT replication_start(?)", {Url(name + "-other")});
    ExpectInStore(db, Url(name + "-other"));
  }
}

TEST_F(VolumeTest, StopThatCannotFlushInTimeSaysSoAndChangesNothing) {
  SqlProcess process;
  Connection db = OpenStarted(process, Path("a.db"), VolumeUrl());
  db.Ok("CREATE TABLE t(a)");
  db.Ok("SELECT replication_sync()");
  Unmount();
  for (int i = 0; i < 20; ++i) db.Ok("INSERT INTO t VALUES (randomblob(3000))");
  const std::string position = Position(db);
  for (int64_t timeout_ms : {0, 1, 100}) {
    EXPECT_THAT(db.Run("SELECT replication_stop(?)", {timeout_ms}),
                Fails("NOT_DURABLE", SQLITE_IOERR));
    db.Ok("INSERT INTO t VALUES (1)");
  }
  Mount();
  EXPECT_EQ(db.Text("SELECT replication_wait(?)", {position}), "1");
  ExpectInStore(db, VolumeUrl());
  db.Ok("SELECT replication_stop()");
}

TEST_F(ReplicationTest, StopWithoutTimeLeavesNothingBehindUnlessItSaysSo) {
  SqlProcess process;
  for (int round = 0; round < 10; ++round) {
    Connection db = process.Open(Path("a" + std::to_string(round)));
    if (round == 0) {
      ASSERT_TRUE(db.Load().ok());
    }
    const std::string url = Url("store" + std::to_string(round));
    db.Ok("SELECT replication_start(?, ?)", {url, std::string(kHourly)});
    db.Ok("CREATE TABLE t(a)");
    if (round % 2 == 0) db.Ok("SELECT replication_sync()");
    for (int i = 0; i < 50; ++i) db.Ok("INSERT INTO t VALUES (randomblob(3000))");
    const Answer stopped = db.Run("SELECT replication_stop(0)");
    if (stopped.ok()) {
      EXPECT_EQ(Difference(db.Content(), Restored(url)), "");
    } else {
      EXPECT_THAT(stopped, Fails("NOT_DURABLE", SQLITE_IOERR));
      EXPECT_EQ(db.Text("SELECT state FROM replication_status"), "replicating");
      ExpectInStore(db, url);
    }
    EXPECT_EQ(db.Close(), SQLITE_OK);
  }
}

// -- Restart -------------------------------------------------------------------------------------

TEST_F(ReplicationTest, LoadAloneResumesAfterAPlainExitWithoutAFullUpload) {
  {
    SqlProcess process;
    StartedWith(process, 8);
  }
  const uint64_t before = StoreBytes();
  ASSERT_GT(before, 8'000'000u);
  for (int round = 0; round < 5; ++round) {
    SqlProcess process;
    Connection db = OpenLoaded(process, Path("a.db"));
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{1000 + round}});
    ExpectInStore(db, Url());
    EXPECT_EQ(Heals(db), 0);
    EXPECT_EQ(db.Text("SELECT epoch FROM replication_status"), "1") << "the session is resumed";
    if (round % 2 == 0) {
      EXPECT_EQ(db.Close(), SQLITE_OK);
    }
  }
  EXPECT_LT(StoreBytes() - before, 200'000u);
}

TEST_F(ReplicationTest, LoadAloneResumesAfterKillWithoutAFullUpload) {
  SqlProcess first;
  StartedWith(first, 8);
  first.Kill();
  const uint64_t before = StoreBytes();
  for (int round = 0; round < 5; ++round) {
    SqlProcess process;
    Connection db = OpenLoaded(process, Path("a.db"));
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{1000 + round}});
    ExpectInStore(db, Url());
    EXPECT_EQ(Heals(db), 0);
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{2000 + round}});
    process.Kill();
  }
  EXPECT_LT(StoreBytes() - before, 300'000u);
  SqlProcess last;
  Connection db = OpenLoaded(last, Path("a.db"));
  ExpectInStore(db, Url());
}

TEST_F(VolumeTest, WhatWasCommittedButNotShippedBeforeAKillShipsAfterIt) {
  for (const char* and_then :
       {"SELECT 1", "PRAGMA wal_checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(RESTART); INSERT INTO t(b) VALUES (randomblob(9000))"}) {
    SCOPED_TRACE(and_then);
    const std::string name = Path("db" + std::to_string(std::string(and_then).size()));
    const std::string url = VolumeUrl() + std::to_string(std::string(and_then).size());
    SqlProcess process;
    Connection db = OpenStarted(process, name, url);
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(4000));
    db.Ok("SELECT replication_sync()");
    Unmount();
    for (int i = 1; i <= 20; ++i) {
      db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{i * 10}});
    }
    const std::string position = Position(db);
    db.Ok(and_then);
    const std::string content = db.Content();
    process.Kill();
    Mount();
    const uint64_t before = BytesBelow(Path("volume"));
    SqlProcess next;
    Connection again = OpenLoaded(next, name);
    EXPECT_EQ(Difference(content, again.Content()), "");
    again.Ok("INSERT INTO t(b) VALUES (1)");
    ExpectInStore(again, url);
    if (std::string(and_then) != "PRAGMA wal_checkpoint(TRUNCATE)") {
      // An empty WAL proves nothing: then every page is compared, and an epoch begins.
      EXPECT_EQ(again.Text("SELECT replication_wait(?)", {position}), "1");
      EXPECT_EQ(Heals(again), 0);
    }
    EXPECT_LT(BytesBelow(Path("volume")) - before, 500'000u);
  }
}

TEST_F(VolumeTest, AnExitWithoutTheStoreLosesNothing) {
  std::string content;
  {
    SqlProcess process(SqlProcess::Environment{{"GUILDLITE_CLOSE_TIMEOUT_MS", "50"}});
    Connection db = OpenStarted(process, Path("a.db"), VolumeUrl());
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(4000));
    db.Ok("SELECT replication_sync()");
    Unmount();
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 100 = 1");
    content = db.Content();
    EXPECT_EQ(db.Close(), SQLITE_OK);
  }
  Mount();
  const uint64_t before = BytesBelow(Path("volume"));
  SqlProcess next;
  Connection again = OpenLoaded(next, Path("a.db"));
  ExpectInStore(again, VolumeUrl());
  EXPECT_EQ(Difference(content, again.Content()), "");
  EXPECT_LT(BytesBelow(Path("volume")) - before, 1'000'000u);
}

TEST_F(ReplicationTest, ClosedAndOpenedManyTimesInOneProcess) {
  SqlProcess process;
  StartedWith(process, 2).Close();
  const uint64_t before = StoreBytes();
  Connection keeps = process.Open(":memory:");
  for (int round = 0; round < 40; ++round) {
    Connection db = process.Open(Path("a.db"));
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{round + 1}});
    if (round % 3 == 0) db.Ok("SELECT replication_sync()");
    if (round == 39) {
      ExpectInStore(db, Url());
      EXPECT_EQ(Heals(db), 0);
      EXPECT_EQ(db.Text("SELECT epoch FROM replication_status"), "1");
    }
    EXPECT_EQ(db.Close(), SQLITE_OK);
    if (round % 10 == 0) {
      EXPECT_EQ(Difference(StockContent(Path("a.db")), Restored(Url())), "") << "close flushed";
    }
  }
  EXPECT_LT(StoreBytes() - before, 1'000'000u);
}

// -- Positions -----------------------------------------------------------------------------------

TEST_F(VolumeTest, APositionIsDurableOnceTheStoreHasItAndNotBefore) {
  SqlProcess process;
  Connection db = OpenStarted(process, Path("a.db"), VolumeUrl());
  db.Ok("CREATE TABLE t(a)");
  const std::string durable = db.Text("SELECT replication_sync()");
  EXPECT_EQ(Position(db), durable);
  Unmount();
  db.Ok("INSERT INTO t VALUES (1)");
  const std::string position = Position(db);
  EXPECT_GT(position, durable);
  EXPECT_EQ(db.Text("SELECT replication_durable()"), durable);
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 0)", {position}), "0");
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 20)", {position}), "0");
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 0)", {durable}), "1");
  EXPECT_EQ(db.Text("SELECT pending > 0 AND durable_txid < txid FROM replication_status"), "1");
  EXPECT_THAT(db.Run("SELECT replication_sync(20)"), Fails("TIMEOUT", SQLITE_BUSY));
  // What the owner wrote is there for a restore up to what was shipped.
  Mount();
  EXPECT_EQ(db.Text("SELECT replication_wait(?)", {position}), "1");
  EXPECT_GE(db.Text("SELECT replication_durable()"), position);
  Connection other = process.Open(Path("a.db"));
  EXPECT_EQ(other.Text("SELECT replication_wait(?, 0)", {position}), "1");
}

TEST_F(ReplicationTest, APositionOfAnotherHistoryIsLost) {
  SqlProcess process;
  Connection db = StartedWith(process, 0);
  std::string foreign = Position(db);
  foreign[0] = foreign[0] == '0' ? '1' : '0';
  EXPECT_THAT(db.Run("SELECT replication_wait(?, 0)", {foreign}),
              Fails("POSITION_LOST", SQLITE_NOTFOUND));
  std::string wrong_check = Position(db);
  wrong_check.back() = wrong_check.back() == '0' ? '1' : '0';
  EXPECT_THAT(db.Run("SELECT replication_wait(?, 0)", {wrong_check}),
              Fails("POSITION_LOST", SQLITE_NOTFOUND));
}

TEST_F(ReplicationTest, PositionsOfBeforeARestartAreStillAnswered) {
  std::vector<std::string> positions;
  {
    SqlProcess process;
    Connection db = StartedWith(process, 0);
    for (int64_t i = 0; i < 5; ++i) {
      db.Ok("INSERT INTO t(b) VALUES (?)", {i});
      positions.push_back(Position(db));
    }
    process.Kill();
  }
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  for (const std::string& p : positions) {
    EXPECT_EQ(db.Text("SELECT replication_wait(?)", {p}), "1");
  }
}

// -- Points in time ------------------------------------------------------------------------------

TEST_F(ReplicationTest, ARestoreGoesToALabelATxidAPositionOrATime) {
  SqlProcess process;
  Connection db = StartedWith(process, 0);
  struct Point {
    std::string label, position, time, content;
    int64_t txid;
  };
  std::vector<Point> points;
  for (int64_t i = 0; i < 4; ++i) {
    db.Ok("INSERT INTO t(b) VALUES (randomblob(2000))");
    Point p;
    p.label = "point " + std::to_string(i);
    p.position = Position(db);
    p.txid = Txid(db);
    p.content = db.Content();
    EXPECT_EQ(db.Text("SELECT snapshot_create(?)", {p.label}), p.position);
    // Later than the commit, and earlier than the next: by the second, as datetime() tells it.
    const auto now = [&] { return db.Text("SELECT datetime('now')"); };
    const std::string committed = now();
    while ((p.time = now()) == committed) {
    }
    for (std::string next = p.time; next == p.time; next = now()) {
    }
    points.push_back(p);
  }
  db.Ok("SELECT replication_sync()");
  for (const Point& p : points) {
    SCOPED_TRACE(p.label);
    EXPECT_EQ(Difference(p.content, Restored(Url(), "label:" + p.label)), "");
    EXPECT_EQ(Difference(p.content, Restored(Url(), p.txid)), "");
    EXPECT_EQ(Difference(p.content, Restored(Url(), p.position)), "");
    EXPECT_EQ(Difference(p.content, Restored(Url(), p.time)), "");
    std::string rfc3339 = p.time + "Z";
    rfc3339[10] = 'T';
    EXPECT_EQ(Difference(p.content, Restored(Url(), rfc3339)), "");
  }
  EXPECT_EQ(db.Text("SELECT group_concat(label, ',') FROM snapshot_list WHERE label <> ''"),
            "point 0,point 1,point 2,point 3");
}

// The reference is a stock SQLite that ran the same statements and nothing else.
TEST_F(ReplicationTest, EveryTransactionOfAHistoryRestoresAsAStockSqliteHadIt) {
  std::mt19937 random(Seed());
  const auto below = [&](uint32_t n) { return static_cast<int64_t>(random() % n); };
  SqlProcess process, stock;
  Connection reference = stock.Open(Path("reference.db"));
  reference.Ok("PRAGMA journal_mode=WAL");
  Connection db = OpenStarted(process, Path("a.db"), Url());
  std::vector<std::pair<int64_t, std::string>> history;
  std::string before = reference.Content();
  const auto run = [&](const std::string& sql) {
    db.Ok(sql);
    reference.Ok(sql);
    std::string after = reference.Content();
    const int64_t txid = Txid(db);
    if (after != before) history.emplace_back(txid, after);
    before = std::move(after);
  };
  const auto filler = [&] {
    return "printf('%.*c', " + std::to_string(below(3000)) + ", '" +
           static_cast<char>('a' + below(26)) + "')";
  };
  run("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
  run("CREATE INDEX i ON t(b)");
  run("CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID");
  for (int step = 0; step < 60; ++step) {
    const std::string id = std::to_string(below(40));
    switch (below(10)) {
      case 0:
        run("DELETE FROM t WHERE id % 7 = " + id + " % 7");
        break;
      case 1:
        run("PRAGMA wal_checkpoint(TRUNCATE)");
        break;
      case 2:
        run("REPLACE INTO w VALUES ('" + id + "', " + filler() + ")");
        break;
      case 3:
        run("BEGIN; REPLACE INTO t VALUES (" + id + ", " + filler() + "); SAVEPOINT s;" +
            "DELETE FROM t; ROLLBACK TO s; REPLACE INTO t VALUES (" + id + ", 'x'); COMMIT");
        break;
      case 4:
        if (below(3) == 0) run("VACUUM");
        break;
      case 5:
        run("BEGIN; DELETE FROM t; ROLLBACK");
        break;
      default:
        run("REPLACE INTO t VALUES (" + id + ", " + filler() + ")");
    }
  }
  db.Ok("SELECT replication_sync()");
  ASSERT_GT(history.size(), 30u);
  for (const auto& [txid, content] : history) {
    EXPECT_EQ(Difference(content, Restored(Url(), txid)), "") << "txid " << txid;
  }
}

TEST_F(ReplicationTest, ASnapshotIsTakenByItselfOnceTheLogHasGrown) {
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  db.Ok("SELECT replication_start(?, '{\"snapshot_min_bytes\":100000,\"retention_ms\":86400000}')",
        {Url()});
  db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
  db.Ok("SELECT replication_sync()");
  const auto snapshots = [&] { return db.Number("SELECT count(*) FROM snapshot_list"); };
  const int64_t first = snapshots();
  // Far more log than it takes; the database stays small.
  int round = 0;
  while (snapshots() < first + 2 && round < 400) {
    db.Ok("REPLACE INTO t VALUES (?, randomblob(30000))", {int64_t{++round % 3}});
    db.Ok("SELECT replication_sync()");
  }
  EXPECT_GE(snapshots(), first + 2) << StoreBytes();
  EXPECT_GT(round, 3) << "not before there is something to save";
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT snapshot_verify()"), Position(db));
}

// Months in small: the bucket grows neither in objects nor in bytes, and what it keeps restores.
TEST_F(ReplicationTest, TheStoreStaysBounded) {
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  db.Ok(
      "SELECT replication_start(?, '{\"snapshot_min_bytes\":30000,\"join_slots\":20,"
      "\"delete_after_ms\":0,\"sync_interval_ms\":0}')",
      {Url()});
  db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
  const std::string log = Path("store") + "/log";
  const auto objects = [&] { return ListDirectory(log)->size(); };
  uint64_t slots = 0;
  size_t most = 0;
  for (int round = 0; round < 300; ++round) {
    db.Ok("REPLACE INTO t VALUES (?, randomblob(1000))", {int64_t{round % 7}});
    db.Ok("SELECT replication_sync()");
    ++slots;
    if (round % 10 == 0 && round > 150) most = std::max(most, objects());
  }
  EXPECT_GE(slots, 300u);
  EXPECT_LT(most, 150u);
  EXPECT_LE(db.Number("SELECT count(*) FROM snapshot_list"), 3);
  EXPECT_TRUE(FileExists(log + "/0000000000000001")) << "the FENCE stays";
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT snapshot_verify()"), Position(db));
  EXPECT_EQ(db.Text("SELECT replication_error()"), "");
}

// -- What a program does with its database --------------------------------------------------------

TEST_F(ReplicationTest, VacuumIsReplicated) {
  SqlProcess process;
  Connection db = StartedWith(process, 2);
  db.Ok("DELETE FROM t WHERE id % 3 <> 0; VACUUM");
  ExpectInStore(db, Url());
  db.Ok("DELETE FROM t; VACUUM");
  ExpectInStore(db, Url());
  EXPECT_LT(FileBytes(Path("a.db")).size(), 3u * kMegabyte);
  db.Ok(FillSql(100));
  ExpectInStore(db, Url());
}

TEST_F(ReplicationTest, ADatabaseThatShrinksByAutoVacuumIsReplicated) {
  for (const char* mode : {"FULL", "INCREMENTAL"}) {
    SCOPED_TRACE(mode);
    SqlProcess process;
    Connection db = OpenLoaded(process, Path(std::string(mode) + ".db"));
    db.Ok("PRAGMA auto_vacuum=" + std::string(mode) +
          "; CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    db.Ok("SELECT replication_start(?)", {Url(mode)});
    db.Ok(FillSql(2000));
    db.Ok("SELECT replication_sync()");
    const int64_t pages = db.Number("PRAGMA page_count");
    db.Ok("DELETE FROM t WHERE id > 100; PRAGMA incremental_vacuum");
    EXPECT_LT(db.Number("PRAGMA page_count"), pages / 2);
    ExpectInStore(db, Url(mode));
    db.Ok("PRAGMA wal_checkpoint(TRUNCATE)");
    db.Ok("INSERT INTO t(b) VALUES (randomblob(50000))");
    ExpectInStore(db, Url(mode));
  }
}

class PageSizeTest : public ReplicationTest, public ::testing::WithParamInterface<int> {};

TEST_P(PageSizeTest, IsReplicatedFromTheStartOrLater) {
  const std::string page_size = "PRAGMA page_size=" + std::to_string(GetParam());
  SqlProcess process;
  Connection existing = process.Open(Path("existing.db"));
  existing.Ok(page_size + "; CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(200));
  Connection fresh = OpenLoaded(process, Path("fresh.db"));
  fresh.Ok(page_size);
  fresh.Ok("SELECT replication_start(?)", {Url("fresh")});
  fresh.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
  ASSERT_EQ(existing.Load().code, SQLITE_OK);
  existing.Ok("SELECT replication_start(?)", {Url("existing")});
  for (Connection* db : {&existing, &fresh}) {
    EXPECT_EQ(db->Number("PRAGMA page_size"), GetParam());
    const std::string url = Url(db == &fresh ? "fresh" : "existing");
    db->Ok(FillSql(300));
    db->Ok("UPDATE t SET b = randomblob(500) WHERE id % 3 = 0; PRAGMA wal_checkpoint(RESTART)");
    db->Ok("DELETE FROM t WHERE id % 5 = 0");
    ExpectInStore(*db, url);
    db->Ok("VACUUM");
    ExpectInStore(*db, url);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryPageSize, PageSizeTest,
                         ::testing::Values(512, 1024, 2048, 4096, 8192, 16384, 32768, 65536));

TEST_F(ReplicationTest, OneTransactionOfThirtyMegabytesIsReplicated) {
  SqlProcess process;
  Connection db = StartedWith(process, 0);
  db.Ok(FillSql(28000));
  ExpectInStore(db, Url());
  db.Ok("PRAGMA cache_size=10; UPDATE t SET b = randomblob(1000)");
  ExpectInStore(db, Url());
  db.Ok("BEGIN; DELETE FROM t; ROLLBACK");
  db.Ok("DELETE FROM t WHERE id > 10");
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 0);
}

TEST_F(ReplicationTest, SavepointsAndRollbacksThatSpillAreReplicated) {
  std::mt19937 random(Seed());
  SqlProcess process;
  Connection db = StartedWith(process, 1);
  db.Ok("PRAGMA cache_size=4");
  for (int round = 0; round < 30; ++round) {
    db.Ok("BEGIN");
    for (int i = 0; i < 4; ++i) {
      const std::string s = "s" + std::to_string(i);
      db.Ok("SAVEPOINT " + s);
      db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 37 = ?",
            {static_cast<int64_t>(random() % 37)});
      if (random() % 2 == 0) db.Ok("ROLLBACK TO " + s);
      if (random() % 2 == 0) db.Ok("RELEASE " + s);
    }
    db.Ok(random() % 4 == 0 ? "ROLLBACK" : "COMMIT");
    if (round % 10 == 9) ExpectInStore(db, Url());
  }
  ExpectInStore(db, Url());
}

// -- Locking mode, checkpoints, journal mode
// -------------------------------------------------------

TEST_F(ReplicationTest, ExclusiveLockingModeIsReplicated) {
  SqlProcess process;
  Connection db = StartedWith(process, 1);
  db.Ok("PRAGMA locking_mode=EXCLUSIVE");
  for (int i = 0; i < 20; ++i) {
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 20 = ?", {int64_t{i}});
    if (i % 7 == 6) db.Ok("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  ExpectInStore(db, Url());
  db.Ok("PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(db, Url());
}

// Then the wal-index is on the heap and there is no -shm at all.
TEST_F(ReplicationTest, ExclusiveLockingModeFromTheBeginningIsReplicated) {
  const std::string exclusive = "PRAGMA locking_mode=EXCLUSIVE";
  std::string content;
  {
    SqlProcess process;
    Connection db = OpenLoaded(process, Path("a.db"));
    db.Ok(exclusive);
    db.Ok("SELECT replication_start(?)", {Url()});
    db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < 20; ++i) {
      db.Ok(FillSql(100));
      if (i % 7 == 6) db.Ok("PRAGMA wal_checkpoint(TRUNCATE)");
    }
    EXPECT_FALSE(fs::exists(Path("a.db-shm")));
    ExpectInStore(db, Url());
    db.Ok("DELETE FROM t WHERE id % 2 = 0");
    content = db.Content();
    process.Kill();
  }
  SqlProcess process;
  Connection db = process.Open(Path("a.db"));
  db.Ok(exclusive);
  ASSERT_TRUE(db.Load().ok());
  EXPECT_EQ(Difference(content, db.Content()), "");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(db, Url());
}

// No WAL is left that would prove anything: what the database file was at rest does.
TEST_F(ReplicationTest, AKillAfterATruncateCheckpointNeedsNoHeal) {
  std::string content;
  {
    SqlProcess process;
    Connection db = StartedWith(process, 5);
    db.Ok("SELECT replication_sync()");
    db.Ok("INSERT INTO t(b) VALUES ('not shipped, perhaps')");
    EXPECT_EQ(db.Text("PRAGMA wal_checkpoint(TRUNCATE)").substr(0, 2), "0|");
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!fs::exists(Path("a.db-guildlite/clean"))) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
    content = db.Content();
    process.Kill();
  }
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  EXPECT_EQ(Difference(content, db.Content()), "");
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT epoch FROM replication_status"), "1");
}

// Nothing but the header of its new WAL comes before the first commit.
TEST_F(ReplicationTest, ExclusiveLockingModeFromTheBeginningNeedsNoHealAtAnOpen) {
  std::string position;
  for (int life = 0; life < 3; ++life) {
    SqlProcess process;
    Connection db = process.Open(Path("a.db"));
    db.Ok("PRAGMA locking_mode=EXCLUSIVE");
    ASSERT_TRUE(db.Load().ok());
    if (life == 0) {
      db.Ok("SELECT replication_start(?)", {Url()});
      db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    }
    db.Ok("INSERT INTO t(b) VALUES (?)", {int64_t{life}});
    ExpectInStore(db, Url());
    EXPECT_EQ(db.Text("SELECT epoch FROM replication_status"), "1") << "life " << life;
  }
}

// The EXCLUSIVE lock that this mode takes on a WAL database is no close.
TEST_F(ReplicationTest, ExclusiveLockingModeOnARestoredCopyNeedsNoHeal) {
  {
    SqlProcess process;
    Connection db = OpenStarted(process, Path("a.db"), Url());
    db.Ok("CREATE TABLE t(x); INSERT INTO t VALUES (1); SELECT replication_sync()");
  }
  ASSERT_TRUE(RestoreTo(Path("copy.db"), Url()).ok());
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("copy.db"));
  db.Ok("PRAGMA locking_mode=EXCLUSIVE");
  db.Ok("SELECT replication_start(?)", {Url()});
  for (int i = 0; i < 5; ++i) db.Ok("INSERT INTO t VALUES (2)");
  db.Ok("PRAGMA wal_checkpoint; INSERT INTO t VALUES (3)");
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT state, heals FROM replication_status"), "replicating|0");
  EXPECT_EQ(process.Log(), "");
  // But one is, and what another journal mode writes is found.
  EXPECT_EQ(db.Text("PRAGMA journal_mode=DELETE"), "delete");
  db.Ok("INSERT INTO t VALUES (4)");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.Ok("INSERT INTO t VALUES (5)");
  ExpectInStore(db, Url());
}

TEST_F(ReplicationTest, JournalModeMayChangeInExclusiveLockingMode) {
  SqlProcess process;
  Connection db = StartedWith(process, 1);
  db.Ok("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(b) VALUES ('exclusive')");
  for (const char* mode : {"DELETE", "TRUNCATE", "PERSIST", "MEMORY"}) {
    SCOPED_TRACE(mode);
    EXPECT_THAT(db.Text("PRAGMA journal_mode=" + std::string(mode)), ::testing::StrCaseEq(mode));
    db.Ok("UPDATE t SET b = ? WHERE id = 5", {std::string(mode)});
    EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
    db.Ok("INSERT INTO t(b) VALUES (?)", {std::string(mode)});
    ExpectInStore(db, Url());
  }
  db.Ok("PRAGMA locking_mode=NORMAL; SELECT 1 FROM t");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(db, Url());
}

TEST_F(VolumeTest, CheckpointsOfEveryModeLoseNothingThoughTheStoreIsAway) {
  SqlProcess process;
  Connection db = OpenStarted(process, Path("a.db"), VolumeUrl());
  db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(500));
  db.Ok("SELECT replication_sync()");
  Unmount();
  std::vector<std::pair<int64_t, std::string>> history;
  for (int round = 0; round < 5; ++round) {
    for (const char* mode : {"PASSIVE", "FULL", "RESTART", "TRUNCATE"}) {
      db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 50 = ?", {int64_t{round}});
      history.emplace_back(Txid(db), db.Content());
      EXPECT_EQ(db.Text("PRAGMA wal_checkpoint(" + std::string(mode) + ")").substr(0, 1), "0");
    }
  }
  Mount();
  ExpectInStore(db, VolumeUrl());
  for (const auto& [txid, content] : history) {
    EXPECT_EQ(Difference(content, Restored(VolumeUrl(), txid)), "") << "txid " << txid;
  }
}

TEST_F(ReplicationTest, ManyWriterConnectionsThatResetTheWalAreReplicatedWithoutAHeal) {
  SqlProcess process, second;
  Connection a = StartedWith(process, 1);
  a.Ok("PRAGMA wal_autocheckpoint=10");
  Connection b = process.Open(Path("a.db"));
  b.Ok("PRAGMA wal_autocheckpoint=10");
  for (int i = 0; i < 200; ++i) {
    (i % 2 == 0 ? a : b).Ok("UPDATE t SET b = randomblob(1000) WHERE id % 100 = ?", {int64_t{i}});
  }
  ExpectInStore(a, Url());
  EXPECT_EQ(Heals(a), 0);
}

TEST_F(ReplicationTest, NothingWrittenInAnotherJournalModeIsLost) {
  SqlProcess process;
  Connection db = StartedWith(process, 4);
  const std::string before = Position(db);
  for (const char* mode : {"DELETE", "TRUNCATE", "PERSIST", "MEMORY"}) {
    SCOPED_TRACE(mode);
    const uint64_t bytes = StoreBytes();
    db.Ok("UPDATE t SET b = 'last in WAL before ' || ? WHERE id = 1", {std::string(mode)});
    EXPECT_THAT(db.Text("PRAGMA journal_mode=" + std::string(mode)), ::testing::StrCaseEq(mode));
    db.Ok("UPDATE t SET b = ? WHERE id = 2", {std::string(mode)});
    EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("NOT_REPLICATED", SQLITE_ERROR));
    EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
    db.Ok("UPDATE t SET b = 'first in WAL after ' || ? WHERE id = 3", {std::string(mode)});
    ExpectInStore(db, Url());
    EXPECT_LT(StoreBytes() - bytes, 500'000u) << "healed, not uploaded again";
  }
  EXPECT_GE(Heals(db), 4);
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 0)", {before}), "1");
}

TEST_F(ReplicationTest, AnExitOrAKillInAnotherJournalModeLosesNothing) {
  for (const bool killed : {false, true}) {
    SCOPED_TRACE(killed);
    const std::string path = Path(killed ? "killed.db" : "exited.db");
    const std::string url = Url(killed ? "killed" : "exited");
    std::string content;
    {
      SqlProcess process;
      Connection db = OpenStarted(process, path, url);
      db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b); " + FillSql(2000));
      db.Ok("SELECT replication_sync(); PRAGMA journal_mode=DELETE");
      db.Ok("UPDATE t SET b = 'x' WHERE id = 2");
      if (killed) process.Kill();
    }
    SqlProcess process;
    Connection db = OpenLoaded(process, path);
    db.Ok("UPDATE t SET b = 'y' WHERE id = 3");
    EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
    db.Ok("UPDATE t SET b = 'z' WHERE id = 4");
    ExpectInStore(db, url);
  }
}

// -- Epochs --------------------------------------------------------------------------------------

TEST_F(ReplicationTest, ARestoredCopyGoesOnAsANewEpochAndTheOldOwnerIsFenced) {
  SqlProcess old_process, new_process;
  Connection old_owner = StartedWith(old_process, 4);
  const std::string before = Position(old_owner);
  ASSERT_TRUE(RestoreTo(Path("b.db"), Url()).ok());
  const uint64_t bytes = StoreBytes();
  Connection new_owner = OpenLoaded(new_process, Path("b.db"));
  new_owner.Ok("SELECT replication_start(?)", {Url()});
  new_owner.Ok("INSERT INTO t(b) VALUES ('new owner')");
  ExpectInStore(new_owner, Url());
  EXPECT_EQ(new_owner.Text("SELECT epoch, heals FROM replication_status"), "2|0");
  EXPECT_EQ(new_owner.Text("SELECT replication_wait(?, 0)", {before}), "1");
  EXPECT_LT(StoreBytes() - bytes, 500'000u) << "the copy is not uploaded again";

  // It learns of the fence when it ships; until then it commits locally.
  old_owner.Ok("INSERT INTO t(b) VALUES ('old owner')");
  EXPECT_THAT(old_owner.Run("SELECT replication_sync()"), Fails("FENCED", SQLITE_READONLY));
  EXPECT_EQ(old_owner.Text("SELECT state FROM replication_status"), "fenced");
  const Answer refused = old_owner.Run("INSERT INTO t(b) VALUES ('zombie')");
  EXPECT_EQ(refused.code & 0xff, SQLITE_READONLY) << refused.Text();
  EXPECT_THAT(old_owner.Text("SELECT replication_error()"), HasSubstr("FENCED"));
  EXPECT_GT(old_owner.Number("SELECT count(*) FROM t"), 0) << "reads always work";
  new_owner.Ok("INSERT INTO t(b) VALUES ('still')");
  ExpectInStore(new_owner, Url());
  EXPECT_EQ(new_owner.Text("SELECT count(*) FROM t WHERE b IN ('old owner', 'zombie')"), "0");
}

TEST_F(ReplicationTest, AFencedOwnerStaysFencedAfterARestart) {
  SqlProcess old_process, new_process;
  Connection old_owner = StartedWith(old_process, 0);
  ASSERT_TRUE(RestoreTo(Path("b.db"), Url()).ok());
  Connection new_owner = OpenStarted(new_process, Path("b.db"), Url());
  new_owner.Ok("INSERT INTO t(b) VALUES ('new owner')");
  old_owner.Ok("INSERT INTO t(b) VALUES ('old owner')");
  old_process.Kill();
  ExpectInStore(new_owner, Url());
  SqlProcess again;
  Connection zombie = OpenLoaded(again, Path("a.db"));
  EXPECT_THAT(zombie.Run("SELECT replication_sync()").code, SQLITE_READONLY);
  EXPECT_EQ(zombie.Run("INSERT INTO t(b) VALUES (1)").code & 0xff, SQLITE_READONLY);
  new_owner.Ok("INSERT INTO t(b) VALUES ('more')");
  ExpectInStore(new_owner, Url());
}

TEST_F(ReplicationTest, EveryEpochOfAChainOfRestoredCopiesIsRestorable) {
  std::string from = Path("a.db");
  std::vector<std::pair<std::string, std::string>> history;
  for (int epoch = 1; epoch <= 4; ++epoch) {
    SqlProcess process;
    Connection db = OpenStarted(process, from, Url());
    if (epoch == 1) db.Ok("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    db.Ok(FillSql(20));
    EXPECT_EQ(db.Number("SELECT epoch FROM replication_status"), epoch);
    db.Ok("SELECT replication_sync()");
    history.emplace_back(Position(db), db.Content());
    process.Kill();
    from = Path("copy" + std::to_string(epoch));
    ASSERT_TRUE(RestoreTo(from, Url()).ok());
  }
  for (const auto& [position, content] : history) {
    EXPECT_EQ(Difference(content, Restored(Url(), position)), "") << position;
  }
}

// -- Loading -------------------------------------------------------------------------------------

TEST_F(ReplicationTest, LoadedTwiceItReplicatesOnce) {
  SqlProcess process;
  Connection db = StartedWith(process, 0);
  ASSERT_TRUE(db.Load().ok());
  Connection other = OpenLoaded(process, Path("a.db"));
  ASSERT_TRUE(other.Load().ok());
  db.Ok("INSERT INTO t(b) VALUES (1)");
  other.Ok("INSERT INTO t(b) VALUES (2)");
  EXPECT_EQ(db.Number("SELECT count(*) FROM replication_status"), 1);
  const int64_t txid = Txid(db);
  db.Ok("INSERT INTO t(b) VALUES (3)");
  EXPECT_EQ(Txid(db), txid + 1);
  ExpectInStore(db, Url());
}

TEST_F(ReplicationTest, TwoCopiesOfTheFileAreHarmless) {
  fs::copy_file(GUILDLITE_MODULE, Path("copy.so"));
  SqlProcess process;
  Connection before = process.Open(Path("a.db"));
  Connection db = StartedWith(process, 0);
  for (Connection* c : {&db, &before}) {
    const Answer loaded = c->Load(Path("copy.so"));
    ASSERT_TRUE(loaded.ok()) << loaded.Text();
  }
  Connection after = process.Open(Path("a.db"));
  for (Connection* c : {&db, &before, &after}) c->Ok("INSERT INTO t(b) VALUES (1)");
  EXPECT_EQ(db.Number("SELECT count(*) FROM replication_status"), 1);
  EXPECT_EQ(after.Number("SELECT count(*) FROM replication_status"), 1);
  const int64_t txid = Txid(db);
  db.Ok("INSERT INTO t(b) VALUES (3)");
  EXPECT_EQ(Txid(db), txid + 1);
  ExpectInStore(db, Url());
  EXPECT_EQ(after.Close(), SQLITE_OK);
  EXPECT_EQ(before.Close(), SQLITE_OK);
  db.Ok("INSERT INTO t(b) VALUES (4)");
  ExpectInStore(db, Url());
}

// A rolling update: the new pod is there while the old one still writes. It restores only what the
// old one has left, so nothing of that is missing and nobody is fenced.
TEST_F(ReplicationTest, AHandOverWaitsForTheOldOwnersLastCommit) {
  SqlProcess old_pod, new_pod;
  Connection db = StartedWith(old_pod, 0);
  fs::create_directory(Path("pod"));
  Connection next = OpenLoaded(new_pod, Path("pod/a.db"));
  next.Send("SELECT replication_start(?, ?)",
            {Url(), std::string(R"({"restore":"if_missing","takeover_after_ms":3600000})")});
  for (int i = 0; i < 5; ++i) db.Ok("INSERT INTO t(b) VALUES ('old'); SELECT replication_sync()");
  db.Ok("INSERT INTO t(b) VALUES ('last')");
  EXPECT_EQ(db.Close(), SQLITE_OK);
  const Answer started = next.Receive();
  ASSERT_TRUE(started.ok()) << started.message;
  EXPECT_EQ(next.Text("SELECT count(*), max(b) FROM t"), "6|old");
  EXPECT_EQ(next.Text("SELECT b FROM t ORDER BY id DESC LIMIT 1"), "last");
  EXPECT_EQ(next.Number("SELECT epoch FROM replication_status"), 2);
  next.Ok("INSERT INTO t(b) VALUES ('new')");
  ExpectInStore(next, Url());
}

TEST_F(ReplicationTest, ASecondProcessThatLoadsWritesAlongAndTakesOverLater) {
  SqlProcess second;
  Connection other;
  {
    SqlProcess first;
    Connection db = StartedWith(first, 1);
    other = OpenLoaded(second, Path("a.db"));
    other.Ok("INSERT INTO t(b) VALUES ('from the second')");
    EXPECT_THAT(other.Run("SELECT replication_sync()"), Fails("OWNED", SQLITE_READONLY));
    db.Ok("INSERT INTO t(b) VALUES ('from the first')");
    ExpectInStore(db, Url());
    first.Kill();
  }
  other.Ok("INSERT INTO t(b) VALUES ('alone')");
  EXPECT_EQ(other.Close(), SQLITE_OK);
  Connection again = second.Open(Path("a.db"));
  again.Ok("INSERT INTO t(b) VALUES ('again')");
  ExpectInStore(again, Url());
}

}  // namespace
}  // namespace guildlite::testing
