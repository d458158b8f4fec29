// The only maker and parser of object keys. Everything under a database's prefix:
//
//   manifest.json                              the one mutable cell
//   log/<slot %016x>                           create-only, dense from 1
//   segments/<level>/<first %016x>-<last %016x>-<epoch %08x>-<rand %016x>
//   snapshot/<S %016x>-<E %016x>-<epoch %08x>-<rand %016x>
//   parts/<epoch %08x>-<slot or S %016x>-<n %08x>-<rand %016x>
//   orphans/<epoch %08x>-<session %016x>/<slot %016x>
//   orphans/<epoch %08x>-<session %016x>/<slot %016x>-<n %08x>-<rand %016x>   a part of that object
//   probe/<unix ms %016x>-<rand %016x>         of store_probe.h, deleted by it
//
// Parsers accept exactly what the makers make: one name for one thing. Hex is lower-case and of
// fixed width, so that the order of keys is the order of numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "guildlite/types.h"

namespace guildlite {

inline constexpr std::string_view kManifestKey = "manifest.json";
inline constexpr std::string_view kLogPrefix = "log/";
inline constexpr std::string_view kSegmentPrefix = "segments/";
inline constexpr std::string_view kSnapshotPrefix = "snapshot/";
inline constexpr std::string_view kPartPrefix = "parts/";
inline constexpr std::string_view kOrphanPrefix = "orphans/";
inline constexpr std::string_view kProbePrefix = "probe/";

std::string LogKey(Slot slot);
std::optional<Slot> ParseLogKey(std::string_view key);

std::string SnapshotKey(Txid as_of, Txid usable_from, Epoch epoch, uint64_t random);
struct SnapshotName {
  Txid as_of;
  Txid usable_from;
  Epoch epoch;
  uint64_t random = 0;
  bool operator==(const SnapshotName&) const = default;
};
std::optional<SnapshotName> ParseSnapshotKey(std::string_view key);

// A body part's name is its key: BodyPart::name holds this string.
std::string PartKey(Epoch epoch, uint64_t slot_or_txid, uint32_t index, uint64_t random);
struct PartName {
  Epoch epoch;
  uint64_t slot_or_txid = 0;
  uint32_t index = 0;
  uint64_t random = 0;
  bool operator==(const PartName&) const = default;
};
std::optional<PartName> ParsePartKey(std::string_view key);

std::string SegmentKey(uint32_t level, Slot first, Slot last, Epoch epoch, uint64_t random);
struct SegmentName {
  uint32_t level = 0;
  Slot first;
  Slot last;
  Epoch epoch;
  uint64_t random = 0;
  bool operator==(const SegmentName&) const = default;
};
std::optional<SegmentName> ParseSegmentKey(std::string_view key);
std::string ProbeKey(uint64_t made_ms, uint64_t random);
// When it was made.
std::optional<uint64_t> ParseProbeKey(std::string_view key);

// What a deposed writer had committed and the log has not. Of all that one epoch left:
std::string OrphanPrefix(Epoch epoch);
// Of one writer of it.
std::string OrphanPrefix(Epoch epoch, Session session);
std::string OrphanKey(Epoch epoch, Session session, Slot slot);
struct OrphanName {
  Epoch epoch;
  Session session;
  Slot slot;
  bool operator==(const OrphanName&) const = default;
};
// Not of its parts.
std::optional<OrphanName> ParseOrphanKey(std::string_view key);
std::string OrphanPartKey(const OrphanName& of, uint32_t index, uint64_t random);

// Whether every store accepts it as a key (object_store.h). S3 allows 1024 bytes with the url's
// prefix, and a file name has at most 255.
inline constexpr size_t kKeyBytesMax = 512;
inline constexpr size_t kKeySegmentBytesMax = 255;
bool IsValidKey(std::string_view key);

}  // namespace guildlite
