#include "vfs/replicate/compactor.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"
#include "vfs/replicate/retention.h"

namespace guildlite {
namespace {

constexpr int64_t kRetryMs = 1000;
constexpr int64_t kRetryMaxMs = 3600000;  // a join that fails late has uploaded much
constexpr int kSlotsAStep = 32;           // so that a close need not wait for thousands of GETs
constexpr uint32_t kLevel = 1;

// Of an object that no other try will find whole.
bool IsDamage(const Status& status) {
  return status.tag() == Tag::kChainBroken && !status.retryable();
}

}  // namespace

Compactor::Compactor(Clock& clock, Random& random, ObjectStore& store, std::string cache_path,
                     const Settings& settings, std::function<void()> wake_sweeper,
                     std::function<void(const Status&)> on_damage)
    : clock_(clock),
      random_(random),
      store_(store),
      cache_path_(std::move(cache_path)),
      settings_(settings),
      wake_sweeper_(std::move(wake_sweeper)),
      on_damage_(std::move(on_damage)) {}

void Compactor::Begin(const Manifest& manifest, Slot next) {
  const std::lock_guard lock(mutex_);
  begun_ = true;
  anew_ = true;
  epoch_ = manifest.epoch;
  session_ = manifest.session;
  floor_ = manifest.floor;
  next_ = next;
  // An earlier process may have been killed between the snapshot and this.
  retire_ = manifest.snapshots.size() > 2;
  cached_.clear();
  cache_end_ = 0;
  cache_.Close();
}

bool Compactor::Shipped(Slot slot, std::string_view object) {
  const std::lock_guard lock(mutex_);
  next_ = slot.Next();
  if (!object.empty() && object.size() <= settings_.object_bytes_max &&
      cache_end_ + object.size() <= settings_.cache_bytes_max) {
    if (!cache_.is_open()) {
      if (auto file = File::Open(cache_path_, O_RDWR | O_CREAT | O_TRUNC); file.ok()) {
        cache_ = *std::move(file);
      }
    }
    if (cache_.is_open() && cache_.WriteAt(cache_end_, AsBytes(object)).ok()) {
      cached_.push_back({slot, cache_end_, object.size()});
      cache_end_ += object.size();
    }
  }
  return next_.value - floor_.value >= settings_.join_slots;
}

void Compactor::SnapshotTaken() {
  const std::lock_guard lock(mutex_);
  retire_ = true;
}

int64_t Compactor::Step(int64_t now_ms) {
  bool join = false;
  bool retire = false;
  Epoch epoch;
  {
    const std::lock_guard lock(mutex_);
    if (!begun_) return kIdle;
    if (std::exchange(anew_, false)) {
      join_.reset();
      retry_at_ms_ = 0;
    }
    if (now_ms < retry_at_ms_) return retry_at_ms_;
    join = join_first_ || next_.value - floor_.value >= settings_.join_slots;
    retire = !join && !join_ && std::exchange(retire_, false);
    epoch = epoch_;
  }
  Status status;
  if (join_) {
    status = AdvanceJoin();
  } else if (join) {
    status = BeginJoin();
  } else if (retire) {
    status = Retire();
  } else {
    return kIdle;
  }
  const std::lock_guard lock(mutex_);
  last_error_ = status;
  if (status.ok()) {
    failures_ = 0;
    return now_ms;
  }
  join_.reset();
  retire_ |= retire;
  if (epoch_ != epoch) return now_ms;  // begun anew meanwhile
  if (status.tag() == Tag::kFenced) {
    begun_ = false;  // somebody else's now
    return kIdle;
  }
  retry_at_ms_ = now_ms + std::min(kRetryMaxMs, kRetryMs << std::min(failures_, 12u));
  ++failures_;
  return retry_at_ms_;
}

// -- Join --------------------------------------------------------------------------------------

Status Compactor::BeginJoin() {
  auto manifest = ReadManifest(store_);
  if (!manifest.ok()) return manifest.status().Context("join");
  const std::lock_guard lock(mutex_);
  GUILDLITE_RETURN_IF_ERROR(manifest->manifest.CheckOwner(epoch_, session_));
  floor_ = manifest->manifest.floor;
  join_first_ = false;
  if (floor_ >= next_) return Status::Ok();
  join_.emplace();
  join_->planned = std::move(manifest->manifest);
  join_->at = floor_;
  join_->end = next_;
  return Status::Ok();
}

Status Compactor::AdvanceJoin() {
  Join& j = *join_;
  for (int i = 0; i < kSlotsAStep && j.at < j.end; ++i, j.at = j.at.Next()) {
    Status joined = JoinSlot(j.at);
    if (IsDamage(joined)) {
      // Every slot below `end` was put, so this one is lost. The run ends before it.
      joined = joined.Context("slot " + std::to_string(j.at.value) + " of the backup is lost");
      on_damage_(joined);
      {
        const std::lock_guard lock(mutex_);
        damage_ = std::move(joined);
        damaged_ = j.at;
      }
      joined = CloseRun();
    }
    GUILDLITE_RETURN_IF_ERROR(joined);
  }
  if (j.at < j.end) return Status::Ok();
  GUILDLITE_RETURN_IF_ERROR(CloseRun());
  return FinishJoin();
}

Status Compactor::JoinSlot(Slot slot) {
  Join& j = *join_;
  const std::string key = LogKey(slot);
  auto bytes = Load(slot);
  if (bytes.status().tag() == Tag::kNotFound) {
    return Status(Tag::kChainBroken, "join: " + key + " is missing");
  }
  if (!bytes.ok()) return bytes.status().Context("join: read " + key);
  auto object = OpenObject(*bytes, key);
  if (!object.ok()) return object.status().Context("join");
  if (object->header.lineage != j.planned.lineage || object->header.slot != slot) {
    return Status(Tag::kChainBroken, "join: " + key + " is not of this log");
  }
  const bool joinable =
      SegmentMerge::Joinable(object->header, bytes->size(), settings_.object_bytes_max);
  if (!joinable || !j.run.Continues(object->header) ||
      j.run.body_bytes() + bytes->size() > settings_.segment_bytes) {
    GUILDLITE_RETURN_IF_ERROR(CloseRun());
  }
  if (joinable) j.run.Add(*object);
  return Status::Ok();
}

Status Compactor::CloseRun() {
  Join& j = *join_;
  if (j.run.objects() < 2) {
    j.run = SegmentMerge();
    return Status::Ok();
  }
  SegmentRecord record;
  const ObjectHeader& h = j.run.header();
  record.level = kLevel;
  record.first_slot = h.slot;
  record.last_slot = h.last_slot;
  record.first_txid = h.first_txid;
  record.last_txid = h.last_txid;
  record.last_object_hash = j.run.last_object_hash();
  record.key = SegmentKey(kLevel, h.slot, h.last_slot, j.planned.epoch, random_.Next64());
  const auto object = j.run.Finish(j.planned.session);
  if (!object.ok()) return object.status().Context("join");
  record.bytes = object->size();
  auto put = store_.Put(record.key, *object, PutCondition::Create());
  if (!put.ok()) return put.status().Context("join: put " + record.key);
  j.made.push_back(std::move(record));
  return Status::Ok();
}

Status Compactor::FinishJoin() {
  Join& j = *join_;
  const int64_t now = clock_.NowMs();
  auto updated = UpdateManifest(store_, random_, [&](Manifest& m) -> Status {
    // Not of a later epoch of our own either: its sweeper may have taken the segments for orphans.
    GUILDLITE_RETURN_IF_ERROR(m.CheckOwner(j.planned.epoch, j.planned.session));
    if (m.floor >= j.end) return Status::Ok();  // an earlier swap of ours, its reply lost
    if (m.floor != j.planned.floor) {
      return Status(Tag::kPrecondition, "join: the floor is not where it was", true);
    }
    m.floor = j.end;
    for (const SegmentRecord& record : j.made) {
      m.segments.push_back(record);
      m.tombstones.push_back({LogKey(record.first_slot), record.last_slot, now, {}});
    }
    return Status::Ok();
  });
  if (!updated.ok()) return updated.status().Context("join: enter the segments into the manifest");
  ForgetBelow(j.end);
  const bool any = !j.made.empty();
  {
    const std::lock_guard lock(mutex_);
    floor_ = updated->manifest.floor;
    ++counters_.joins;
    counters_.segments += j.made.size();
    for (const SegmentRecord& r : j.made) {
      counters_.slots_joined += r.last_slot.value - r.first_slot.value + 1;
    }
  }
  join_.reset();
  if (any) wake_sweeper_();
  return Status::Ok();
}

Result<Bytes> Compactor::Load(Slot slot) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = std::lower_bound(cached_.begin(), cached_.end(), slot,
                                     [](const Cached& c, Slot s) { return c.slot < s; });
    if (it != cached_.end() && it->slot == slot) {
      Bytes bytes(it->size, '\0');
      auto n = cache_.ReadAt(it->offset, std::as_writable_bytes(std::span(bytes)));
      // Somebody may have written into the file; the store's copy counts then.
      if (n.ok() && *n == bytes.size() && OpenObject(bytes, LogKey(slot)).ok()) return bytes;
    }
    ++counters_.slots_read_back;
  }
  auto object = store_.Get(LogKey(slot));
  if (!object.ok()) return object.status();
  return std::move(object->bytes);
}

void Compactor::ForgetBelow(Slot slot) {
  const std::lock_guard lock(mutex_);
  while (!cached_.empty() && cached_.front().slot < slot) cached_.pop_front();
  // What was shipped meanwhile moves to the front.
  uint64_t end = 0;
  std::deque<Cached> moved;
  for (const Cached& c : cached_) {
    Bytes bytes(c.size, '\0');
    auto n = cache_.ReadAt(c.offset, std::as_writable_bytes(std::span(bytes)));
    if (!n.ok() || *n != bytes.size() || !cache_.WriteAt(end, AsBytes(bytes)).ok()) continue;
    moved.push_back({c.slot, end, c.size});
    end += c.size;
  }
  cached_ = std::move(moved);
  cache_end_ = end;
  if (cache_.is_open()) (void)cache_.Truncate(end);
}

// -- Retire ------------------------------------------------------------------------------------

Status Compactor::Retire() {
  auto at = ReadManifest(store_);
  if (!at.ok()) return at.status().Context("retire");
  {
    const std::lock_guard lock(mutex_);
    GUILDLITE_RETURN_IF_ERROR(at->manifest.CheckOwner(epoch_, session_));
  }
  const int64_t now = clock_.NowMs();
  const Retirement r = PlanRetirement(at->manifest, now, settings_.retention_ms);
  if (r.wants_join) {
    const std::lock_guard lock(mutex_);
    join_first_ = at->manifest.floor < next_;
    if (join_first_) {
      retire_ = true;
      return Status::Ok();
    }
  }
  if (!r.empty(at->manifest)) {
    Manifest to = at->manifest;
    to.horizon = r.horizon;
    std::erase_if(to.snapshots, [&](const SnapshotRecord& s) {
      return std::find(r.snapshots.begin(), r.snapshots.end(), s) != r.snapshots.end();
    });
    std::erase_if(to.segments, [&](const SegmentRecord& s) {
      return std::find(r.segments.begin(), r.segments.end(), s) != r.segments.end();
    });
    for (const SnapshotRecord& s : r.snapshots) to.tombstones.push_back({s.key, Slot(0), now, {}});
    for (const SegmentRecord& s : r.segments) to.tombstones.push_back({s.key, Slot(0), now, {}});
    for (const Slot slot : r.slots) {
      const std::string key = LogKey(slot);
      auto header = ReadHeader(store_, key);
      if (header.status().tag() == Tag::kNotFound) continue;
      if (IsDamage(header.status())) continue;  // it may have been a FENCE
      if (!header.ok()) return header.status().Context("retire");
      if (header->kind == ObjectKind::kFence) continue;
      to.tombstones.push_back({key, Slot(0), now, {}});
    }
    auto swapped = SwapManifest(store_, *at, std::move(to), random_);
    if (swapped.status().tag() == Tag::kPrecondition) {  // a sweep or a snapshot was quicker
      const std::lock_guard lock(mutex_);
      retire_ = true;
      return Status::Ok();
    }
    if (!swapped.ok()) return swapped.status().Context("retire");
    wake_sweeper_();
  }
  if (!at->manifest.tombstones.empty()) wake_sweeper_();  // of a swap whose reply was lost
  const std::lock_guard lock(mutex_);
  if (damaged_ < r.horizon) damage_ = Status::Ok();
  ++counters_.retirements;
  return Status::Ok();
}

Compactor::Counters Compactor::counters() {
  const std::lock_guard lock(mutex_);
  return counters_;
}

Status Compactor::last_error() {
  const std::lock_guard lock(mutex_);
  return last_error_.ok() ? damage_ : last_error_;
}

}  // namespace guildlite
