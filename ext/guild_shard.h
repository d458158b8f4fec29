// Discord's shard of a guild: (guild_id >> 22) % shards. Pure.
//
// Source: "Sharding Formula", Discord's developer documentation, topics/gateway. Ids are unsigned
// 64-bit snowflakes; those from 2^63 up exist as TEXT only, SQLite's INTEGER being signed.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace guildlite {

// 1 to 20 decimal digits without sign, at most 2^64-1, not 0.
std::optional<uint64_t> ParseSnowflake(std::string_view text);

// REQUIRES: shards >= 1.
constexpr uint64_t GuildShard(uint64_t guild_id, uint64_t shards) {
  return (guild_id >> 22) % shards;
}

}  // namespace guildlite
