// libFuzzer: any bytes as one of AWS's shared files. What is read can be written down and is read
// again as the same; what is refused names a line and quotes nothing.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "vfs/objects/credentials_profile.h"

namespace {

void Check(std::string_view text, guildlite::SharedFile file) {
  const auto parsed = guildlite::ParseSharedFile(text, file);
  if (!parsed.ok()) {
    std::string message = parsed.status().message();
    for (char& c : message) {
      if (c >= '0' && c <= '9') c = '0';
    }
    while (message.find("00") != std::string::npos) message.erase(message.find("00"), 1);
    if (message != "line 0 is no [section], no name = value and no # comment") std::abort();
    return;
  }
  std::string again;
  for (const auto& [profile, settings] : *parsed) {
    const bool config = file == guildlite::SharedFile::kConfig;
    again += config ? "[profile \"" + profile + "\"]\n" : "[" + profile + "]\n";
    for (const auto& [name, value] : settings) {
      if (name.empty()) std::abort();
      again += name + "=" + value + "\n";
    }
  }
  const auto second = guildlite::ParseSharedFile(again, file);
  if (!second.ok() || *second != *parsed) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(text, guildlite::SharedFile::kConfig);
  Check(text, guildlite::SharedFile::kCredentials);
  return 0;
}
