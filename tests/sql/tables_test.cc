// The two tables as SQL uses tables: their columns, arguments by position, by WHERE and by join,
// and rows that are one moment's.
#include "ext/tables.h"

#include <string>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

using ::testing::HasSubstr;

class TablesTest : public SqlTest {
 protected:
  Connection Started() {
    Connection db = OpenStarted(process_, Path("a.db"), Url());
    db.Ok("CREATE TABLE t(a); SELECT replication_sync(); SELECT snapshot_create('one')");
    return db;
  }
  SqlProcess process_;
};

TEST_F(TablesTest, AreThereOnEveryConnectionOfTheProcess) {
  Connection db = Started();
  Connection other = process_.Open(":memory:");
  EXPECT_EQ(other.Text("SELECT database FROM replication_status"), Path("a.db"));
  EXPECT_EQ(other.Text("SELECT label FROM snapshot_list(?) WHERE label <> ''", {Url()}), "one");
  EXPECT_EQ(db.Text("SELECT name FROM pragma_module_list WHERE name IN"
                    " ('replication_owner', 'replication_status', 'snapshot_list')"
                    " ORDER BY name"),
            "replication_owner\nreplication_status\nsnapshot_list");
}

// Of any url, whoever replicates it: from the manifest, as it is now.
TEST_F(TablesTest, SayWhoOwnsALogAndSinceWhen) {
  Connection db = Started();
  Connection other = process_.Open(":memory:");
  const std::string owner = db.Text("SELECT owner FROM replication_status");
  EXPECT_THAT(owner, HasSubstr(" pid "));
  EXPECT_EQ(db.Text("SELECT owner_known FROM replication_status"), "own claim");
  EXPECT_EQ(db.Text("SELECT owner, since, released, epoch FROM replication_owner"),
            db.Text("SELECT owner, owner_since, NULL, epoch FROM replication_status"));
  EXPECT_EQ(db.Text("SELECT strftime('%s', 'now') - strftime('%s', since) BETWEEN 0 AND 600"
                    " FROM replication_owner"),
            "1");
  EXPECT_EQ(other.Text("SELECT owner FROM replication_owner(?)", {Url()}), owner);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_EQ(other.Text("SELECT released >= since FROM replication_owner(?)", {Url()}), "1");
  EXPECT_THAT(other.Run("SELECT * FROM replication_owner(?)", {Url() + "-none"}),
              Fails("NO_BACKUP", SQLITE_NOTFOUND));
}

TEST_F(TablesTest, SnapshotListTakesItsUrlAsSqlGivesArguments) {
  Connection db = Started();
  const std::string rows = db.Text("SELECT position, label FROM snapshot_list");
  EXPECT_THAT(rows, HasSubstr("|one"));
  EXPECT_EQ(db.Text("SELECT position, label FROM snapshot_list(?)", {Url()}), rows);
  EXPECT_EQ(db.Text("SELECT position, label FROM snapshot_list(NULL)"), rows);
  EXPECT_EQ(db.Text("SELECT position, label FROM snapshot_list WHERE url = ?", {Url()}), rows);
  EXPECT_EQ(db.Text("SELECT s.position, s.label FROM replication_status r, snapshot_list s"
                    " WHERE s.url = r.url"),
            rows);
  EXPECT_EQ(db.Text("SELECT s.position, s.label FROM replication_status r, snapshot_list(r.url) s"),
            rows);
  EXPECT_EQ(db.Text("SELECT DISTINCT url FROM snapshot_list(?)", {Url()}), Url());
}

// A condition on the argument that is no equality is answered by SQLite over this database's rows.
TEST_F(TablesTest, OtherConditionsOnTheUrlAreConditions) {
  Connection db = Started();
  const std::string all = db.Text("SELECT count(*) FROM snapshot_list");
  EXPECT_EQ(db.Text("SELECT count(*) FROM snapshot_list WHERE url LIKE 'file:%'"), all);
  EXPECT_EQ(db.Text("SELECT count(*) FROM snapshot_list WHERE url > 'file:'"), all);
  EXPECT_EQ(db.Text("SELECT count(*) FROM snapshot_list WHERE url < 'file:'"), "0");
}

TEST_F(TablesTest, ColumnsCanBeFilteredOrderedAndAggregated) {
  Connection db = Started();
  db.Ok("INSERT INTO t VALUES (1); SELECT replication_sync(); SELECT snapshot_create('two')");
  EXPECT_EQ(db.Text("SELECT label FROM snapshot_list WHERE label <> '' ORDER BY txid DESC"),
            "two\none");
  EXPECT_EQ(db.Text("SELECT count(*) FROM snapshot_list WHERE txid > 10"), "0");
  EXPECT_EQ(db.Text("SELECT max(txid) = (SELECT txid FROM replication_status)"
                    " FROM snapshot_list"),
            "1");
  EXPECT_EQ(db.Text("SELECT rowid FROM snapshot_list LIMIT 2"), "1\n2");
}

TEST_F(TablesTest, AScanIsOneMomentsAndTheNextSeesWhatCameSince) {
  Connection db = Started();
  EXPECT_EQ(db.Text("SELECT count(DISTINCT r.txid) FROM replication_status r,"
                    " (VALUES (1), (2), (3))"),
            "1");
  const int64_t before = db.Number("SELECT txid FROM replication_status");
  db.Ok("INSERT INTO t VALUES (1)");
  EXPECT_EQ(db.Number("SELECT txid FROM replication_status"), before + 1);
}

TEST_F(TablesTest, AnErrorOfAScanLeavesTheNextOneWhole) {
  Connection db = Started();
  const std::string rows = db.Text("SELECT * FROM snapshot_list");
  EXPECT_THAT(db.Run("SELECT * FROM snapshot_list('nonsense')"), Fails("BAD_URL", SQLITE_ERROR));
  EXPECT_THAT(db.Run("SELECT * FROM snapshot_list(?)", {Url("empty")}),
              Fails("NO_BACKUP", SQLITE_NOTFOUND));
  EXPECT_EQ(db.Text("SELECT * FROM snapshot_list"), rows);
}

}  // namespace
}  // namespace guildlite::testing
