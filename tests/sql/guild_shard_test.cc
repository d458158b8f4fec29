#include "ext/guild_shard.h"

#include <gtest/gtest.h>

#include <string>

namespace guildlite {
namespace {

// Ids of guilds that every library's tests use; (id >> 22) worked out by hand.
static_assert(GuildShard(102860784329052160, 1) == 0);
static_assert(102860784329052160 >> 22 == 24523922045);
static_assert(GuildShard(102860784329052160, 16) == 24523922045 % 16);
static_assert(GuildShard(81384788765712384, 3) == (81384788765712384 >> 22) % 3);
static_assert(GuildShard(UINT64_MAX, 1000) == ((uint64_t{1} << 42) - 1) % 1000);
static_assert(GuildShard(uint64_t{1} << 63, UINT64_MAX) == uint64_t{1} << 41);
static_assert(GuildShard((1 << 22) - 1, 64) == 0);
static_assert(GuildShard(1 << 22, 64) == 1);

TEST(GuildShard, ReadsEverySnowflakeOf64Bits) {
  EXPECT_EQ(ParseSnowflake("1"), 1u);
  EXPECT_EQ(ParseSnowflake("197038439483310086"), 197038439483310086u);
  EXPECT_EQ(ParseSnowflake("9223372036854775807"), uint64_t{INT64_MAX});
  EXPECT_EQ(ParseSnowflake("9223372036854775808"), uint64_t{1} << 63);
  EXPECT_EQ(ParseSnowflake("18446744073709551615"), UINT64_MAX);
}

TEST(GuildShard, ReadsNothingElse) {
  for (const std::string& text :
       {std::string(), std::string("0"), std::string("-1"), std::string("+1"), std::string(" 1"),
        std::string("1 "), std::string("1.0"), std::string("1e5"), std::string("0x10"),
        std::string("1,000"), std::string("1\0", 2), std::string("\xd9\xa1"),
        std::string("18446744073709551616"), std::string("99999999999999999999"),
        std::string(21, '1'), std::string(1000, '0') + "1"}) {
    EXPECT_EQ(ParseSnowflake(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace guildlite
