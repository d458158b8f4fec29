// What exists in the log: slots are dense, so reading on from a known slot until the next one is
// missing finds the tip without a LIST.
//
// A 404 is the tip only if a manifest read begun after it shows floor <= that slot (hazard H2:
// otherwise the slot may have been deleted under us and the answer would be old data, verified).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "guildlite/object_store.h"
#include "vfs/format/segment_format.h"
#include "vfs/objects/manifest.h"

namespace guildlite {

struct LogEntry {
  ObjectHeader header;
  uint64_t object_hash = 0;  // of the whole object; what slot+1 names as previous_hash
  uint64_t size = 0;
  std::string bytes;         // the whole object, if kept (small, and within the walk's budget)
};

struct LogWalk {
  std::vector<LogEntry> entries;  // entries[i].header.slot == from + i
  Slot next;                      // the first missing slot: the tip is next-1
  ManifestAt manifest;            // as read after the 404
};

struct WalkSettings {
  // Checked between slot n and n+1 (CHAIN_BROKEN when it does not hold); of slot from-1 if known.
  std::optional<uint64_t> previous_hash;
  uint64_t keep_bytes_max = 64 << 20;
};

// Follows the log from `from` to its tip. Every object is read whole and verified (OpenObject), its
// lineage and slot too. RESTORE planning error when from < floor: kNotFound.
Result<LogWalk> WalkLog(ObjectStore& store, Lineage lineage, Slot from,
                        const WalkSettings& settings = {});

}  // namespace guildlite
