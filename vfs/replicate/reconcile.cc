#include "vfs/replicate/reconcile.h"

namespace guildlite {
namespace {

Decision Refuse(Tag tag, std::string message) {
  Decision d;
  d.refusal = Status(tag, std::move(message));
  return d;
}

}  // namespace

Decision Reconcile(const LocalFacts& local, const StoreFacts& store, bool asked) {
  if (!store.exists) {
    if (local.remembered && local.log_known && !asked) {  // row 2
      return Refuse(Tag::kNoBackup,
                    "the store has no manifest, but this database was replicated there; if it was "
                    "deleted on purpose, call replication_start() again to begin a new log");
    }
    return {Verdict::kFirstStart, false, {}};  // row 1
  }
  const bool ours = local.remembered && store.same_lineage && local.same_inode;
  if (ours && store.our_session) {
    if (local.proven && !local.heal_owed && store.tip_in_history) {
      return {Verdict::kContinue, !local.kept, {}};  // row 3
    }
    if (local.proven && !local.heal_owed && store.tip_beyond) {  // row 9
      return Refuse(Tag::kDiverged,
                    "the store holds transactions of this database that its disk has not: an older "
                    "copy was put back, or the disk lost what it had synced. Restore the newest "
                    "state with snapshot_restore() to a new file; to go on from this older one "
                    "instead, replicate it to another url");
    }
    return {Verdict::kHeal, true, {}};  // row 4
  }
  // Asked for when it was planned; a copied folder is none of that.
  const bool takeover = ours && store.our_takeover;  // row 10
  if (ours && !asked && !takeover) {                 // row 5
    return Refuse(
        Tag::kFenced,
        "another writer has taken over this log; writes here would not be part of it. To "
        "take it back call replication_start() with the url, on a copy of its newest state");
  }
  if (!asked && !takeover) {  // row 7
    return Refuse(
        Tag::kDiverged,
        "this database file is not the one its replication folder was made for (copied or "
        "replaced); call replication_start() with the url to go on from it, or delete the "
        "-guildlite folder");
  }
  if (local.empty) {  // row 8
    return Refuse(Tag::kRestoreNeeded,
                  "this database is empty but the store holds a backup; restore it with "
                  "snapshot_restore() to a new file, or use another url");
  }
  return {Verdict::kCompare, true, {}};  // rows 5, 6, 10
}

}  // namespace guildlite
