// Which objects bring a database back as of a point: decided from lists, without I/O.
//
// The log is a list of slots, but a history is not: a FENCE that rewinds and an UNDO take
// transactions back. Planning replays the headers of the log from a snapshot's first slot into
// *runs*, one per object that holds transactions, cut where a later object took some back; what is
// left is the history as of the last slot replayed. A position names its epoch, and so its history:
// the log up to where that epoch ends. Hence a point that was rewound over stays restorable by its
// position, while a number, a time and "latest" only ever mean the history that holds now.
//
//   1. A plan's steps hold txids snapshot.txid+1 .. target, dense, in order.
//   2. The target is a restore point: at or above the snapshot's usable_from, with a known rolling
//      checksum (its transaction's, a HEAL_END's, or the snapshot's own), not inside a heal.
//   3. O(objects): of transactions inside an object nothing is asked but where the answer lies, or
//      where an object ends in a transaction that is not a restore point.
//   4. What is missing is never taken for the end: a slot behind the tip of the walk, in the store
//      or named by the manifest, proves a hole (CHAIN_BROKEN), unless the target is certain without
//      what is behind it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/status.h"
#include "guildlite/types.h"
#include "vfs/capture/transaction.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/manifest.h"

namespace guildlite {

struct RestoreTarget {
  enum class Kind { kLatest, kTxid, kPosition, kTime, kLabel } kind = Kind::kLatest;
  Txid txid;
  Position position;
  int64_t time_ms = 0;  // inclusive
  std::string label;    // of several snapshots with the label, the newest
  // "": latest. All digits: txid. A position token. `label:…`. RFC 3339 or what SQLite's datetime()
  // yields ("2026-11-23 15:00:00", UTC). BAD_ARGUMENT otherwise.
  static Result<RestoreTarget> Parse(std::string_view at);
  // "txid 7", "2026-11-23T15:00:00.000Z": for messages.
  std::string ToString() const;
  bool operator==(const RestoreTarget&) const = default;
};

// Of one log object or segment, transactions first..last (it may hold more, before and after).
struct RestoreStep {
  Slot slot;  // its first
  Txid first;
  Txid last;
  bool operator==(const RestoreStep&) const = default;
};

struct RestorePlan {
  SnapshotRecord snapshot;
  std::vector<RestoreStep> steps;  // empty: the snapshot alone is the target
  // The target:
  Txid target;
  Epoch epoch;  // in force there: its object's, or the snapshot record's
  uint64_t history_hash = 0;
  int64_t time_ms = 0;
  // False: the target is the snapshot's usable point, and its header alone holds the checksum (and,
  // without steps, the pages).
  bool rolling_known = false;
  uint64_t rolling_checksum = 0;
  uint32_t database_pages = 0;
  bool operator==(const RestorePlan&) const = default;
};

// The snapshots a restore of `target` may start from, best first; never empty. The next one is for
// when the history of the target does not go through the one before (PlanRestore says so).
// NO_BACKUP, NO_SUCH_POINT (before everything kept, no such label), POSITION_LOST (other lineage).
Result<std::vector<SnapshotRecord>> SnapshotsFor(const Manifest& manifest,
                                                 const RestoreTarget& target);

// What of the log has to be walked to plan with this snapshot: from `first` to the tip, or to below
// `until` where the log after the snapshot's own point is not kept any more.
struct LogRange {
  Slot first;
  std::optional<Slot> until;
};
// nullopt: nothing, the snapshot alone is its own point.
std::optional<LogRange> NeededLog(const Manifest& manifest, const SnapshotRecord& snapshot,
                                  const RestoreTarget& target);

struct WalkedLog {
  // All that NeededLog() names, dense.
  std::span<const LogEntry> entries;
  // The transactions inside an entry, as its metas tell them, unproven: applying them proves them.
  std::function<Result<std::vector<Transaction>>(const LogEntry&)> transactions;
  // A slot behind the tip of the walk that was seen in the store: the tip is a hole.
  std::optional<Slot> beyond;
};

// `manifest` as read *before* the walk: slots it names must have been walked. nullopt: the target's
// history does not go through this snapshot, or none of its points is what was asked for.
// NO_SUCH_POINT, POSITION_LOST, CHAIN_BROKEN.
Result<std::optional<RestorePlan>> PlanRestore(const Manifest& manifest,
                                               const SnapshotRecord& snapshot, const WalkedLog& log,
                                               const RestoreTarget& target);

// The error when PlanRestore said nullopt for every snapshot.
Status NoPlan(const Manifest& manifest, const RestoreTarget& target);

}  // namespace guildlite
