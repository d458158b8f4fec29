#include "vfs/replicate/replicator.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/base/file_io.h"
#include "vfs/base/time_text.h"
#include "vfs/replicate/replicator_local.h"
#include "vfs/replicate/table_replay.h"

namespace guildlite {
namespace {

// A write that comes before the claim is settled waits this long itself: most claims take
// milliseconds, and many programs have no busy timeout. Then SQLITE_BUSY, and theirs applies.
constexpr int64_t kWriteWaitMs = 1000;
// The gate: how long another thread may hold the capture mutex.
constexpr int64_t kGateWaitMs = 50;
// Where SQLite cannot append instead, but fails a COMMIT with BUSY.
constexpr int64_t kLoneGateWaitMs = 5000;
// Between two looks at the Steps that are still to end.
constexpr int64_t kLeavePollMs = 5;
// At the least, for Steps under way when there is nothing to flush.
constexpr int64_t kLeaveMinMs = 50;
constexpr int64_t kSettleRetryMinMs = 20;
constexpr int64_t kSettleRetryMaxMs = 5000;
constexpr uint64_t kCaptureTransactionsMax = 512;
// After the last find the capture task looks again after 1, 2, 4 ... 64 ms, then sleeps until
// poked: frames of another process are on disk before its wal-index header is.
constexpr int kQuietPollsMax = 7;
// A close waits this long for the mark at the most, whatever it may wait for a flush.
constexpr int64_t kReleaseWaitMs = 1000;
// The mark stays this long after something shipped: a program that opens, writes and closes within
// it leaves it as it is.
constexpr int64_t kUnmarkAfterMs = 1000;
// Answers about positions of earlier epochs that nobody came back for.
constexpr size_t kLookupsMax = 64;
// Acknowledged bytes kept in spool files before the page table is written to be rid of them.
constexpr uint64_t kSpoolIdleBytesMax = 8 << 20;

// About the history itself: waiting does not change it.
bool IsVerdict(Tag tag) {
  switch (tag) {
    case Tag::kFenced:
    case Tag::kDiverged:
    case Tag::kForked:
    case Tag::kRestoreNeeded:
    case Tag::kNoBackup:
    case Tag::kFormatTooNew:
    case Tag::kWrongKey:
    case Tag::kChainBroken:
      return true;
    default:
      return false;
  }
}

// Trouble that another try may not meet. What was just asked for is told any other trouble at once;
// a database that was replicated before goes on trying (an unmounted volume, a revoked key).
bool MayPass(const Status& status) {
  switch (status.tag()) {
    case Tag::kStoreUnreachable:
    case Tag::kStoreThrottled:
    case Tag::kOutcomeUnknown:
    case Tag::kBusy:
      return true;
    default:
      return status.retryable();
  }
}

// 0 bytes, or one page with an empty schema: what opening a new database leaves. "B-tree Pages",
// sqlite.org/fileformat2.html: the cell count of the schema's root is at offset 100 + 3 of page 1.
bool HoldsNothing(DatabaseFile& database, uint64_t size) {
  if (size == 0) return true;
  std::array<std::byte, 108> head;
  auto n = database.ReadAt(0, head);
  if (!n.ok() || *n != head.size()) return false;
  const uint32_t page_size = LoadBig16(head.data() + 16);
  return size == (page_size == 1 ? 65536 : page_size) && LoadBig16(head.data() + 103) == 0;
}

}  // namespace

std::string_view StateName(ReplicationState state) {
  switch (state) {
    case ReplicationState::kStarting:
      return "starting";
    case ReplicationState::kScanning:
      return "scanning";
    case ReplicationState::kReplicating:
      return "replicating";
    case ReplicationState::kHealing:
      return "healing";
    case ReplicationState::kUnshipped:
      return "unshipped";
    case ReplicationState::kFenced:
      return "fenced";
    case ReplicationState::kDiverged:
      return "diverged";
    case ReplicationState::kNotWal:
      return "not_wal";
    case ReplicationState::kStopped:
      return "stopped";
  }
  return "unknown";
}

// What threads of the application want from the store, one after the other; and the mark that goes
// when the log is in use again.
class Replicator::ErrandTask : public Task {
 public:
  explicit ErrandTask(Replicator& r) : r_(r) {}
  int64_t Step(int64_t now_ms) override {
    std::function<void()> errand;
    {
      const std::lock_guard lock(r_.mutex_);
      if (!r_.errands_.empty()) {
        errand = std::move(r_.errands_.front());
        r_.errands_.pop_front();
      }
    }
    if (errand) {
      errand();
      return now_ms;
    }
    if (!shipped.load() || !r_.marked_.load() || r_.closed_.load()) {
      unmark_at_ms_ = kIdle;
      return kIdle;
    }
    if (unmark_at_ms_ == kIdle) unmark_at_ms_ = now_ms + kUnmarkAfterMs;
    if (now_ms < unmark_at_ms_) return unmark_at_ms_;
    shipped.store(false);  // the next shipment tries again if this does not succeed
    unmark_at_ms_ = kIdle;
    r_.MarkReleased(false);
    return now_ms;
  }
  std::atomic<bool> shipped{false};

 private:
  Replicator& r_;
  int64_t unmark_at_ms_ = kIdle;
};

// What the log says of a position, once it was asked.
struct Replicator::Lookup {
  std::optional<Result<std::optional<uint64_t>>> answer;  // mutex_
};

// A takeover of somebody else's log that is not known to have come to its end: until its FENCE is
// in the log the old owner ships on (WriteSidecar() in TakeEpoch()). The first epoch has no old
// owner.
bool IsUnfinishedTakeover(const SidecarState& state, const Manifest& m) {
  return m.session != Session() && state.session == Session() && state.planned == m.session &&
         m.epoch > Epoch(1);
}

Replicator::Replicator(Setup setup)
    : setup_(std::move(setup)), sidecar_(setup_.path + "-guildlite") {
  auto store = std::make_unique<CutOffStore>(std::move(setup_.store));
  cut_off_ = store.get();
  setup_.store = std::move(store);
}

Replicator::~Replicator() {
  closed_.store(true);
  for (Task* task : Tasks()) setup_.pool->Remove(task);
}

Result<std::shared_ptr<Replicator>> Replicator::Start(Setup setup) {
  std::shared_ptr<Replicator> r(new Replicator(std::move(setup)));
  Setup& s = r->setup_;
  GUILDLITE_RETURN_IF_ERROR(r->sidecar_.Lock(s.owner + ", since " + FormatTime(s.clock->NowMs())));
  r->open_until_ms_.store(s.clock->MonotonicMs() + s.options.open_wait_ms);
  Recorder::Settings recorder_settings;
  recorder_settings.spool_limit_bytes = s.options.spool_limit_bytes;
  Replicator* const self = r.get();
  r->recorder_ = std::make_unique<Recorder>(
      *s.clock, r->sidecar_, s.path, s.wal_path, std::move(s.database),
      [self] { return self->ReadPublishedNow(); }, recorder_settings);
  GUILDLITE_RETURN_IF_ERROR(r->Examine());
  Shipper::Settings shipper_settings;
  shipper_settings.sync_interval_ms = s.options.sync_interval_ms;
  r->shipper_ = std::make_unique<Shipper>(
      *s.clock, *s.random, *s.store, *r->recorder_, r->sidecar_, shipper_settings,
      [self](const Status& status) { self->OnShipperStopped(status); },
      [self](Slot slot, std::string_view object) {
        self->Wake(self->snapshotter_.get());
        if (self->compactor_->Shipped(slot, object)) self->Wake(self->compactor_.get());
        if (self->marked_.load() && !self->errand_task_->shipped.exchange(true)) {
          self->Wake(self->errand_task_.get());
        }
      });
  Snapshotter::Settings snapshot_settings;
  snapshot_settings.snapshot_min_bytes = s.options.snapshot_min_bytes;
  r->snapshotter_ = std::make_unique<Snapshotter>(
      *s.clock, *s.random, *s.store, *r->recorder_, *r->shipper_, snapshot_settings,
      [self] { self->Wake(self->shipper_.get()); },
      [self] {
        self->compactor_->SnapshotTaken();
        self->Wake(self->compactor_.get());
      });
  Sweeper::Settings sweeper_settings;
  sweeper_settings.grace_ms = s.options.delete_after_ms;
  r->sweeper_ = std::make_unique<Sweeper>(*s.clock, *s.random, *s.store, sweeper_settings);
  Compactor::Settings compactor_settings;
  compactor_settings.join_slots = s.options.join_slots;
  compactor_settings.retention_ms = s.options.retention_ms;
  r->compactor_ = std::make_unique<Compactor>(
      *s.clock, *s.random, *s.store, r->sidecar_.directory() + "/join", compactor_settings,
      [self] {
        self->sweeper_->TombstonesSet();
        self->Wake(self->sweeper_.get());
      },
      [self](const Status& damage) {
        // What was committed after the lost slot is restorable again from a snapshot behind it.
        self->setup_.warn(damage.tag(), damage.message() + "; a new snapshot is made");
        if (self->snapshotter_->Request("").ok()) self->Wake(self->snapshotter_.get());
      });
  r->settle_task_ = std::make_unique<SettleTask>(*self);
  r->capture_task_ = std::make_unique<CaptureTask>(*self);
  r->errand_task_ = std::make_unique<ErrandTask>(*self);
  {
    const std::lock_guard lock(r->mutex_);
    r->tasks_added_ = true;
  }
  for (Task* task : r->Tasks()) {
    GUILDLITE_RETURN_IF_ERROR(s.pool->Add(task));
  }
  return r;
}

std::vector<Task*> Replicator::Tasks() {
  const std::lock_guard lock(mutex_);
  if (!tasks_added_) return {};
  return {shipper_.get(),      snapshotter_.get(), compactor_.get(),  sweeper_.get(),
          capture_task_.get(), settle_task_.get(), errand_task_.get()};
}

// Steps under way may end by themselves until the deadline; then the store is cut off. What runs
// after that is on its way out, or inside the store.
void Replicator::RemoveTasks(int64_t deadline_ms) {
  // Nobody wakes a task after this: hooks look at closed_ first, and the tasks wake only each
  // other.
  closed_.store(true);
  std::vector<Task*> running = Tasks();
  const auto remove_within = [&](int64_t timeout_ms) {
    std::erase_if(running, [&](Task* t) { return setup_.pool->RemoveWithin(t, timeout_ms); });
  };
  remove_within(0);
  while (!running.empty() && setup_.clock->MonotonicMs() < deadline_ms) {
    remove_within(kLeavePollMs);
  }
  cut_off_->CutOff();
  while (!running.empty() && running.size() > cut_off_->waiting()) remove_within(kLeavePollMs);
}

bool Replicator::gone() {
  for (Task* task : Tasks()) {
    if (!setup_.pool->RemoveWithin(task, 0)) return false;
  }
  return true;
}

// -- What is here ------------------------------------------------------------------------------

Status Replicator::Examine() {
  local_ = std::make_unique<Local>();
  Local& l = *local_;
  auto state = sidecar_.ReadState();
  if (!state.ok()) return state.status();
  state_ = *state;
  auto identity = IdentityOf(setup_.path);
  if (!identity.ok()) return identity.status();
  l.identity = *identity;
  l.facts.remembered = state_ && state_->url == setup_.options.url;
  l.facts.same_inode =
      state_ && state_->device == identity->device && state_->inode == identity->inode;
  // A plan binds the folder that made it: two copies of it must not claim as one.
  if (state_ && !(l.facts.remembered && l.facts.same_inode)) state_->planned = Session();
  l.facts.heal_owed = sidecar_.ReadHealOwed();
  const bool same_boot = state_ && state_->boot_id == BootId();
  // What was handed out and is in the WAL alone may be gone after a power loss, and nothing here
  // tells whether there was more: SQLite syncs the WAL when it likes to.
  l.facts.kept = same_boot || (state_ && !state_->open);

  File wal;
  std::optional<WalHeader> header;
  std::optional<WalTailer> tailer;
  if (auto file = File::Open(setup_.wal_path, O_RDONLY); file.ok()) {
    wal = std::move(*file);
    tailer.emplace(wal);
    if (auto h = tailer->ReadHeader(); h.ok()) header = *h;
  }
  l.facts.empty = !header && HoldsNothing(*recorder_->database(), identity->size);
  if (!l.facts.remembered) return recorder_->spool_for_recovery().Discard();

  l.acknowledged = sidecar_.ReadAcknowledged();
  if (l.acknowledged && l.acknowledged->lineage != state_->lineage) l.acknowledged.reset();
  l.facts.log_known = l.acknowledged.has_value();
  auto loaded = l.table.Load(sidecar_.pages());
  if (!loaded.ok()) {
    // No table: what the spool holds cannot be brought to a whole state.
    return recorder_->spool_for_recovery().Discard();
  }
  l.captured = *loaded;
  const Txid acknowledged = l.acknowledged ? l.acknowledged->txid : Txid();
  auto end = recorder_->spool_for_recovery().Recover(
      l.captured.txid, acknowledged,
      [&](const Transaction& t) {
        if (t.database_pages != l.table.pages()) {
          l.table.Resize(t.database_pages, l.captured.page_size);
        }
        l.captured = CapturedState::After(t, l.captured.page_size);
      },
      [&](const Transaction&, const PageEntry& e) { l.table.Set(e.pgno, e.hash); });
  if (!end.ok()) {
    // A damaged spool after a power loss: what it held beyond the table is healed.
    l.facts.proven = false;
    return recorder_->spool_for_recovery().Discard();
  }
  const auto pending = recorder_->spool_for_recovery().pending();
  // After a power loss the table may have reached the disk without the end of the spool.
  const bool dense = !pending.empty() && pending.back()->last.txid == l.captured.txid;
  l.ships_from = dense ? pending.front()->first : l.captured.txid.Next();
  l.table_whole = l.captured.rolling_known && l.table.complete() &&
                  l.table.sum() == l.captured.rolling_checksum &&
                  l.table.pages() == l.captured.database_pages;
  if (!l.table_whole || !l.facts.same_inode) return Status::Ok();

  if (!header) {
    // Nothing in the WAL: only our own record of it at rest tells that the file is what we left.
    // Right after a TRUNCATE checkpoint of ours, killed before it was idle, there is none: table
    // and spool hold all that was captured, but a stranger may have written since and truncated
    // likewise, and within a tick of its clock even the file's times would be the same. That is
    // healed.
    const auto clean = sidecar_.ReadClean();
    l.facts.proven =
        clean && clean->device == identity->device && clean->inode == identity->inode &&
        clean->size == identity->size && clean->ctime_ns == identity->ctime_ns &&
        clean->recorded_ns - clean->ctime_ns >= kCleanGapNs && clean->txid == l.captured.txid &&
        clean->rolling_checksum == l.captured.rolling_checksum;
    l.captured.mark_valid = false;
    l.unchanged = *identity;
    return Status::Ok();
  }
  bool follows = false;
  if (l.captured.mark_valid) {
    auto contains = tailer->Contains(l.captured.mark);
    if (!contains.ok()) return contains.status();
    follows = *contains;
    if (follows && !same_boot) {
      // After a power loss a frame header may have reached the disk before its predecessors: walk.
      WalMark at = WalTailer::Start(*header);
      while (at.frame < l.captured.mark.frame) {
        auto next = tailer->Next(at, std::nullopt);
        if (!next.ok()) return next.status();
        if (next->end != WalTailer::End::kTransaction) break;
        at = next->transaction.end;
      }
      follows = at == l.captured.mark;
    }
  }
  if (!follows) {
    const auto link = sidecar_.ReadLink();
    follows = link && link->salt1 == header->salt1 && link->salt2 == header->salt2 &&
              link->txid == l.captured.txid && link->history_hash == l.captured.history_hash;
  }
  l.facts.proven = follows;
  return Status::Ok();
}

// The log is ahead of spool and table: is what it holds in our WAL?
Result<bool> Replicator::TipReachedByWal(const StoreView& view) {
  const Local& l = *local_;
  auto file = File::Open(setup_.wal_path, O_RDONLY);
  if (!file.ok()) return false;
  WalTailer tailer(*file);
  auto header = tailer.ReadHeader();
  if (!header.ok()) return false;
  WalMark at = l.captured.mark;
  if (!l.captured.mark_valid || !at.SameGeneration(WalTailer::Start(*header))) {
    at = WalTailer::Start(*header);
  }
  CapturedState s = l.captured;
  while (s.txid < view.tip.txid) {
    auto next = tailer.Next(at, std::nullopt);
    if (!next.ok()) return next.status();
    if (next->end != WalTailer::End::kTransaction) return false;
    s.txid = s.txid.Next();
    HistoryHash history(s.history_hash, s.txid, next->transaction.database_pages);
    for (const FrameRef& ref : next->transaction.pages) history.Add(ref.pgno, ref.hash);
    s.history_hash = history.Finish();
    at = next->transaction.end;
  }
  return s.history_hash == view.tip.history_hash;
}

// -- Settling ----------------------------------------------------------------------------------

int64_t Replicator::Settle(int64_t now_ms) {
  if (refused_.load()) return KeepStep(now_ms);
  if (settled_.load() && !epoch_wanted_.load()) return Task::kIdle;
  await_again_ = false;
  const Status status = SettleNow();
  awaiting_.store(await_again_);
  if (status.ok()) {
    settle_task_->failures = 0;
    changed_.notify_all();
    Wake(capture_task_.get());
    Wake(shipper_.get());
    Wake(snapshotter_.get());
    return Task::kIdle;
  }
  if (IsVerdict(status.tag()) || (setup_.waited_for && !settled_.load() && !MayPass(status))) {
    Refuse(status);
    return keeping_.load() == Keeping::kNot ? Task::kIdle : now_ms;
  }
  if (await_again_) {
    Note(status);
    return std::min(setup_.clock->MonotonicMs() + kReleasePollMs, awaited_until_ms_);
  }
  if (status.tag() != Tag::kBusy) Note(status);
  if (!closed_.load() && now_ms >= open_until_ms_.load()) GoUnshipped(status);
  if (status.tag() == Tag::kBusy) return now_ms + kSettleRetryMinMs;
  const int64_t again_ms = now_ms + std::min(kSettleRetryMaxMs, kSettleRetryMinMs << std::min(
                                                                    settle_task_->failures++, 8u));
  // Not later than writes are to go on.
  return unshipped_.load() ? again_ms : std::min(again_ms, std::max(open_until_ms_.load(), now_ms));
}

// From the settle task, or from a writer while that task hangs in the store.
void Replicator::GoUnshipped(const Status& why) {
  {
    const std::lock_guard lock(begin_mutex_);
    if (unshipped_.load() || settled_.load()) return;
    const LocalFacts& facts = local_->facts;
    if (facts.proven && !facts.heal_owed && !local_->heals && !recording_.load()) {
      // Known ground: capture into WAL and spool, ship when the store is back.
      recorder_->StartAt(local_->captured, std::move(local_->table), Txid(), local_->unchanged);
      recording_.store(true);
    }
    unshipped_.store(true);  // from here on the WAL may be discarded where nothing is captured
  }
  Note(why);
  setup_.warn(why.tag(), "commits go on but nothing is shipped: " + why.message());
  changed_.notify_all();
}

Status Replicator::WriteSidecar(Session session, Session planned, Lineage lineage, Epoch epoch) {
  SidecarState s;
  s.lineage = lineage;
  s.epoch = epoch;
  s.session = session;
  s.planned = planned;
  s.url = setup_.options.url;
  s.options_json = PersistOptions(setup_.options);
  auto identity = IdentityOf(setup_.path);
  if (!identity.ok()) return identity.status();
  s.device = identity->device;
  s.inode = identity->inode;
  s.boot_id = BootId();
  if (planned != Session()) {  // nothing is handed out before the claim came to its end
    s.open = state_ && state_->open;
    if (state_) s.boot_id = state_->boot_id;
  }
  GUILDLITE_RETURN_IF_ERROR(sidecar_.WriteState(s));
  state_ = std::move(s);
  return Status::Ok();
}

// Whether the manifest names a session of this database's folder.
bool Replicator::OwnsLog(const Manifest& m) const {
  if (m.session == Session()) return false;
  if (m.session == planned_) return true;
  if (settled_.load()) return m.session == shipper_->session();
  return local_ && state_ && local_->facts.remembered && local_->facts.same_inode &&
         state_->lineage == m.lineage &&
         (m.session == state_->session || m.session == state_->planned) &&
         !IsUnfinishedTakeover(*state_, m);
}

// Of a first claim that is not known to have happened: its manifest may yet appear.
bool Replicator::PlansFirst() const {
  return state_ && state_->planned != Session() && state_->session == Session() &&
         state_->epoch == Epoch(1) && state_->url == setup_.options.url;
}

Result<StoreView> Replicator::TakeEpoch(const StoreView* view,
                                        const std::optional<CapturedState>& rewind) {
  // The session and lineage of an earlier try, of an earlier process too (claim.h, invariant 4).
  Claimant claimant{Session(), setup_.owner};
  const bool planned =
      view ? state_ && state_->lineage == view->manifest.manifest.lineage : PlansFirst();
  if (planned) claimant.session = state_->planned;
  if (claimant.session == Session()) claimant.session = Session(setup_.random->Next64());
  if (!view) {
    planned_ = claimant.session;
    const Lineage lineage = planned ? state_->lineage : Lineage(setup_.random->Next64());
    GUILDLITE_RETURN_IF_ERROR(WriteSidecar(Session(), claimant.session, lineage, Epoch(1)));
    auto claimed = ClaimFirst(*setup_.store, *setup_.random, *setup_.clock, lineage, claimant);
    if (!claimed.ok()) {
      if (claimed.status().tag() == Tag::kAlreadyExists) {
        return Status(Tag::kBusy, "somebody created this log at the same moment", true);
      }
      return claimed.status();
    }
    GUILDLITE_RETURN_IF_ERROR(WriteSidecar(claimant.session, Session(), lineage, Epoch(1)));
    planned_ = Session();
    return claimed;
  }
  const Manifest& m = view->manifest.manifest;
  // If this try ends half-way the manifest names the session planned, and the next must know it as
  // ours. Not so when the log is somebody else's: then the next try compares again.
  const bool ours = OwnsLog(m);
  // The swap of an earlier try: what is left of that claim follows.
  const bool swapped = m.session == claimant.session;
  const Session before = swapped ? state_->session : ours ? m.session : Session();
  const Epoch epoch = swapped ? m.epoch : m.epoch.Next();
  if (ours) planned_ = claimant.session;
  GUILDLITE_RETURN_IF_ERROR(WriteSidecar(before, claimant.session, m.lineage, epoch));
  auto claimed =
      swapped && !rewind
          ? ClaimResume(*setup_.store, *setup_.random, *setup_.clock, claimant, *view, std::nullopt)
          : ClaimNext(*setup_.store, *setup_.random, *setup_.clock, *view, claimant, rewind);
  if (!claimed.ok()) return claimed.status();
  // A rewind looked at the log itself before it put its FENCE.
  if (!ours && !rewind &&
      (claimed->tip.txid != view->tip.txid ||
       claimed->tip.history_hash != view->tip.history_hash)) {
    // The session stays one that is only planned: whoever opens next compares too.
    return Status(Tag::kBusy, "the log grew while it was compared", true);
  }
  GUILDLITE_RETURN_IF_ERROR(
      WriteSidecar(claimant.session, Session(), m.lineage, claimed->manifest.manifest.epoch));
  planned_ = Session();
  return claimed;
}

// Whether the log's owner, somebody else, still has time to release it. Safety does not rest on
// this, so neither does it on any clock.
bool Replicator::AwaitsRelease(const Manifest& m) {
  const int64_t patience_ms = setup_.options.takeover_after_ms;
  if (patience_ms == 0 || m.released() || m.session == setup_.yielded ||
      (state_ && (m.session == state_->session || m.session == state_->planned))) {
    return false;
  }
  const int64_t now_ms = setup_.clock->MonotonicMs();
  if (awaited_ != m.session) {
    awaited_ = m.session;
    awaited_until_ms_ = now_ms + patience_ms;
  }
  if (now_ms >= awaited_until_ms_) return false;
  // The store answers: from here on it may be silent for open_wait_ms.
  open_until_ms_.store(now_ms + kReleasePollMs + setup_.options.open_wait_ms);
  await_again_ = true;
  return true;
}

void Replicator::NoteOwner(const Manifest& m, bool claimed) {
  const std::lock_guard lock(mutex_);
  owner_ = claimed ? setup_.owner : m.owner;
  owner_since_ms_ = m.claimed_ms;
  owner_read_ms_ = claimed ? 0 : setup_.clock->NowMs();
}

// REQUIRES: under begin_mutex_.
void Replicator::BeginShipping(const StoreView& view) {
  const Manifest& m = view.manifest.manifest;
  NoteOwner(m, true);
  marked_.store(m.released_ms != 0);
  {
    const std::lock_guard lock(mutex_);
    past_epochs_ = m.past_epochs;
    last_error_ = Status::Ok();
  }
  shipper_->Begin(view, m.session, !m.snapshots.empty());
  snapshotter_->Begin(m);
  compactor_->Begin(m, view.next);
  sweeper_->Begin(m);
  Wake(compactor_.get());
  Wake(sweeper_.get());
  local_.reset();
  recording_.store(true);
  settled_.store(true);
  if (unshipped_.exchange(false)) setup_.warn(Tag::kOk, "the store answers; shipping goes on");
}

Status Replicator::SettleNow() {
  ObjectStore& store = *setup_.store;
  if (recorder_->dropped()) {
    auto view = LookAtStore(store, std::nullopt);
    if (!view.ok()) return view.status();
    if (!OwnsLog(view->manifest.manifest)) {
      return Status(Tag::kFenced, "another writer has taken over this log (" +
                                      view->manifest.manifest.DescribeOwner() + ")");
    }
    // Dropped before anybody compared: a disk older than the store must not be healed over it (H4).
    if (!settled_.load() && local_ && local_->facts.proven &&
        view->tip.txid > local_->captured.txid) {
      const auto check = recorder_->CheckAt(view->tip.txid);
      if (!check || *check != static_cast<uint32_t>(view->tip.history_hash)) {
        return Status(Tag::kDiverged,
                      "the store holds transactions up to " + std::to_string(view->tip.txid.value) +
                          " that this disk never had, and this disk others; restore the newest "
                          "state with snapshot_restore() to a new file");
      }
    }
    auto claimed = TakeEpoch(&*view);
    if (!claimed.ok()) return claimed.status();
    // Before the claim nobody asked whether the log goes on from what was found here.
    const std::lock_guard lock(begin_mutex_);
    recorder_->RestartFrom(claimed->tip, settled_.load());
    epoch_wanted_.store(false);
    BeginShipping(*claimed);
    return Status::Ok();
  }

  Local& l = *local_;
  if (l.facts.proven && !l.captured.mark_valid) {
    // A clean close was proven when we looked; somebody may have written since.
    const auto now = IdentityOf(setup_.path);
    const std::lock_guard lock(begin_mutex_);
    if (!recording_.load()) l.facts.proven = now.ok() && *now == l.identity;
  }
  StoreFacts facts;
  std::optional<StoreView> view;  // of a log that may be ours
  if (l.facts.remembered && l.facts.proven && l.acknowledged) {
    auto tip = LookAtTip(store, *l.acknowledged);
    if (!tip.ok()) return tip.status();
    view = *std::move(tip);
  }
  const auto manifest = view ? Result<ManifestAt>(view->manifest) : ReadManifest(store);
  if (!manifest.ok() && manifest.status().tag() != Tag::kNotFound) return manifest.status();
  facts.exists = manifest.ok();
  Session ours;
  if (facts.exists) {
    const Manifest& m = manifest->manifest;
    NoteOwner(m, false);
    facts.same_lineage = state_ && state_->lineage == m.lineage;
    facts.our_takeover = state_ && IsUnfinishedTakeover(*state_, m);
    facts.our_session = state_ && m.session != Session() && !facts.our_takeover &&
                        (m.session == state_->session || m.session == state_->planned);
    deposed_ = l.facts.remembered && l.facts.same_inode && facts.same_lineage &&
               !facts.our_session && !facts.our_takeover && state_->session != Session() &&
               state_->epoch < m.epoch;
    if (planned_ != Session() && m.session == planned_) {
      l.facts.remembered = l.facts.same_inode = facts.same_lineage = facts.our_session = true;
      const std::lock_guard lock(begin_mutex_);
      l.facts.proven = false;
    }
    ours = m.session;
    if (l.facts.remembered && facts.same_lineage && facts.our_session && l.facts.proven) {
      if (!view) {
        auto seen = LookAtStore(store, l.acknowledged, *manifest);
        if (!seen.ok()) return seen.status();
        view = std::move(*seen);
      }
      const CapturedState& tip = view->tip;
      {
        const std::lock_guard lock(begin_mutex_);
        l.facts.heal_owed |= view->heal_open;  // nothing is durable before its end is in the log
      }
      if (tip.txid > l.captured.txid) {
        auto reached = TipReachedByWal(*view);
        if (!reached.ok()) return reached.status();
        facts.tip_in_history = *reached;
        facts.tip_beyond = !*reached;
      } else {
        // What lies between must still be here: after a power loss the table may have reached the
        // disk without the spool.
        facts.tip_in_history =
            l.ships_from <= tip.txid.Next() &&
            ((tip.txid == l.captured.txid && tip.history_hash == l.captured.history_hash) ||
             (l.acknowledged && tip.txid == l.acknowledged->txid &&
              tip.history_hash == l.acknowledged->history_hash) ||
             recorder_->AdoptableEnd(tip.txid, tip.history_hash).has_value());
      }
    }
  }
  const Decision decision = Reconcile(l.facts, facts, setup_.asked);
  // Where capture began while the store was away, only a continuation may follow: each asks once
  // its claim is made.
  switch (decision.verdict) {
    case Verdict::kRefuse:
      if (decision.refusal.tag() == Tag::kFenced) {
        return Status(Tag::kFenced, decision.refusal.message() + " (its owner is " +
                                        manifest->manifest.DescribeOwner() + ")");
      }
      return decision.refusal;
    case Verdict::kFirstStart: {
      // What is remembered is of another log: its table must not be taken for this one's.
      if (!PlansFirst() || recording_.load()) GUILDLITE_RETURN_IF_ERROR(sidecar_.ForgetState());
      auto claimed = TakeEpoch(nullptr);
      if (!claimed.ok()) return claimed.status();
      (void)sidecar_.WriteHealOwed(false);
      const std::lock_guard lock(begin_mutex_);
      recorder_->StartFirst(Txid(), HistoryStart(claimed->manifest.manifest.lineage));
      BeginShipping(*claimed);
      return Status::Ok();
    }
    case Verdict::kContinue: {
      auto claimed = decision.new_epoch ? TakeEpoch(&*view)
                                        : ClaimResume(store, *setup_.random, *setup_.clock,
                                                      {ours, setup_.owner}, *view, l.acknowledged);
      if (!claimed.ok()) return claimed.status();
      if (decision.new_epoch) {
        // A put from before the power loss may have landed since.
        if (claimed->tip.txid != view->tip.txid) return Heal(*claimed);
      } else {
        GUILDLITE_RETURN_IF_ERROR(WriteSidecar(ours, Session(), claimed->manifest.manifest.lineage,
                                               claimed->manifest.manifest.epoch));
      }
      const std::lock_guard lock(begin_mutex_);
      if (recording_.load()) {
        if (claimed->tip.txid > l.captured.txid) {
          recorder_->DropQueue(
              "the log holds puts of an earlier process that were not known while "
              "the store was away");
        } else {
          recorder_->AcknowledgeThrough(claimed->tip.txid);
        }
      } else {
        const bool ahead = claimed->tip.txid > l.captured.txid;
        recorder_->StartAt(l.captured, std::move(l.table), claimed->tip.txid, l.unchanged);
        if (ahead) recorder_->SkipUntil(claimed->tip.txid, claimed->tip.history_hash);
      }
      BeginShipping(*claimed);
      return Status::Ok();
    }
    case Verdict::kHeal: {
      auto seen = LookAtStore(store, std::nullopt, *manifest);
      if (!seen.ok()) return seen.status();
      auto claimed = TakeEpoch(&*seen);
      if (!claimed.ok()) return claimed.status();
      return Heal(*claimed);
    }
    case Verdict::kCompare: {
      if (const Manifest& m = manifest->manifest; AwaitsRelease(m)) {
        return Status(Tag::kBusy,
                      "waiting for the owner to release the log (" + m.DescribeOwner() +
                          "), at most takeover_after_ms",
                      true);
      }
      auto seen = LookAtStore(store, std::nullopt, *manifest);
      if (!seen.ok()) return seen.status();
      CapturedState state;
      PageTable table;
      // After an unfinished heal the newest restore is the state before it, and so may this file
      // be.
      std::optional<CapturedState> rewind;
      if (seen->heal_open) rewind = seen->before_heal;
      GUILDLITE_RETURN_IF_ERROR(Compare(rewind ? *rewind : seen->tip, &state, &table));
      // Before the claim: a crash after it must find the table, or it would have to ship
      // everything.
      GUILDLITE_RETURN_IF_ERROR(table.Flush(sidecar_.pages(), state, false));
      auto claimed = TakeEpoch(&*seen, rewind);
      if (!claimed.ok()) return claimed.status();
      const std::lock_guard lock(begin_mutex_);
      if (recording_.load()) {
        recorder_->DropQueue("another writer had the log while the store was away");
      } else {
        (void)recorder_->spool_for_recovery().Discard();
      }
      (void)sidecar_.WriteHealOwed(false);
      recorder_->StartAt(state, std::move(table), state.txid,
                         state.mark_valid ? std::nullopt : l.unchanged);
      BeginShipping(*claimed);
      return Status::Ok();
    }
  }
  return Status::Ok();
}

// The log is ours at claimed.tip, and the file provably nowhere: what differs ships.
Status Replicator::Heal(const StoreView& claimed) {
  Local& l = *local_;
  const CapturedState& tip = claimed.tip;
  Spool& spool = recorder_->spool_for_recovery();
  bool recording = false;
  {
    const std::lock_guard lock(begin_mutex_);
    recording = recording_.load();
    l.heals = true;
  }
  if (recording) {
    recorder_->DropQueue("what was found locally does not continue the log");
    recorder_->RestartFrom(tip, /*same_history=*/false);
  } else if (claimed.manifest.manifest.snapshots.empty()) {
    GUILDLITE_RETURN_IF_ERROR(spool.Discard());
    (void)sidecar_.WriteHealOwed(false);
    recorder_->StartFirst(tip.txid, tip.history_hash);
  } else if (l.table_whole &&
             ((tip.txid == l.captured.txid && tip.history_hash == l.captured.history_hash) ||
              (l.ships_from <= tip.txid.Next() &&
               recorder_->AdoptableEnd(tip.txid, tip.history_hash)) ||
              (!spool.pending().empty() && l.ships_from <= tip.txid.Next() && l.acknowledged &&
               l.acknowledged->txid == tip.txid &&
               l.acknowledged->history_hash == tip.history_hash))) {
    // What the spool holds is history and ships first.
    spool.Acknowledge(tip.txid);
    recorder_->StartHeal(l.captured, std::move(l.table));
  } else {
    GUILDLITE_RETURN_IF_ERROR(spool.Discard());
    CapturedState state = l.captured;
    bool replayed = false;
    if (l.table_whole && l.acknowledged && state.txid < tip.txid) {
      l.table_whole = false;  // until it is whole again, at the tip
      auto advanced =
          ReplayTable(*setup_.store, claimed, l.acknowledged->next_slot, &state, &l.table);
      if (!advanced.ok()) return advanced.status();
      replayed = *advanced;
    }
    if (replayed) {
      recorder_->StartHeal(state, std::move(l.table));
    } else {
      PageTable unknown;
      unknown.Resize(tip.database_pages, tip.page_size);
      recorder_->StartHeal(tip, std::move(unknown));
    }
  }
  setup_.warn(Tag::kOk,
              "the database was changed without us or not closed cleanly; every page is compared "
              "with the store now");
  const std::lock_guard lock(begin_mutex_);
  BeginShipping(claimed);
  return Status::Ok();
}

// Is the local content the log's tip? Reads the whole database, WAL included.
Status Replicator::Compare(const CapturedState& tip, CapturedState* state, PageTable* table) {
  const auto diverged = [&](const std::string& why) {
    return Status(Tag::kDiverged,
                  "this database is not what " + setup_.store->Describe() + " ends in (txid " +
                      std::to_string(tip.txid.value) + "): " + why +
                      ". To go on from the store, snapshot_restore() it to a new file and call "
                      "replication_start() there; to back this file up, use another url");
  };
  if (!tip.rolling_known) return diverged("the log does not say what it adds up to there");
  const auto before = ReadPublishedNow();
  if (!before) return Status(Tag::kBusy, "no connection has read the database yet", true);

  FrameIndex frames;
  FrameIndex after_tip;
  uint32_t pages = 0;
  bool tip_in_wal = false;
  WalMark end;
  auto wal = File::Open(setup_.wal_path, O_RDONLY);
  std::optional<WalTailer> tailer;
  if (before->max_frame != 0) {
    if (!wal.ok()) return wal.status();
    tailer.emplace(*wal);
    auto header = tailer->ReadHeader();
    if (!header.ok() || header->salt1 != before->salt1 || header->salt2 != before->salt2) {
      return Status(Tag::kBusy, "the WAL is being reset", true);
    }
    if (header->page_size != tip.page_size) return diverged("its page size differs");
    end = WalTailer::Start(*header);
    while (end.frame < before->max_frame) {
      auto next = tailer->Next(end, before);
      if (!next.ok()) return next.status();
      if (next->end != WalTailer::End::kTransaction) break;
      for (const FrameRef& ref : next->transaction.pages) {
        (tip_in_wal ? after_tip : frames).Set(ref.pgno, ref.frame);
      }
      pages = next->transaction.database_pages;
      end = next->transaction.end;
      if (tip.mark_valid && end == tip.mark) tip_in_wal = true;
    }
  }
  auto database = recorder_->database();
  auto size = database->Size();
  if (!size.ok()) return size.status();
  if (pages == 0) pages = static_cast<uint32_t>(*size / tip.page_size);
  const uint32_t compared_pages = tip_in_wal ? tip.database_pages : pages;
  table->Resize(compared_pages, tip.page_size);
  std::vector<std::byte> page(tip.page_size);
  for (uint32_t p = 1; p <= compared_pages; ++p) {
    const Pgno pgno(p);
    if (pgno == LockPage(tip.page_size)) continue;
    const uint32_t frame = frames.Get(pgno);
    if (tip_in_wal && frame == 0 && after_tip.Get(pgno) != 0) continue;  // ships in full
    if (frame != 0) {
      GUILDLITE_RETURN_IF_ERROR(tailer->ReadPage(frame, tip.page_size, page));
    } else {
      auto n = database->ReadAt(uint64_t{p - 1} * tip.page_size, page);
      if (!n.ok()) return n.status();
      std::fill(page.begin() + static_cast<ptrdiff_t>(*n), page.end(), std::byte{0});
    }
    table->Set(pgno, PageHash(pgno, page));
  }
  // Taken before the last look, so that what changes it later is seen.
  auto identity = IdentityOf(setup_.path);
  if (!identity.ok()) return identity.status();
  const auto again = ReadPublishedNow();
  if (!again || !(*again == *before)) {
    return Status(Tag::kBusy, "the database was written while it was compared", true);
  }
  local_->unchanged.reset();
  if (before->max_frame == 0) local_->unchanged = *identity;
  *state = tip;
  if (tip_in_wal) {
    state->mark = tip.mark;
    state->mark_valid = true;
    return Status::Ok();
  }
  if (pages != tip.database_pages || !table->complete() || table->sum() != tip.rolling_checksum) {
    return diverged("its content differs");
  }
  state->mark = end;
  state->mark_valid = before->max_frame != 0;
  return Status::Ok();
}

void Replicator::Note(const Status& error) {
  const std::lock_guard lock(mutex_);
  last_error_ = error;
  last_error_ms_ = setup_.clock->NowMs();
}

void Replicator::Refuse(const Status& status) {
  Note(status);
  // What no other place has goes to orphans/: a deposed writer's tail, and what use_store is about
  // to replace.
  Keeping keeping = Keeping::kNot;
  if (status.tag() == Tag::kFenced ||
      (status.tag() == Tag::kDiverged &&
       (setup_.options.on_diverged == "use_store" || (!settled_.load() && deposed_)))) {
    const auto tail = shipper_->orphan();
    keeping = tail && !tail->lost                    ? Keeping::kTail
              : settled_.load() || recording_.load() ? Keeping::kWhole
                                                     : Keeping::kFind;
  }
  keeping_.store(keeping);  // before anybody hears of the refusal, and waits for it
  {
    const std::lock_guard lock(mutex_);
    refusal_ = status;
  }
  refused_.store(true);
  settled_.store(true);
  if (keeping != Keeping::kTail) recording_.store(false);
  if (keeping != Keeping::kNot) Wake(settle_task_.get());
  changed_.notify_all();
  shipper_->Notify();
  setup_.warn(status.tag(), status.message());
}

void Replicator::OnShipperStopped(const Status& status) {
  const auto tail = shipper_->orphan();
  if (tail && refused_.load()) {
    if (tail->lost) {
      recording_.store(false);
      KeepFrom(Keeping::kWhole);
    } else if (tail->whole) {
      TailKept(*tail);
    }
  } else if (status.ok()) {
    epoch_wanted_.store(true);
    Wake(settle_task_.get());  // dropped: a new epoch, then a heal
  } else {
    Refuse(status);
    if (status.tag() == Tag::kFenced) RunErrand([this] { NameWhoFenced(); });
  }
}

// The shipper met a FENCE, which does not name anybody; writes are refused already.
void Replicator::NameWhoFenced() {
  const auto now = ReadManifest(*setup_.store);
  if (!now.ok() || now->manifest.session == shipper_->session()) return;
  NoteOwner(now->manifest, false);
  const std::string owner = "its owner is " + now->manifest.DescribeOwner();
  {
    const std::lock_guard lock(mutex_);
    if (refusal_.tag() != Tag::kFenced) return;
    refusal_ = Status(Tag::kFenced, refusal_.message() + " (" + owner + ")");
    last_error_ = refusal_;
  }
  setup_.warn(Tag::kFenced, owner);
}

Status Replicator::WaitSettled(int64_t timeout_ms) {
  const int64_t deadline = setup_.clock->MonotonicMs() + timeout_ms;
  std::unique_lock lock(mutex_);
  while (!settled_.load()) {
    const int64_t left = deadline - setup_.clock->MonotonicMs();
    if (left <= 0) {
      if (!last_error_.ok()) return last_error_;
      return Status(Tag::kTimeout, "the claim of " + setup_.options.url +
                                       " did not settle in time; it goes on in the background");
    }
    setup_.clock->WaitFor(changed_, lock, std::min<int64_t>(left, 20));
  }
  return refusal_;
}

// -- SQLite's threads --------------------------------------------------------------------------

void Replicator::IndexMapped(const void* owner, const volatile void* region0) {
  {
    const std::lock_guard lock(index_mutex_);
    indexes_[owner] = region0;
  }
  if (closed_.load()) return;
  Wake(settle_task_.get());
  Wake(capture_task_.get());
  Wake(snapshotter_.get());
}

void Replicator::IndexUnmapping(const void* owner) {
  bool last = false;
  {
    const std::lock_guard lock(index_mutex_);
    last = indexes_.size() == 1 && indexes_.contains(owner);
  }
  // With the last index goes the only word on how far the WAL is committed: while another process
  // keeps the WAL, no gate was passed.
  if (last && recording_.load(std::memory_order_acquire)) recorder_->IndexLeaving(kGateWaitMs);
  const std::lock_guard lock(index_mutex_);
  indexes_.erase(owner);
}

std::optional<Published> Replicator::ReadPublishedNow() {
  const std::lock_guard lock(index_mutex_);
  if (exclusive_.load()) return exclusive_published_;
  if (indexes_.empty()) return std::nullopt;
  return setup_.read_published(indexes_.begin()->second);
}

Status Replicator::BeforeWriteLock() {
  exclusive_.store(false, std::memory_order_relaxed);
  GUILDLITE_RETURN_IF_ERROR(MayWrite());
  recorder_->WriteLockTaken();
  return Status::Ok();
}

Status Replicator::BeforeRollbackWrite() { return MayWrite(); }

Status Replicator::MayWrite() {
  if (stopping_.load(std::memory_order_relaxed)) {
    return Status(Tag::kBusy, "replication is being stopped", true);
  }
  if (settled_.load(std::memory_order_acquire)) {
    if (refused_.load(std::memory_order_acquire)) {
      const std::lock_guard lock(mutex_);
      return refusal_;
    }
    return Status::Ok();
  }
  if (unshipped_.load()) return Status::Ok();
  const Status status = WaitSettled(std::min(kWriteWaitMs, setup_.options.open_wait_ms));
  if (status.ok() || unshipped_.load()) return Status::Ok();
  if (refused_.load()) return status;
  // The settle task sees to that, unless the store keeps it waiting.
  if (setup_.clock->MonotonicMs() >= open_until_ms_.load() + kWriteWaitMs) {
    GoUnshipped(Status(Tag::kStoreUnreachable, "the store does not answer", true));
    return Status::Ok();
  }
  return Status(Tag::kBusy, "the claim of " + setup_.options.url + " is not settled yet", true);
}

// Before the claim no header is known to follow what was captured, and the open would end in a
// heal. Not refused when the claim takes longer: it may be waiting for an index, and only a commit
// makes one in this mode. What was written before it is healed then.
Status Replicator::BeforeExclusiveWrite() {
  const Status status = MayWrite();
  return status.tag() == Tag::kBusy && !stopping_.load() && !awaiting_.load() ? Status::Ok()
                                                                              : status;
}

void Replicator::BeforeWriteUnlock() {
  if (!recording_.load(std::memory_order_acquire)) return;
  recorder_->WriteLockReleasing();
  if (!polling_.load(std::memory_order_relaxed) && !closed_.load(std::memory_order_relaxed)) {
    Wake(capture_task_.get());
  }
}

Status Replicator::Committed(std::optional<uint32_t> exclusive_commit_frame) {
  if (!exclusive_commit_frame) return Status::Ok();
  if (settled_.load(std::memory_order_acquire) && refused_.load(std::memory_order_acquire)) {
    // No WRITE lock that could have been refused: the commit is here, and its caller is told so.
    const std::lock_guard lock(mutex_);
    return refusal_;
  }
  // Nobody else can be in the database; its WAL up to this frame is committed.
  std::array<std::byte, kWalHeaderSize> bytes;
  auto wal = File::Open(setup_.wal_path, O_RDONLY);
  if (!wal.ok()) return Status::Ok();
  auto n = wal->ReadAt(0, bytes);
  if (!n.ok() || *n != bytes.size()) return Status::Ok();
  const auto header = WalHeader::Decode(bytes);
  if (!header) return Status::Ok();
  {
    const std::lock_guard lock(index_mutex_);
    exclusive_published_ = Published();
    exclusive_published_.salt1 = header->salt1;
    exclusive_published_.salt2 = header->salt2;
    exclusive_published_.max_frame = *exclusive_commit_frame;
    exclusive_.store(true);
  }
  if (!polling_.load() && !closed_.load()) Wake(capture_task_.get());
  return Status::Ok();
}

bool Replicator::MayDiscardWal(DiscardReason reason) {
  if (!recording_.load(std::memory_order_acquire)) {
    // Before the claim the WAL is the only copy of what was committed; after open_wait_ms, or a
    // refusal, the database goes on as if we were not here.
    const auto wal = IdentityOf(setup_.wal_path);
    if (!wal.ok() || wal->size == 0) return true;
    // Most programs take "locked" from a change of journal mode for an answer.
    if (reason == DiscardReason::kClose && !unshipped_.load()) {
      (void)WaitSettled(std::min(kWriteWaitMs, setup_.options.open_wait_ms));
    }
    if (!recording_.load(std::memory_order_acquire)) return settled_.load() || unshipped_.load();
  }
  const bool closing = reason == DiscardReason::kClose;
  const int64_t wait_ms = reason == DiscardReason::kLoneReset ? kLoneGateWaitMs : kGateWaitMs;
  const bool granted = recorder_->SecureForDiscard(wait_ms, closing);
  // An index on the heap goes with its WAL; what was last published says nothing any more.
  if (closing && granted) exclusive_.store(false);
  return granted;
}

void Replicator::CheckpointBegins() {
  if (!recording_.load(std::memory_order_acquire) || closed_.load()) return;
  gate_near_.store(true, std::memory_order_relaxed);
  Wake(capture_task_.get());
}

void Replicator::CloseAbandoned() {
  if (recording_.load(std::memory_order_acquire)) recorder_->CloseAbandoned();
}

void Replicator::LeavingExclusive() {
  // What others commit from here on is in the shared index alone.
  exclusive_.store(false);
  if (recording_.load(std::memory_order_acquire)) recorder_->LeavingExclusive();
}

void Replicator::WalHeaderWriting(std::span<const std::byte, kWalHeaderSize> header) {
  if (!recording_.load(std::memory_order_acquire)) return;
  const auto decoded = WalHeader::Decode(header);
  if (decoded) recorder_->WalHeaderWriting(*decoded, exclusive_.load());
}

void Replicator::Poke() {
  if (!closed_.load()) Wake(capture_task_.get());
}

// -- The pool's thread -------------------------------------------------------------------------

int64_t Replicator::CaptureStep(int64_t now_ms) {
  if (!recording_.load(std::memory_order_acquire)) return Task::kIdle;
  auto n = recorder_->CatchUp(kCaptureTransactionsMax);
  if (!n.ok()) {
    Note(n.status());
    return now_ms + 1000;
  }
  if (const std::string warning = recorder_->TakeWarning(); !warning.empty()) {
    setup_.warn(Tag::kOk, warning);
    Wake(snapshotter_.get());
    Wake(shipper_.get());
  }
  if (RefuseIfDiverged()) return Task::kIdle;
  if (*n < kCaptureTransactionsMax && gate_near_.exchange(false)) {
    if (Status s = recorder_->SealAhead(); !s.ok()) Note(s);
  }
  // What a gate or replication_position() captured on its own thread ships too.
  const Txid captured = recorder_->captured().txid;
  if (*n != 0 || captured != captured_seen_) {
    captured_seen_ = captured;
    quiet_polls_ = 0;
    polling_.store(true);
    Wake(shipper_.get());
    // Under load that never pauses the acknowledged files must go too.
    if (recorder_->spool_bytes() > recorder_->pending_bytes() + kSpoolIdleBytesMax) {
      if (Status s = recorder_->Flush(false); !s.ok()) Note(s);
    }
    return *n == kCaptureTransactionsMax ? now_ms : now_ms + 1;
  }
  if (quiet_polls_ < kQuietPollsMax) {
    const int64_t delay = int64_t{1} << quiet_polls_++;
    if (delay > 2) polling_.store(false);
    return now_ms + delay;
  }
  polling_.store(false);
  if (recorder_->Behind()) return now_ms;  // a commit came while we were about to sleep
  if (recorder_->spool_bytes() != 0) {
    if (Status s = recorder_->Flush(false); !s.ok()) Note(s);
  }
  (void)RecordClean(false);
  quiet_polls_ = 0;
  setup_.idle();
  return Task::kIdle;
}

// By the file's read version, "The Database Header" of sqlite.org/fileformat2.html.
bool Replicator::InRollbackMode() {
  std::array<std::byte, 20> head;
  auto n = recorder_->database()->ReadAt(0, head);
  return n.ok() && *n == head.size() && head[19] == std::byte{1};
}

// -- The SQL surface ---------------------------------------------------------------------------

Position Replicator::PositionOf(const CapturedState& state) {
  return {shipper_->lineage(), shipper_->epoch(), state.txid,
          static_cast<uint32_t>(state.history_hash)};
}

std::optional<Position> Replicator::position() {
  if (!recording_.load() || !shipper_->begun()) return std::nullopt;
  (void)recorder_->CatchUp(UINT64_MAX);
  return PositionOf(recorder_->captured());
}

std::optional<Position> Replicator::durable_position() { return shipper_->durable_position(); }

Status Replicator::Sync(int64_t timeout_ms) { return Flush(timeout_ms, false); }

bool Replicator::RefuseIfDiverged() {
  const std::string why = recorder_->diverged();
  if (why.empty()) return false;
  if (!refused_.load()) {
    Refuse(Status(Tag::kDiverged,
                  why + "; restore the newest state with snapshot_restore() to a new file"));
  }
  return true;
}

// `closing`: the WAL is gone because the last connection closes, not because another journal mode
// is in use.
Status Replicator::Flush(int64_t timeout_ms, bool closing) {
  if (timeout_ms == 0) {
    if (recording_.load()) {
      shipper_->Hurry();
      Wake(shipper_.get());
      shipper_->Release();
    }
    return Status::Ok();
  }
  const int64_t deadline = setup_.clock->MonotonicMs() + timeout_ms;
  GUILDLITE_RETURN_IF_ERROR(WaitSettled(timeout_ms));
  if (auto n = recorder_->CatchUp(UINT64_MAX); !n.ok()) return n.status();
  Epoch epoch = shipper_->epoch();
  Txid target = recorder_->captured().txid;
  shipper_->Hurry();
  Wake(shipper_.get());
  const bool done =
      shipper_->WaitUntil(std::max<int64_t>(0, deadline - setup_.clock->MonotonicMs()), [&] {
        if (refused_.load() || RefuseIfDiverged()) return true;
        if (recorder_->unsettled() || (!closing && recorder_->left_wal())) return false;
        if (shipper_->epoch() != epoch) {
          // The queue was dropped: a heal brought its content into the log under other numbers.
          epoch = shipper_->epoch();
          target = recorder_->captured().txid;
        }
        const auto durable = shipper_->durable();
        return durable && durable->txid >= target;
      });
  shipper_->Release();
  if (refused_.load()) {
    const std::lock_guard lock(mutex_);
    return refusal_;
  }
  if (done) return Status::Ok();
  const Status error = shipper_->last_error();
  std::string why = error.ok() ? "" : "; last error: " + error.ToString();
  const RecorderCounters c = recorder_->counters();
  if (c.scan_pages != 0) {
    why += "; scanning page " + std::to_string(c.scanned_pages) + " of " +
           std::to_string(c.scan_pages);
  }
  return Status(Tag::kTimeout, "txid " + std::to_string(target.value) + " of " + setup_.path +
                                   " was not durable within " + std::to_string(timeout_ms) +
                                   " ms; shipping goes on" + why);
}

Result<bool> Replicator::Wait(const Position& p, int64_t timeout_ms) {
  const int64_t deadline_ms = setup_.clock->MonotonicMs() + timeout_ms;
  GUILDLITE_RETURN_IF_ERROR(WaitSettled(timeout_ms));
  const auto lost = [&](const std::string& why) {
    return Status(Tag::kPositionLost,
                  p.ToString() + " is not a point of this database's history: " + why);
  };
  if (p.lineage != shipper_->lineage()) return lost("another lineage");
  if (p.epoch > shipper_->epoch()) return lost("its epoch is later than ours");
  // An epoch before ours ended where a FENCE froze it, and only what was not taken back later
  // counts.
  const bool past = p.epoch < shipper_->epoch();
  std::optional<uint32_t> check;
  EpochSlots slots;
  {
    const std::lock_guard lock(mutex_);
    const size_t i = p.epoch.value - 1;  // dense from epoch 1
    if (p.epoch.value == 0 || past_epochs_.size() < i + (past ? 1 : 0)) {
      return lost("its epoch is not known");
    }
    if (i > 0) slots.first = past_epochs_[i - 1].fence;
    if (past) {
      const PastEpoch& end = past_epochs_[i];
      slots.end = end.fence;
      if (p.txid > end.last_txid) return lost("its epoch ended before it");
      if (p.txid == end.last_txid) check = static_cast<uint32_t>(end.history_hash);
    }
  }
  if (!past) {
    (void)recorder_->CatchUp(UINT64_MAX);
    if (p.txid > recorder_->captured().txid) return lost("it was never captured");
    check = recorder_->CheckAt(p.txid);
  }
  if (check && *check != p.check) return lost("the content at that txid is other");
  const auto is_durable = [&] {
    const auto durable = shipper_->durable();
    return durable && durable->txid >= p.txid;
  };
  if (timeout_ms != 0 && !is_durable()) {
    shipper_->Hurry();
    Wake(shipper_.get());
    shipper_->WaitUntil(std::max<int64_t>(0, deadline_ms - setup_.clock->MonotonicMs()),
                        [&] { return refused_.load() || is_durable(); });
    shipper_->Release();
  }
  if (!is_durable()) {
    if (!refused_.load()) return false;
    const std::lock_guard lock(mutex_);
    return refusal_;
  }
  if (check) return true;
  // Of an earlier process or long ago: the log remembers. Durable, so it is in there.
  const auto history = LookUp(p, slots, deadline_ms);
  if (!history) return false;  // no answer yet: not known to be durable
  if (!history->ok()) {
    if (history->status().retryable()) return false;
    return history->status();
  }
  if (!**history) return lost("its epoch has no such transaction in the log");
  if (static_cast<uint32_t>(***history) != p.check) {
    return lost("the content at that txid is other");
  }
  return true;
}

// nullopt: no answer by then. It is kept for who asks again, unless it is an error.
std::optional<Result<std::optional<uint64_t>>> Replicator::LookUp(const Position& position,
                                                                  const EpochSlots& slots,
                                                                  int64_t deadline_ms) {
  const std::string key = position.ToString();
  std::shared_ptr<Lookup> lookup;
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (lookups_.size() >= kLookupsMax && !lookups_.contains(key)) lookups_.clear();
    std::shared_ptr<Lookup>& known = lookups_[key];
    first = !known;
    if (first) known = std::make_shared<Lookup>();
    lookup = known;
  }
  if (first) {
    RunErrand([this, lookup, slots, txid = position.txid] {
      auto answer = HistoryInLog(*setup_.store, slots, txid);
      const std::lock_guard lock(mutex_);
      lookup->answer = std::move(answer);
      changed_.notify_all();
    });
  }
  std::unique_lock lock(mutex_);
  while (!lookup->answer && !closed_.load()) {
    const int64_t left = deadline_ms - setup_.clock->MonotonicMs();
    if (left <= 0) break;
    setup_.clock->WaitFor(changed_, lock, std::min<int64_t>(left, 20));
  }
  if (lookup->answer && !lookup->answer->ok()) lookups_.erase(key);
  return lookup->answer;
}

void Replicator::RunErrand(std::function<void()> errand) {
  if (closed_.load()) return;
  {
    const std::lock_guard lock(mutex_);
    errands_.push_back(std::move(errand));
  }
  Wake(errand_task_.get());
}

Result<Position> Replicator::CreateSnapshot(std::string label, int64_t timeout_ms) {
  const int64_t deadline = setup_.clock->MonotonicMs() + timeout_ms;
  GUILDLITE_RETURN_IF_ERROR(WaitSettled(timeout_ms));
  auto request = snapshotter_->Request(std::move(label));
  if (!request.ok()) return request.status();
  Wake(snapshotter_.get());
  std::optional<Result<CapturedState>> result;
  shipper_->WaitUntil(std::max<int64_t>(0, deadline - setup_.clock->MonotonicMs()), [&] {
    result = snapshotter_->Finished(*request);
    return result.has_value() || refused_.load();
  });
  if (!result) {
    if (refused_.load()) {
      const std::lock_guard lock(mutex_);
      return refusal_;
    }
    return Status(Tag::kTimeout, "the snapshot was not complete within " +
                                     std::to_string(timeout_ms) +
                                     " ms; it goes on in the background");
  }
  if (!result->ok()) return result->status();
  return PositionOf(**result);
}

std::string Replicator::last_error() {
  {
    const std::lock_guard lock(mutex_);
    if (!last_error_.ok()) return last_error_.ToString();
  }
  const Status shipping = shipper_->last_error();
  if (!shipping.ok()) return shipping.ToString();
  for (const Status& status :
       {snapshotter_->last_error(), compactor_->last_error(), sweeper_->last_error()}) {
    if (!status.ok()) return status.ToString();
  }
  return "";
}

ReplicationStatus Replicator::status() {
  ReplicationStatus s;
  s.database = setup_.path;
  s.url = setup_.options.url;
  s.ship = shipper_->counters();
  s.capture = recorder_->counters();
  s.snapshots = snapshotter_->snapshots_taken();
  s.pending_bytes = recorder_->pending_bytes();
  s.spool_bytes = recorder_->spool_bytes();
  if (auto wal = IdentityOf(setup_.wal_path); wal.ok()) s.wal_bytes = wal->size;
  s.position = position();
  s.durable_position = durable_position();
  s.epoch = shipper_->epoch();
  s.last_error = last_error();
  {
    const std::lock_guard lock(mutex_);
    s.owner = owner_;
    s.owner_since_ms = owner_since_ms_;
    s.owner_read_ms = owner_read_ms_;
    s.last_error_ms = std::max(last_error_ms_, shipper_->last_error_ms());
    if (closed_.load()) {
      s.state = ReplicationState::kStopped;
    } else if (refused_.load()) {
      s.state =
          refusal_.tag() == Tag::kFenced ? ReplicationState::kFenced : ReplicationState::kDiverged;
    } else if (InRollbackMode()) {
      s.state = ReplicationState::kNotWal;
    } else if (!settled_.load()) {
      s.state = unshipped_.load() ? ReplicationState::kUnshipped : ReplicationState::kStarting;
    } else if (recorder_->healing()) {
      s.state = ReplicationState::kHealing;
    } else if (!s.durable_position) {
      s.state = ReplicationState::kScanning;
    } else if (!shipper_->last_error().ok()) {
      s.state = ReplicationState::kUnshipped;
    } else {
      s.state = ReplicationState::kReplicating;
    }
  }
  if (s.position) {
    const Txid durable = s.durable_position ? s.durable_position->txid : Txid();
    if (s.position->txid > durable) {
      s.pending_transactions = s.position->txid.value - durable.value;
      const int64_t oldest = recorder_->oldest_pending_ms();
      if (oldest != 0) s.lag_ms = std::max<int64_t>(0, setup_.clock->NowMs() - oldest);
    }
  }
  return s;
}

// Everything published is durable.
bool Replicator::Flushed() {
  if (!recorder_->CatchUp(UINT64_MAX).ok() || recorder_->Behind()) return false;
  if (!recorder_->diverged().empty()) return false;
  const Txid captured = recorder_->captured().txid;
  const auto durable = shipper_->durable();
  return durable && durable->txid >= captured && !recorder_->unsettled();
}

struct Replicator::Ending {
  Replicator& r;
  ~Ending() { r.EndEnding(); }
};

bool Replicator::BeginEnding(int64_t timeout_ms) {
  const int64_t deadline_ms = setup_.clock->MonotonicMs() + timeout_ms;
  std::unique_lock lock(mutex_);
  while (ending_) {
    const int64_t left = deadline_ms - setup_.clock->MonotonicMs();
    if (left <= 0) return false;
    setup_.clock->WaitFor(changed_, lock, std::min<int64_t>(left, 20));
  }
  ending_ = true;
  return true;
}

void Replicator::EndEnding() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = false;
  }
  changed_.notify_all();
}

// On the pool. The owner of a resumed epoch is another process than the one that claimed it.
void Replicator::MarkReleased(bool released) {
  marked_.store(true);  // whatever comes of it
  const Epoch epoch = shipper_->epoch();
  const Session session = shipper_->session();
  const auto updated = UpdateManifest(*setup_.store, *setup_.random, [&](Manifest& m) -> Status {
    GUILDLITE_RETURN_IF_ERROR(m.CheckOwner(epoch, session));
    m.released_ms = released ? std::max<int64_t>(setup_.clock->NowMs(), 1) : 0;
    m.owner = setup_.owner;
    return Status::Ok();
  });
  if (updated.ok()) marked_.store(released);
}

void Replicator::Release(int64_t timeout_ms) {
  if (!recording_.load() || !settled_.load() || refused_.load() || closed_.load()) return;
  // Flushed in any state: an unfinished first scan or heal may well end in time, unless it waits
  // for a connection.
  if (!Flushed() && !recorder_->scan_waits()) (void)Flush(std::max<int64_t>(timeout_ms, 1), true);
  if (marked_.load() || !Flushed()) return;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(release_posted_, true)) return;
  }
  RunErrand([this] {
    MarkReleased(true);
    const std::lock_guard lock(mutex_);
    release_posted_ = false;
    changed_.notify_all();
  });
}

void Replicator::AwaitReleaseMark(int64_t deadline_ms) {
  deadline_ms = std::min(deadline_ms, setup_.clock->MonotonicMs() + kReleaseWaitMs);
  std::unique_lock lock(mutex_);
  while (release_posted_) {
    const int64_t left = deadline_ms - setup_.clock->MonotonicMs();
    if (left <= 0) return;
    setup_.clock->WaitFor(changed_, lock, std::min<int64_t>(left, 20));
  }
}

Status Replicator::Stop(int64_t timeout_ms) {
  const int64_t deadline_ms = setup_.clock->MonotonicMs() + timeout_ms;
  if (!BeginEnding(timeout_ms)) {
    return Status(Tag::kTimeout, setup_.path + " is being closed or stopped already");
  }
  const Ending ending{*this};
  if (closed_.load())
    return Status(Tag::kNotReplicated, setup_.path + " is not replicated any more");
  const bool owner = settled_.load() && !refused_.load();
  if (owner) {
    // Writers get BUSY from here on, so that what is flushed stays all there is.
    stopping_.store(true);
    const auto go_on = [&](const Status& why) {
      stopping_.store(false);
      return why;
    };
    const Status synced = Sync(timeout_ms);
    if (!synced.ok()) {
      return go_on(Status(Tag::kNotDurable, "replication goes on: " + synced.message()));
    }
    if (!Flushed()) {
      return go_on(Status(Tag::kNotDurable,
                          "replication goes on: txid " +
                              std::to_string(recorder_->captured().txid.value) +
                              " is not in the store yet; give replication_stop() more time"));
    }
    Release(1);
    AwaitReleaseMark(deadline_ms);
  }
  if (refused_.load() && keeping_.load() != Keeping::kNot) {
    GUILDLITE_RETURN_IF_ERROR(WaitKept(timeout_ms));  // what is forgotten next is there alone
  }
  RemoveTasks(std::max(deadline_ms, setup_.clock->MonotonicMs() + kLeaveMinMs));
  recording_.store(false);
  stopping_.store(false);
  recorder_->DropQueue("replication was stopped");
  Status forgotten = sidecar_.ForgetState();
  sidecar_.Unlock();
  return forgotten;
}

void Replicator::WarnOfUnflushed() {
  if (refused_.load()) return;  // said when it was refused
  std::string what;
  if (!recording_.load() || !settled_.load()) {
    if (!unshipped_.load()) return;  // opened and closed before the store had answered
    what = "what was committed since it was opened";
  } else {
    if (Flushed()) return;
    const Txid captured = recorder_->captured().txid;
    const auto durable = shipper_->durable();
    what = !durable || recorder_->unsettled()
               ? "what was committed, since the comparison with the store was not complete,"
               : "txid " + std::to_string(durable->txid.value + 1) + " to " +
                     std::to_string(captured.value) + " (" +
                     std::to_string(recorder_->pending_bytes()) + " bytes)";
  }
  const std::string why = last_error();
  setup_.warn(Tag::kNotDurable, "closed before " + what +
                                    " had reached the store; it is kept beside the database and "
                                    "ships when that is opened again" +
                                    (why.empty() ? "" : "; last error: " + why));
}

// Remembers that the database file alone is what was captured, when that is provable: no WAL, and
// nobody wrote since. False: not recorded. Not `closing`: after a checkpoint of ours that truncated
// the WAL a kill leaves nothing else that tells so.
bool Replicator::RecordClean(bool closing) {
  const auto empty = [&] {
    const auto wal = IdentityOf(setup_.wal_path);
    return !wal.ok() || wal->size == 0;
  };
  // A change within the same tick of the file system's clock leaves no trace: the file must have
  // been older than that when it was looked at.
  const int64_t looked_ns = setup_.clock->NowMs() * 1000000;
  const auto file = IdentityOf(setup_.path);
  if (!file.ok() || !empty() || looked_ns - file->ctime_ns < kCleanGapNs) return false;
  if (!closing) {
    const auto known = sidecar_.ReadClean();
    if (known && known->txid == recorder_->captured().txid && known->inode == file->inode &&
        known->device == file->device && known->size == file->size &&
        known->ctime_ns == file->ctime_ns) {
      return true;
    }
  }
  auto state = recorder_->FlushAtRest(*file, closing);
  if (!state.ok() || !state->rolling_known || !empty()) return false;
  return sidecar_
      .WriteClean({file->device, file->inode, file->size, file->ctime_ns, looked_ns, state->txid,
                   state->rolling_checksum})
      .ok();
}

void Replicator::Close(int64_t timeout_ms) {
  const int64_t deadline_ms = setup_.clock->MonotonicMs() + std::max<int64_t>(timeout_ms, 1);
  if (!BeginEnding(timeout_ms)) return;
  const Ending ending{*this};
  if (closed_.load()) return;
  Release(timeout_ms);
  AwaitReleaseMark(deadline_ms);
  if (refused_.load() && keeping_.load() != Keeping::kNot) (void)WaitKept(timeout_ms);
  RemoveTasks(std::max(deadline_ms, setup_.clock->MonotonicMs() + kLeaveMinMs));
  WarnOfUnflushed();
  if (recording_.exchange(false) && !recorder_->healing()) {
    if (RecordClean(true) || recorder_->Flush(true).ok()) {
      // Whatever position was handed out survives a power loss from here on.
      // Before the claim none was; its task may still be with the store, and has state_.
      if (settled_.load() && state_ && std::exchange(state_->open, false)) {
        (void)sidecar_.WriteState(*state_);
      }
    }
  }
  recorder_->Retire();
  sidecar_.Unlock();
}

void Replicator::AbandonInChild() {
  closed_.store(true);
  sidecar_.CloseInChild();
}

}  // namespace guildlite
