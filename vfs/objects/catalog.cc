#include "vfs/objects/catalog.h"

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
                  const std::optional<uint64_t>& previous_hash, Epoch previous_epoch,
                  std::string_view key) {
  if (header.kind == ObjectKind::kSnapshot || header.kind == ObjectKind::kSegment) {
    return Broken(key, "a snapshot or segment in the place of a log object");
  }
  if (header.lineage != lineage) return Broken(key, "of another lineage than the manifest's");
  if (header.slot != slot) {
    return Broken(key, "made for slot " + std::to_string(header.slot.value));
  }
  if (previous_hash && header.previous_hash != *previous_hash) {
    return Broken(key, "does not follow the object in the slot before it");
  }
  if (header.epoch < previous_epoch) {
    return Broken(key, "of epoch " + std::to_string(header.epoch.value) + " after epoch " +
                           std::to_string(previous_epoch.value));
  }
  return Status::Ok();
}

}  // namespace

Result<LogWalk> WalkLog(ObjectStore& store, Lineage lineage, Slot from,
                        const WalkSettings& settings) {
  assert(from.value >= 1);
  LogWalk walk;
  std::optional<uint64_t> previous_hash = settings.previous_hash;
  if (from.value == 1) previous_hash = 0;  // segment_format.h: slot 1 follows nothing
  Epoch previous_epoch;
  uint64_t kept_bytes = 0;
  bool keeping = true;
  Slot slot = from;
  for (;; slot = slot.Next()) {
    const std::string key = LogKey(slot);
    auto object = store.Get(key);
    if (object.status().tag() == Tag::kNotFound) break;
    if (!object.ok()) return object.status();
    const auto view = OpenObject(object->bytes, key);
    if (!view.ok()) return view.status();
    GUILDLITE_RETURN_IF_ERROR(
        CheckPlace(view->header, lineage, slot, previous_hash, previous_epoch, key));
    previous_hash = view->object_hash;
    previous_epoch = view->header.epoch;

    LogEntry entry;
    entry.header = view->header;
    entry.object_hash = view->object_hash;
    entry.size = object->bytes.size();
    keeping = keeping && entry.size <= settings.keep_bytes_max - kept_bytes;
    if (keeping) {
      kept_bytes += entry.size;
      entry.bytes = std::move(object->bytes);
    }
    walk.entries.push_back(std::move(entry));
  }

  auto manifest = ReadManifest(store);  // begun after the 404: invariant 1
  if (!manifest.ok()) return manifest.status();
  if (manifest->manifest.lineage != lineage) {
    return Broken(kManifestKey, "of another lineage than the log that was being read");
  }
  if (manifest->manifest.floor > slot) {
    return Status(Tag::kNotFound, LogKey(slot) +
                                      ": retired meanwhile, the log now begins at slot " +
                                      std::to_string(manifest->manifest.floor.value));
  }
  walk.next = slot;
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
