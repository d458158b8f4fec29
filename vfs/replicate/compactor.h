// Compactor: keeps the log of one database short. A Task.
//
//   join     many small log objects -> segments, their batches unchanged; the floor goes up
//   retire   what lies below the older of the two newest snapshots leaves the manifest
//
// Both change the manifest alone, and leave tombstones: deleting is the sweeper's.
//
// Invariants:
//   1. A swap is made by the owner of the epoch only, and names what is stored already.
//   2. FENCEs are never joined, never named by a tombstone.
//   3. A slot's content can be read before and after each swap: a segment enters together with the
//      floor and the tombstones of what it took the place of, and those are deleted much later.
//   4. A segment's name is never used twice: after a swap of unknown outcome another is made.
//   5. What we shipped ourselves is joined from a local copy: a GET per slot would double the
//      requests. The copy is a cache; what is not in it (after a restart) is read from the store.
//   6. A slot that is lost or damaged stays where it is, unjoined, and holds up neither a join nor
//      retirement: what others have of it is told, with its key, by whoever restores.
//
// Thread-safe; Step() runs on the pool only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/base/file_io.h"
#include "vfs/base/task.h"
#include "vfs/format/segment_merge.h"
#include "vfs/objects/manifest.h"

namespace guildlite {

class Compactor : public Task {
 public:
  struct Settings {
    uint64_t join_slots = 5000;           // log objects that trigger a join
    uint64_t segment_bytes = 4 << 20;     // a segment is closed at
    uint64_t object_bytes_max = 1 << 20;  // larger log objects stay as they are
    uint64_t cache_bytes_max = 64 << 20;  // of the local copy
    int64_t retention_ms = 0;             // see retention.h
  };
  // `cache_path`: of the local copy; whatever is there is overwritten. `wake_sweeper` is called, on
  // the pool, when there are tombstones; `on_damage` of each slot that cannot be read any more.
  Compactor(
      Clock& clock, Random& random, ObjectStore& store, std::string cache_path,
      const Settings& settings, std::function<void()> wake_sweeper,
      std::function<void(const Status&)> on_damage = [](const Status&) {});

  // The claim is ours; `next` is the first empty slot.
  void Begin(const Manifest& manifest, Slot next);
  // `object` is in `slot`, acknowledged; "" when it is not at hand. In order. Wake afterwards if
  // it says so.
  bool Shipped(Slot slot, std::string_view object);
  // A snapshot entered the manifest. Wake afterwards.
  void SnapshotTaken();

  int64_t Step(int64_t now_ms) override;

  struct Counters {
    uint64_t joins = 0;
    uint64_t segments = 0;
    uint64_t slots_joined = 0;
    uint64_t slots_read_back = 0;
    uint64_t retirements = 0;
  };
  Counters counters();
  // Of the last step; if that went well, of a slot that is lost until it is retired.
  Status last_error();

 private:
  struct Cached {
    Slot slot;
    uint64_t offset = 0;
    uint64_t size = 0;
  };
  struct Join {
    Manifest planned;
    Slot at;   // the next to look at
    Slot end;  // the first not to
    SegmentMerge run;
    std::vector<SegmentRecord> made;
  };

  Status BeginJoin();
  Status AdvanceJoin();
  Status CloseRun();
  Status FinishJoin();
  Status Retire();
  Result<Bytes> Load(Slot slot);
  Status JoinSlot(Slot slot);
  void ForgetBelow(Slot slot);

  Clock& clock_;
  Random& random_;
  ObjectStore& store_;
  const std::string cache_path_;
  const Settings settings_;
  const std::function<void()> wake_sweeper_;
  const std::function<void(const Status&)> on_damage_;

  // The pool's thread alone.
  std::optional<Join> join_;
  uint32_t failures_ = 0;

  std::mutex mutex_;
  bool begun_ = false;
  bool anew_ = false;  // Begin() since the last Step()
  Epoch epoch_;
  Session session_;
  Slot floor_;  // the manifest's, as far as we know
  Slot next_;
  int64_t retry_at_ms_ = 0;
  bool retire_ = false;
  bool join_first_ = false;
  File cache_;
  std::deque<Cached> cached_;  // slots and offsets ascending
  uint64_t cache_end_ = 0;
  Counters counters_;
  Status last_error_;
  Status damage_;
  Slot damaged_;  // the newest such slot
};

}  // namespace guildlite
