// The reading side: bring a database back as of a transaction, proven.
//
//   manifest -> snapshot (newest one usable at the target) -> log slots to the target -> temp file
//   -> whole-database checksum equals the target's rolling checksum -> fsync -> link under the
//   name.
//
// Invariants:
//   1. Nothing appears under the final name unless every byte of it was verified; an existing file
//      is never replaced (link(2), not rename(2)).
//   2. The target is a restore point: its rolling checksum is known, it is at or above its
//      snapshot's usable_from and not inside an open heal. "Latest" is the newest such point at the
//      tip.
//   3. A killed restore leaves only `.<name>.guildlite-restore-<hex>` beside the target, locked
//      while in use; the next restore into that directory removes unlocked ones of the same name.
//   4. Memory is bounded: one part, one block, the walk's budget, and what is read ahead of its
//   turn
//      (read_ahead.h). What the walk did not keep is fetched again and must have the hash it had.
//   5. An object that is gone is damage, unless a manifest read after that says it was retired:
//      then the restore is planned anew (hazard H2), at most kPlanTriesMax times.
//
// Not here: what SQLite makes of the content (RestoreSettings::sqlite_check), retries of the store.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "guildlite/status.h"
#include "guildlite/types.h"
#include "vfs/restore/restore_plan.h"

namespace guildlite {

struct RestoreReport {
  Position position;
  int64_t time_ms = 0;  // commit time of the target
  uint32_t page_size = 0;
  uint32_t database_pages = 0;
  uint64_t rolling_checksum = 0;
  uint64_t bytes_read = 0;
  uint64_t objects_read = 0;
  uint64_t transactions = 0;  // applied after the snapshot
};

enum class RestoreCheck { kChecksum, kQuick, kFull };

inline constexpr int kPlanTriesMax = 5;

struct RestoreSettings {
  Random* random = nullptr;  // for the temp file's name; null: SystemRandom()
  uint64_t keep_bytes_max = WalkSettings().keep_bytes_max;  // log objects held in memory
  // Runs SQLite's quick_check / integrity_check on the temp file, whose checksum is proven already;
  // given by the floor that has SQLite. Must only read.
  std::function<Status(const std::string& temp_path)> sqlite_check;
};

// Restores to `path`, which must not exist (EXISTS), nor a -wal, -shm or -journal of it: SQLite
// would replay those onto the restored file. Its directory must. NO_BACKUP: no manifest or no
// usable snapshot; NO_SUCH_POINT: target outside what is kept or not a restore point (the message
// says the nearest ones); POSITION_LOST; CHAIN_BROKEN: names the object; TIMEOUT: retired objects
// faster than they could be read, every time. Anything the store says.
Result<RestoreReport> Restore(ObjectStore& store, const std::string& path,
                              const RestoreTarget& target, const RestoreSettings& settings);

// The same proof into a temp file in `directory` that never gets a name (with sqlite_check, which
// needs one: only its temporary one).
Result<RestoreReport> Verify(ObjectStore& store, const std::string& directory,
                             const RestoreTarget& target, const RestoreSettings& settings);

}  // namespace guildlite
