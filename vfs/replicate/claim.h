// Claim: becoming the one writer of a log, by the store alone. No clock, no LIST, no heartbeat.
//
//   first start   create-only manifest {epoch 1} -> log/1 = FENCE of epoch 1
//   resume        the manifest names our session -> follow the log to its end, adopting what we put
//                 before a crash and never heard of
//   takeover      swap the manifest to epoch+1 -> follow the log to its end -> create the FENCE at
//   the
//                 first empty slot -> read the manifest again: still ours, or give up
//
// Invariants:
//   1. A slot once created never has other content, so the log is one list with one winner a slot.
//   2. Every epoch begins with a FENCE; fences are never deleted. The old owner's next put meets
//      it.
//   3. After the FENCE the manifest is read again: our epoch, and floor at or below the FENCE, or
//      the claim is void (another claim overtook us, or the slot was re-opened by deletion).
//   4. The session planned for a takeover is in the sidecar before the swap: a crash in between
//      leaves a manifest that is recognised as ours.
//
// These are functions over an ObjectStore: no state, no thread, retried by their caller as a whole.
#pragma once

#include <optional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/capture/page_table.h"
#include "vfs/objects/manifest.h"
#include "vfs/replicate/sidecar.h"

namespace guildlite {

// What is in the store, up to the log's tip.
struct StoreView {
  ManifestAt manifest;
  Slot next;                   // first empty slot
  uint64_t previous_hash = 0;  // object hash of next-1; 0 when next is 1
  CapturedState tip;           // the state the log ends in; complete unless it came from a hint
  bool heal_open = false;
  CapturedState before_heal;  // heal_open: the state it began from, the last that can be restored
};

// kNotFound: no manifest. With `hint` (what we had acknowledged, same lineage) only newer slots are
// read, and if there are none tip holds txid and history alone.
Result<StoreView> LookAtStore(ObjectStore& store, const std::optional<Acknowledged>& hint);

struct Claimant {
  Session session;
  std::string owner;  // host and process, for people
};

// kAlreadyExists: there is a manifest of somebody else.
Result<StoreView> ClaimFirst(ObjectStore& store, Random& random, Clock& clock, Lineage lineage,
                             const Claimant& claimant);
// Completes a claim whose manifest names `claimant` already but whose FENCE is not in the log.
Result<StoreView> ClaimResume(ObjectStore& store, Random& random, Clock& clock,
                              const Claimant& claimant, const std::optional<Acknowledged>& hint);
// FENCED when somebody else claimed meanwhile. With `rewind` the FENCE says that the history goes
// on from that earlier state: what the log holds above it (an unfinished heal) is not part of it.
Result<StoreView> ClaimNext(ObjectStore& store, Random& random, Clock& clock,
                            const ManifestAt& manifest, const Claimant& claimant,
                            const std::optional<CapturedState>& rewind = std::nullopt);

}  // namespace guildlite
