// Sweeper: deletes. Nothing else in the project deletes from a store. A Task.
//
//   tombstones   what the manifest does not reference any more, a grace time after that
//   orphans      what a writer that crashed had uploaded and never named; once an epoch, after the
//                first deletion
//
// Invariants (hazards H2, H3):
//   1. A tombstone is deleted only when it is older than the grace time: restores that began before
//      it was set have ended by then, or plan again.
//   2. A FENCE is never deleted: no tombstone names one, and log objects are no orphans.
//   3. Orphans are names of an epoch strictly below the one held after its FENCE: its writer's
//      swaps cannot land any more. The manifest that says what is referenced is read after the
//      LIST.
//   4. What an object names as parts goes before the object: a kill in between repeats it.
//   5. Deleting twice is harmless; the tombstone goes last.
//
// Thread-safe; Step() runs on the pool only.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/base/task.h"
#include "vfs/objects/manifest.h"

namespace guildlite {

class Sweeper : public Task {
 public:
  struct Settings {
    int64_t grace_ms = 24 * 60 * 60 * 1000;
    size_t batch = 1000;  // keys a request: DeleteObjects of S3 takes so many
  };
  Sweeper(Clock& clock, Random& random, ObjectStore& store, const Settings& settings);

  // The claim is ours, its FENCE is in the log.
  void Begin(const Manifest& manifest);
  // The manifest has new tombstones. Wake afterwards.
  void TombstonesSet();

  int64_t Step(int64_t now_ms) override;

  struct Counters {
    uint64_t deleted = 0;
    uint64_t orphans_deleted = 0;
  };
  Counters counters();
  Status last_error();

 private:
  // nullopt: nothing left to wait for; else when the next tombstone is due, in store time.
  Result<std::optional<int64_t>> DeleteDue(Epoch epoch, Session session, bool* more);
  Status SweepOrphans(Epoch epoch, Session session);
  Status DeleteAll(const std::vector<std::string>& keys);

  Clock& clock_;
  Random& random_;
  ObjectStore& store_;
  const Settings settings_;

  uint32_t failures_ = 0;  // the pool's thread alone

  std::mutex mutex_;
  bool begun_ = false;
  bool look_ = false;  // at the manifest, for tombstones
  bool orphans_owed_ = false;
  Epoch epoch_;
  Session session_;
  Counters counters_;
  Status last_error_;
};

}  // namespace guildlite
