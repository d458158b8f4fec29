// What exists in the log: slots are dense, so reading on from a known slot until the next one is
// missing finds the tip without a LIST.
//
//   1. A 404 is the tip only if a manifest read begun after it shows floor <= that slot (hazard H2:
//      otherwise the slot may have been deleted under us and the answer would be old data,
//      verified).
//   2. Every object is whole, of this lineage, in its own slot, names its predecessor by hash, and
//      is of no older epoch than it. What is not is CHAIN_BROKEN and names the key.
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
  std::string bytes;  // the whole object, if kept (small, and within the walk's budget)
};

struct LogWalk {
  std::vector<LogEntry> entries;  // entries[i].header.slot == from + i
  Slot next;                      // the first missing slot: the tip is next-1
  ManifestAt manifest;            // as read after the 404
};

struct WalkSettings {
  // object_hash of slot from-1, if known: then `from` is checked against it too.
  std::optional<uint64_t> previous_hash;
  // Objects are kept in LogEntry::bytes as long as all kept ones fit; the first that does not, and
  // every later one, is read again by whoever wants it.
  uint64_t keep_bytes_max = 64 << 20;
};

// Follows the log from `from` (>= 1) to its tip: one GET per slot, the 404, one GET of the
// manifest. kNotFound: the slots asked for were retired meanwhile (or the manifest is gone): read
// the manifest and plan again. A `from` below the floor is no error as long as its slots are still
// there.
Result<LogWalk> WalkLog(ObjectStore& store, Lineage lineage, Slot from,
                        const WalkSettings& settings = {});

// The header of an object, without the rest: one ranged GET, or a second where a long list of parts
// makes the header longer than kHeaderReadBytes. Of a kData object see ObjectHeader::state_inside.
Result<ObjectHeader> ReadHeader(ObjectStore& store, const std::string& key);

}  // namespace guildlite
