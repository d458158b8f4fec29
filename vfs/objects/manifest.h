// The manifest: the one mutable object of a database, changed by compare-and-swap only.
//
// Invariants (Validate() states each, called by encoder and decoder alike):
//   1. rev grows by one with every swap and nonce is fresh random: no two bodies are ever equal, or a
//      stale swap could be revived by an equal ETag (hazard H3).
//   2. lineage never changes; epoch and floor never go back.
//   3. past_epochs is ascending, dense from 1 to epoch-1, with non-decreasing txids.
//   4. A snapshot's txid <= usable_from; snapshots are ascending by usable_from; first_slot >= 1.
//   5. Unknown fields of the same format are kept by readers that rewrite it: none are dropped.
//
// Written as JSON, keys sorted, 64-bit numbers as fixed-width hex strings (JSON numbers lose bits).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "guildlite/types.h"

namespace guildlite {

struct SnapshotRecord {
  std::string key;
  Txid txid;              // S: pages as of
  Txid usable_from;       // E: first restore point
  Slot first_slot;        // the slot that holds txid S+1 (or will)
  Epoch epoch;
  uint64_t history_hash = 0;         // at S: what DecodeBody of first_slot starts from
  uint64_t usable_history_hash = 0;  // at E: for its position
  int64_t time_ms = 0;    // commit time of E
  std::string label;      // "" = none
  uint64_t bytes = 0;     // stored, parts included
  uint64_t database_bytes = 0;
  bool operator==(const SnapshotRecord&) const = default;
};

struct PastEpoch {
  Epoch epoch;
  Txid last_txid;              // what its successor's FENCE froze
  uint64_t history_hash = 0;   // there
  Slot fence;                  // the FENCE that ended it
  bool operator==(const PastEpoch&) const = default;
};

struct SegmentRecord {
  std::string key;
  uint32_t level = 0;
  Slot first_slot;
  Slot last_slot;
  Txid first_txid;
  Txid last_txid;
  uint64_t bytes = 0;
  bool operator==(const SegmentRecord&) const = default;
};

struct Tombstone {
  std::string key;
  int64_t since_ms = 0;
  bool operator==(const Tombstone&) const = default;
};

struct Manifest {
  uint32_t format = 1;
  uint32_t min_reader = 1;
  uint64_t rev = 1;
  uint64_t nonce = 0;
  Lineage lineage;
  Epoch epoch{1};
  Session session;         // owns the epoch
  std::string owner;       // host name and pid, for people
  Slot floor{1};
  std::vector<PastEpoch> past_epochs;
  std::vector<SnapshotRecord> snapshots;
  std::vector<SegmentRecord> segments;
  std::vector<Tombstone> tombstones;
  std::string unknown_json;  // other members of the object, kept (invariant 5); "" = none
  bool operator==(const Manifest&) const = default;

  Status Validate() const;
  std::string Encode() const;  // REQUIRES Validate().ok()
  // CHAIN_BROKEN for damage, FORMAT_TOO_NEW when min_reader is above ours.
  static Result<Manifest> Decode(std::string_view json, std::string_view name);
};

struct ManifestAt {
  Manifest manifest;
  std::string version;  // for the next swap
};

// kNotFound when there is none.
Result<ManifestAt> ReadManifest(ObjectStore& store);
// Create-only. kAlreadyExists when there is one (or a lost reply created ours: then compare nonces).
Result<ManifestAt> CreateManifest(ObjectStore& store, Manifest manifest, Random& random);
// One swap of `from`: rev+1, fresh nonce. kPrecondition: somebody else swapped; read again. An unknown
// outcome is settled by re-reading: our nonce there means it happened.
Result<ManifestAt> SwapManifest(ObjectStore& store, const ManifestAt& from, Manifest to,
                                Random& random);
// Read-change-swap until it holds, at most kUpdateTriesMax times. `change` returns an error to give
// up (not the owner any more, for instance).
inline constexpr int kUpdateTriesMax = 16;
Result<ManifestAt> UpdateManifest(ObjectStore& store, Random& random,
                                  const std::function<Status(Manifest&)>& change);

}  // namespace guildlite
