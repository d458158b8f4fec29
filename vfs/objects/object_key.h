// The only maker and parser of object keys. Everything under a database's prefix:
//
//   manifest.json                              the one mutable cell
//   log/<slot %016x>                           create-only, dense from 1
//   segments/<level>/<first %016x>-<last %016x>-<epoch %08x>-<rand %016x>
//   snapshot/<S %016x>-<E %016x>-<epoch %08x>-<rand %016x>
//   parts/<epoch %08x>-<slot or S %016x>-<n %08x>-<rand %016x>
//   orphans/<epoch %08x>/<slot %016x>
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "guildlite/types.h"

namespace guildlite {

inline constexpr std::string_view kManifestKey = "manifest.json";

std::string LogKey(Slot slot);
std::optional<Slot> ParseLogKey(std::string_view key);
std::string SnapshotKey(Txid as_of, Txid usable_from, Epoch epoch, uint64_t random);
struct SnapshotName {
  Txid as_of;
  Txid usable_from;
  Epoch epoch;
  uint64_t random = 0;
};
std::optional<SnapshotName> ParseSnapshotKey(std::string_view key);
// A body part's name is its key: BodyPart::name holds this string.
std::string PartKey(Epoch epoch, uint64_t slot_or_txid, uint32_t index, uint64_t random);

// Whether the store accepts it as a key (object_store.h).
bool IsValidKey(std::string_view key);

}  // namespace guildlite
