// The part of a Replicator that follows a refusal: what was committed here and is not in the log is
// kept under orphans/ (vfs/objects/orphans.h) before anything could take it away.
//
//   found FENCED while shipping   the shipper goes on under orphans/ with what is still queued
//   found at open                 the same, from what table, spool and WAL prove to follow the
//   FENCE neither can be told           the whole database as one snapshot
//
// Every step may be repeated, by this process or the next: what is there already is looked for
// first, by name and by content. Nothing here changes the local files or the log.

#include <algorithm>
#include <utility>
#include <vector>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/orphans.h"
#include "vfs/replicate/local_image.h"
#include "vfs/replicate/replicator.h"
#include "vfs/replicate/replicator_local.h"

namespace guildlite {
namespace {

constexpr uint64_t kPartBytes = 16 << 20;
constexpr uint32_t kFlushPages = 1024;
constexpr uint64_t kCopyBytesMax = 64 << 20;
constexpr int64_t kRetryMinMs = 50;
constexpr int64_t kRetryMaxMs = 5000;
// Looks for the FENCE of a takeover before whoever began it is taken for dead.
constexpr uint32_t kFenceTriesMax = 6;

CapturedState StateOf(const ObjectHeader& h) {
  CapturedState s;
  s.txid = h.last_txid;
  s.mark = h.mark;
  s.mark_valid = h.mark != WalMark();
  s.history_hash = h.history_hash;
  s.rolling_checksum = h.rolling_checksum;
  s.rolling_known = h.rolling_known;
  s.page_size = h.page_size;
  s.database_pages = h.database_pages;
  s.time_ms = h.time_ms;
  return s;
}

bool SamePoint(const CapturedState& a, Txid txid, uint64_t history_hash) {
  return a.txid == txid && a.history_hash == history_hash;
}

// The FENCE that ended `epoch`. BUSY: it is not in the log yet; whoever swapped the manifest may
// have died before it.
Result<ObjectHeader> FenceAfter(ObjectStore& store, const Manifest& m, Epoch epoch) {
  const PastEpoch& past = m.past_epochs[epoch.value - 1];  // dense from epoch 1
  auto recorded = ReadHeader(store, LogKey(past.fence));
  if (!recorded.ok() && recorded.status().tag() != Tag::kNotFound) return recorded.status();
  if (recorded.ok() && recorded->kind == ObjectKind::kFence && recorded->epoch > epoch) {
    return recorded;
  }
  auto walk = WalkLog(store, m, std::max(past.fence, m.floor), {.keep_bytes_max = 0});
  if (!walk.ok()) return walk.status();
  for (const LogEntry& entry : walk->entries) {
    if (entry.header.kind == ObjectKind::kFence && entry.header.epoch > epoch) return entry.header;
  }
  return Status(Tag::kBusy, "the takeover of this log has not come to its FENCE", true);
}

}  // namespace

void Replicator::KeepFrom(Keeping keeping) {
  keeping_.store(keeping);
  Wake(settle_task_.get());
}

int64_t Replicator::KeepStep(int64_t now_ms) {
  Status status;
  if (keeping_.load() != Keeping::kNot && state_ && !std::exchange(state_->diverged, true)) {
    status = sidecar_.WriteState(*state_);
    if (!status.ok()) state_->diverged = false;
  }
  if (status.ok() && keeping_.load() == Keeping::kFind) {
    auto found = ShipTail();
    status = found.status();
    if (found.ok()) {
      keeping_.store(*found ? Keeping::kTail : Keeping::kWhole);
      if (*found) {
        Wake(capture_task_.get());
        Wake(shipper_.get());
      }
    }
  }
  const bool copy = keeping_.load() == Keeping::kCopy;
  if (status.ok() && (copy || keeping_.load() == Keeping::kWhole)) status = KeepWhole(copy);
  if (status.ok()) {
    keep_failures_ = 0;
    return Task::kIdle;
  }
  if (!copy)
    NoteKeeping("what it holds beyond the log is not saved under orphans/ yet: " +
                status.ToString());
  return now_ms + std::min(kRetryMaxMs, kRetryMinMs << std::min(keep_failures_++, 8u));
}

// True: the shipper goes on under orphans/. False: what would have to go there cannot be told.
Result<bool> Replicator::ShipTail() {
  Local& l = *local_;
  ObjectStore& store = *setup_.store;
  {
    // Writes may have gone on, and been captured, at the moment of the refusal; never after it.
    const std::lock_guard lock(begin_mutex_);
    if (recording_.exchange(false)) return false;
  }
  if (!deposed_ || !l.facts.proven || l.facts.heal_owed || !l.table_whole) return false;
  auto manifest = ReadManifest(store);
  if (!manifest.ok()) return manifest.status();
  const Manifest& m = manifest->manifest;
  if (m.lineage != state_->lineage || m.epoch <= state_->epoch) return false;
  const auto fence = FenceAfter(store, m, state_->epoch);
  if (fence.status().tag() == Tag::kBusy && keep_failures_ + 1 >= kFenceTriesMax) return false;
  if (!fence.ok()) return fence.status();

  StoreView view;
  view.manifest = *manifest;
  view.manifest.manifest.epoch = state_->epoch;
  view.next = fence->slot;
  view.previous_hash = fence->previous_hash;
  view.tip = StateOf(*fence);
  const CapturedState end = view.tip;
  const auto names = ListOrphans(store, OrphanPrefix(state_->epoch, state_->session));
  if (!names.ok()) return names.status();
  if (!names->empty()) {
    const auto last = ReadOrphan(store, m.lineage, names->back());
    if (!last.ok()) return last.status();
    if (last->header.kind == ObjectKind::kSnapshot) return false;
    view.next = last->header.slot.Next();
    view.previous_hash = last->object_hash;
    view.tip = StateOf(last->header);
  }
  const CapturedState& tip = view.tip;
  const bool ahead = tip.txid > l.captured.txid;
  bool follows = false;
  if (ahead) {
    auto reached = TipReachedByWal(view);
    if (!reached.ok()) return reached.status();
    follows = *reached;
  } else {
    follows =
        l.ships_from <= tip.txid.Next() && (SamePoint(l.captured, tip.txid, tip.history_hash) ||
                                            (l.acknowledged && l.acknowledged->txid == tip.txid &&
                                             l.acknowledged->history_hash == tip.history_hash) ||
                                            recorder_->AdoptableEnd(tip.txid, tip.history_hash));
  }
  if (!follows) return false;
  {
    const std::lock_guard lock(mutex_);
    past_epochs_ = m.past_epochs;
  }
  recorder_->StartAt(l.captured, std::move(l.table), tip.txid, l.unchanged);
  if (ahead) recorder_->SkipUntil(tip.txid, tip.history_hash);
  shipper_->BeginOrphan(view, state_->session, end);
  recording_.store(true);
  return true;
}

// The whole database as it is committed now, unless the log or orphans/ has just that. `copy`: of
// the point that the tail ends in, where that is still it.
Status Replicator::KeepWhole(bool copy) {
  ObjectStore& store = *setup_.store;
  const auto done = [&](const std::string& what, const std::optional<Position>& position) {
    if (!copy) Kept(what, position);
    Keeping expected = copy ? Keeping::kCopy : Keeping::kWhole;
    keeping_.compare_exchange_strong(expected, Keeping::kKept);
    shipper_->Notify();
    return Status::Ok();
  };
  const auto published = ReadPublishedNow();
  if (!published && copy) return done("", std::nullopt);
  if (!published) return Status(Tag::kBusy, "no connection has read the database yet", true);
  auto opened = LocalImage::Open(*recorder_->database(), setup_.wal_path, *published);
  if (!opened.ok()) return opened.status();
  LocalImage& image = **opened;
  if (image.pages() == 0) {
    return done("it is empty", std::nullopt);
  }
  auto manifest = ReadManifest(store);
  if (!manifest.ok()) return manifest.status();
  const Manifest& m = manifest->manifest;

  CapturedState whole;
  whole.page_size = image.page_size();
  whole.database_pages = image.pages();
  whole.rolling_known = true;
  for (const std::string& path : {setup_.path, setup_.wal_path}) {
    const auto file = IdentityOf(path);
    if (file.ok()) whole.time_ms = std::max(whole.time_ms, file->mtime_ns / 1000000);
  }
  std::vector<uint64_t> hashes(image.pages());
  std::vector<std::byte> page(image.page_size());
  const Pgno lock_page = LockPage(image.page_size());
  for (uint32_t i = 0; i < image.pages(); ++i) {
    const Pgno pgno(i + 1);
    if (pgno == lock_page) continue;
    GUILDLITE_RETURN_IF_ERROR(image.Read(pgno, page));
    hashes[i] = PageHash(pgno, page);
    NoteKeptPages(i);
    whole.rolling_checksum += hashes[i];
    if (pgno.value == 1) whole.free_pages = LoadBig32(page.data() + 36);
  }
  const auto same_content = [&](const CapturedState& s) {
    return s.rolling_known && s.rolling_checksum == whole.rolling_checksum &&
           s.database_pages == whole.database_pages;
  };

  // Whoever it was that wrote it.
  Epoch epoch = m.epoch;
  Session session;
  Txid above;
  if (shipper_->begun()) {
    epoch = shipper_->epoch();
    session = shipper_->session();
    above = shipper_->acknowledged().txid;
  } else if (state_ && state_->lineage == m.lineage && state_->epoch <= m.epoch) {
    epoch = state_->epoch;
    session = state_->session;
  }
  above = std::max(above, recorder_->captured().txid);
  if (local_) above = std::max(above, local_->captured.txid);
  // A log that cannot be read is no reason not to keep what is here.
  if (const auto view = LookAtStore(store, std::nullopt); view.ok()) {
    if (same_content(view->tip)) {
      return done("all that is in this file is in the log", std::nullopt);
    }
    above = std::max(above, view->tip.txid);
  } else if (view.status().retryable()) {
    return view.status();
  }
  whole.txid = above.Next();
  HistoryHash history(0, whole.txid, whole.database_pages);
  for (uint32_t i = 0; i < image.pages(); ++i) {
    if (Pgno(i + 1) != lock_page) history.Add(Pgno(i + 1), hashes[i]);
  }
  whole.history_hash = history.Finish();
  if (session == Session()) session = Session(whole.rolling_checksum);

  const auto names = ListOrphans(store, OrphanPrefix(epoch, session));
  if (!names.ok()) return names.status();
  OrphanName name{epoch, session, Slot(1)};
  bool saved = false;
  if (!names->empty()) {
    const auto last = ReadOrphan(store, m.lineage, names->back());
    if (!last.ok()) return last.status();
    saved = same_content(StateOf(last->header));
    // A tail needs the log that it continues; what is to be replaced must need nothing.
    if (saved &&
        (last->header.kind == ObjectKind::kSnapshot ||
         (!ToBeReplaced() && uint64_t{whole.database_pages} * whole.page_size > kCopyBytesMax))) {
      return done("this database, as it is, is kept in " + last->key, EndPosition(last->header));
    }
    if (saved) {
      whole.txid = last->header.last_txid;
      whole.history_hash = last->header.history_hash;
    }
    name.slot = names->back().slot.Next();
  }
  if (copy && !saved) return done("", std::nullopt);

  ObjectHeader h;
  h.kind = ObjectKind::kSnapshot;
  h.lineage = m.lineage;
  h.epoch = epoch;
  h.session = session;
  h.first_txid = h.last_txid = h.continues_from = whole.txid;
  h.time_ms = whole.time_ms;
  h.page_size = whole.page_size;
  h.database_pages = whole.database_pages;
  h.history_hash = whole.history_hash;
  h.rolling_checksum = whole.rolling_checksum;
  h.rolling_known = true;
  Transaction t;
  t.txid = whole.txid;
  t.time_ms = whole.time_ms;
  t.time_estimated = true;
  t.database_pages = whole.database_pages;
  t.free_pages = whole.free_pages;
  t.history_hash = whole.history_hash;
  t.rolling_checksum = whole.rolling_checksum;
  t.rolling_known = true;
  BatchWriter writer(
      {.page_size = whole.page_size, .level = 1, .block_pages_max = kSnapshotChunkPages});
  std::string encoded;
  // Named by its content: a repeated try finds the piece it had put.
  const auto put_part = [&]() -> Status {
    const std::string_view bytes =
        std::string_view(encoded).substr(0, std::min<uint64_t>(kPartBytes, encoded.size()));
    const uint64_t hash = Hash64(AsBytes(bytes));
    const std::string key = OrphanPartKey(name, static_cast<uint32_t>(h.parts.size()), hash);
    auto put = store.Put(key, bytes, PutCondition::Create());
    if (!put.ok() && put.status().tag() != Tag::kAlreadyExists) {
      return put.status().Context("put " + key);
    }
    h.parts.push_back({key, bytes.size(), hash});
    encoded.erase(0, bytes.size());
    return Status::Ok();
  };
  const Status changed(Tag::kBusy, "the database was written while it was being saved", true);
  writer.BeginTransaction(t);
  for (uint32_t i = 0; i < image.pages(); ++i) {
    const Pgno pgno(i + 1);
    if (pgno == lock_page) continue;
    GUILDLITE_RETURN_IF_ERROR(image.Read(pgno, page));
    if (PageHash(pgno, page) != hashes[i]) return changed;
    NoteKeptPages(uint64_t{image.pages()} + i);
    writer.AddPage(pgno, hashes[i], page, [](std::span<std::byte>) { return false; });
    if (i % kFlushPages != 0) continue;
    encoded += writer.TakeEncoded();
    while (encoded.size() >= kPartBytes) GUILDLITE_RETURN_IF_ERROR(put_part());
  }
  writer.EndTransaction();
  encoded += writer.Seal();
  while (encoded.size() >= kPartBytes || (!h.parts.empty() && !encoded.empty())) {
    GUILDLITE_RETURN_IF_ERROR(put_part());
  }
  if (const auto again = ReadPublishedNow(); !again || !(*again == *published)) return changed;
  const std::string key = OrphanKey(name.epoch, name.session, name.slot);
  const std::string object = EncodeObject(h, encoded, writer.index());
  auto put = store.Put(key, object, PutCondition::Create());
  if (put.status().tag() == Tag::kAlreadyExists) {
    // Ours, from a try whose answer was lost: the next look finds it.
    return Status(Tag::kBusy, key + " exists", true);
  }
  if (!put.ok()) return put.status().Context("put " + key);
  return done("this database, as it is, was saved as " + key, EndPosition(h));
}

// The shipper has all of the tail where it belongs.
void Replicator::TailKept(const Shipper::OrphanProgress& tail) {
  const uint64_t count = tail.to.txid.value - tail.from.txid.value;
  if (count == 0) {
    Kept("all that was committed here is in the log", std::nullopt);
    KeepFrom(Keeping::kKept);
    return;
  }
  Kept(std::to_string(count) + (count == 1 ? " transaction" : " transactions") +
           " that the log does not have (txid " + std::to_string(tail.from.txid.value + 1) +
           " to " + std::to_string(tail.to.txid.value) + ") were saved under " +
           OrphanPrefix(shipper_->epoch(), shipper_->session()),
       PositionOf(tail.to));
  const bool small = uint64_t{tail.to.database_pages} * tail.to.page_size <= kCopyBytesMax;
  KeepFrom(ToBeReplaced() ? Keeping::kWhole : small ? Keeping::kCopy : Keeping::kKept);
}

bool Replicator::ToBeReplaced() const { return setup_.options.on_diverged == "use_store"; }

void Replicator::NoteKeptPages(uint64_t pages) {
  if (pages > kept_pages_.load()) kept_pages_.store(pages);  // the settle task's alone
}

void Replicator::Kept(const std::string& what, const std::optional<Position>& position) {
  NoteKeeping(what + (position ? "; restore it with snapshot_restore(path, '" + setup_.options.url +
                                     "', '" + position->ToString() + "')"
                               : ""));
  std::string said;
  Tag tag;
  {
    const std::lock_guard lock(mutex_);
    said = kept_;
    tag = refusal_.tag();
  }
  setup_.warn(tag, said);
  shipper_->Notify();
}

// For whoever asks what became of it: the refusal, and that.
void Replicator::NoteKeeping(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (refused_why_.ok()) refused_why_ = refusal_;
  kept_ = what;
  refusal_ = Status(refused_why_.tag(), refused_why_.message() + "; " + what);
  last_error_ = refusal_;
  last_error_ms_ = setup_.clock->NowMs();
}

Status Replicator::WaitKept(int64_t timeout_ms) {
  shipper_->Hurry();
  Wake(shipper_.get());
  Wake(settle_task_.get());
  // A transaction that was under way when the FENCE was met commits after it.
  if (recording_.load()) (void)recorder_->CatchUp(UINT64_MAX);
  const auto kept = [&] {
    const Keeping k = keeping_.load();
    if (k != Keeping::kKept || !recording_.load()) return k == Keeping::kKept || k == Keeping::kNot;
    const auto tail = shipper_->orphan();
    return tail && tail->whole && tail->to.txid >= recorder_->captured().txid;
  };
  const bool done = shipper_->WaitUntil(timeout_ms, kept);
  shipper_->Release();
  if (done) return Status::Ok();
  const std::lock_guard lock(mutex_);
  return Status(Tag::kNotDurable,
                "what this database holds beyond the log is not saved under orphans/" +
                    (kept_.empty() ? std::string() : ": " + kept_));
}

}  // namespace guildlite
