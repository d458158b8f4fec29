#include "vfs/replicate/log_history.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "vfs/base/bytes.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

// A body's parts, one fetched after the other, and the inline rest.
class PartsSource : public BodySource {
 public:
  PartsSource(ObjectStore& store, const ObjectView& view) : store_(store), view_(view) {}

  Result<std::span<const std::byte>> Next() override {
    const auto& parts = view_.header.parts;
    if (next_ > parts.size()) return std::span<const std::byte>();
    if (next_++ == parts.size()) return view_.inline_body;
    auto part = store_.Get(parts[next_ - 1].name);
    if (!part.ok()) return part.status();
    bytes_ = std::move(part->bytes);
    return AsBytes(bytes_);
  }

 private:
  ObjectStore& store_;
  const ObjectView& view_;
  size_t next_ = 0;
  std::string bytes_;
};

class FindTransaction : public BatchVisitor {
 public:
  explicit FindTransaction(Txid txid) : txid_(txid) {}
  std::optional<uint64_t> history_hash() const { return history_hash_; }

  Status ReadBase(Pgno, std::span<std::byte>) override {
    return Status(Tag::kChainBroken, "a meta asked for a base");
  }
  Status OnTransaction(const Transaction& t) override {
    if (t.txid == txid_) history_hash_ = t.history_hash;
    return Status::Ok();
  }
  Status OnPage(Pgno, uint64_t, std::span<const std::byte>) override { return Status::Ok(); }
  Status OnTransactionEnd(const Transaction&) override { return Status::Ok(); }
  bool Done() override { return history_hash_.has_value(); }

 private:
  const Txid txid_;
  std::optional<uint64_t> history_hash_;
};

// What the metas of one object say.
Result<std::optional<uint64_t>> HistoryInside(ObjectStore& store, const std::string& key,
                                              Txid txid) {
  auto object = store.Get(key);
  if (!object.ok()) return object.status().Context("read " + key);
  auto view = OpenObject(object->bytes, key);
  if (!view.ok()) return view.status();
  FindTransaction visitor(txid);
  PartsSource source(store, *view);
  DecodeSettings settings;
  settings.images = false;
  settings.check_history = false;
  GUILDLITE_RETURN_IF_ERROR(DecodeBody(source, settings, visitor, key));
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
      return HistoryInside(store, s.key, txid);
    } else {
      end = s.first_slot;
      break;
    }
  }
  // nullopt: beyond the end, or not there any more.
  std::optional<ObjectHeader> header;
  const auto read = [&](Slot slot) -> Status {
    header.reset();
    if (end != Slot() && slot >= end) return Status::Ok();
    const std::string key = LogKey(slot);
    auto found = ReadHeader(store, key);
    if (found.status().tag() == Tag::kNotFound) return Status::Ok();
    if (!found.ok()) return found.status();
    header = *std::move(found);
    if (!header->state_inside) return Status::Ok();
    auto object = store.Get(key);
    if (!object.ok()) return object.status().Context("read " + key);
    auto view = OpenObject(object->bytes, key);
    if (!view.ok()) return view.status();
    header = view->header;
    return Status::Ok();
  };
  // The first slot that ends at or after txid: steps double until one does, then bisect.
  Slot low = begin;  // everything before it ends before txid
  Slot high = begin;
  for (uint64_t step = 1;; step *= 2) {
    GUILDLITE_RETURN_IF_ERROR(read(high));
    if (!header || header->last_txid >= txid) break;
    low = high.Next();
    high = Slot(high.value + step);
  }
  while (low < high) {
    const Slot middle(low.value + (high.value - low.value) / 2);
    GUILDLITE_RETURN_IF_ERROR(read(middle));
    if (!header || header->last_txid >= txid) {
      high = middle;
    } else {
      low = middle.Next();
    }
  }
  GUILDLITE_RETURN_IF_ERROR(read(low));
  if (!header || header->last_txid < txid) return std::optional<uint64_t>();
  if (header->last_txid == txid) return std::optional(header->history_hash);
  if (header->kind != ObjectKind::kData || header->first_txid > txid) {
    return std::optional<uint64_t>();
  }
  return HistoryInside(store, LogKey(low), txid);
}

}  // namespace guildlite
