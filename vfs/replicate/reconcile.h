// Reconcile: what a database found at open is, compared with the store, and what follows. Pure:
// facts in, decision out; tests hold the table.
//
//   found                                                      decision
//   ---------------------------------------------------------  ---------------------------------
//   1 store empty, nothing remembered (or a new url)           first start
//   2 store empty, but this database was replicated there      asked for now: first start;
//                                                              else NO_BACKUP
//   3 our session; WAL or clean close prove the captured       continue; in a new epoch when a
//     state                                                    position handed out may be lost
//   4 our session; a heal is owed, or the file is not          heal, new epoch
//     provably what was captured (written without us, power
//     loss), same inode
//   5 another session took over                                asked for now: compare;
//                                                              else FENCED
//   6 nothing remembered, another inode or another lineage;    compare: equal to the tip, or the
//     asked for now                                            tip's WAL mark is in our WAL: new
//                                                              epoch; else DIVERGED
//   7 as 6, not asked for now                                  DIVERGED: a copied folder never
//                                                              becomes a second writer
//   8 as 6, and the local database is empty                    RESTORE_NEEDED
//   9 our session, proven, and the log goes on from there      DIVERGED: an older copy was put
//     with what is not here                                    back
//  10 a takeover of ours whose FENCE is not known to be in      compare, as the takeover itself:
//     the log                                                  the old owner may have shipped on
//
// A disk older than the store never overwrites it: only rows 1-4 write without having compared,
// and 4 keeps everything before it restorable.
#pragma once

#include <string>

#include "guildlite/status.h"

namespace guildlite {

struct LocalFacts {
  bool remembered = false;  // a readable sidecar for this url
  bool same_inode = false;  // the database file is the sidecar's
  bool proven = false;      // table, spool, and WAL mark, link or clean-close record add up
  // Every position handed out so far is a transaction of what is proven: no power was lost since
  // the files were last made to survive that (hazard H8).
  bool kept = false;
  bool heal_owed = false;
  bool empty = false;      // no table in it: 0 bytes, or an empty schema
  bool log_known = false;  // something of it was acknowledged by the store before
};

struct StoreFacts {
  bool exists = false;        // it has a manifest
  bool same_lineage = false;  // as the sidecar's
  bool our_session = false;   // the manifest names the sidecar's session
  bool our_takeover = false;  // it names one that the sidecar planned for somebody else's log
  // Whether what was captured locally and the tip are points of one history: the tip's txid is at
  // or below the captured one's and its history hash is known locally, or can be checked while
  // capturing.
  bool tip_in_history = false;
  // The log goes on from a state that is proven to be here, with transactions that are not: this is
  // an earlier state of the same database.
  bool tip_beyond = false;
};

enum class Verdict { kFirstStart, kContinue, kHeal, kCompare, kRefuse };

struct Decision {
  Verdict verdict = Verdict::kRefuse;
  bool new_epoch = false;
  Status refusal;  // kRefuse
};

// `asked`: configuration was given now (SQL or environment), not found in the sidecar.
Decision Reconcile(const LocalFacts& local, const StoreFacts& store, bool asked);

}  // namespace guildlite
