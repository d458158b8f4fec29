// What an open decides from the environment when the environment is wrong: it fails, the log has
// the reason, which an open cannot say, and no file is made; a database that needs no decision is
// left alone.
#include "vfs/shim/engine.h"

#include <filesystem>
#include <string>
#include <vector>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class EngineTest : public SqlTest {
 protected:
  // A process with the module loaded and this environment.
  SqlProcess::Environment Environment(const std::string& url) {
    return {{"GUILDLITE_URL", url}, {"GUILDLITE_MATCH", Path("*.db")}};
  }
};

TEST_F(EngineTest, AnOpenThatCannotBeReplicatedFailsAndMakesNoFile) {
  struct Case {
    std::string url;
    const char* tag;
  };
  for (const Case& c : std::vector<Case>{
           {"nonsense", "BAD_URL"},
           {"s3://bucket/prefix?zone=a", "BAD_URL"},
           {"file:///tmp/{nome}", "BAD_URL"},
           {Url("no/such/{name}"), "NO_BUCKET"},
       }) {
    SCOPED_TRACE(c.url);
    SqlProcess process(Environment(c.url));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("a.db"));
    EXPECT_EQ(db.open_code() & 0xff, SQLITE_CANTOPEN);
    EXPECT_THAT(process.Log(), HasSubstr(c.tag));
    EXPECT_THAT(NamesIn(Path("")), IsEmpty());
  }
}

TEST_F(EngineTest, AnOptionOfTheEnvironmentThatIsNoneFailsTheLoad) {
  SqlProcess::Environment environment = Environment(Url("{name}"));
  environment.emplace_back("GUILDLITE_SYNC_INTERVAL_MS", "soon");
  SqlProcess process(environment);
  Connection db = process.Open(":memory:");
  const Answer loaded = db.Load();
  EXPECT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.message, HasSubstr("BAD_ARGUMENT: GUILDLITE_SYNC_INTERVAL_MS"));
}

TEST_F(EngineTest, WhatDoesNotMatchIsNoneOfItsBusiness) {
  SqlProcess process(Environment("nonsense"));
  OpenLoaded(process, ":memory:");
  Connection db = process.Open(Path("a.sqlite"));
  ASSERT_EQ(db.open_code(), SQLITE_OK);
  db.Ok("CREATE TABLE t(a)");
  EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete");
  EXPECT_EQ(db.Text("SELECT count(*) FROM replication_status"), "0");
  EXPECT_EQ(NamesIn(Path("")), std::vector<std::string>{"a.sqlite"});
}

TEST_F(EngineTest, ADamagedBackupIsNoReasonToBeginAnew) {
  {
    SqlProcess process(Environment(Url("{name}")));
    OpenLoaded(process, ":memory:");
    Connection db = process.Open(Path("a.db"));
    db.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a); SELECT replication_sync()");
    EXPECT_EQ(db.Close(), SQLITE_OK);
  }
  fs::remove(Path("a.db"));
  fs::remove_all(Path("a.db-guildlite"));
  const std::string manifest = FileBytes(Path("a/manifest.json"));
  WriteFileBytes(Path("a/manifest.json"), manifest.substr(0, manifest.size() / 2));
  SqlProcess process(Environment(Url("{name}")));
  OpenLoaded(process, ":memory:");
  EXPECT_EQ(process.Open(Path("a.db")).open_code() & 0xff, SQLITE_CORRUPT);
  EXPECT_THAT(process.Log(), HasSubstr("manifest.json"));
  EXPECT_EQ(NamesIn(Path("")), std::vector<std::string>{"a"});
  WriteFileBytes(Path("a/manifest.json"), manifest);
  Connection db = process.Open(Path("a.db"));
  EXPECT_EQ(db.Text("SELECT count(*) FROM t"), "0") << "restored";
}

}  // namespace
}  // namespace guildlite::testing
