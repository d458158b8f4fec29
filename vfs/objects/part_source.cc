#include "vfs/objects/part_source.h"

#include <string>
#include <utility>
#include <vector>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/objects/object_key.h"

namespace guildlite {

Result<Bytes> BytesOf(Result<StoredObject> object, std::string_view key) {
  if (object.ok()) return std::move(object->bytes);
  if (object.status().tag() == Tag::kNotFound) {
    return Status(Tag::kNotFound, std::string(key) + ": missing");
  }
  return object.status().Context("read " + std::string(key));
}

PartSource::PartSource(ObjectStore& store, const ObjectView& object, std::string_view name)
    : object_(object),
      name_(name),
      ahead_(store, ReadAhead::End::kKnown),
      inline_body_(object.inline_body) {}

Result<std::span<const std::byte>> PartSource::Next() {
  const std::vector<BodyPart>& parts = object_.header.parts;
  while (read_ < parts.size()) {
    while (asked_ < parts.size() && ahead_.HasRoom(parts[asked_].size)) {
      const BodyPart& part = parts[asked_++];
      if (!IsValidKey(part.name)) {
        return Status(Tag::kChainBroken,
                      std::string(name_) + ": names a part \"" + part.name + "\", which is no key");
      }
      ahead_.Ask(part.name, part.size);
    }
    const BodyPart& part = parts[read_++];
    auto bytes = BytesOf(ahead_.Answer(), part.name);
    if (!bytes.ok()) return bytes.status();
    bytes_ = *std::move(bytes);
    if (bytes_.size() != part.size) {
      return Status(Tag::kChainBroken, part.name + ": has " + std::to_string(bytes_.size()) +
                                           " bytes, " + std::string(name_) + " says " +
                                           std::to_string(part.size));
    }
    if (Hash64(AsBytes(bytes_)) != part.hash) {
      return Status(Tag::kChainBroken,
                    part.name + ": its bytes are not those " + std::string(name_) + " was made of");
    }
    if (!bytes_.empty()) return AsBytes(bytes_);
  }
  bytes_.clear();
  return std::exchange(inline_body_, {});
}

}  // namespace guildlite
