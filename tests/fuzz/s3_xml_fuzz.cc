// libFuzzer: any bytes as an answer of S3's. What is taken out of an error can be logged; a listing
// that goes on says where. Seeds: seeds/s3_xml_fuzz.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "vfs/objects/s3_xml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto error = guildlite::ParseS3Error(body);
  for (const std::string* text : {&error.code, &error.message, &error.request_id, &error.region}) {
    if (error.code.empty() && !text->empty()) std::abort();
    if (text->size() > 300) std::abort();
    for (const char c : *text) {
      if (c < 0x20 || c > 0x7e) std::abort();
    }
  }
  const auto page = guildlite::ParseS3List(body);
  if (!page.ok()) {
    if (page.status().tag() != guildlite::Tag::kStoreUnreachable) std::abort();
    return 0;
  }
  for (const guildlite::ListEntry& entry : page->entries) {
    if (entry.key.empty()) std::abort();
  }
  return 0;
}
