// libFuzzer: any bytes as a manifest, under a checksum that is right: nobody guesses one. What is
// accepted is valid, and survives being written again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vfs/objects/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using guildlite::Manifest;
  const auto first = Manifest::Decode(
      guildlite::SealManifest({reinterpret_cast<const char*>(data), size}), "fuzz");
  if (!first.ok()) return 0;
  if (!first->Validate().ok()) std::abort();
  const auto second = Manifest::Decode(first->Encode(), "fuzz");
  if (!second.ok() || !(*second == *first) || second->Encode() != first->Encode()) std::abort();
  return 0;
}
