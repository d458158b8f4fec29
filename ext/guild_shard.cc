#include "ext/guild_shard.h"

#include <charconv>

namespace guildlite {

std::optional<uint64_t> ParseSnowflake(std::string_view text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id == 0) return std::nullopt;
  return id;
}

}  // namespace guildlite
