#include "guildlite/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

namespace guildlite {
namespace {

using ::testing::HasSubstr;

Environment FakeEnvironment(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const std::string& name) -> std::optional<std::string> {
    const auto it = values.find(name);
    if (it == values.end()) return std::nullopt;
    return it->second;
  };
}

TEST(Options, JsonOverridesOnlyWhatItNames) {
  Options base;
  base.open_wait_ms = 77;
  const auto options = ApplyOptionsJson(
      base,
      R"({"url":"file:///b","wal":false,"sync_interval_ms":250,"spool_limit_bytes":1048576})");
  ASSERT_TRUE(options.ok()) << options.status().ToString();
  EXPECT_EQ(options->url, "file:///b");
  EXPECT_FALSE(options->wal);
  EXPECT_EQ(options->sync_interval_ms, 250);
  EXPECT_EQ(options->spool_limit_bytes, 1048576u);
  EXPECT_EQ(options->open_wait_ms, 77);
  EXPECT_EQ(options->close_timeout_ms, 5000);
}

TEST(Options, NothingIsNoOptions) {
  for (const char* text : {"", "null", "{}", " {} "}) {
    const auto options = ApplyOptionsJson({}, text);
    ASSERT_TRUE(options.ok()) << text;
    EXPECT_EQ(*options, Options{});
  }
}

TEST(Options, AnIntegralRealIsAnInteger) {
  const auto options = ApplyOptionsJson({}, R"({"sync_interval_ms":500.0,"open_wait_ms":2e3})");
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->sync_interval_ms, 500);
  EXPECT_EQ(options->open_wait_ms, 2000);
}

TEST(Options, RefusesWhatItDoesNotUnderstandByName) {
  struct Case {
    const char* json;
    const char* says;
  };
  const Case cases[] = {
      {R"({"sync_intervall_ms":1})", "'sync_intervall_ms' is unknown; there are url, "},
      {R"({"sync_interval_ms":"1"})", "'sync_interval_ms' must be an integer from 0 to 3600000"},
      {R"({"sync_interval_ms":-1})", "not -1"},
      {R"({"sync_interval_ms":0.5})", "not 0.5"},
      {R"({"sync_interval_ms":1e300})", "must be an integer"},
      {R"({"sync_interval_ms":18446744073709551615})", "must be an integer"},
      {R"({"sync_interval_ms":99999999999999999999999})", "must be an integer"},
      {R"({"sync_interval_ms":true})", "not true"},
      {R"({"sync_interval_ms":null})", "not null"},
      {R"({"wal":1})", "'wal' must be true or false, not 1"},
      {R"({"wal":[true]})", "not an array"},
      {R"({"url":5})", "'url' must be a text"},
      {R"({"durability":"durable"})", "this version has only async"},
      {R"({"restore":"always"})", "one of 'if_missing' 'never'"},
      {R"({"spool_limit_bytes":1})", "from 65536"},
      {R"([1])", "not a JSON object"},
      {R"({"wal":true)", "not a JSON object"},
      {R"(sync=1)", "not a JSON object"},
      {"{\"url\":\"\xff\"}", "not a JSON object"},
  };
  for (const Case& c : cases) {
    const auto options = ApplyOptionsJson({}, c.json);
    ASSERT_FALSE(options.ok()) << c.json;
    EXPECT_EQ(options.status().tag(), Tag::kBadArgument) << c.json;
    EXPECT_THAT(options.status().message(), HasSubstr(c.says)) << c.json;
  }
}

TEST(Options, RefusesTextOfUnreasonableSize) {
  const std::string deep(200000, '[');
  EXPECT_EQ(ApplyOptionsJson({}, deep).status().tag(), Tag::kBadArgument);
  EXPECT_EQ(ApplyOptionsJson({}, deep.substr(0, 60000)).status().tag(), Tag::kBadArgument);
  const std::string nested = "{\"wal\":" + std::string(30000, '[') + std::string(30000, ']') + "}";
  EXPECT_EQ(ApplyOptionsJson({}, nested).status().tag(), Tag::kBadArgument);
}

TEST(Options, EveryOptionSurvivesTheSidecar) {
  Options options;
  options.url = "file:///backup/app";
  options.wal = false;
  options.sync_interval_ms = 1;
  options.spool_limit_bytes = 1 << 20;
  options.wal_limit_bytes = 2 << 20;
  options.open_wait_ms = 3;
  options.takeover_after_ms = 4;
  options.close_timeout_ms = 5;
  options.restore = "never";
  options.snapshot_min_bytes = 6;
  options.join_slots = 7;
  options.retention_ms = 8;
  options.delete_after_ms = 9;
  const auto read = ApplyPersistedOptions({}, PersistOptions(options));
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(*read, options);
  EXPECT_EQ(PersistOptions({}), "{}");
}

TEST(Options, TheSidecarOfANewerVersionStillOpens) {
  const auto read = ApplyPersistedOptions({}, R"({"open_wait_ms":3,"invented_later":[1]})");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->open_wait_ms, 3);
}

TEST(Options, EnvironmentSetsEveryRowByItsVariable) {
  const auto options = ApplyEnvironment({},
                                        FakeEnvironment({{"GUILDLITE_SYNC_INTERVAL_MS", "20"},
                                                         {"GUILDLITE_WAL", "false"},
                                                         {"GUILDLITE_RESTORE", "never"},
                                                         {"GUILDLITE_WAL_LIMIT_BYTES", "65536"},
                                                         {"GUILDLITE_OPEN_WAIT_MS", ""},
                                                         {"GUILDLITE_URL", "file:///one"}}),
                                        "/data/app.db");
  ASSERT_TRUE(options.ok()) << options.status().ToString();
  EXPECT_EQ(options->sync_interval_ms, 20);
  EXPECT_FALSE(options->wal);
  EXPECT_EQ(options->restore, "never");
  EXPECT_EQ(options->wal_limit_bytes, 65536u);
  EXPECT_EQ(options->open_wait_ms, 10000) << "an empty variable is an unset one";
  EXPECT_EQ(options->url, "file:///one");
}

TEST(Options, EnvironmentNamesTheVariableItRefuses) {
  for (const char* bad : {"1s", " 1", "-5", "9999999999999999999999", "1.5"}) {
    const auto options =
        ApplyEnvironment({}, FakeEnvironment({{"GUILDLITE_SYNC_INTERVAL_MS", bad}}), "/a");
    ASSERT_FALSE(options.ok()) << bad;
    EXPECT_THAT(options.status().message(), HasSubstr("GUILDLITE_SYNC_INTERVAL_MS must be"));
  }
  EXPECT_FALSE(ApplyEnvironment({}, FakeEnvironment({{"GUILDLITE_WAL", "yes"}}), "/a").ok());
  EXPECT_FALSE(
      ApplyEnvironment({}, FakeEnvironment({{"GUILDLITE_DURABILITY", "strict"}}), "/a").ok());
}

std::string Url(const std::string& url, const std::string& match, const std::string& path) {
  const auto result = UrlFromEnvironment(
      FakeEnvironment({{"GUILDLITE_URL", url}, {"GUILDLITE_MATCH", match}}), path);
  if (!result.ok()) return std::string(TagName(result.status().tag()));
  return result->value_or("none");
}

TEST(Options, UrlFromEnvironmentTakesTheDatabasesName) {
  EXPECT_EQ(Url("file:///b/{name}", "/data/*.sqlite3", "/data/guilds.sqlite3"), "file:///b/guilds");
  EXPECT_EQ(Url("s3://b/{name}/v{name}", "/data/*", "/data/a.b.db"), "s3://b/a.b/va.b");
  EXPECT_EQ(Url("file:///b/{name}", "/data/*", "/data/my app\xc3\xbc%.db"),
            "file:///b/my%20app%C3%BC%25");
  EXPECT_EQ(Url("file:///b/{name}", "/data/*", "/data/plain"), "file:///b/plain");
  EXPECT_EQ(Url("file:///b/{name}", "/data/.*", "/data/.hidden"), "file:///b/.hidden");
  EXPECT_EQ(Url("file:///b/{name}", "/data/*", "/data/{x}.db"), "file:///b/%7Bx%7D");
}

TEST(Options, MatchDecidesWhichDatabases) {
  EXPECT_EQ(Url("file:///b", "", "/anything.db"), "file:///b");
  EXPECT_EQ(Url("file:///b", "/data/*.db", "/data/sub/a.db"), "none") << "'*' stops at '/'";
  EXPECT_EQ(Url("file:///b", "/x/*,/data/*.db", "/data/a.db"), "file:///b");
  EXPECT_EQ(Url("file:///b", "/x/*:/data/*.db", "/data/a.db"), "file:///b");
  EXPECT_EQ(Url("file:///b", "/data/[[:digit:],x]*", "/data/7"), "file:///b");
  EXPECT_EQ(Url("file:///b", "/data/[[:digit:],x]*", "/data/,"), "file:///b");
  EXPECT_EQ(Url("file:///b", "/data/[[:digit:]]", "/data/a"), "none");
  EXPECT_EQ(Url("", "/data/*", "/data/a"), "none");
}

TEST(Options, NamePlaceholderNeedsMatchAndAName) {
  EXPECT_EQ(Url("file:///b/{name}", "", "/data/a.db"), "BAD_ARGUMENT");
  EXPECT_EQ(Url("file:///b/{nam}", "/data/*", "/data/a.db"), "BAD_URL");
  EXPECT_EQ(Url("file:///b/{name", "/data/*", "/data/a.db"), "BAD_URL");
  EXPECT_EQ(Url("file:///b/name}", "/data/*", "/data/a.db"), "BAD_URL");
  EXPECT_EQ(Url("file:///b/{name}", "/data/*", "/data/..db"), "BAD_URL");
}

TEST(Options, TheTableNamesEachOptionOnceWithItsVariable) {
  std::set<std::string_view> names, variables;
  for (const OptionInfo& row : OptionTable()) {
    EXPECT_TRUE(row.name.empty() || names.insert(row.name).second) << row.name;
    EXPECT_TRUE(variables.insert(row.environment).second) << row.environment;
    EXPECT_FALSE(row.doc.empty());
    EXPECT_TRUE(row.environment.starts_with("GUILDLITE_"));
    EXPECT_EQ(row.unit == "ms", row.name.ends_with("_ms")) << row.name;
    EXPECT_EQ(row.unit == "bytes", row.name.ends_with("_bytes")) << row.name;
  }
  EXPECT_EQ(names.count("sync_interval_ms"), 1u);
  EXPECT_EQ(variables.count("GUILDLITE_MATCH"), 1u);
}

TEST(Options, ProcessEnvironmentReadsTheProcess) {
  ASSERT_EQ(::setenv("GUILDLITE_TEST_ONLY", "x", 1), 0);
  EXPECT_EQ(ProcessEnvironment()("GUILDLITE_TEST_ONLY"), "x");
  ::unsetenv("GUILDLITE_TEST_ONLY");
  EXPECT_EQ(ProcessEnvironment()("GUILDLITE_TEST_ONLY"), std::nullopt);
}

}  // namespace
}  // namespace guildlite
