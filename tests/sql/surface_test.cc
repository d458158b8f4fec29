// Every function and table as SQL sees them: results and their types, NULL and missing arguments,
// numbers as JavaScript binds them, and the tag and code of each refusal.
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr char kPosition[] = "[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}";

class SurfaceTest : public SqlTest {
 protected:
  // A replicated database with one table and some rows.
  Connection Started() {
    Connection db = OpenStarted(process_, Path("a.db"), Url());
    db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3)");
    return db;
  }
  SqlProcess process_;
};

TEST_F(SurfaceTest, VersionNamesEveryPartThatMatters) {
  Connection db = OpenLoaded(process_, ":memory:");
  const std::string version = db.Text("SELECT guildlite_version()");
  EXPECT_THAT(version, MatchesRegex("guildlite [0-9.]+, format 1, SQLite 3\\.[0-9.]+.*, "
                                    "OpenSSL 3\\.[0-9.]+, curl 8\\.[0-9.]+, zstd [0-9.]+"));
  EXPECT_THAT(version, HasSubstr(sqlite3_libversion()));
}

TEST_F(SurfaceTest, StartReturnsAPositionAndSwitchesToWal) {
  Connection db = OpenLoaded(process_, Path("a.db"));
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete");
  EXPECT_THAT(db.Text("SELECT replication_start(?)", {Url()}), MatchesRegex(kPosition));
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "wal");
}

TEST_F(SurfaceTest, StartAgainWithTheSameUrlIsHarmless) {
  Connection db = Started();
  const std::string position = db.Text("SELECT replication_sync()");
  EXPECT_EQ(db.Text("SELECT replication_start(?)", {Url()}), position);
  EXPECT_EQ(db.Text("SELECT replication_start()"), position);
  EXPECT_EQ(db.Text("SELECT replication_start(NULL, NULL)"), position);
}

TEST_F(SurfaceTest, StartWithAnotherUrlSaysToStopFirst) {
  Connection db = Started();
  const Answer answer = db.Run("SELECT replication_start(?)", {Url("elsewhere")});
  EXPECT_THAT(answer, Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_THAT(answer.message, HasSubstr("replication_stop()"));
  ExpectInStore(db, Url());
}

TEST_F(SurfaceTest, StartWithoutUrlNeedsOneThatIsRemembered) {
  Connection db = OpenLoaded(process_, Path("a.db"));
  EXPECT_THAT(db.Run("SELECT replication_start()"), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_THAT(db.Run("SELECT replication_start(NULL)"), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete") << "a refused start changes nothing";
}

TEST_F(SurfaceTest, StartTakesOptionsAndRefusesToSwitchToWalWhenToldSo) {
  Connection db = OpenLoaded(process_, Path("a.db"));
  EXPECT_THAT(db.Run("SELECT replication_start(?, '{\"wal\":false}')", {Url()}),
              Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete");
  db.Ok("SELECT replication_start(?, '{\"sync_interval_ms\":250.0, \"wal\":true}')", {Url()});
}

TEST_F(SurfaceTest, WithoutReplicationEachCallSaysHowToBegin) {
  Connection db = OpenLoaded(process_, Path("a.db"));
  for (const char* call :
       {"replication_stop()", "replication_sync()", "replication_position()",
        "replication_durable()", "snapshot_create()",
        "replication_wait('0123456789abcdef-00000001-0000000000000001-00000000')"}) {
    const Answer answer = db.Run("SELECT " + std::string(call));
    EXPECT_THAT(answer, Fails("NOT_REPLICATED", SQLITE_ERROR)) << call;
    EXPECT_THAT(answer.message, HasSubstr("replication_start(url)")) << call;
  }
  EXPECT_EQ(db.Run("SELECT replication_error()").rows[0][0], Value());
  EXPECT_EQ(db.Text("SELECT count(*) FROM replication_status"), "0");
  EXPECT_THAT(db.Run("SELECT * FROM snapshot_list"), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_THAT(db.Run("SELECT snapshot_verify()"), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_THAT(db.Run("SELECT snapshot_restore(?)", {Path("b.db")}),
              Fails("BAD_ARGUMENT", SQLITE_ERROR));
}

TEST_F(SurfaceTest, SyncMakesThePositionDurable) {
  Connection db = Started();
  const std::string position = db.Text("SELECT replication_position()");
  EXPECT_THAT(position, MatchesRegex(kPosition));
  EXPECT_EQ(db.Text("SELECT replication_sync()"), position);
  EXPECT_EQ(db.Text("SELECT replication_durable()"), position);
  EXPECT_EQ(db.Text("SELECT replication_sync(NULL)"), position);
  EXPECT_EQ(db.Text("SELECT replication_sync(30000.0)"), position);
  EXPECT_EQ(db.Text("SELECT replication_wait(?)", {position}), "1");
  EXPECT_EQ(db.Text("SELECT replication_wait(?, NULL)", {position}), "1");
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 0)", {position}), "1");
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 5.0)", {position}), "1");
}

TEST_F(SurfaceTest, PositionCountsEachCommitOnceAndStandsStillForReads) {
  Connection db = Started();
  const auto txid = [&] { return db.Number("SELECT txid FROM replication_status"); };
  const int64_t before = txid();
  db.Ok("INSERT INTO t VALUES (4)");
  EXPECT_EQ(txid(), before + 1);
  db.Ok("BEGIN; INSERT INTO t VALUES (5); INSERT INTO t VALUES (6); COMMIT");
  EXPECT_EQ(txid(), before + 2);
  db.Ok("BEGIN; INSERT INTO t VALUES (7); ROLLBACK");
  db.Ok("SELECT * FROM t");
  EXPECT_EQ(txid(), before + 2);
}

TEST_F(SurfaceTest, PositionInsideATransactionIsTheLastCommittedOne) {
  Connection db = Started();
  const std::string before = db.Text("SELECT replication_position()");
  db.Ok("BEGIN; INSERT INTO t VALUES (4)");
  EXPECT_EQ(db.Text("SELECT replication_position()"), before);
  db.Ok("COMMIT");
  EXPECT_NE(db.Text("SELECT replication_position()"), before);
}

TEST_F(SurfaceTest, ActionsInsideATransactionAreMisuse) {
  Connection db = Started();
  const Value position = db.Text("SELECT replication_sync()");
  db.Ok("BEGIN");
  for (const std::string& call :
       {"replication_start('" + Url() + "')", std::string("replication_stop()"),
        std::string("replication_sync()"), std::string("snapshot_create()"),
        "snapshot_restore('" + Path("b.db") + "')", std::string("snapshot_verify()")}) {
    EXPECT_THAT(db.Run("SELECT " + call), Fails("IN_TRANSACTION", SQLITE_MISUSE)) << call;
  }
  // Reports are no actions.
  for (const char* call : {"SELECT replication_position()", "SELECT replication_durable()",
                           "SELECT replication_error()", "SELECT * FROM replication_status",
                           "SELECT * FROM snapshot_list"}) {
    db.Ok(call);
  }
  db.Ok("COMMIT");
  EXPECT_FALSE(std::filesystem::exists(Path("b.db")));
  EXPECT_EQ(db.Text("SELECT replication_durable()"), std::get<std::string>(position));
}

TEST_F(SurfaceTest, TimeoutsAreWholeNumbersInRange) {
  Connection db = Started();
  const Value position = db.Text("SELECT replication_sync()");
  const std::vector<Value> bad = {
      int64_t{-1}, 0.5,   std::string("5"), std::string("soon"),
      Blob{"5"},   1e300, int64_t{1} << 60, std::numeric_limits<double>::infinity()};
  for (const Value& value : bad) {
    EXPECT_THAT(db.Run("SELECT replication_sync(?)", {value}), Fails("BAD_ARGUMENT", SQLITE_ERROR));
    EXPECT_THAT(db.Run("SELECT replication_stop(?)", {value}), Fails("BAD_ARGUMENT", SQLITE_ERROR));
    EXPECT_THAT(db.Run("SELECT replication_wait(?, ?)", {position, value}),
                Fails("BAD_ARGUMENT", SQLITE_ERROR));
  }
  EXPECT_EQ(db.Text("SELECT state FROM replication_status"), "replicating");
}

TEST_F(SurfaceTest, SyncZeroAsksWithoutWaiting) {
  Connection db = Started();
  EXPECT_TRUE(db.Run("SELECT replication_sync(0)").ok());
  EXPECT_TRUE(db.Run("SELECT replication_sync(0.0)").ok());
}

TEST_F(SurfaceTest, WaitRefusesWhatIsNoPosition) {
  Connection db = Started();
  for (const Value& value :
       std::vector<Value>{Value(), std::string(), std::string("42"), int64_t{42}, 4.0, Blob{"x"},
                          std::string("0-0-0-0"), std::string("a\0b", 3)}) {
    EXPECT_THAT(db.Run("SELECT replication_wait(?, 0)", {value}),
                Fails("BAD_ARGUMENT", SQLITE_ERROR));
  }
}

TEST_F(SurfaceTest, WaitForAPositionOfAnotherHistoryIsLost) {
  Connection db = Started();
  const std::string position = db.Text("SELECT replication_sync()");
  std::string other_lineage = position;
  other_lineage[0] = position[0] == 'f' ? '0' : 'f';
  std::string other_content = position;
  other_content.back() = position.back() == 'f' ? '0' : 'f';
  std::string later_epoch = position;
  later_epoch[23] = 'f';
  std::string later_txid = position;
  later_txid[30] = 'f';
  for (const std::string& p : {other_lineage, other_content, later_epoch, later_txid}) {
    EXPECT_THAT(db.Run("SELECT replication_wait(?, 0)", {p}),
                Fails("POSITION_LOST", SQLITE_NOTFOUND))
        << p;
  }
  EXPECT_EQ(db.Text("SELECT replication_wait(?, 0)", {position}), "1");
}

TEST_F(SurfaceTest, StopShipsTheRestAndForgetsTheUrl) {
  Connection db = Started();
  const std::string content = db.Content();
  EXPECT_THAT(db.Text("SELECT replication_stop()"), MatchesRegex(kPosition));
  EXPECT_THAT(db.Run("SELECT replication_sync()"), Fails("NOT_REPLICATED", SQLITE_ERROR));
  EXPECT_EQ(db.Text("SELECT count(*) FROM replication_status"), "0");
  EXPECT_THAT(db.Run("SELECT replication_start()"), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_EQ(Difference(content, Restored(Url())), "");
  db.Ok("INSERT INTO t VALUES (4)");
}

TEST_F(SurfaceTest, SnapshotsAreListedWithTheirLabels) {
  Connection db = Started();
  db.Ok("SELECT replication_sync()");
  const std::string position = db.Text("SELECT snapshot_create('before the raid')");
  EXPECT_THAT(position, MatchesRegex(kPosition));
  EXPECT_EQ(db.Text("SELECT position FROM snapshot_list WHERE label = 'before the raid'"),
            position);
  EXPECT_EQ(db.Text("SELECT typeof(position), typeof(txid), typeof(time), typeof(label),"
                    " typeof(bytes), typeof(database_bytes) FROM snapshot_list"
                    " WHERE label IS NOT NULL"),
            "text|integer|text|text|integer|integer");
  EXPECT_EQ(db.Number("SELECT database_bytes FROM snapshot_list WHERE label IS NOT NULL"),
            db.Number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"));
  EXPECT_EQ(db.Text("SELECT datetime(time) IS NOT NULL, bytes > 0 FROM snapshot_list"
                    " WHERE label IS NOT NULL"),
            "1|1");
  // From elsewhere, by url; joined as well.
  EXPECT_EQ(Reader().Text("SELECT label FROM snapshot_list(?) WHERE label IS NOT NULL", {Url()}),
            "before the raid");
  EXPECT_EQ(Reader().Text("SELECT s.label FROM (SELECT ? AS u) JOIN snapshot_list s ON s.url = u"
                          " WHERE s.label IS NOT NULL",
                          {Url()}),
            "before the raid");
}

TEST_F(SurfaceTest, SnapshotCreateTakesNullForNoLabelAndRefusesALongOne) {
  Connection db = Started();
  db.Ok("SELECT replication_sync()");
  const int64_t before = db.Number("SELECT count(*) FROM snapshot_list");
  db.Ok("INSERT INTO t VALUES (4)");
  EXPECT_THAT(db.Text("SELECT snapshot_create(NULL)"), MatchesRegex(kPosition));
  EXPECT_EQ(db.Number("SELECT count(*) FROM snapshot_list"), before + 1);
  EXPECT_THAT(db.Run("SELECT snapshot_create(?)", {std::string(256, 'x')}),
              Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_THAT(db.Run("SELECT snapshot_create(?)", {Blob{"x"}}),
              Fails("BAD_ARGUMENT", SQLITE_ERROR));
  EXPECT_EQ(db.Number("SELECT count(*) FROM snapshot_list"), before + 1);
}

TEST_F(SurfaceTest, RestoreReturnsThePositionItRestored) {
  Connection db = Started();
  const std::string position = db.Text("SELECT replication_position()");
  // Flushes first: this process replicates that url.
  EXPECT_EQ(db.Text("SELECT snapshot_restore(?)", {Path("b.db")}), position);
  EXPECT_EQ(Difference(db.Content(), FileBytes(Path("b.db"))), "");
  EXPECT_EQ(db.Text("SELECT snapshot_restore(?, NULL, NULL, NULL)", {Path("c.db")}), position);
  EXPECT_EQ(Shell(Path("c.db"), "PRAGMA integrity_check").output, "ok");
}

TEST_F(SurfaceTest, RestoreTakesAtAsIntegerRealTextPositionAndLabel) {
  Connection db = Started();
  const int64_t txid = db.Number("SELECT txid FROM replication_status");
  const std::string position = db.Text("SELECT snapshot_create('here')");
  const std::string content = db.Content();
  db.Ok("INSERT INTO t VALUES (4)");
  db.Ok("SELECT replication_sync()");
  for (const Value& at : std::vector<Value>{txid, static_cast<double>(txid), std::to_string(txid),
                                            position, std::string("label:here")}) {
    EXPECT_EQ(Difference(content, Restored(Url(), at)), "");
    EXPECT_EQ(Reader().Text("SELECT snapshot_verify(?, ?)", {Url(), at}), position);
  }
}

TEST_F(SurfaceTest, AtThatIsNoMomentIsRefusedAndOneOutsideIsNamed) {
  Connection db = Started();
  db.Ok("SELECT replication_sync()");
  for (const Value& at : std::vector<Value>{std::string("yesterday"), 1.5, Blob{"1"},
                                            std::string("2026-13-01"), int64_t{-1}, -1.0}) {
    EXPECT_THAT(RestoreTo(Path("b.db"), Url(), at), Fails("BAD_ARGUMENT", SQLITE_ERROR));
    EXPECT_THAT(Reader().Run("SELECT snapshot_verify(?, ?)", {Url(), at}),
                Fails("BAD_ARGUMENT", SQLITE_ERROR));
  }
  for (const Value& at : std::vector<Value>{int64_t{1} << 40, std::string("2001-01-01"),
                                            std::string("label:nowhere")}) {
    EXPECT_THAT(RestoreTo(Path("b.db"), Url(), at), Fails("NO_SUCH_POINT", SQLITE_NOTFOUND));
    EXPECT_THAT(Reader().Run("SELECT snapshot_verify(?, ?)", {Url(), at}),
                Fails("NO_SUCH_POINT", SQLITE_NOTFOUND));
  }
  EXPECT_FALSE(std::filesystem::exists(Path("b.db")));
}

TEST_F(SurfaceTest, RestoreOptionsSayWhatToDoWithWhatIsThereOrIsNot) {
  Connection db = Started();
  db.Ok("SELECT replication_sync()");
  WriteFileBytes(Path("there.db"), "mine");
  EXPECT_EQ(db.Run("SELECT snapshot_restore(?, NULL, NULL, '{\"if_exists\":\"skip\"}')",
                   {Path("there.db")})
                .rows[0][0],
            Value());
  EXPECT_EQ(FileBytes(Path("there.db")), "mine");
  EXPECT_THAT(db.Run("SELECT snapshot_restore(?, NULL, NULL, '{\"if_exists\":\"error\"}')",
                     {Path("there.db")}),
              Fails("EXISTS", SQLITE_CANTOPEN));
  EXPECT_EQ(db.Run("SELECT snapshot_restore(?, ?, NULL, '{\"if_missing\":\"skip\"}')",
                   {Path("b.db"), Url("empty")})
                .rows[0][0],
            Value());
  EXPECT_THAT(db.Run("SELECT snapshot_restore(?, ?)", {Path("b.db"), Url("empty")}),
              Fails("NO_BACKUP", SQLITE_NOTFOUND));
  EXPECT_FALSE(std::filesystem::exists(Path("b.db")));
  for (const char* check : {"checksum", "quick", "full"}) {
    db.Ok("SELECT snapshot_restore(?, NULL, NULL, ?)",
          {Path(check), "{\"check\":\"" + std::string(check) + "\"}"});
    EXPECT_EQ(Difference(db.Content(), FileBytes(Path(check))), "");
  }
  for (const char* options : {"[]", "nonsense", "{\"check\":\"none\"}", "{\"check\":1}",
                              "{\"if_exists\":\"overwrite\"}", "{\"unknown\":true}", "\"\"", "1"}) {
    EXPECT_THAT(
        db.Run("SELECT snapshot_restore(?, NULL, NULL, ?)", {Path("b.db"), std::string(options)}),
        Fails("BAD_ARGUMENT", SQLITE_ERROR))
        << options;
  }
  EXPECT_FALSE(std::filesystem::exists(Path("b.db")));
}

TEST_F(SurfaceTest, RestoreOfAPathWithQuestionMarksPercentsAndSpacesIsChecked) {
  Connection db = Started();
  const std::string odd = Path("100% a?b#c \xC3\xBC.db");
  db.Ok("SELECT snapshot_restore(?, NULL, NULL, '{\"check\":\"full\"}')", {odd});
  EXPECT_EQ(Difference(db.Content(), FileBytes(odd)), "");
}

TEST_F(SurfaceTest, RestoreNeedsAPath) {
  Connection db = Started();
  for (const Value& path :
       std::vector<Value>{Value(), std::string(), Blob{"b.db"}, std::string("a\0b", 3)}) {
    EXPECT_THAT(db.Run("SELECT snapshot_restore(?)", {path}), Fails("BAD_ARGUMENT", SQLITE_ERROR));
  }
}

TEST_F(SurfaceTest, VerifyProvesTheNewestPositionAndStatusRemembersIt) {
  Connection db = Started();
  EXPECT_EQ(db.Text("SELECT verified_position IS NULL, verified_time IS NULL"
                    " FROM replication_status"),
            "1|1");
  const std::string position = db.Text("SELECT snapshot_verify()");
  EXPECT_EQ(position, db.Text("SELECT replication_durable()"));
  EXPECT_EQ(db.Text("SELECT verified_position FROM replication_status"), position);
  EXPECT_EQ(db.Text("SELECT datetime(verified_time) IS NOT NULL FROM replication_status"), "1");
}

TEST_F(SurfaceTest, StatusHasOneRowADatabaseWithThisConnectionsFirst) {
  Connection a = Started();
  Connection b = process_.Open(Path("b.db"));
  b.Ok("SELECT replication_start(?)", {Url("store-b")});
  EXPECT_EQ(a.Text("SELECT url FROM replication_status"), Url() + "\n" + Url("store-b"));
  EXPECT_EQ(b.Text("SELECT url FROM replication_status"), Url("store-b") + "\n" + Url());
  a.Ok("SELECT replication_sync()");
  EXPECT_EQ(a.Text("SELECT database, role, durability, state, epoch, lag_ms, pending,"
                   " position = durable_position, txid = durable_txid, lists, deletes, heals"
                   " FROM replication_status LIMIT 1"),
            Path("a.db") + "|primary|async|replicating|1|0|0|1|1|0|0|0");
  EXPECT_EQ(a.Text("SELECT last_error IS NULL, last_error_time IS NULL, puts > 0,"
                   " bytes_sent > 0, snapshots > 0, wal_bytes > 0, pages > 0"
                   " FROM replication_status LIMIT 1"),
            "1|1|1|1|1|1|1");
}

TEST_F(SurfaceTest, NoNumberInStatusLosesBitsInJavaScript) {
  Connection db = Started();
  db.Ok("SELECT replication_sync()");
  const Answer status = db.Run("SELECT * FROM replication_status");
  ASSERT_EQ(status.rows.size(), 1u);
  for (const Value& value : status.rows[0]) {
    EXPECT_FALSE(std::holds_alternative<double>(value));
    if (const auto* number = std::get_if<int64_t>(&value)) {
      EXPECT_GE(*number, 0);
      EXPECT_LE(*number, int64_t{1} << 53);
    }
  }
}

TEST_F(SurfaceTest, BytesSentIsWhatTheStoreHas) {
  Connection db = Started();
  db.Ok("SELECT replication_sync()");
  EXPECT_GE(db.Number("SELECT bytes_sent FROM replication_status"),
            static_cast<int64_t>(BytesBelow(Path("store"))));
}

// Whoever can put a view or a trigger into a database file must not be able to act through it.
TEST_F(SurfaceTest, ActionsAndReportsAreNotReachableFromTheSchema) {
  Connection db = Started();
  const std::vector<std::string> calls = {"replication_start('file:///tmp/x')",
                                          "replication_stop()",
                                          "replication_sync()",
                                          "replication_wait('x')",
                                          "replication_position()",
                                          "replication_durable()",
                                          "replication_error()",
                                          "snapshot_create()",
                                          "snapshot_restore('/tmp/x')",
                                          "snapshot_verify()",
                                          "guildlite_version()"};
  for (const std::string& call : calls) {
    db.Ok("CREATE TEMP VIEW temp.v AS SELECT 1; DROP VIEW v");
    const Answer made = db.Run("CREATE VIEW v AS SELECT " + call + " AS x");
    const Answer used = made.ok() ? db.Run("SELECT * FROM v") : made;
    EXPECT_EQ(used.code, SQLITE_ERROR) << call;
    EXPECT_THAT(used.message, HasSubstr("unsafe use of")) << call;
    db.Ok("DROP VIEW IF EXISTS v");
    const Answer trigger =
        db.Run("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT " + call + "; END");
    const Answer fired = trigger.ok() ? db.Run("INSERT INTO t VALUES (99)") : trigger;
    EXPECT_EQ(fired.code, SQLITE_ERROR) << call;
    db.Ok("DROP TRIGGER IF EXISTS r");
  }
  for (const char* table : {"replication_owner", "replication_status", "snapshot_list"}) {
    db.Ok("CREATE VIEW v AS SELECT * FROM " + std::string(table));
    EXPECT_FALSE(db.Run("SELECT * FROM v").ok()) << table;
    db.Ok("DROP VIEW v");
  }
  EXPECT_EQ(db.Text("SELECT count(*) FROM t WHERE a = 99"), "0");
}

TEST_F(SurfaceTest, TablesAreReadOnlyAndNeedNoCreate) {
  Connection db = Started();
  EXPECT_FALSE(db.Run("DELETE FROM replication_status").ok());
  EXPECT_FALSE(db.Run("INSERT INTO snapshot_list(label) VALUES ('x')").ok());
  EXPECT_FALSE(db.Run("CREATE VIRTUAL TABLE s USING replication_status").ok());
}

TEST_F(SurfaceTest, AWrongNumberOfArgumentsIsSaidBySqlite) {
  Connection db = OpenLoaded(process_, ":memory:");
  for (const char* call :
       {"guildlite_version(1)", "replication_start(1,2,3)", "replication_stop(1,2)",
        "replication_sync(1,2)", "replication_wait()", "replication_wait(1,2,3)",
        "replication_position(1)", "replication_durable(1)", "replication_error(1)",
        "snapshot_create(1,2)", "snapshot_restore()", "snapshot_restore(1,2,3,4,5)",
        "snapshot_verify(1,2,3)", "guild_shard()", "guild_shard(1)"}) {
    EXPECT_THAT(db.Run("SELECT " + std::string(call)).message,
                HasSubstr("wrong number of arguments"))
        << call;
  }
}

TEST_F(SurfaceTest, SecretsInAUrlAreRefusedAndNotRepeated) {
  Connection db = OpenLoaded(process_, Path("a.db"));
  const Answer answer = db.Run("SELECT replication_start('s3://key:hunter2@bucket/prefix')");
  EXPECT_THAT(answer, Fails("BAD_URL", SQLITE_ERROR));
  EXPECT_THAT(answer.message, ::testing::Not(HasSubstr("hunter2")));
  EXPECT_THAT(process_.Log(), ::testing::Not(HasSubstr("hunter2")));
}

// -- guild_shard
// -----------------------------------------------------------------------------------

class GuildShardTest : public SqlTest {
 protected:
  GuildShardTest() : db_(OpenLoaded(process_, ":memory:")) {}
  SqlProcess process_;
  Connection db_;
};

// Discord's documentation and its libraries, worked out by hand: (id >> 22) % shards.
TEST_F(GuildShardTest, AgreesWithDiscordForTextAndInteger) {
  struct Vector {
    int64_t id;
    int64_t shards;
    int64_t shard;
  };
  const Vector vectors[] = {
      {102860784329052160, 1, 0},   {102860784329052160, 2, 1},   {102860784329052160, 3, 2},
      {102860784329052160, 16, 13}, {102860784329052160, 64, 61}, {81384788765712384, 1, 0},
      {81384788765712384, 2, 0},    {81384788765712384, 3, 1},    {81384788765712384, 16, 2},
      {81384788765712384, 64, 2},   {197038439483310086, 1, 0},   {197038439483310086, 2, 0},
      {197038439483310086, 3, 2},   {197038439483310086, 16, 2},  {197038439483310086, 64, 2},
  };
  for (const Vector& v : vectors) {
    EXPECT_EQ(db_.Number("SELECT guild_shard(?, ?)", {v.id, v.shards}), v.shard) << v.id;
    EXPECT_EQ(db_.Number("SELECT guild_shard(?, ?)",
                         {std::to_string(v.id), static_cast<double>(v.shards)}),
              v.shard)
        << v.id;
  }
}

TEST_F(GuildShardTest, TakesIdsFromTwoToThe63AsText) {
  EXPECT_EQ(db_.Number("SELECT guild_shard('9223372036854775808', 64)"), (int64_t{1} << 41) % 64);
  // 2^64-1: all 42 bits set, 2^42-1 mod 1000 = 4398046511103 mod 1000.
  EXPECT_EQ(db_.Number("SELECT guild_shard('18446744073709551615', 1000)"), 103);
  EXPECT_EQ(db_.Number("SELECT guild_shard('9223372036854775807', 7)"),
            ((int64_t{1} << 41) - 1) % 7);
  EXPECT_EQ(db_.Number("SELECT guild_shard('1', 5)"), 0);
}

TEST_F(GuildShardTest, RefusesWhatIsNoId) {
  const std::vector<Value> bad = {
      102860784329052160.0,
      1.0,
      0.0,
      -1.5,
      int64_t{0},
      int64_t{-1},
      std::numeric_limits<int64_t>::min(),
      std::string(),
      std::string(" 1"),
      std::string("1 "),
      std::string("+1"),
      std::string("-1"),
      std::string("0"),
      std::string("1e5"),
      std::string("0x10"),
      std::string("1.0"),
      std::string("guild"),
      std::string("1\0", 2),
      std::string("18446744073709551616"),
      std::string("99999999999999999999"),
      std::string("100000000000000000000"),
      std::string("000000000000000000001"),
      Blob{"1"},
      Blob{""},
  };
  for (const Value& id : bad) {
    EXPECT_THAT(db_.Run("SELECT guild_shard(?, 2)", {id}), Fails("BAD_ID", SQLITE_MISMATCH))
        << db_.Text("SELECT quote(?)", {id});
  }
}

TEST_F(GuildShardTest, TellsJavaScriptWhatWentWrongWithANumber) {
  EXPECT_THAT(db_.Run("SELECT guild_shard(?, 2)", {102860784329052160.0}).message,
              HasSubstr("JavaScript"));
}

TEST_F(GuildShardTest, GivesNullForNull) {
  EXPECT_EQ(db_.Run("SELECT guild_shard(NULL, 2)").rows[0][0], Value());
  EXPECT_EQ(db_.Run("SELECT guild_shard('1', NULL)").rows[0][0], Value());
}

TEST_F(GuildShardTest, RefusesANumberOfShardsThatIsNone) {
  for (const Value& shards : std::vector<Value>{int64_t{0}, int64_t{-1}, 0.5, std::string("2"),
                                                int64_t{1} << 40, Blob{"2"}}) {
    EXPECT_THAT(db_.Run("SELECT guild_shard('1', ?)", {shards}),
                Fails("BAD_ARGUMENT", SQLITE_ERROR));
  }
}

TEST_F(GuildShardTest, CanBeIndexedGeneratedCheckedAndUsedInViews) {
  db_.Ok(
      "CREATE TABLE g(id TEXT, s INT GENERATED ALWAYS AS (guild_shard(id, 16)) STORED,"
      " CHECK (guild_shard(id, 16) < 16));"
      "CREATE INDEX by_shard ON g(guild_shard(id, 16));"
      "CREATE VIEW v AS SELECT guild_shard(id, 3) AS s FROM g;"
      "CREATE TRIGGER r AFTER INSERT ON g BEGIN SELECT guild_shard(new.id, 2); END;"
      "INSERT INTO g(id) VALUES ('102860784329052160'), ('81384788765712384')");
  EXPECT_EQ(db_.Text("SELECT id FROM g WHERE guild_shard(id, 16) = 13"), "102860784329052160");
  EXPECT_THAT(db_.Text("EXPLAIN QUERY PLAN SELECT id FROM g WHERE guild_shard(id, 16) = 13"),
              HasSubstr("by_shard"));
  EXPECT_EQ(db_.Text("SELECT s FROM v ORDER BY s"), "1\n2");
  EXPECT_THAT(db_.Run("INSERT INTO g(id) VALUES ('no guild')"), Fails("BAD_ID", SQLITE_MISMATCH));
}

}  // namespace
}  // namespace guildlite::testing
