#include "vfs/replicate/sweeper.h"

#include <algorithm>
#include <utility>

#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr int64_t kRetryMs = 1000;
constexpr int64_t kRetryMaxMs = 60000;
constexpr int64_t kNothing = Task::kIdle;

}  // namespace

Sweeper::Sweeper(Clock& clock, Random& random, ObjectStore& store, const Settings& settings)
    : clock_(clock), random_(random), store_(store), settings_(settings) {}

void Sweeper::Begin(const Manifest& manifest) {
  const std::lock_guard lock(mutex_);
  begun_ = true;
  look_ = !manifest.tombstones.empty();
  orphans_owed_ = manifest.epoch > Epoch(1);
  epoch_ = manifest.epoch;
  session_ = manifest.session;
}

void Sweeper::TombstonesSet() {
  const std::lock_guard lock(mutex_);
  look_ = true;
}

int64_t Sweeper::Step(int64_t now_ms) {
  Epoch epoch;
  Session session;
  {
    const std::lock_guard lock(mutex_);
    if (!begun_ || !std::exchange(look_, false)) return kNothing;
    epoch = epoch_;
    session = session_;
  }
  bool more = false;
  auto due = DeleteDue(epoch, session, &more);
  Status status = due.status();
  bool sweep = false;
  if (status.ok() && !more) {
    const std::lock_guard lock(mutex_);
    sweep = orphans_owed_;
  }
  if (sweep) status = SweepOrphans(epoch, session);
  const std::lock_guard lock(mutex_);
  if (epoch_ != epoch) {  // begun anew meanwhile
    look_ = true;
    return now_ms;
  }
  last_error_ = status;
  look_ |= !status.ok() || more || due->has_value();
  if (sweep && status.ok()) orphans_owed_ = false;
  if (status.tag() == Tag::kFenced) {
    begun_ = false;
    return kNothing;
  }
  if (!status.ok()) {
    const int64_t wait = std::min(kRetryMaxMs, kRetryMs << std::min(failures_, 6u));
    ++failures_;
    return now_ms + wait;
  }
  failures_ = 0;
  if (more) return now_ms;
  if (!*due) return look_ ? now_ms : kNothing;
  return now_ms + std::max<int64_t>(1, **due - clock_.NowMs());
}

Status Sweeper::DeleteAll(const std::vector<std::string>& keys) {
  for (size_t at = 0; at < keys.size(); at += settings_.batch) {
    const size_t n = std::min(settings_.batch, keys.size() - at);
    GUILDLITE_RETURN_IF_ERROR(store_.DeleteAll(std::span(keys).subspan(at, n)).Context("sweep"));
  }
  return Status::Ok();
}

Result<std::optional<int64_t>> Sweeper::DeleteDue(Epoch epoch, Session session, bool* more) {
  auto manifest = ReadManifest(store_);
  if (!manifest.ok()) return manifest.status().Context("sweep");
  const Manifest& m = manifest->manifest;
  GUILDLITE_RETURN_IF_ERROR(m.CheckOwner(epoch, session));
  const int64_t deadline = clock_.NowMs() - settings_.grace_ms;
  std::vector<Tombstone> due;
  std::optional<int64_t> next;
  uint64_t keys_due = 0;
  *more = false;
  for (const Tombstone& t : m.tombstones) {
    if (t.since_ms > deadline) {
      next = std::min(next.value_or(INT64_MAX), t.since_ms + settings_.grace_ms);
    } else if (!due.empty() && keys_due >= settings_.batch) {
      *more = true;
    } else {
      due.push_back(t);
      keys_due += t.last_slot.value == 0 ? 1 : t.last_slot.value - ParseLogKey(t.key)->value + 1;
    }
  }
  if (due.empty()) return next;
  uint64_t deleted = 0;
  std::vector<std::string> keys;
  for (const Tombstone& t : due) {
    if (t.last_slot.value != 0) {
      for (Slot slot = *ParseLogKey(t.key); slot <= t.last_slot; slot = slot.Next()) {
        keys.push_back(LogKey(slot));
      }
      continue;
    }
    // Only these have parts of their own.
    if (ParseLogKey(t.key) || ParseSnapshotKey(t.key)) {
      auto header = ReadHeader(store_, t.key);
      if (header.status().tag() == Tag::kNotFound) continue;
      if (!header.ok()) return header.status().Context("sweep");
      if (header->kind == ObjectKind::kFence) continue;  // invariant 2, whoever set this
      std::vector<std::string> parts;
      for (const BodyPart& part : header->parts) parts.push_back(part.name);
      GUILDLITE_RETURN_IF_ERROR(DeleteAll(parts));
      deleted += parts.size();
    }
    keys.push_back(t.key);
  }
  GUILDLITE_RETURN_IF_ERROR(DeleteAll(keys));
  deleted += keys.size();
  auto updated = UpdateManifest(store_, random_, [&](Manifest& now) -> Status {
    GUILDLITE_RETURN_IF_ERROR(now.CheckOwner(epoch, session));
    std::erase_if(now.tombstones, [&](const Tombstone& t) {
      return std::find(due.begin(), due.end(), t) != due.end();
    });
    return Status::Ok();
  });
  if (!updated.ok()) return updated.status().Context("sweep: manifest");
  const std::lock_guard lock(mutex_);
  counters_.deleted += deleted;
  return next;
}

Status Sweeper::SweepOrphans(Epoch epoch, Session session) {
  std::vector<std::string> found;
  const auto older = [&](const std::string& key) {
    if (const auto name = ParseSegmentKey(key)) return name->epoch < epoch;
    if (const auto name = ParseSnapshotKey(key)) return name->epoch < epoch;
    if (const auto name = ParsePartKey(key)) return name->epoch < epoch;
    return false;
  };
  for (const std::string_view prefix : {kSegmentPrefix, kSnapshotPrefix, kPartPrefix}) {
    std::string after;
    for (;;) {
      auto page = store_.List(prefix, after, settings_.batch);
      if (!page.ok()) return page.status().Context("sweep: list " + std::string(prefix));
      for (const ListEntry& entry : *page) {
        if (older(entry.key)) found.push_back(entry.key);
      }
      if (page->size() < settings_.batch) break;
      after = page->back().key;
    }
  }
  if (!found.empty()) {
    auto manifest = ReadManifest(store_);  // begun after the LISTs: invariant 3
    if (!manifest.ok()) return manifest.status().Context("sweep");
    const Manifest& m = manifest->manifest;
    GUILDLITE_RETURN_IF_ERROR(m.CheckOwner(epoch, session));
    std::set<std::string> named;
    for (const SegmentRecord& s : m.segments) named.insert(s.key);
    for (const Tombstone& t : m.tombstones) named.insert(t.key);
    for (const SnapshotRecord& s : m.snapshots) named.insert(s.key);
    const bool any_part = std::any_of(found.begin(), found.end(), [](const std::string& key) {
      return ParsePartKey(key).has_value();
    });
    if (any_part) {
      // A part's name holds the slot of its log object, or the S of its snapshot.
      std::set<std::string> users;
      for (const SnapshotRecord& s : m.snapshots) users.insert(s.key);
      for (const Tombstone& t : m.tombstones) {
        if (ParseSnapshotKey(t.key)) users.insert(t.key);
      }
      for (const std::string& key : found) {
        const auto part = ParsePartKey(key);
        if (part && part->slot_or_txid != 0) users.insert(LogKey(Slot(part->slot_or_txid)));
      }
      for (const std::string& user : users) {
        auto header = ReadHeader(store_, user);
        if (header.status().tag() == Tag::kNotFound) continue;
        if (!header.ok()) return header.status().Context("sweep");
        for (const BodyPart& part : header->parts) named.insert(part.name);
      }
    }
    std::erase_if(found, [&](const std::string& key) { return named.contains(key); });
    GUILDLITE_RETURN_IF_ERROR(DeleteAll(found));
  }
  const std::lock_guard lock(mutex_);
  counters_.orphans_deleted += found.size();
  return Status::Ok();
}

Sweeper::Counters Sweeper::counters() {
  const std::lock_guard lock(mutex_);
  return counters_;
}

Status Sweeper::last_error() {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

}  // namespace guildlite
