// The reading side: bring a database back as of a transaction, proven.
//
//   manifest -> snapshot (newest one usable at the target) -> log slots to the target -> temp file
//   -> whole-database checksum equals the target's rolling checksum -> fsync -> link under the name.
//
// Invariants:
//   1. Nothing appears under the final name unless every byte of it was verified; an existing file is
//      never replaced (link(2), not rename(2)).
//   2. The target is a restore point: its rolling checksum is known, it is at or above its snapshot's
//      usable_from and not inside an open heal. "Latest" is the newest such point at the tip.
//   3. A killed restore leaves only `.<name>.guildlite-restore-<hex>` beside the target, locked while in
//      use; the next restore into that directory removes unlocked ones of the same name.
//   4. Memory is bounded: one part, one block, the walk's budget.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "guildlite/types.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/manifest.h"

namespace guildlite {

struct RestoreTarget {
  enum class Kind { kLatest, kTxid, kPosition, kTime, kLabel } kind = Kind::kLatest;
  Txid txid;
  Position position;
  int64_t time_ms = 0;  // inclusive
  std::string label;
  // "": latest. All digits: txid. A position token. `label:…`. RFC 3339 or what SQLite's datetime()
  // yields ("2026-11-23 15:00:00", UTC). BAD_ARGUMENT otherwise.
  static Result<RestoreTarget> Parse(std::string_view at);
};

// Pure: lists in, decision out.
struct RestorePlan {
  SnapshotRecord snapshot;
  Slot first_slot;
  Slot last_slot;            // last to read; first_slot-1 when the snapshot alone is the target
  Txid target;
  uint64_t history_hash = 0;
  uint64_t rolling_checksum = 0;
  uint32_t database_pages = 0;
  Epoch epoch;
  int64_t time_ms = 0;
};

struct RestoreReport {
  Position position;
  int64_t time_ms = 0;       // commit time of the target
  uint32_t page_size = 0;
  uint32_t database_pages = 0;
  uint64_t rolling_checksum = 0;
  uint64_t bytes_read = 0;
  uint64_t objects_read = 0;
  uint64_t transactions = 0;  // applied after the snapshot
};

enum class RestoreCheck { kChecksum, kQuick, kFull };

struct RestoreSettings {
  Random* random = nullptr;
  // Runs SQLite's quick_check / integrity_check on the temp file; given by the floor that has SQLite.
  std::function<Status(const std::string& temp_path)> sqlite_check;
};

// Restores to `path`, which must not exist (EXISTS).
// NO_BACKUP: no manifest or no usable snapshot; NO_SUCH_POINT: target outside what is kept or not a
// restore point (the message says the nearest ones); POSITION_LOST; CHAIN_BROKEN: names the object.
Result<RestoreReport> Restore(ObjectStore& store, const std::string& path,
                              const RestoreTarget& target, const RestoreSettings& settings);

// The same proof into an unlinked temp file in `directory`.
Result<RestoreReport> Verify(ObjectStore& store, const std::string& directory,
                             const RestoreTarget& target, const RestoreSettings& settings);

}  // namespace guildlite
