#include "vfs/objects/catalog.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "vfs/format/segment_reader.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

Status Broken(std::string_view key, const std::string& what) {
  return Status(Tag::kChainBroken, std::string(key) + ": " + what);
}

// Invariant 2, but for what OpenObject() has checked already.
Status CheckPlace(const ObjectHeader& header, Lineage lineage, Slot slot,
                  const SegmentRecord* segment, const std::optional<uint64_t>& previous_hash,
                  Epoch previous_epoch, std::string_view key) {
  const bool is_segment = header.kind == ObjectKind::kSegment;
  if (header.kind == ObjectKind::kSnapshot || is_segment != (segment != nullptr)) {
    return Broken(key,
                  segment ? "not a segment" : "a snapshot or segment in the place of a log object");
  }
  if (header.lineage != lineage) return Broken(key, "of another lineage than the manifest's");
  if (segment
          ? header.slot != segment->first_slot || header.last_slot != segment->last_slot ||
                header.first_txid != segment->first_txid || header.last_txid != segment->last_txid
          : header.slot != slot) {
    return Broken(key, "made for slot " + std::to_string(header.slot.value) +
                           (segment ? " and on, not what the manifest names" : ""));
  }
  if (previous_hash && header.slot == slot && header.previous_hash != *previous_hash) {
    return Broken(key, "does not follow the object in the slot before it");
  }
  if (header.epoch < previous_epoch) {
    return Broken(key, "of epoch " + std::to_string(header.epoch.value) + " after epoch " +
                           std::to_string(previous_epoch.value));
  }
  return Status::Ok();
}

const SegmentRecord* SegmentOver(const Manifest& manifest, Slot slot) {
  const auto after =
      std::partition_point(manifest.segments.begin(), manifest.segments.end(),
                           [&](const SegmentRecord& segment) { return segment.last_slot < slot; });
  if (after == manifest.segments.end() || after->first_slot > slot) return nullptr;
  return &*after;
}

}  // namespace

bool LogMoved(const Manifest& planned, const Manifest& now) {
  return now.floor != planned.floor || now.horizon != planned.horizon ||
         now.segments != planned.segments;
}

Result<LogWalk> WalkLog(ObjectStore& store, const Manifest& planned, Slot from,
                        const WalkSettings& settings) {
  assert(from.value >= 1);
  const Lineage lineage = planned.lineage;
  LogWalk walk;
  std::optional<uint64_t> previous_hash = settings.previous_hash;
  if (from.value == 1) previous_hash = 0;  // segment_format.h: slot 1 follows nothing
  Epoch previous_epoch;
  uint64_t kept_bytes = 0;
  bool keeping = true;
  Slot slot = from;
  std::string missing;
  while (!settings.until || slot < *settings.until) {
    const SegmentRecord* const segment = SegmentOver(planned, slot);
    LogEntry entry;
    entry.key = segment ? segment->key : LogKey(slot);
    auto object = store.Get(entry.key);
    if (object.status().tag() == Tag::kNotFound) {
      missing = entry.key;
      break;
    }
    if (!object.ok()) return object.status();
    const auto view = OpenObject(object->bytes, entry.key);
    if (!view.ok()) return view.status();
    GUILDLITE_RETURN_IF_ERROR(
        CheckPlace(view->header, lineage, slot, segment, previous_hash, previous_epoch, entry.key));
    entry.header = view->header;
    entry.object_hash = view->object_hash;
    entry.follow_hash = segment ? segment->last_object_hash : view->object_hash;
    entry.size = object->bytes.size();
    previous_hash = entry.follow_hash;
    previous_epoch = entry.header.epoch;
    slot = entry.header.last_slot.Next();

    keeping = keeping && entry.size <= settings.keep_bytes_max - kept_bytes;
    if (keeping) {
      kept_bytes += entry.size;
      entry.bytes = std::move(object->bytes);
    }
    walk.entries.push_back(std::move(entry));
  }
  walk.next = slot;
  if (missing.empty()) return walk;

  auto manifest = ReadManifest(store);  // begun after the 404: invariant 1
  if (!manifest.ok()) return manifest.status();
  if (manifest->manifest.lineage != lineage) {
    return Broken(kManifestKey, "of another lineage than the log that was being read");
  }
  if (manifest->manifest.floor > slot) {
    if (!LogMoved(planned, manifest->manifest)) {
      return Broken(missing, "missing, although the manifest keeps it");
    }
    return Status(Tag::kNotFound,
                  missing +
                      ": joined or retired meanwhile, the log's own objects now "
                      "begin at slot " +
                      std::to_string(manifest->manifest.floor.value),
                  true);
  }
  walk.manifest = *std::move(manifest);
  return walk;
}

Result<ObjectHeader> ReadHeader(ObjectStore& store, const std::string& key) {
  auto head = store.Get(key, ByteRange{0, kHeaderReadBytes});
  if (head.ok()) {
    const auto needed = HeaderLength(head->bytes, key);
    if (!needed.ok()) return needed.status();
    if (*needed > kHeaderReadBytes) head = store.Get(key, ByteRange{0, *needed});
  }
  if (!head.ok()) return head.status().Context("read " + key);
  return DecodeHeader(head->bytes, key);
}

}  // namespace guildlite
