// libFuzzer: any bytes as options in JSON, as a sidecar's, and as the environment's values. What is
// accepted survives the sidecar.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "guildlite/options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using guildlite::Options;
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const auto& parsed :
       {guildlite::ApplyOptionsJson({}, text), guildlite::ApplyPersistedOptions({}, text)}) {
    if (!parsed.ok()) continue;
    const auto again = guildlite::ApplyPersistedOptions({}, guildlite::PersistOptions(*parsed));
    if (!again.ok() || !(*again == *parsed)) std::abort();
  }
  // The first line is the path, the second the globs, the rest whatever a variable holds.
  const size_t end = text.find('\n');
  const std::string path = text.substr(0, end);
  const std::string rest = end == std::string::npos ? "" : text.substr(end + 1);
  const size_t second = rest.find('\n');
  const std::string globs = rest.substr(0, second);
  const std::string value = second == std::string::npos ? rest : rest.substr(second + 1);
  const auto environment = [&](const std::string& name) -> std::optional<std::string> {
    return name == "GUILDLITE_MATCH" ? globs : value;
  };
  static_cast<void>(guildlite::UrlFromEnvironment(environment, path));
  static_cast<void>(guildlite::ApplyEnvironment({}, environment, path));
  return 0;
}
