// What a deposed writer had committed and the log does not hold: objects under orphans/, one list
// for each writer and epoch (object_key.h).
//
// A list is the continuation that the log did not take: ordinary log objects of that epoch, the
// first in the slot that holds the FENCE, naming the same predecessor as the FENCE does. Where the
// writer could not tell its tail it holds a snapshot of its whole database instead, or after them,
// which depends on nothing else.
//
//   1. Created once, never changed, never deleted by this program: the sweeper does not list them.
//   2. Only the writer whose epoch and session the name has writes there, one put at a time.
//   3. They are found by LIST: nothing in the manifest names them, since whoever writes them may
//      not change it any more.
#pragma once

#include <string>
#include <vector>

#include "guildlite/object_store.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"

namespace guildlite {

// The objects below a prefix (kOrphanPrefix, OrphanPrefix()), in order, without their parts.
Result<std::vector<OrphanName>> ListOrphans(ObjectStore& store, std::string_view prefix);

// One object, whole and in its place; its bytes are not kept. CHAIN_BROKEN, kNotFound.
Result<LogEntry> ReadOrphan(ObjectStore& store, Lineage lineage, const OrphanName& name);

// A snapshot object as the manifest would record it.
SnapshotRecord RecordOf(const LogEntry& snapshot);

// The point an object ends in.
Position EndPosition(const ObjectHeader& header);

}  // namespace guildlite
