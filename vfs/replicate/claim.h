// Claim: becoming the one writer of a log, by the store alone. No clock, no LIST, no heartbeat.
//
//   first start   create-only manifest {epoch 1} -> log/1 = FENCE of epoch 1
//   resume        the manifest names our session -> the log's end, adopting what we put before a
//                 crash and never heard of; its FENCE, if that is missing
//   takeover      follow the log to its end -> swap the manifest to epoch+1 -> create the FENCE at
//                 the first empty slot -> read the manifest again: still ours, or give up -> record
//                 where the epoch before ended
//
// Invariants:
//   1. A slot once created never has other content, so the log is one list with one winner a slot.
//   2. Every epoch begins with a FENCE; fences are never deleted. The old owner's next put meets
//      it.
//   3. After the FENCE the manifest is read again: our epoch, and floor at or below the FENCE, or
//      the claim is void (another claim overtook us, or the slot was re-opened by deletion).
//   4. A claim has one session, drawn and written to the sidecar before its first request and kept
//      through every later try: a request of an earlier try that lands late, even after a restart,
//      is recognised as ours (hazard H10).
//   5. That the FENCE was created proves that its slot was empty: what was followed to there is all
//      of the log, however long ago it was read.
//
// These are functions over an ObjectStore: no state, no thread, retried by their caller as a whole.
#pragma once

#include <optional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/capture/page_table.h"
#include "vfs/format/segment_format.h"
#include "vfs/objects/manifest.h"
#include "vfs/replicate/sidecar.h"

namespace guildlite {

// What is in the store, up to the log's tip.
struct StoreView {
  ManifestAt manifest;
  Slot next;                   // first empty slot
  uint64_t previous_hash = 0;  // object hash of next-1; 0 when next is 1
  CapturedState tip;           // the state the log ends in
  bool heal_open = false;
  CapturedState before_heal;  // heal_open: the state it began from, the last that can be restored
  std::optional<ObjectHeader> fence;  // the last FENCE of what was read

  // Else it came from a hint alone, and tip has txid and history, nothing more.
  bool whole() const { return tip.page_size != 0 || tip.txid == Txid(); }
};

// kNotFound: no manifest. With `hint` (what we had acknowledged, same lineage) only newer slots are
// read. `manifest`: as just read, if it was.
Result<StoreView> LookAtStore(ObjectStore& store, const std::optional<Acknowledged>& hint,
                              std::optional<ManifestAt> manifest = std::nullopt);
// Whether the log still ends where `hint` says, in two requests; nullopt when it does not, or that
// takes more to know.
Result<std::optional<StoreView>> LookAtTip(ObjectStore& store, const Acknowledged& hint);

struct Claimant {
  Session session;
  std::string owner;  // host and process, for people
};

// kAlreadyExists: there is a manifest of somebody else.
Result<StoreView> ClaimFirst(ObjectStore& store, Random& random, Clock& clock, Lineage lineage,
                             const Claimant& claimant);
// Goes on from `seen`, whose manifest names `claimant` already; completes the claim if its FENCE is
// not in the log. `hint`: what was acknowledged, if anything.
Result<StoreView> ClaimResume(ObjectStore& store, Random& random, Clock& clock,
                              const Claimant& claimant, StoreView seen,
                              const std::optional<Acknowledged>& hint);
// FENCED when somebody else claimed meanwhile; kBusy when only the manifest changed: look again.
// With `rewind` the FENCE says that the history goes on from that earlier state: what the log holds
// above it (an unfinished heal) is not part of it.
Result<StoreView> ClaimNext(ObjectStore& store, Random& random, Clock& clock, StoreView seen,
                            const Claimant& claimant,
                            const std::optional<CapturedState>& rewind = std::nullopt);

}  // namespace guildlite
