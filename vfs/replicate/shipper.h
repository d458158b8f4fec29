// Shipper: sealed batches -> log slots, one at a time, for one database. A Task.
//
// Invariants:
//   1. Exactly one put is in flight; until it is settled the same bytes go to the same slot. A slot
//      is never skipped, and nothing is decided from a HEAD or a missing key.
//   2. A put that answers "exists" is read: the same bytes or a matching prefix of our tail is ours
//      (a lost reply, a put of our own from before a crash, hazard H10); anything else, our own
//      session's with another history too (two copies of one disk), means FENCED.
//   3. The WAL is on disk before what came from it is in the log (hazard H5).
//   4. Durable means restorable (hazard H17): acknowledged, a usable snapshot at or below, no open
//      heal.
//   5. Past the FENCE of another epoch nothing is durable any more. What is committed here and not
//   in
//      the log goes on in the same way, as the same objects, under orphans/
//      (vfs/objects/orphans.h).
//   6. The first commit after a pause ships at once; then a put begins at most every
//      sync_interval_ms, unless somebody waits.
//
// Thread-safe; Step() runs on the pool only.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/base/task.h"
#include "vfs/replicate/claim.h"
#include "vfs/replicate/recorder.h"
#include "vfs/replicate/sidecar.h"

namespace guildlite {

struct ShipCounters {
  uint64_t puts = 0;
  uint64_t gets = 0;
  uint64_t retries = 0;
  uint64_t bytes_sent = 0;
  uint64_t log_bytes = 0;  // since the last snapshot
};

class Shipper : public Task {
 public:
  struct Settings {
    int64_t sync_interval_ms = 1000;
    uint64_t body_max = 8 << 20;     // of one log object
    uint64_t part_bytes = 16 << 20;  // of one piece of a larger body
  };
  // Called, on the pool, when the log can go on no further: FENCED, or dropped (then tag kOk: a new
  // epoch is needed). After FENCED it is called again when orphan() says whole or lost.
  using OnStopped = std::function<void(const Status&)>;
  // Called after each acknowledgement, on the pool: what is in the slot now; "" where it is not
  // what we just put.
  using OnProgress = std::function<void(Slot slot, std::string_view object)>;

  Shipper(Clock& clock, Random& random, ObjectStore& store, Recorder& recorder, Sidecar& sidecar,
          const Settings& settings, OnStopped stopped, OnProgress progress);

  // The log is ours from here. `restorable`: it has a usable snapshot already.
  void Begin(const StoreView& view, Session session, bool restorable);
  // As Begin(), for a writer whose log ended with its epoch: `view.next` is the slot of the FENCE,
  // or the next of what it left under orphans/ already, `end` where the FENCE froze its epoch.
  void BeginOrphan(const StoreView& view, Session session, const CapturedState& end);
  // What is under orphans/ by now. `whole`: everything captured so far is there or in the log.
  // `lost`: it cannot be told any more what is missing.
  struct OrphanProgress {
    CapturedState from;  // the log's end
    CapturedState to;
    bool whole = false;
    bool lost = false;
  };
  std::optional<OrphanProgress> orphan();
  // The first snapshot is in the manifest, or another one: log_bytes starts anew.
  void SnapshotTaken();

  int64_t Step(int64_t now_ms) override;

  // Somebody waits: ship without regard to the interval until Release().
  void Hurry();
  void Release();

  // The last state that is durable; nullopt before the first.
  std::optional<CapturedState> durable();
  std::optional<Position> durable_position();
  // The last state in the log.
  CapturedState acknowledged();
  Epoch epoch();
  Lineage lineage();
  Session session();
  Slot next_slot();
  bool begun();
  // The slot after the object that ended with `txid`; nullopt when none did (yet).
  std::optional<Slot> SlotAfter(Txid txid);
  // Waits until `done()` or the timeout; woken by every acknowledgement and by Notify().
  bool WaitUntil(int64_t timeout_ms, const std::function<bool()>& done);
  void Notify();
  ShipCounters counters();
  Status last_error();
  int64_t last_error_ms();

 private:
  struct InFlight {
    ShipItem item;
    std::string object;
    bool parts_done = false;
  };
  Status Prepare(ShipItem item);
  Status UploadParts(ObjectHeader* header, const ShipItem& item);
  Status SettleExisting();
  Status CheckCapturedHere(const ObjectHeader& h);
  void Settle(const ShipItem& item, uint64_t object_hash, uint64_t size);
  std::string Key() const;
  void Fenced(const Status& status);
  bool TailLost(const std::optional<ShipItem>& item);
  void SetOrphanWhole(bool whole);
  int64_t Failed(const Status& status, int64_t now_ms);

  Clock& clock_;
  Random& random_;
  ObjectStore& store_;
  Recorder& recorder_;
  Sidecar& sidecar_;
  const Settings settings_;
  const OnStopped on_stopped_;
  const OnProgress on_progress_;

  // The pool's thread alone.
  std::optional<InFlight> in_flight_;
  int64_t next_put_ms_ = 0;
  int64_t retry_at_ms_ = 0;
  uint32_t failures_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  bool begun_ = false;
  bool stopped_ = false;
  Lineage lineage_;
  Epoch epoch_;
  Session session_;
  Slot next_;
  uint64_t previous_hash_ = 0;
  CapturedState acked_;
  bool restorable_ = false;
  bool heal_open_ = false;
  std::optional<CapturedState> durable_;
  std::optional<OrphanProgress> orphan_;  // set: the log is not ours any more; durable_ stays
  std::deque<std::pair<Txid, Slot>> ends_;
  ShipCounters counters_;
  Status last_error_;
  int64_t last_error_ms_ = 0;
  std::atomic<int> waiters_{0};
};

}  // namespace guildlite
