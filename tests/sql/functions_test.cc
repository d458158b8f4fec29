// Which functions there are, and how they are registered: on every connection of the process, with
// the flags that keep actions out of schemas and let pure functions into them.
#include "ext/functions.h"

#include <string>

#include "tests/sql/sql_process.h"

namespace guildlite::testing {
namespace {

class FunctionsTest : public SqlTest {
 protected:
  SqlProcess process_;
};

// name, arguments, SQLITE_DETERMINISTIC, SQLITE_DIRECTONLY, SQLITE_INNOCUOUS
constexpr char kRegistered[] =
    "SELECT name, narg, (flags & 0x800) <> 0, (flags & 0x80000) <> 0, (flags & 0x200000) <> 0"
    " FROM pragma_function_list WHERE NOT builtin AND name GLOB ? ORDER BY name, narg";

TEST_F(FunctionsTest, ActionsAreForDirectUseOnly) {
  Connection db = OpenLoaded(process_, ":memory:");
  EXPECT_EQ(db.Text(kRegistered, {std::string("replication_*")}),
            "replication_durable|0|0|1|0\n"
            "replication_error|0|0|1|0\n"
            "replication_position|0|0|1|0\n"
            "replication_start|0|0|1|0\n"
            "replication_start|1|0|1|0\n"
            "replication_start|2|0|1|0\n"
            "replication_stop|0|0|1|0\n"
            "replication_stop|1|0|1|0\n"
            "replication_sync|0|0|1|0\n"
            "replication_sync|1|0|1|0\n"
            "replication_wait|1|0|1|0\n"
            "replication_wait|2|0|1|0");
  EXPECT_EQ(db.Text(kRegistered, {std::string("snapshot_*")}),
            "snapshot_create|0|0|1|0\n"
            "snapshot_create|1|0|1|0\n"
            "snapshot_restore|1|0|1|0\n"
            "snapshot_restore|2|0|1|0\n"
            "snapshot_restore|3|0|1|0\n"
            "snapshot_restore|4|0|1|0\n"
            "snapshot_verify|0|0|1|0\n"
            "snapshot_verify|1|0|1|0\n"
            "snapshot_verify|2|0|1|0");
}

TEST_F(FunctionsTest, PureOnesAreInnocuousAndDeterministic) {
  Connection db = OpenLoaded(process_, ":memory:");
  EXPECT_EQ(db.Text(kRegistered, {std::string("guild_*")}), "guild_shard|2|1|0|1");
}

TEST_F(FunctionsTest, LaterConnectionsHaveThemWithoutALoad) {
  Connection before = process_.Open(":memory:");
  OpenLoaded(process_, ":memory:");
  Connection later = process_.Open(Path("a.db"));
  EXPECT_EQ(later.Number("SELECT guild_shard('4194304', 3)"), 1);
  EXPECT_FALSE(before.Run("SELECT guild_shard('4194304', 3)").ok());
  EXPECT_TRUE(before.Load().ok());
  EXPECT_EQ(before.Number("SELECT guild_shard('4194304', 3)"), 1);
}

}  // namespace
}  // namespace guildlite::testing
