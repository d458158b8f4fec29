// The manifest: the one mutable object of a database, changed by compare-and-swap only.
//
// Invariants (Validate() states 3 and 4, called by encoder and decoder alike; SwapManifest() 1, 2):
//   1. rev grows by one with every swap and nonce is fresh random: no two bodies are ever equal, or
//      a stale swap could be revived by an equal ETag (hazard H3). So there is one body of each rev
//      for ever, and its nonce tells whose it is.
//   2. lineage never changes; epoch, floor and horizon never go back.
//   3. past_epochs is ascending, dense from 1 to epoch-1, with non-decreasing txids and fences.
//   4. A snapshot's txid <= usable_from; snapshots are ascending by usable_from; first_slot >= 1;
//      its log, if it needs one, is [first_slot, end_slot). Segments are ascending, do not overlap
//      and lie below the floor. horizon <= floor.
//   5. Unknown fields of the same format are kept by readers that rewrite it, those inside of
//      records too: none are dropped.
//   6. Where a slot is: at or above the floor in its own log object, and a missing one is the tip;
//      below it in the segment that covers it, else in its own object, unless it is below the
//      horizon too: there only FENCEs are sure, and what a kept snapshot needs to be restored as of
//      its own point.
//   7. claimed_ms and released_ms are written with the epoch they are of, and read only in that: an
//      older version keeps them as members it does not know (5), through claims of its own too.
//   8. Its second line holds the Hash64 of all that follows it, in every format: one wrong digit of
//      a slot would otherwise make a restore end early, and be believed.
//
// Written as JSON, keys sorted, 64-bit numbers as fixed-width hex strings (JSON numbers lose bits).
//
// After a swap whose put failed with kOutcomeUnknown or a retryable error (H3):
//
//   the store then has   it means                                         SwapManifest() answers
//   our nonce            it happened                                      the new manifest
//   the version swapped  it may yet happen: a delayed request can land    the error of the put
//   the rev after it     that rev is somebody else's: it never happens    kPrecondition
//   anything else        it happened and was built upon, or never will    kOutcomeUnknown
//   no answer            anything                                         the error of the put
//
// Only kPrecondition proves that what was uploaded for the swap is not referenced. To settle the
// rest, swap again: that changes the version, and with it the old request can no longer land.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "guildlite/types.h"

namespace guildlite {

struct SnapshotRecord {
  std::string key;
  Txid txid;         // S: pages as of
  Txid usable_from;  // E: first restore point
  Slot first_slot;   // the slot that holds txid S+1 (or will)
  Slot end_slot;     // E is in a slot below it; equal to first_slot when S == E
  Epoch epoch;
  uint64_t history_hash = 0;         // at S: what DecodeBody of first_slot starts from
  uint64_t usable_history_hash = 0;  // at E: for its position
  int64_t time_ms = 0;               // commit time of E
  std::string label;                 // "" = none
  uint64_t bytes = 0;                // stored, parts included
  uint64_t database_bytes = 0;
  std::string unknown_json;  // other members of the record, kept (invariant 5); "" = none
  bool operator==(const SnapshotRecord&) const = default;
};

struct PastEpoch {
  Epoch epoch;
  Txid last_txid;             // what its successor's FENCE froze
  uint64_t history_hash = 0;  // there
  Slot fence;                 // the FENCE that ended it
  std::string unknown_json;
  bool operator==(const PastEpoch&) const = default;
};

struct SegmentRecord {
  std::string key;
  uint32_t level = 0;
  Slot first_slot;
  Slot last_slot;
  Txid first_txid;
  Txid last_txid;
  uint64_t last_object_hash = 0;  // of the log object in last_slot: what the slot after it names
  uint64_t bytes = 0;
  std::string unknown_json;
  bool operator==(const SegmentRecord&) const = default;
};

// No longer referenced, to be deleted after a grace time; with what it names as parts.
struct Tombstone {
  std::string key;
  Slot last_slot;  // 0: that object alone; else key is a log object's and all up to this slot go,
                   // none of which is a FENCE or has parts
  int64_t since_ms = 0;
  std::string unknown_json;
  bool operator==(const Tombstone&) const = default;
};

struct Manifest {
  uint32_t format = 1;
  uint32_t min_reader = 1;
  uint64_t rev = 1;
  uint64_t nonce = 0;
  Lineage lineage;
  Epoch epoch{1};
  Session session;          // owns the epoch
  std::string owner;        // host name and pid, for people
  int64_t claimed_ms = 0;   // when the epoch began, by its owner's clock; 0 = not known
  int64_t released_ms = 0;  // when its owner had shipped all and left; 0 = it did not, or came back
  Slot floor{1};
  Slot horizon{1};
  std::vector<PastEpoch> past_epochs;
  std::vector<SnapshotRecord> snapshots;
  std::vector<SegmentRecord> segments;
  std::vector<Tombstone> tombstones;
  std::string unknown_json;  // other members of the object, kept (invariant 5); "" = none
  bool operator==(const Manifest&) const = default;

  Status Validate() const;  // CHAIN_BROKEN
  // Whether its owner has left it: a courtesy to whoever waits for that, never a proof.
  bool released() const { return session == Session() || released_ms != 0; }
  // "pod-0 pid 7, since 2026-11-23T15:00:00.000Z", for messages.
  std::string DescribeOwner() const;
  // FENCED unless this epoch is still that session's.
  Status CheckOwner(Epoch owned, Session by) const;
  std::string Encode() const;  // REQUIRES Validate().ok()
  // CHAIN_BROKEN for damage, FORMAT_TOO_NEW when min_reader is above ours.
  static Result<Manifest> Decode(std::string_view json, std::string_view name);
};

// Whether no later epoch went on from below the snapshot's point, as far as the manifest knows:
// then the newest history goes through it.
bool SurvivedItsEpoch(const Manifest& manifest, const SnapshotRecord& snapshot);

// Invariant 8 given to the text of a JSON object without `checksum`; "" where it is no object.
std::string SealManifest(std::string_view object);

struct ManifestAt {
  Manifest manifest;
  std::string version;  // for the next swap
};

// kNotFound when there is none.
Result<ManifestAt> ReadManifest(ObjectStore& store);
// Create-only, as rev 1 with a fresh nonce. kAlreadyExists when there is one that is not ours. An
// unknown outcome is settled by reading; without an answer it is the error of the put.
Result<ManifestAt> CreateManifest(ObjectStore& store, Manifest manifest, Random& random);
// One swap of `from`: rev+1, fresh nonce (whatever `to` has). kPrecondition: somebody else swapped
// and this swap never happens; read again. kBadArgument: `to` breaks invariant 2.
Result<ManifestAt> SwapManifest(ObjectStore& store, const ManifestAt& from, Manifest to,
                                Random& random);
// Read-change-swap until it holds, at most kUpdateTriesMax times, then kStoreThrottled. `change`
// gets the manifest as it is now, again after each lost or unknown swap: it looks whether what it
// wants is there already, and returns an error to give up (not the owner any more, for instance).
// `known`: the manifest as it was last read, which saves a read when nobody swapped since.
inline constexpr int kUpdateTriesMax = 16;
Result<ManifestAt> UpdateManifest(ObjectStore& store, Random& random,
                                  const std::function<Status(Manifest&)>& change,
                                  std::optional<ManifestAt> known = std::nullopt);

}  // namespace guildlite
