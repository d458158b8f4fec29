#include "vfs/replicate/claim.h"

#include <algorithm>
#include <vector>

#include "vfs/base/checksum.h"
#include "vfs/format/segment_reader.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

// Claims in a row that somebody else overtook before we give up: each is a real competitor's
// success.
constexpr int kFenceTriesMax = 8;

CapturedState StateOf(const ObjectHeader& h) {
  Transaction t;
  t.txid = h.last_txid;
  t.mark = h.mark;
  t.time_ms = h.time_ms;
  t.database_pages = h.database_pages;
  t.history_hash = h.history_hash;
  t.rolling_checksum = h.rolling_checksum;
  t.rolling_known = h.rolling_known;
  return CapturedState::After(t, h.page_size);
}

Status Fenced(const Manifest& m) {
  return Status(Tag::kFenced, "epoch " + std::to_string(m.epoch.value) +
                                  " of this log belongs to another writer (" + m.DescribeOwner() +
                                  "); writes here would not be part of it");
}

// What the log says its state is after `entries`. What a FENCE or an UNDO takes back is as in
// vfs/restore/restore_plan.cc.
Status Follow(const LogWalk& walk, StoreView* view) {
  std::vector<CapturedState> states;  // where objects ended, what was taken back left out
  if (view->tip.txid != Txid()) states.push_back(view->tip);
  const auto take_back = [&](const ObjectHeader& h, Txid txid) -> Status {
    while (!states.empty() && states.back().txid > txid) states.pop_back();
    if (states.empty() || states.back().txid != txid) {
      return Status(Tag::kChainBroken, LogKey(h.slot) + ": goes back to txid " +
                                           std::to_string(txid.value) +
                                           ", and no object in reach ends there");
    }
    view->tip = states.back();
    return Status::Ok();
  };
  for (const LogEntry& entry : walk.entries) {
    const ObjectHeader& h = entry.header;
    view->previous_hash = entry.follow_hash;
    switch (h.kind) {
      case ObjectKind::kData:
      case ObjectKind::kSegment:
        view->tip = StateOf(h);
        break;
      case ObjectKind::kFence:
        view->fence = h;
        // Only a rewind to before the heal ends it; another epoch alone does not.
        if (view->heal_open && h.continues_from <= view->before_heal.txid) view->heal_open = false;
        view->tip = StateOf(h);
        if (h.continues_from != h.last_txid) {
          GUILDLITE_RETURN_IF_ERROR(take_back(h, h.continues_from));
        }
        break;
      case ObjectKind::kHealBegin:
        // It says what the first scan added up to, where the log before it does not.
        if (!view->heal_open) view->before_heal = h.rolling_known ? StateOf(h) : view->tip;
        view->heal_open = true;
        break;
      case ObjectKind::kHealEnd:
        view->heal_open = false;
        view->tip = StateOf(h);
        break;
      case ObjectKind::kUndo:
        GUILDLITE_RETURN_IF_ERROR(take_back(h, Txid(h.first_txid.value - 1)));
        break;
      case ObjectKind::kVoid:
      case ObjectKind::kSnapshot:
        break;
    }
    if (states.empty() || states.back().txid != view->tip.txid) states.emplace_back();
    states.back() = view->tip;
  }
  view->next = walk.next;
  view->manifest = walk.manifest;
  return Status::Ok();
}

void StartAtHint(const Acknowledged& hint, StoreView* view) {
  view->previous_hash = hint.previous_hash;
  view->tip.txid = hint.txid;
  view->tip.history_hash = hint.history_hash;
  view->heal_open = hint.heal_open;
}

}  // namespace

Result<StoreView> LookAtStore(ObjectStore& store, const std::optional<Acknowledged>& hint,
                              std::optional<ManifestAt> manifest) {
  if (!manifest) {
    auto read = ReadManifest(store);
    if (!read.ok()) return read.status();
    manifest = *std::move(read);
  }
  const Manifest& m = manifest->manifest;
  StoreView view;
  Slot from = m.horizon;
  WalkSettings settings;
  settings.keep_bytes_max = 0;
  const SnapshotRecord* newest = m.snapshots.empty() ? nullptr : &m.snapshots.back();
  if (hint && hint->next_slot >= m.floor) {
    from = hint->next_slot;
    if (from.value > 1) settings.previous_hash = hint->previous_hash;
    StartAtHint(*hint, &view);
  } else if (newest) {
    // One more, for the state it went on from when nothing was committed since.
    from = Slot(std::max(m.horizon.value, newest->first_slot.value - 1));
  }
  auto walk = WalkLog(store, m, from, settings);
  if (!walk.ok()) return walk.status();
  // The one more is lost: no restore needs it, and what follows tells the state all the same.
  const bool without = !hint && newest && walk->next < newest->first_slot;
  if (without) {
    walk = WalkLog(store, m, newest->first_slot, settings);
    if (!walk.ok()) return walk.status();
  }
  GUILDLITE_RETURN_IF_ERROR(Follow(*walk, &view));
  if (const auto beyond = SlotBeyond(m, view.next)) {
    return Status(Tag::kChainBroken, LogKey(view.next) + ": missing, but slot " +
                                         std::to_string(beyond->value) + " comes after it");
  }
  if (without && (view.tip.txid == Txid() || (view.heal_open && view.before_heal.txid == Txid()))) {
    return Status(Tag::kChainBroken, LogKey(from) +
                                         ": missing, and what follows does not tell "
                                         "the state that it left");
  }
  // A scan ended at E without a transaction after it: E's checksum is known to its snapshot alone.
  if (!hint && newest && !view.tip.rolling_known && view.tip.txid == newest->usable_from) {
    auto header = ReadHeader(store, newest->key);
    if (!header.ok()) return header.status();
    const WalMark mark = view.tip.mark;
    view.tip = StateOf(*header);
    if (mark != WalMark()) view.tip.mark = mark;
  }
  return view;
}

Result<std::optional<StoreView>> LookAtTip(ObjectStore& store, const Acknowledged& hint) {
  const auto next = store.Get(LogKey(hint.next_slot), ByteRange{0, 1});
  if (next.ok()) return std::optional<StoreView>();
  if (next.status().tag() != Tag::kNotFound) return next.status();
  auto manifest = ReadManifest(store);  // begun after the 404 (hazard H2)
  if (!manifest.ok()) {
    if (manifest.status().tag() == Tag::kNotFound) return std::optional<StoreView>();
    return manifest.status();
  }
  const Manifest& m = manifest->manifest;
  if (m.lineage != hint.lineage || m.floor > hint.next_slot) return std::optional<StoreView>();
  StoreView view;
  StartAtHint(hint, &view);
  view.next = hint.next_slot;
  view.manifest = *std::move(manifest);
  return std::optional<StoreView>(std::move(view));
}

namespace {

// Invariant 3. `m` was read after the FENCE was there.
Status CheckHolds(const Manifest& m, const Claimant& claimant, Epoch epoch, Slot fence) {
  if (m.session != claimant.session || m.epoch != epoch) return Fenced(m);
  if (m.floor > fence) {
    return Status(Tag::kBusy, "the log was joined while it was being claimed", true);
  }
  return Status::Ok();
}

// Puts the FENCE of the manifest's epoch at the log's end and makes sure it holds. `view`: the log
// as it was read before, the manifest as it is now.
Result<StoreView> PutFence(ObjectStore& store, Clock& clock, const Claimant& claimant,
                           StoreView view, const std::optional<CapturedState>& rewind) {
  bool look = !view.whole() || view.manifest.manifest.floor > view.next;
  for (int tries = 0; tries < kFenceTriesMax; ++tries) {
    if (look) {
      auto looked = LookAtStore(store, std::nullopt);
      if (!looked.ok()) return looked.status();
      view = *std::move(looked);
    }
    look = true;
    const Manifest& m = view.manifest.manifest;
    if (m.session != claimant.session) return Fenced(m);
    if (view.fence && view.fence->epoch == m.epoch) {
      // Put by an earlier try, and the manifest was read after it.
      GUILDLITE_RETURN_IF_ERROR(CheckHolds(m, claimant, m.epoch, view.fence->slot));
      if (!rewind || view.fence->continues_from == rewind->txid) return view;
    }
    if (rewind) {
      // The owner before us goes on until it meets the FENCE: once its heal has ended, or another
      // began elsewhere, what it put since is acknowledged, and no FENCE may take that back.
      if (!view.heal_open || view.before_heal.txid != rewind->txid ||
          view.before_heal.history_hash != rewind->history_hash) {
        return Status(Tag::kBusy, "the log went on while it was being compared", true);
      }
      view.tip = *rewind;
      view.heal_open = false;
    }
    ObjectHeader h;
    h.kind = ObjectKind::kFence;
    h.lineage = m.lineage;
    h.epoch = m.epoch;
    h.session = m.session;
    h.slot = h.last_slot = view.next;
    h.first_txid = h.last_txid = h.continues_from = view.tip.txid;
    h.time_ms = std::max(view.tip.time_ms, clock.NowMs());
    h.page_size = view.tip.page_size;
    h.database_pages = view.tip.database_pages;
    h.mark = view.tip.mark_valid ? view.tip.mark : WalMark();
    if (view.next.value == 1) view.tip.history_hash = HistoryStart(m.lineage);
    h.history_hash = view.tip.history_hash;
    h.rolling_checksum = view.tip.rolling_checksum;
    h.rolling_known = view.tip.rolling_known;
    h.previous_hash = view.previous_hash;
    const std::string object = EncodeObject(h, {});
    auto put = store.Put(LogKey(view.next), object, PutCondition::Create());
    if (!put.ok()) {
      // The old owner was quicker with its last batch: it is before our FENCE, and we follow it.
      if (put.status().tag() == Tag::kAlreadyExists) continue;
      return put.status().Context("claim: fence");
    }
    auto again = ReadManifest(store);
    if (!again.ok()) return again.status();
    GUILDLITE_RETURN_IF_ERROR(CheckHolds(again->manifest, claimant, m.epoch, view.next));
    view.manifest = *again;
    view.previous_hash = ObjectHash(object);
    view.next = view.next.Next();
    view.fence = h;
    return view;
  }
  return Status(Tag::kFenced,
                "another writer kept appending to the log while it was being claimed");
}

}  // namespace

Result<StoreView> ClaimFirst(ObjectStore& store, Random& random, Clock& clock, Lineage lineage,
                             const Claimant& claimant) {
  Manifest m;
  m.lineage = lineage;
  m.epoch = Epoch(1);
  m.session = claimant.session;
  m.owner = claimant.owner;
  m.claimed_ms = clock.NowMs();
  m.floor = Slot(1);
  auto created = CreateManifest(store, m, random);
  if (created.status().tag() == Tag::kAlreadyExists) {
    // Perhaps by an earlier try of ours that landed late.
    auto now = ReadManifest(store);
    if (!now.ok()) return now.status();
    const Manifest& there = now->manifest;
    if (there.lineage != lineage || there.session != claimant.session || there.epoch != m.epoch) {
      return created.status();
    }
    created = std::move(now);
  }
  if (!created.ok()) return created.status();
  StoreView empty;
  empty.manifest = *std::move(created);
  empty.next = Slot(1);
  return PutFence(store, clock, claimant, std::move(empty), std::nullopt);
}

namespace {

// Whether the manifest says where past_epochs[i] ended, or still what ClaimNext() put there for the
// time being: then the slot it names is where the one before it ended, and holds no FENCE of a
// later epoch.
Result<bool> IsRecorded(ObjectStore& store, const std::vector<PastEpoch>& past_epochs, size_t i) {
  const PastEpoch& past = past_epochs[i];
  if (past.fence > (i > 0 ? past_epochs[i - 1].fence : Slot(1))) return true;
  auto header = ReadHeader(store, LogKey(past.fence));
  if (header.status().tag() == Tag::kNotFound) return true;  // retired; nothing better is known
  if (!header.ok()) return header.status();
  return header->kind == ObjectKind::kFence && header->epoch > past.epoch;
}

// The end of the epoch before ours, as our FENCE froze it, belongs into the manifest: positions of
// that epoch are judged by it. So do the ends of the epochs before it whose own claims died before
// they were recorded: nothing of theirs came after, so they ended in the same state. And what a
// rewind took back is no part of any epoch.
Status RecordPastEnd(ObjectStore& store, Random& random, const Claimant& claimant, Slot fence,
                     const CapturedState& end, ManifestAt* manifest) {
  const auto& past = manifest->manifest.past_epochs;
  if (past.empty() || (past.back().fence == fence && past.back().last_txid == end.txid &&
                       past.back().history_hash == end.history_hash)) {
    return Status::Ok();
  }
  size_t from = past.size() - 1;
  for (; from > 0; --from) {
    const auto recorded = IsRecorded(store, past, from - 1);
    if (!recorded.ok()) return recorded.status();
    if (*recorded) break;
  }
  auto updated = UpdateManifest(
      store, random,
      [&](Manifest& m) -> Status {
        if (m.session != claimant.session) return Fenced(m);
        for (size_t i = 0; i < m.past_epochs.size(); ++i) {
          PastEpoch& p = m.past_epochs[i];
          if (i >= from) p.fence = fence;
          if (i >= from || p.last_txid > end.txid) {
            p.last_txid = end.txid;
            p.history_hash = end.history_hash;
          }
        }
        return Status::Ok();
      },
      *manifest);
  if (!updated.ok()) return updated.status();
  *manifest = *updated;
  return Status::Ok();
}

// The claim's last step; the FENCE is in.
Result<StoreView> Recorded(ObjectStore& store, Random& random, const Claimant& claimant,
                           Result<StoreView> view) {
  if (!view.ok()) return view;
  const ObjectHeader& fence = *view->fence;
  CapturedState end = StateOf(fence);
  end.txid = fence.continues_from;
  GUILDLITE_RETURN_IF_ERROR(
      RecordPastEnd(store, random, claimant, fence.slot, end, &view->manifest));
  return view;
}

}  // namespace

Result<StoreView> ClaimResume(ObjectStore& store, Random& random, Clock& clock,
                              const Claimant& claimant, StoreView seen,
                              const std::optional<Acknowledged>& hint) {
  const Manifest& m = seen.manifest.manifest;
  if (m.session != claimant.session) return Fenced(m);
  // Is the FENCE of this epoch in the log? It is if anything of ours was ever acknowledged.
  if (hint && hint->epoch == m.epoch) return seen;
  if (!seen.fence || seen.fence->epoch != m.epoch) {
    // Or if it was recorded, which comes before anything is put, joined or made a snapshot of in
    // this epoch; otherwise it can only be in what was read from the newest snapshot on.
    const Slot recorded = m.past_epochs.empty() ? Slot(1) : m.past_epochs.back().fence;
    if (recorded < seen.next) {
      const auto header = ReadHeader(store, LogKey(recorded));
      if (!header.ok()) return header.status();
      if (header->kind == ObjectKind::kFence && header->epoch == m.epoch) return seen;
    }
  }
  return Recorded(store, random, claimant,
                  PutFence(store, clock, claimant, std::move(seen), std::nullopt));
}

Result<StoreView> ClaimNext(ObjectStore& store, Random& random, Clock& clock, StoreView seen,
                            const Claimant& claimant, const std::optional<CapturedState>& rewind) {
  const Manifest& before = seen.manifest.manifest;
  Manifest next = before;
  // Where the epoch ends is not known before the FENCE is in; until then it stands where the one
  // before it ended.
  PastEpoch past;
  past.epoch = next.epoch;
  past.fence = Slot(1);  // holds the first FENCE of all, whatever is joined
  if (!next.past_epochs.empty()) {
    past.last_txid = next.past_epochs.back().last_txid;
    past.history_hash = next.past_epochs.back().history_hash;
    past.fence = next.past_epochs.back().fence;
  }
  next.past_epochs.push_back(past);
  next.epoch = next.epoch.Next();
  next.session = claimant.session;
  next.owner = claimant.owner;
  next.claimed_ms = clock.NowMs();
  next.released_ms = 0;
  auto swapped = SwapManifest(store, seen.manifest, next, random);
  if (const Tag tag = swapped.status().tag();
      tag == Tag::kPrecondition || tag == Tag::kOutcomeUnknown) {
    auto now = ReadManifest(store);
    if (!now.ok()) return now.status();
    const Manifest& m = now->manifest;
    if (m.session == claimant.session && m.epoch == next.epoch) {
      swapped = std::move(now);  // by this swap, or by one of an earlier try that landed late
    } else if (m.session != before.session || m.epoch != before.epoch) {
      return Fenced(m);
    } else if (tag == Tag::kPrecondition) {
      return Status(Tag::kBusy, "the manifest changed while its log was being claimed", true);
    }
  }
  if (!swapped.ok()) return swapped.status().Context("claim: manifest");
  seen.manifest = *std::move(swapped);
  return Recorded(store, random, claimant,
                  PutFence(store, clock, claimant, std::move(seen), rewind));
}

}  // namespace guildlite
