// What the log says of one transaction long past: its history hash, by which a position handed out
// by an earlier process, or very long ago, is told from one of another history.
//
// A few GETs: within one epoch txids never go back from slot to slot, so objects are bisected, and
// only a transaction in the middle of one needs its metas. No image is read. Slots that were
// joined are looked for in their segments.
#pragma once

#include <cstdint>
#include <optional>

#include "guildlite/object_store.h"
#include "guildlite/types.h"

namespace guildlite {

// The slots of one epoch: from its FENCE to before the next one's. `end` 0: to the log's tip.
struct EpochSlots {
  Slot first{1};
  Slot end;
};

// nullopt: the epoch's slots do not tell (retired, or the txid is of another epoch).
Result<std::optional<uint64_t>> HistoryInLog(ObjectStore& store, const EpochSlots& slots,
                                             Txid txid);

}  // namespace guildlite
