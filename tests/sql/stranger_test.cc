// Other programs with a stock SQLite may do with a replicated database what they like, while it is
// loaded and while it is not: nothing breaks, and after a sync by the owner what comes back from
// the store is what the database holds, page by page, for the price of the pages that changed.
#include <signal.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

constexpr int64_t kRows = 8000;            // of a kilobyte
constexpr uint64_t kFewPages = 1'000'000;  // bytes: an eighth of the database

class StrangerTest : public SqlTest {
 protected:
  // A database that does not compress, all of it in the store.
  Connection StartedWith(SqlProcess& process, int64_t rows = kRows) {
    Connection db = OpenStarted(process, Path("a.db"), Url());
    db.Ok(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b); WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL"
        " SELECT i + 1 FROM n WHERE i < " +
        std::to_string(rows) + ") INSERT INTO t(b) SELECT randomblob(1000) FROM n");
    ExpectInStore(db, Url());
    shipped_ = BytesBelow(Path("store"));
    return db;
  }
  std::string Stranger(const std::string& sql) {
    const ShellAnswer answer = Shell(Path("a.db"), sql);
    EXPECT_EQ(answer.status, 0) << sql << ": " << answer.output;
    return answer.output;
  }
  // Bytes that came into the store since the last call.
  uint64_t Shipped() {
    const uint64_t before = shipped_;
    shipped_ = BytesBelow(Path("store"));
    return shipped_ - before;
  }
  static int64_t Heals(Connection& db) { return db.Number("SELECT heals FROM replication_status"); }

 private:
  uint64_t shipped_ = 0;
};

// What the process does not see happen while it is stopped.
class Asleep {
 public:
  explicit Asleep(const SqlProcess& process) : pid_(process.pid()) {
    EXPECT_EQ(::kill(pid_, SIGSTOP), 0);
    EXPECT_EQ(::waitpid(pid_, nullptr, WUNTRACED), pid_);
  }
  Asleep(const Asleep&) = delete;
  ~Asleep() { ::kill(pid_, SIGCONT); }

 private:
  const pid_t pid_;
};

// -- While it is loaded --------------------------------------------------------------------------

TEST_F(StrangerTest, ReadsWhatTheOwnerCommitted) {
  SqlProcess process;
  Connection db = StartedWith(process, 100);
  EXPECT_EQ(Stranger("SELECT count(*) FROM t"), "100");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  EXPECT_EQ(Stranger("SELECT count(*) FROM t"), "101");
  EXPECT_EQ(Stranger("PRAGMA integrity_check"), "ok");
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 0);
}

TEST_F(StrangerTest, WritesAreCapturedAsTheOwnersAre) {
  SqlProcess process;
  Connection db = StartedWith(process);
  for (int i = 0; i < 10; ++i) {
    Stranger("INSERT INTO t(b) VALUES ('stranger')");
    db.Ok("INSERT INTO t(b) VALUES ('owner')");
  }
  ExpectInStore(db, Url());
  Stranger("INSERT INTO t(b) VALUES ('the last one is the stranger''s')");
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 0);
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_F(StrangerTest, EachOfItsTransactionsIsARestorePoint) {
  SqlProcess process;
  Connection db = StartedWith(process, 100);
  std::vector<std::pair<int64_t, std::string>> history;
  for (int i = 0; i < 5; ++i) {
    Stranger("UPDATE t SET b = randomblob(900) WHERE id % 10 = " + std::to_string(i));
    const std::string position = db.Text("SELECT replication_position()");
    history.emplace_back(db.Number("SELECT txid FROM replication_status"), db.Content());
  }
  db.Ok("SELECT replication_sync()");
  for (const auto& [txid, content] : history) {
    EXPECT_EQ(Difference(content, Restored(Url(), txid)), "") << "txid " << txid;
  }
  EXPECT_EQ(Heals(db), 0);
}

class CheckpointTest : public StrangerTest, public ::testing::WithParamInterface<const char*> {
 protected:
  std::string Checkpoint() const {
    return "PRAGMA wal_checkpoint(" + std::string(GetParam()) + ")";
  }
};

TEST_P(CheckpointTest, AfterTheOwnerCapturedAllOfItLosesNothing) {
  SqlProcess process;
  Connection db = StartedWith(process);
  for (int i = 0; i < 5; ++i) {
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{i * 100 + 1}});
    db.Ok("SELECT replication_sync()");
    EXPECT_EQ(Stranger(Checkpoint()).substr(0, 1), "0");
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{i * 100 + 2}});
    ExpectInStore(db, Url());
  }
  // Of a WAL that was cut nothing is left to tell that we had seen all of it.
  EXPECT_EQ(Heals(db), std::string(GetParam()) == "TRUNCATE" ? 5 : 0);
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_P(CheckpointTest, BetweenWritesOfBothLosesNothing) {
  SqlProcess process;
  Connection db = StartedWith(process);
  for (int i = 0; i < 5; ++i) {
    const std::string n = std::to_string(i);
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = 100 + " + n);
    Stranger("UPDATE t SET b = randomblob(1000) WHERE id = 200 + " + n + ";" + Checkpoint() +
             ";UPDATE t SET b = randomblob(1000) WHERE id = 300 + " + n);
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = 400 + " + n);
    if (i % 2 == 0) ExpectInStore(db, Url());
  }
  ExpectInStore(db, Url());
  EXPECT_EQ(db.Text("SELECT snapshot_verify()"), db.Text("SELECT replication_position()"));
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_P(CheckpointTest, ThatNobodySawIsHealed) {
  SqlProcess process;
  Connection db = StartedWith(process);
  const std::string before = db.Content();
  const std::string position = db.Text("SELECT replication_position()");
  {
    const Asleep asleep(process);
    Stranger("UPDATE t SET b = randomblob(1000) WHERE id = 500;" + Checkpoint() +
             ";UPDATE t SET b = randomblob(1000) WHERE id = 600");
  }
  ExpectInStore(db, Url());
  EXPECT_LT(Shipped(), kFewPages);
  EXPECT_EQ(Heals(db), 1);
  EXPECT_EQ(Difference(before, Restored(Url(), position)), "") << "what was before stays there";
  db.Ok("INSERT INTO t(b) VALUES ('after')");
  ExpectInStore(db, Url());
}

TEST_P(CheckpointTest, WhileNothingIsLoadedLosesNothing) {
  {
    SqlProcess process;
    Connection db = StartedWith(process);
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = 4");
    process.Kill();
  }
  Stranger("UPDATE t SET b = randomblob(1000) WHERE id = 500;" + Checkpoint());
  Stranger("UPDATE t SET b = randomblob(1000) WHERE id = 600;" + Checkpoint());
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 1) << "the stranger was the last to close and removed the WAL";
  EXPECT_LT(Shipped(), kFewPages);
}

INSTANTIATE_TEST_SUITE_P(EveryMode, CheckpointTest,
                         ::testing::Values("PASSIVE", "FULL", "RESTART", "TRUNCATE"));

TEST_F(StrangerTest, VacuumWhileItIsLoadedIsReplicated) {
  SqlProcess process;
  Connection db = StartedWith(process);
  Stranger("DELETE FROM t WHERE id % 4 <> 0; VACUUM");
  ExpectInStore(db, Url());
  Stranger("VACUUM");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(db, Url());
}

TEST_F(StrangerTest, VacuumThatNobodySawIsHealed) {
  SqlProcess process;
  Connection db = StartedWith(process, 2000);
  {
    const Asleep asleep(process);
    Stranger("DELETE FROM t WHERE id % 4 <> 0; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
    Stranger("INSERT INTO t(b) VALUES (randomblob(100000)); PRAGMA wal_checkpoint(TRUNCATE)");
  }
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 1);
}

TEST_F(StrangerTest, WritesDuringAHealAreReplicated) {
  SqlProcess process;
  Connection db = StartedWith(process);
  for (int round = 0; round < 5; ++round) {
    {
      const Asleep asleep(process);
      Stranger("UPDATE t SET b = randomblob(1000) WHERE id % 100 = " + std::to_string(round) +
               "; PRAGMA wal_checkpoint(TRUNCATE)");
    }
    for (int i = 0; i < 20; ++i) {
      db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 400 = ?", {int64_t{i}});
      if (i % 5 == 0) Stranger("UPDATE t SET b = randomblob(10) WHERE id = " + std::to_string(i));
    }
    ExpectInStore(db, Url());
  }
  EXPECT_GE(Heals(db), 5);
}

TEST_F(StrangerTest, ALongReaderHoldsTheWalAndNothingElse) {
  SqlProcess process, stock;
  Connection db = StartedWith(process, 500);
  Connection reader = stock.Open(Path("a.db"));
  reader.Ok("BEGIN; SELECT count(*) FROM t");
  for (int i = 0; i < 50; ++i) {
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id % 50 = ?", {int64_t{i}});
  }
  db.Ok("PRAGMA wal_checkpoint");
  ExpectInStore(db, Url());
  EXPECT_EQ(reader.Text("SELECT count(*) FROM t"), "500");
  reader.Ok("COMMIT");
  db.Ok("INSERT INTO t(b) VALUES (1)");
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 0);
}

TEST_F(StrangerTest, WritersOfBothKindsAtTheSameTimeLoseNothing) {
  SqlProcess process, stock;
  Connection db = StartedWith(process, 500);
  Connection stranger = stock.Open(Path("a.db"));
  db.Ok("CREATE TABLE counted(who)");
  stranger.Ok("PRAGMA wal_autocheckpoint=20");
  db.Ok("PRAGMA wal_autocheckpoint=20");
  const auto many = [](const std::string& who) {
    std::string sql;
    for (int i = 0; i < 300; ++i) {
      sql += "UPDATE t SET b = randomblob(1000) WHERE id % 100 = " + std::to_string(i % 100) +
             "; INSERT INTO counted VALUES ('" + who + "');";
    }
    return sql;
  };
  for (int round = 0; round < 3; ++round) {
    stranger.Send(many("stranger"));
    db.Send(many("owner"));
    const Answer theirs = stranger.Receive();
    const Answer ours = db.Receive();
    EXPECT_TRUE(theirs.ok()) << theirs.Text();
    EXPECT_TRUE(ours.ok()) << ours.Text();
    ExpectInStore(db, Url());
  }
  EXPECT_EQ(db.Text("SELECT who, count(*) FROM counted GROUP BY who"), "owner|900\nstranger|900");
  EXPECT_EQ(Stranger("PRAGMA integrity_check"), "ok");
}

// -- While it is not loaded ----------------------------------------------------------------------

TEST_F(StrangerTest, WritesAfterAPlainExitAreHealed) {
  {
    SqlProcess process;
    EXPECT_EQ(StartedWith(process).Close(), SQLITE_OK);
  }
  Shipped();
  Stranger("UPDATE t SET b = 'stranger' WHERE id % 1000 = 0; INSERT INTO t(b) VALUES (1)");
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 1);
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_F(StrangerTest, ReadingAfterAPlainExitIsNothingToHeal) {
  {
    SqlProcess process;
    EXPECT_EQ(StartedWith(process, 500).Close(), SQLITE_OK);
  }
  EXPECT_EQ(Stranger("SELECT count(*) FROM t"), "500");
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 0);
}

// Nobody was there to remove the WAL: what the stranger adds to it is captured from it.
TEST_F(StrangerTest, WritesInTheWalOfAKilledOwnerAreCaptured) {
  SqlProcess stock;
  Connection stranger;
  {
    SqlProcess process;
    StartedWith(process, 100);  // too little for a checkpoint
    stranger = stock.Open(Path("a.db"));
    stranger.Ok("SELECT count(*) FROM t");
    process.Kill();
  }
  Shipped();
  stranger.Ok("UPDATE t SET b = 'stranger' WHERE id = 77");
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  stranger.Ok("UPDATE t SET b = 'stranger' WHERE id = 78");
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 0);
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_F(StrangerTest, VacuumWhileItIsNotLoadedIsHealed) {
  {
    SqlProcess process;
    EXPECT_EQ(StartedWith(process, 2000).Close(), SQLITE_OK);
  }
  Stranger("DELETE FROM t WHERE id % 3 = 0; VACUUM");
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  ExpectInStore(db, Url());
  EXPECT_EQ(Heals(db), 1);
}

TEST_F(StrangerTest, VacuumThatChangesNothingShipsLittle) {
  {
    SqlProcess process;
    Connection db = StartedWith(process);
    db.Ok("VACUUM; SELECT replication_sync()");
  }
  Shipped();
  Stranger("VACUUM");
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  ExpectInStore(db, Url());
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_F(StrangerTest, AnotherJournalModeWhileItIsNotLoadedIsHealedOnceItIsWalAgain) {
  {
    SqlProcess process;
    EXPECT_EQ(StartedWith(process).Close(), SQLITE_OK);
  }
  Shipped();
  Stranger("PRAGMA journal_mode=DELETE; UPDATE t SET b = 'stranger' WHERE id = 9");
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("NOT_REPLICATED", SQLITE_ERROR));
  db.Ok("UPDATE t SET b = 'owner' WHERE id = 10");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  ExpectInStore(db, Url());
  EXPECT_GE(Heals(db), 1);
  EXPECT_LT(Shipped(), kFewPages);
}

TEST_F(StrangerTest, AnOwnerKilledInTheMidstOfAHealHealsAtTheNextStart) {
  {
    SqlProcess process;
    EXPECT_EQ(StartedWith(process).Close(), SQLITE_OK);
  }
  Shipped();
  Stranger("UPDATE t SET b = randomblob(1000) WHERE id % 500 = 3");
  for (int round = 0; round < 4; ++round) {
    SqlProcess process;
    Connection db = OpenLoaded(process, Path("a.db"));
    db.Ok("UPDATE t SET b = randomblob(1000) WHERE id = ?", {int64_t{round + 1}});
    process.Kill();
  }
  SqlProcess process;
  Connection db = OpenLoaded(process, Path("a.db"));
  ExpectInStore(db, Url());
  EXPECT_LT(Shipped(), 2 * kFewPages);
}

// -- Anything ------------------------------------------------------------------------------------

// GUILDLITE_SEED=n repeats a run, as far as two processes ever do the same twice.
TEST_F(StrangerTest, WhateverBothDoInWhateverOrderNothingIsLost) {
  const char* given = std::getenv("GUILDLITE_SEED");
  const uint32_t seed =
      given ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
  std::cout << "GUILDLITE_SEED=" << seed << std::endl;
  std::mt19937 random(seed);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const auto anything = [&]() -> std::string {
    const std::string n = std::to_string(below(100));
    switch (below(12)) {
      case 0:
        return "PRAGMA wal_checkpoint(PASSIVE)";
      case 1:
        return "PRAGMA wal_checkpoint(FULL)";
      case 2:
        return "PRAGMA wal_checkpoint(RESTART)";
      case 3:
        return "PRAGMA wal_checkpoint(TRUNCATE)";
      case 4:
        return below(4) == 0 ? "VACUUM" : "SELECT count(*) FROM t";
      case 5:
        return "DELETE FROM t WHERE id % 100 = " + n;
      case 6:
        return "INSERT INTO t(b) SELECT randomblob(800) FROM t LIMIT " + n;
      case 7:
        return "BEGIN; UPDATE t SET b = 'x'; ROLLBACK";
      default:
        return "UPDATE t SET b = randomblob(1000) WHERE id % 100 = " + n;
    }
  };
  auto process = std::make_unique<SqlProcess>();
  Connection db = StartedWith(*process, 300);
  SqlProcess stock;
  Connection stranger = stock.Open(Path("a.db"));
  std::string script;
  for (int step = 0; step < 150 && !HasFailure(); ++step) {
    const uint32_t who = below(100);
    std::string sql = anything();
    // One statement with rows at most: an answer has one number of columns.
    if (below(3) == 0) sql = "UPDATE t SET b = randomblob(700) WHERE id % 7 = 3; " + sql;
    if (who < 35) {
      script += "owner: " + sql + "\n";
      db.Ok(sql);
    } else if (who < 65) {
      script += "stranger: " + sql + "\n";
      stranger.Ok(sql);
    } else if (who < 75) {
      script += "shell: " + sql + "\n";
      Stranger(sql);
    } else if (who < 82) {
      script += "both: " + sql + "\n";
      stranger.Send("UPDATE t SET b = randomblob(900) WHERE id % 5 = 1");
      db.Send("UPDATE t SET b = randomblob(900) WHERE id % 5 = 2; PRAGMA wal_checkpoint");
      EXPECT_TRUE(stranger.Receive().ok());
      EXPECT_TRUE(db.Receive().ok());
    } else if (who < 90) {
      script += "sync\n";
      ExpectInStore(db, Url());
    } else if (who < 94) {
      script += "stranger closes\n";
      EXPECT_EQ(stranger.Close(), SQLITE_OK);
      if (below(2) == 0) Stranger(sql);
      stranger = stock.Open(Path("a.db"));
    } else {
      script += "exit, stranger: " + sql + "\n";
      EXPECT_EQ(process->Exit(), 0);
      stranger.Ok(sql);
      process = std::make_unique<SqlProcess>();
      db = OpenLoaded(*process, Path("a.db"));
    }
  }
  ExpectInStore(db, Url());
  EXPECT_EQ(Stranger("PRAGMA integrity_check"), "ok");
  EXPECT_FALSE(HasFailure()) << script;
}

}  // namespace
}  // namespace guildlite::testing
