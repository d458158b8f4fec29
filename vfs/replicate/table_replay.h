// Bringing a page table forward by what the log says: after a crash the table on disk may be older
// than the log, when batches were acknowledged before the WAL reset that would have flushed it.
// Page numbers and hashes are in the objects' metas, so no image is read; with the table at the
// log's tip a heal ships only what really differs.
//
// When in doubt (a rewind, an undo, a body in parts, a missing slot) it says so and the caller
// takes every page as unknown, which costs bytes and is never wrong.
#pragma once

#include "guildlite/object_store.h"
#include "vfs/capture/page_table.h"
#include "vfs/replicate/claim.h"

namespace guildlite {

// `state` and `table` are a whole state on the log's history, at or before view.tip; `from` is a
// slot at or after the one that holds state.txid+1. True: both are at view.tip now. False: they
// cannot be brought there, and are unchanged or partly advanced: not to be used.
Result<bool> ReplayTable(ObjectStore& store, const StoreView& view, Slot from, CapturedState* state,
                         PageTable* table);

}  // namespace guildlite
