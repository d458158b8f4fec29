// A body's parts, read ahead and each verified, then what the object itself holds of it.
#pragma once

#include <cstddef>
#include <string_view>

#include "guildlite/object_store.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/read_ahead.h"

namespace guildlite {

// The bytes of an answer. kNotFound stays: the caller decides whether that is damage.
Result<Bytes> BytesOf(Result<StoredObject> object, std::string_view key);

class PartSource final : public BodySource {
 public:
  // `object` is called `name`; both must outlive the source. CHAIN_BROKEN where a part is not what
  // the header says.
  PartSource(ObjectStore& store, const ObjectView& object, std::string_view name);
  Result<std::span<const std::byte>> Next() override;

 private:
  const ObjectView& object_;
  const std::string_view name_;
  ReadAhead ahead_;
  size_t asked_ = 0;  // parts
  size_t read_ = 0;
  Bytes bytes_;
  std::span<const std::byte> inline_body_;
};

}  // namespace guildlite
