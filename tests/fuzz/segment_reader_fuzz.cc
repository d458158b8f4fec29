// Hostile bytes to every entry of the segment reader. The first byte chooses the entry; checksums
// that would keep the fuzzer out are made right first.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/format/segment_reader.h"

namespace {

using namespace guildlite;

class Ignore final : public BatchVisitor {
 public:
  Status ReadBase(Pgno pgno, std::span<std::byte> out) override {
    for (std::byte& b : out) b = static_cast<std::byte>(pgno.value);
    return Status::Ok();
  }
  Status OnTransaction(const Transaction&) override { return Status::Ok(); }
  Status OnPage(Pgno pgno, uint64_t hash, std::span<const std::byte> image) override {
    if (!image.empty() && PageHash(pgno, image) != hash) std::abort();
    return Status::Ok();
  }
  Status OnTransactionEnd(const Transaction&) override { return Status::Ok(); }
};

void Body(std::span<const std::byte> body, bool images) {
  const auto source = BytesSource(body);
  Ignore visitor;
  (void)DecodeBody(*source, {.images = images, .check_history = false}, visitor, "fuzz");
}

// The input with magic, version, check and trailer of an object around it: the first two bytes say
// how much of it is header.
std::string AsObject(std::string_view input) {
  if (input.size() < 2) return {};
  const size_t wanted = LoadBig16(input.data());
  input.remove_prefix(2);
  const size_t header = std::min(input.size(), wanted);
  std::string object;
  PutBig32(&object, kObjectMagic);
  object.push_back(static_cast<char>(kFormatVersion));
  PutVarint(&object, header + kCheckSize);
  object.append(input.substr(0, header));
  PutBig32(&object, Check(Hash64(AsBytes(object))));
  object.append(input.substr(header));
  PutBig64(&object, Hash64(AsBytes(object)));
  return object;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: {
      (void)DecodeHeader(input, "fuzz");
      (void)OpenObject(input, "fuzz");
      break;
    }
    case 1: {
      const std::string object = AsObject(input);
      const Result<ObjectView> view = OpenObject(object, "fuzz");
      if (view.ok()) Body(view->inline_body, true);
      break;
    }
    case 2:
      Body(AsBytes(input), true);
      break;
    case 3:
      Body(AsBytes(input), false);
      break;
    default:
      (void)ScanBatches(*BytesSource(AsBytes(input)));
  }
  return 0;
}
