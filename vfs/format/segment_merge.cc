#include "vfs/format/segment_merge.h"

#include <cassert>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/format/segment_writer.h"

namespace guildlite {

bool SegmentMerge::Joinable(const ObjectHeader& header, uint64_t object_bytes, uint64_t bytes_max) {
  return header.kind == ObjectKind::kData && header.parts.empty() && object_bytes <= bytes_max;
}

bool SegmentMerge::Continues(const ObjectHeader& h) const {
  return objects_ != 0 && h.slot == header_.last_slot.Next() && h.epoch == header_.epoch &&
         h.lineage == header_.lineage && h.page_size == header_.page_size &&
         h.first_txid == header_.last_txid.Next() && h.key_id == header_.key_id &&
         h.codec == header_.codec && h.previous_hash == last_object_hash_;
}

void SegmentMerge::Add(const ObjectView& object) {
  const ObjectHeader& h = object.header;
  if (objects_ == 0) {
    header_ = h;
    header_.kind = ObjectKind::kSegment;
  } else {
    assert(Continues(h));
    // All but where it begins is the last object's.
    const Slot slot = header_.slot;
    const Txid first = header_.first_txid;
    const uint64_t previous = header_.previous_hash;
    header_ = h;
    header_.kind = ObjectKind::kSegment;
    header_.slot = slot;
    header_.first_txid = first;
    header_.previous_hash = previous;
  }
  const auto body = object.inline_body;
  body_.append(reinterpret_cast<const char*>(body.data()), body.size());
  last_object_hash_ = object.object_hash;
  ++objects_;
}

Result<std::string> SegmentMerge::Finish(Session session) {
  assert(objects_ != 0);
  header_.session = session;
  const auto index = IndexBody(*BytesSource(AsBytes(body_)), "merged segment");
  if (!index.ok()) return index.status();
  std::string object = EncodeObject(header_, body_, *index);
  *this = SegmentMerge();
  return object;
}

}  // namespace guildlite
