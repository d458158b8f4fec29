#include "vfs/replicate/shipper.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/format/segment_reader.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr int64_t kRetryMinMs = 50;
constexpr int64_t kRetryMaxMs = 10000;
// Ends of recent objects kept for SlotAfter(): a scan asks for its start within a few steps.
constexpr size_t kEndsMax = 1024;

}  // namespace

Shipper::Shipper(Clock& clock, Random& random, ObjectStore& store, Recorder& recorder,
                 Sidecar& sidecar, const Settings& settings, OnStopped stopped, OnProgress progress)
    : clock_(clock),
      random_(random),
      store_(store),
      recorder_(recorder),
      sidecar_(sidecar),
      settings_(settings),
      on_stopped_(std::move(stopped)),
      on_progress_(std::move(progress)) {}

void Shipper::Begin(const StoreView& view, Session session, bool restorable) {
  {
    const std::lock_guard lock(mutex_);
    begun_ = true;
    stopped_ = false;
    lineage_ = view.manifest.manifest.lineage;
    epoch_ = view.manifest.manifest.epoch;
    session_ = session;
    next_ = view.next;
    previous_hash_ = view.previous_hash;
    acked_ = view.tip;
    restorable_ = restorable;
    heal_open_ = view.heal_open;
    durable_.reset();
    if (restorable_ && !heal_open_) durable_ = acked_;
    ends_.clear();
    ends_.push_back({acked_.txid, next_});
  }
  (void)sidecar_.WriteAcknowledged(
      {next_, previous_hash_, acked_.txid, acked_.history_hash, heal_open_, lineage_, epoch_});
  changed_.notify_all();
}

void Shipper::BeginOrphan(const StoreView& view, Session session, const CapturedState& end) {
  const std::lock_guard lock(mutex_);
  begun_ = true;
  stopped_ = false;
  lineage_ = view.manifest.manifest.lineage;
  session_ = session;
  next_ = view.next;
  previous_hash_ = view.previous_hash;
  acked_ = view.tip;
  restorable_ = true;
  heal_open_ = false;
  durable_ = end;
  orphan_ = OrphanProgress{.from = end, .to = acked_};
  epoch_ = view.manifest.manifest.epoch;
}

std::optional<Shipper::OrphanProgress> Shipper::orphan() {
  const std::lock_guard lock(mutex_);
  return orphan_;
}

void Shipper::SnapshotTaken() {
  {
    const std::lock_guard lock(mutex_);
    if (orphan_) return;
    restorable_ = true;
    counters_.log_bytes = 0;
    if (!heal_open_) durable_ = acked_;
  }
  changed_.notify_all();
}

int64_t Shipper::Step(int64_t now_ms) {
  {
    const std::lock_guard lock(mutex_);
    if (!begun_ || stopped_) return kIdle;
  }
  if (now_ms < retry_at_ms_) return retry_at_ms_;
  if (orphan_ && TailLost(std::nullopt)) return kIdle;
  if (recorder_.dropped()) {
    in_flight_.reset();
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    on_stopped_(Status::Ok());
    return kIdle;
  }
  if (!in_flight_) {
    const bool hurry = waiters_.load() != 0 || orphan_;
    if (!hurry && now_ms < next_put_ms_) return next_put_ms_;
    auto item = recorder_.NextToShip(acked_.txid, settings_.body_max);
    if (!item.ok()) return Failed(item.status(), now_ms);
    if (orphan_ && TailLost(*item)) return kIdle;
    if (!*item) {
      if (recorder_.dropped()) return now_ms;
      if (orphan_) SetOrphanWhole(true);
      return kIdle;
    }
    if (orphan_) SetOrphanWhole(false);
    next_put_ms_ = now_ms + settings_.sync_interval_ms;
    if (Status s = Prepare(**std::move(item)); !s.ok()) {
      in_flight_.reset();
      return Failed(s, now_ms);
    }
  }
  // The folder was deleted, or another process holds its lock now: two shippers must not race.
  if (!sidecar_.LockIsCurrent()) {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    on_stopped_(Status(Tag::kOwned, "the lock file " + sidecar_.directory() +
                                        "/lock was replaced while the database was open"));
    return kIdle;
  }
  const Slot slot = next_;
  const std::string key = Key();
  auto put = store_.Put(key, in_flight_->object, PutCondition::Create());
  {
    const std::lock_guard lock(mutex_);
    ++counters_.puts;
    counters_.bytes_sent += in_flight_->object.size();
  }
  if (!put.ok()) {
    if (put.status().tag() != Tag::kAlreadyExists) {
      return Failed(put.status().Context("put " + key), now_ms);
    }
    const Status settled = SettleExisting();
    if (settled.tag() == Tag::kFenced && !orphan_) {
      Fenced(settled);
      return now_ms;
    }
    if (!settled.ok()) return Failed(settled, now_ms);
  } else {
    Settle(in_flight_->item, ObjectHash(in_flight_->object), in_flight_->object.size());
  }
  failures_ = 0;
  retry_at_ms_ = 0;
  if (!orphan_) {
    on_progress_(slot, put.ok() ? std::string_view(in_flight_->object) : std::string_view());
  }
  in_flight_.reset();
  return now_ms;
}

std::string Shipper::Key() const {
  return orphan_ ? OrphanKey(epoch_, session_, next_) : LogKey(next_);
}

// The slot holds another writer's FENCE, and every slot below it is acknowledged: what we have not
// put there is what the log will never have.
void Shipper::Fenced(const Status& status) {
  in_flight_.reset();
  next_put_ms_ = retry_at_ms_ = 0;
  {
    const std::lock_guard lock(mutex_);
    last_error_ = status;
    last_error_ms_ = clock_.NowMs();
    orphan_ = OrphanProgress{.from = acked_, .to = acked_};
    // Before the first snapshot, or inside a heal, what follows the log's end would be no restore
    // point. (The end itself need not know its checksum: it may lie inside the first scan.)
    orphan_->lost = !restorable_ || heal_open_;
    stopped_ = orphan_->lost;
  }
  on_stopped_(status);
  changed_.notify_all();
}

// Whether what is left cannot be told from the queue: `item` is what it yields, if it was asked.
bool Shipper::TailLost(const std::optional<ShipItem>& item) {
  if (!recorder_.dropped() && !recorder_.unsettled() && recorder_.diverged().empty() &&
      (!item || item->kind == ObjectKind::kData)) {
    return false;
  }
  in_flight_.reset();
  {
    const std::lock_guard lock(mutex_);
    orphan_->lost = stopped_ = true;
  }
  on_stopped_(last_error());
  changed_.notify_all();
  return true;
}

void Shipper::SetOrphanWhole(bool whole) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(orphan_->whole, whole) || !whole) return;
  }
  on_stopped_(last_error());
  changed_.notify_all();
}

Status Shipper::Prepare(ShipItem item) {
  GUILDLITE_RETURN_IF_ERROR(recorder_.SyncWal());
  ObjectHeader h;
  h.kind = item.kind;
  h.lineage = lineage_;
  h.epoch = epoch_;
  h.session = session_;
  h.slot = h.last_slot = next_;
  h.first_txid = item.first;
  h.last_txid = h.continues_from = item.last;
  h.time_ms = item.end.time_ms;
  h.page_size = item.end.page_size;
  h.database_pages = item.end.database_pages;
  h.mark = item.end.mark_valid ? item.end.mark : WalMark();
  h.history_hash = item.end.history_hash;
  h.rolling_checksum = item.end.rolling_known ? item.end.rolling_checksum : 0;
  h.rolling_known = item.end.rolling_known;
  h.previous_hash = previous_hash_;
  if (item.body_size > item.body.size()) GUILDLITE_RETURN_IF_ERROR(UploadParts(&h, item));
  InFlight flight;
  flight.object = EncodeObject(h, item.body);
  item.body = std::string();
  flight.item = std::move(item);
  in_flight_ = std::move(flight);
  return Status::Ok();
}

// A transaction too large for one request: its pieces first, under names of their own; the log
// object that lists them commits them. A name is never reused, a piece never skipped because one is
// there.
Status Shipper::UploadParts(ObjectHeader* header, const ShipItem& item) {
  uint32_t index = 0;
  for (uint64_t at = 0; at < item.body_size; ++index) {
    const uint64_t length = std::min(settings_.part_bytes, item.body_size - at);
    auto bytes = recorder_.ReadBody(item.first, at, length);
    if (!bytes.ok()) return bytes.status();
    const uint64_t random = random_.Next64();
    const std::string key = orphan_ ? OrphanPartKey({epoch_, session_, next_}, index, random)
                                    : PartKey(epoch_, next_.value, index, random);
    auto put = store_.Put(key, *bytes, PutCondition::Create());
    if (!put.ok()) return put.status().Context("put " + key);
    header->parts.push_back({key, bytes->size(), Hash64(AsBytes(*bytes))});
    at += length;
    const std::lock_guard lock(mutex_);
    ++counters_.puts;
    counters_.bytes_sent += bytes->size();
  }
  return Status::Ok();
}

Status Shipper::SettleExisting() {
  const std::string key = Key();
  auto found = store_.Get(key);
  {
    const std::lock_guard lock(mutex_);
    ++counters_.gets;
  }
  if (!found.ok()) return found.status().Context("read " + key);
  if (found->bytes == in_flight_->object) {
    Settle(in_flight_->item, ObjectHash(in_flight_->object), in_flight_->object.size());
    return Status::Ok();
  }
  auto view = OpenObject(found->bytes, key);
  if (!view.ok()) return view.status();
  const ObjectHeader& h = view->header;
  // An epoch has one session, and only what is not kData names it.
  if (h.lineage != lineage_ || h.epoch != epoch_ ||
      (h.kind != ObjectKind::kData && h.session != session_)) {
    return Status(Tag::kFenced, "log slot " + std::to_string(next_.value) +
                                    " was filled by epoch " + std::to_string(h.epoch.value) +
                                    ": another writer has taken over this log");
  }
  // Our own session put it before a crash, cut differently, or another copy of this disk did. Adopt
  // it if it ends where one of our batches ends with the same history; else what we hold cannot be
  // cut to follow it.
  const ShipItem& item = in_flight_->item;
  if (h.kind == item.kind && h.last_txid == item.last && h.history_hash == item.end.history_hash) {
    Settle(item, view->object_hash, found->bytes.size());
    return Status::Ok();
  }
  auto shorter = recorder_.AdoptableEnd(h.last_txid, h.history_hash);
  if (h.kind == ObjectKind::kData && shorter) {
    ShipItem adopted;
    adopted.first = item.first;
    adopted.last = shorter->txid;
    adopted.end = *shorter;
    Settle(adopted, view->object_hash, found->bytes.size());
    return Status::Ok();
  }
  if (!orphan_) GUILDLITE_RETURN_IF_ERROR(CheckCapturedHere(h));
  recorder_.DropQueue("log slot " + std::to_string(next_.value) +
                      " holds an earlier put of this process that cannot be continued exactly");
  return Status::Ok();
}

// What this session put before a crash was captured from the WAL, and that is still there: an
// object that ends in anything else is of another copy of this disk, which goes by the same
// session.
Status Shipper::CheckCapturedHere(const ObjectHeader& h) {
  if (auto n = recorder_.CatchUp(UINT64_MAX); !n.ok()) return n.status();
  if (recorder_.dropped()) return Status::Ok();  // what was not captured by then never is
  const auto check = recorder_.CheckAt(h.last_txid);
  if (check ? *check == static_cast<uint32_t>(h.history_hash)
            : h.last_txid <= recorder_.captured().txid) {
    return Status::Ok();
  }
  if (!check && (!recorder_.SeesAll() || recorder_.Behind())) {
    return Status(Tag::kBusy, "what is committed is not all known yet", true);
  }
  return Status(Tag::kFenced, "log slot " + std::to_string(next_.value) +
                                  " holds transactions of epoch " + std::to_string(h.epoch.value) +
                                  " that were not committed here: another copy of this disk writes "
                                  "to this log");
}

void Shipper::Settle(const ShipItem& item, uint64_t object_hash, uint64_t size) {
  recorder_.Acknowledge(item);
  Acknowledged record;
  {
    const std::lock_guard lock(mutex_);
    next_ = next_.Next();
    previous_hash_ = object_hash;
    if (item.kind == ObjectKind::kHealBegin) {
      heal_open_ = true;
    } else if (item.kind == ObjectKind::kHealEnd) {
      heal_open_ = false;
    }
    acked_ = item.end;
    if (orphan_) {
      orphan_->to = acked_;
    } else {
      counters_.log_bytes += size;
    }
    if (!orphan_ && restorable_ && !heal_open_ && acked_.rolling_known) durable_ = acked_;
    ends_.push_back({acked_.txid, next_});
    if (ends_.size() > kEndsMax) ends_.pop_front();
    record = {next_,      previous_hash_, acked_.txid, acked_.history_hash,
              heal_open_, lineage_,       epoch_};
    if (!orphan_) last_error_ = Status::Ok();
  }
  // Losing it costs a longer walk at the next open, nothing else. What is under orphans/ tells so
  // itself.
  if (!orphan_) (void)sidecar_.WriteAcknowledged(record);
  changed_.notify_all();
}

int64_t Shipper::Failed(const Status& status, int64_t now_ms) {
  {
    const std::lock_guard lock(mutex_);
    ++counters_.retries;
    last_error_ = status;
    last_error_ms_ = clock_.NowMs();
  }
  changed_.notify_all();
  const int64_t ceiling = std::min(kRetryMaxMs, kRetryMinMs << std::min(failures_, 10u));
  ++failures_;
  retry_at_ms_ = now_ms + ceiling / 2 +
                 static_cast<int64_t>(random_.Next64() % static_cast<uint64_t>(ceiling / 2 + 1));
  return retry_at_ms_;
}

void Shipper::Hurry() { waiters_.fetch_add(1); }
void Shipper::Release() { waiters_.fetch_sub(1); }

std::optional<CapturedState> Shipper::durable() {
  const std::lock_guard lock(mutex_);
  return durable_;
}
std::optional<Position> Shipper::durable_position() {
  const std::lock_guard lock(mutex_);
  if (!durable_) return std::nullopt;
  return Position{lineage_, epoch_, durable_->txid, static_cast<uint32_t>(durable_->history_hash)};
}
CapturedState Shipper::acknowledged() {
  const std::lock_guard lock(mutex_);
  return acked_;
}
Epoch Shipper::epoch() {
  const std::lock_guard lock(mutex_);
  return epoch_;
}
Lineage Shipper::lineage() {
  const std::lock_guard lock(mutex_);
  return lineage_;
}
Session Shipper::session() {
  const std::lock_guard lock(mutex_);
  return session_;
}
Slot Shipper::next_slot() {
  const std::lock_guard lock(mutex_);
  return next_;
}
bool Shipper::begun() {
  const std::lock_guard lock(mutex_);
  return begun_;
}

std::optional<Slot> Shipper::SlotAfter(Txid txid) {
  const std::lock_guard lock(mutex_);
  for (const auto& [end, slot] : ends_) {
    if (end == txid) return slot;
  }
  return std::nullopt;
}

bool Shipper::WaitUntil(int64_t timeout_ms, const std::function<bool()>& done) {
  const int64_t deadline = clock_.MonotonicMs() + timeout_ms;
  for (;;) {
    if (done()) return true;
    std::unique_lock lock(mutex_);
    const int64_t left = deadline - clock_.MonotonicMs();
    if (left <= 0) return false;
    // A notification between done() and here is caught by the short wait.
    clock_.WaitFor(changed_, lock, std::min<int64_t>(left, 20));
  }
}

void Shipper::Notify() { changed_.notify_all(); }

ShipCounters Shipper::counters() {
  const std::lock_guard lock(mutex_);
  return counters_;
}
Status Shipper::last_error() {
  const std::lock_guard lock(mutex_);
  return last_error_;
}
int64_t Shipper::last_error_ms() {
  const std::lock_guard lock(mutex_);
  return last_error_ms_;
}

}  // namespace guildlite
