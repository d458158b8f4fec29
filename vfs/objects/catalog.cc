#include "vfs/objects/catalog.h"

#include <algorithm>
#include <cassert>
#include <deque>
#include <utility>

#include "vfs/format/segment_reader.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/read_ahead.h"

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
          : header.slot != slot || header.last_slot != slot) {
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

// The objects of the log in order, the next ones asked for ahead (invariant 3).
class Slots {
 public:
  Slots(ObjectStore& store, const Manifest& planned, Slot from, const WalkSettings& settings)
      : store_(store),
        planned_(planned),
        settings_(settings),
        to_ask_(from),
        ahead_(store, ReadAhead::End::kUnknown) {}

  // What comes next: a slot's own object, or the segment that covers it.
  struct Place {
    Slot slot;
    const SegmentRecord* segment = nullptr;
    std::string key() const { return segment ? segment->key : LogKey(slot); }
    Slot NextSlot() const { return segment ? segment->last_slot.Next() : slot.Next(); }
  };
  // nullopt: `until` is reached.
  std::optional<Place> Next() {
    while (answered_.empty() && (!settings_.until || to_ask_ < *settings_.until) && Ask()) {
    }
    if (asked_.empty()) return std::nullopt;
    const Place place = asked_.front();
    asked_.pop_front();
    return place;
  }

  // The object that Next() named last. kNotFound: the log ends before it, or there is `beyond`.
  Result<StoredObject> Read(const Place& place, std::optional<Slot>* beyond) {
    auto object = Answer();
    if (object.status().tag() != Tag::kNotFound) return object;
    if (settings_.look_beyond && !settings_.until && asked_.empty()) Ask();
    while (!ahead_.empty()) answered_.push_back(ahead_.Answer());
    const auto seen = std::find_if(answered_.begin(), answered_.end(),
                                   [](const auto& later) { return later.ok(); });
    if (seen != answered_.end()) {
      object = store_.Get(place.key());
      if (object.status().tag() == Tag::kNotFound) {
        *beyond = asked_[static_cast<size_t>(seen - answered_.begin())].slot;
      }
    } else if (settings_.look_beyond && !answered_.empty() &&
               answered_.front().status().tag() != Tag::kNotFound) {
      return answered_.front().status();
    }
    return object;
  }

 private:
  bool Ask() {
    const Place place{to_ask_, SegmentOver(planned_, to_ask_)};
    std::optional<uint64_t> size;
    if (place.segment) size = place.segment->bytes;
    if (!ahead_.HasRoom(size.value_or(ReadAhead::kFirstBytes))) return false;
    ahead_.Ask(place.key(), size);
    asked_.push_back(place);
    to_ask_ = place.NextSlot();
    return true;
  }
  Result<StoredObject> Answer() {
    if (answered_.empty()) return ahead_.Answer();
    auto object = std::move(answered_.front());
    answered_.pop_front();
    return object;
  }

  ObjectStore& store_;
  const Manifest& planned_;
  const WalkSettings& settings_;
  Slot to_ask_;
  std::deque<Place> asked_;                    // and not come to Next() yet
  std::deque<Result<StoredObject>> answered_;  // to the first of them
  ReadAhead ahead_;
};

// Invariant 1: `missing` is where the walk found nothing.
Status ConfirmTip(ObjectStore& store, const Manifest& planned, const std::string& missing,
                  const WalkSettings& settings, LogWalk* walk) {
  auto manifest = ReadManifest(store);  // begun after the 404
  if (!manifest.ok()) return manifest.status();
  if (manifest->manifest.lineage != planned.lineage) {
    return Broken(kManifestKey, "of another lineage than the log that was being read");
  }
  if (manifest->manifest.floor > walk->next) {
    if (!LogMoved(planned, manifest->manifest)) {
      if (!settings.look_beyond || settings.until) {
        return Broken(missing, "missing, although the manifest keeps it");
      }
      walk->beyond = manifest->manifest.floor;
      walk->manifest = *std::move(manifest);
      return Status::Ok();
    }
    return Status(Tag::kNotFound,
                  missing +
                      ": joined or retired meanwhile, the log's own objects now "
                      "begin at slot " +
                      std::to_string(manifest->manifest.floor.value),
                  true);
  }
  if (walk->beyond && !settings.look_beyond) {
    return Broken(missing, "missing, but there is " + LogKey(*walk->beyond) + " after it");
  }
  walk->manifest = *std::move(manifest);
  return Status::Ok();
}

}  // namespace

const SegmentRecord* SegmentOver(const Manifest& manifest, Slot slot) {
  const auto after =
      std::partition_point(manifest.segments.begin(), manifest.segments.end(),
                           [&](const SegmentRecord& segment) { return segment.last_slot < slot; });
  if (after == manifest.segments.end() || after->first_slot > slot) return nullptr;
  return &*after;
}

std::optional<Slot> SlotBeyond(const Manifest& manifest, Slot next) {
  std::optional<Slot> beyond;
  for (const SnapshotRecord& s : manifest.snapshots) {
    if (s.first_slot > next) beyond = std::max(beyond.value_or(s.first_slot), s.first_slot);
  }
  for (const PastEpoch& p : manifest.past_epochs) {
    if (p.fence > next) beyond = std::max(beyond.value_or(p.fence), p.fence);
  }
  return beyond;
}

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

  walk.next = from;
  Slots slots(store, planned, from, settings);
  while (const auto place = slots.Next()) {
    const std::string key = place->key();
    auto object = slots.Read(*place, &walk.beyond);
    if (object.status().tag() == Tag::kNotFound) {
      GUILDLITE_RETURN_IF_ERROR(ConfirmTip(store, planned, key, settings, &walk));
      return walk;
    }
    if (!object.ok()) return object.status();
    auto view = OpenObject(object->bytes, key);
    if (view.status().tag() == Tag::kChainBroken) {
      // S3 sends no checksum with a range: what broke on the way is not broken there.
      object = store.Get(key);
      if (!object.ok()) return object.status();
      view = OpenObject(object->bytes, key);
    }
    if (!view.ok()) return view.status();
    GUILDLITE_RETURN_IF_ERROR(CheckPlace(view->header, lineage, place->slot, place->segment,
                                         previous_hash, previous_epoch, key));
    LogEntry entry;
    entry.key = key;
    entry.header = view->header;
    entry.object_hash = view->object_hash;
    entry.follow_hash = place->segment ? place->segment->last_object_hash : view->object_hash;
    entry.size = object->bytes.size();
    previous_hash = entry.follow_hash;
    previous_epoch = entry.header.epoch;
    walk.next = place->NextSlot();

    keeping = keeping && entry.size <= settings.keep_bytes_max - kept_bytes;
    if (keeping) {
      kept_bytes += entry.size;
      entry.bytes = std::move(object->bytes);
    }
    walk.entries.push_back(std::move(entry));
  }
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
