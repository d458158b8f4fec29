#include "vfs/replicate/log_history.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "vfs/format/segment_reader.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/part_source.h"

namespace guildlite {
namespace {

class FindTransaction final : public MetaVisitor {
 public:
  explicit FindTransaction(Txid txid) : txid_(txid) {}
  std::optional<uint64_t> history_hash() const { return history_hash_; }

  Status OnTransaction(const Transaction& t) override {
    if (t.txid == txid_) history_hash_ = t.history_hash;
    return Status::Ok();
  }
  bool Done() override { return history_hash_.has_value(); }

 private:
  const Txid txid_;
  std::optional<uint64_t> history_hash_;
};

struct OpenedObject {
  Bytes bytes;
  ObjectView view;  // of `bytes`
};

// Null: not there (any more).
Result<std::unique_ptr<const OpenedObject>> Open(ObjectStore& store, const std::string& key) {
  auto object = store.Get(key);
  if (object.status().tag() == Tag::kNotFound) return std::unique_ptr<const OpenedObject>();
  if (!object.ok()) return object.status().Context("read " + key);
  auto opened = std::make_unique<OpenedObject>();
  opened->bytes = std::move(object->bytes);
  auto view = OpenObject(opened->bytes, key);
  if (!view.ok()) return view.status();
  opened->view = *std::move(view);
  return std::unique_ptr<const OpenedObject>(std::move(opened));
}

// What the metas of one object say.
Result<std::optional<uint64_t>> HistoryInside(ObjectStore& store, const std::string& key,
                                              const ObjectView& object, Txid txid) {
  FindTransaction visitor(txid);
  PartSource source(store, object, key);
  GUILDLITE_RETURN_IF_ERROR(
      DecodeBody(source, {.images = false, .check_history = false}, visitor, key));
  return visitor.history_hash();
}

}  // namespace

Result<std::optional<uint64_t>> HistoryInLog(ObjectStore& store, const EpochSlots& slots,
                                             Txid txid) {
  // Below the floor a segment may hold it, or an object between two segments.
  auto manifest = ReadManifest(store);
  if (!manifest.ok()) return manifest.status();
  Slot begin = std::max(slots.first, manifest->manifest.horizon);
  Slot end = slots.end;
  for (const SegmentRecord& s : manifest->manifest.segments) {
    if (s.last_slot < slots.first || (slots.end != Slot() && s.first_slot >= slots.end)) continue;
    if (s.last_txid < txid) {
      begin = std::max(begin, s.last_slot.Next());
    } else if (s.first_txid <= txid) {
      auto segment = Open(store, s.key);
      if (!segment.ok()) return segment.status();
      if (!*segment) return Status(Tag::kNotFound, s.key + ": missing");
      return HistoryInside(store, s.key, (*segment)->view, txid);
    } else {
      end = s.first_slot;
      break;
    }
  }
  // What is in a slot; null beyond the end, too.
  std::unique_ptr<const OpenedObject> read;
  const auto ends_before = [&](Slot slot) -> Result<bool> {
    read.reset();
    if (end != Slot() && slot >= end) return false;
    auto object = Open(store, LogKey(slot));
    if (!object.ok()) return object.status();
    read = *std::move(object);
    return read && read->view.header.last_txid < txid;
  };
  // The first slot that does not end before txid: steps double until there is one, then bisect.
  Slot low = begin;  // everything before it ends before txid
  Slot high = begin;
  std::unique_ptr<const OpenedObject> at_high;
  for (uint64_t step = 1;; step *= 2) {
    const auto before = ends_before(high);
    if (!before.ok()) return before.status();
    if (!*before) break;
    low = high.Next();
    high = Slot(high.value + step);
  }
  at_high = std::move(read);
  while (low < high) {
    const Slot middle(low.value + (high.value - low.value) / 2);
    const auto before = ends_before(middle);
    if (!before.ok()) return before.status();
    if (*before) {
      low = middle.Next();
    } else {
      high = middle;
      at_high = std::move(read);
    }
  }
  if (!at_high) return std::optional<uint64_t>();
  const ObjectHeader& header = at_high->view.header;
  if (header.last_txid == txid) return std::optional(header.history_hash);
  if (header.kind != ObjectKind::kData || header.first_txid > txid) {
    return std::optional<uint64_t>();
  }
  return HistoryInside(store, LogKey(high), at_high->view, txid);
}

}  // namespace guildlite
