// libFuzzer: any bytes as a store's url. What is accepted names one absolute directory that cannot
// climb; what is refused says so in printable bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "vfs/objects/store_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto url = guildlite::ParseStoreUrl(text);
  if (!url.ok()) {
    for (const char c : url.status().message()) {
      if (c < 0x20 || c > 0x7e) std::abort();
    }
    if (url.status().tag() != guildlite::Tag::kBadUrl) std::abort();
    return 0;
  }
  if (url->scheme != "file") return 0;
  const std::string path = url->path + "/";
  if (path.size() < 3 || path[0] != '/' || path.find('\0') != std::string::npos ||
      path.find("//") != std::string::npos || path.find("/./") != std::string::npos ||
      path.find("/../") != std::string::npos) {
    std::abort();
  }
  return 0;
}
