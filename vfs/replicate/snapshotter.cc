#include "vfs/replicate/snapshotter.h"

#include <algorithm>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr int64_t kRetryMs = 200;
constexpr int64_t kRetryMaxMs = 10000;
constexpr int64_t kNotReadyMs = 20;  // nothing published yet, or a page to be read again

}  // namespace

struct Snapshotter::Work {
  Recorder::ScanInfo scan;
  uint64_t request = 0;
  std::string label;
  uint64_t random = 0;
  std::unique_ptr<BatchWriter> writer;  // kFirst, kSnapshot
  std::string encoded;                  // not uploaded yet
  std::vector<BodyPart> parts;
  uint64_t part_bytes = 0;
  std::optional<Slot> first_slot;
  bool done = false;
  CapturedState end;
  Epoch epoch;  // of `object`
  std::string object;
  bool stored = false;
  bool hurried = false;  // the log need not wait for its interval to reach E
};

Snapshotter::Snapshotter(Clock& clock, Random& random, ObjectStore& store, Recorder& recorder,
                         Shipper& shipper, const Settings& settings,
                         std::function<void()> wake_shipper, std::function<void()> on_taken)
    : clock_(clock),
      random_(random),
      store_(store),
      recorder_(recorder),
      shipper_(shipper),
      settings_(settings),
      wake_shipper_(std::move(wake_shipper)),
      on_taken_(std::move(on_taken)) {}

Snapshotter::~Snapshotter() = default;

void Snapshotter::Begin(const Manifest& manifest) {
  const std::lock_guard lock(mutex_);
  begun_ = true;
  begun_anew_ = true;
  owed_ = manifest.snapshots.empty();
  last_bytes_ = manifest.snapshots.empty() ? 0 : manifest.snapshots.back().bytes;
}

Result<uint64_t> Snapshotter::Request(std::string label) {
  const std::lock_guard lock(mutex_);
  if (finished_ < requests_) {
    return Status(Tag::kBusy, "a snapshot asked for earlier is still being taken", true);
  }
  requested_label_ = std::move(label);
  result_.reset();
  return ++requests_;
}

std::optional<Result<CapturedState>> Snapshotter::Finished(uint64_t request) {
  const std::lock_guard lock(mutex_);
  if (finished_ < request) return std::nullopt;
  return result_;
}

uint64_t Snapshotter::snapshots_taken() {
  const std::lock_guard lock(mutex_);
  return taken_;
}

Status Snapshotter::last_error() {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

void Snapshotter::Finish(const Result<CapturedState>& result) {
  {
    const std::lock_guard lock(mutex_);
    if (work_ && work_->request != 0 && finished_ < work_->request) {
      finished_ = work_->request;
      result_ = result;
    }
  }
  if (work_ && work_->hurried) shipper_.Release();
  work_.reset();
  shipper_.Notify();
}

int64_t Snapshotter::Step(int64_t now_ms) {
  bool anew = false;
  {
    const std::lock_guard lock(mutex_);
    if (!begun_) return kIdle;
    anew = std::exchange(begun_anew_, false);
  }
  const auto scan = recorder_.scan();
  if (work_ && (work_->done ? anew : !scan || scan->id != work_->scan.id)) {
    // Replaced by a heal, or by itself begun anew; or complete, but what it waits for was dropped
    // and its transactions are not in this log. A request stays asked for.
    if (work_->request != 0) {
      const std::lock_guard lock(mutex_);
      requested_label_ = work_->label;
    }
    if (work_->hurried) shipper_.Release();
    work_.reset();
  }
  if (!work_) {
    uint64_t request = 0;
    std::string label;
    if (!scan) {
      bool wanted = false;
      {
        const std::lock_guard lock(mutex_);
        wanted =
            owed_ || requested_label_.has_value() ||
            shipper_.counters().log_bytes > std::max(settings_.snapshot_min_bytes, last_bytes_ / 2);
      }
      if (!wanted) return kIdle;
      if (!recorder_.BeginSnapshotScan()) return now_ms + kRetryMs;
      return now_ms;
    }
    if (scan->kind != ScanKind::kHeal) {
      const std::lock_guard lock(mutex_);
      if (requested_label_) {
        request = requests_;
        label = *std::exchange(requested_label_, std::nullopt);
      }
    }
    work_ = std::make_unique<Work>();
    work_->scan = *scan;
    work_->request = request;
    work_->label = label;
    work_->random = random_.Next64();
  }
  bool again = false;
  const Status status = work_->done ? Publish(&again) : Advance(&again);
  if (status.ok()) {
    failures_ = 0;
    if (!work_) return now_ms;
    return again ? now_ms : now_ms + kNotReadyMs;
  }
  if (status.tag() == Tag::kPrecondition) return now_ms;  // the scan was replaced
  {
    const std::lock_guard lock(mutex_);
    last_error_ = status;
  }
  if (!status.retryable() && status.tag() != Tag::kStoreUnreachable) {
    // Not to be had now; the log goes on, and the next occasion tries again.
    if (work_ && work_->request != 0) {
      if (work_->done || work_->scan.kind == ScanKind::kSnapshot) {
        recorder_.AbandonScan(work_->scan.id);
        Finish(status);
      } else {
        // The first scan goes on; what it read so far is here alone.
        const std::lock_guard lock(mutex_);
        finished_ = work_->request;
        result_ = Result<CapturedState>(status);
        work_->request = 0;
      }
    }
  }
  ++failures_;
  return now_ms + std::min(kRetryMaxMs, kRetryMs << std::min(failures_, 6u));
}

Status Snapshotter::Advance(bool* again) {
  Work& w = *work_;
  if (!w.first_slot) w.first_slot = shipper_.SlotAfter(w.scan.start.txid);
  if (w.encoded.size() >= settings_.part_bytes) GUILDLITE_RETURN_IF_ERROR(FlushPart(false));
  auto chunk = recorder_.ScanStep(w.scan.id, settings_.chunk_pages);
  if (!chunk.ok()) return chunk.status();
  *again = chunk->ready;
  if (!chunk->entries.empty() || (chunk->done && w.scan.kind != ScanKind::kHeal)) {
    const uint32_t page_size = chunk->done ? chunk->end.page_size : w.scan.start.page_size;
    if (!w.writer) {
      w.writer = std::make_unique<BatchWriter>(BatchWriter::Settings{
          .page_size = page_size, .level = 1, .block_pages_max = kSnapshotChunkPages});
      Transaction t;
      t.txid = w.scan.start.txid;
      t.mark = w.scan.start.mark_valid ? w.scan.start.mark : WalMark();
      t.time_ms = w.scan.start.time_ms;
      t.database_pages = w.scan.start.database_pages;
      t.free_pages = w.scan.start.free_pages;
      t.history_hash = w.scan.start.history_hash;
      t.rolling_known = w.scan.start.rolling_known;
      t.rolling_checksum = w.scan.start.rolling_known ? w.scan.start.rolling_checksum : 0;
      w.writer->BeginTransaction(t);
    }
    for (size_t i = 0; i < chunk->entries.size(); ++i) {
      w.writer->AddPage(chunk->entries[i].pgno, chunk->entries[i].hash,
                        std::span(chunk->images).subspan(i * page_size, page_size),
                        [](std::span<std::byte>) { return false; });
    }
    w.encoded += w.writer->TakeEncoded();
  }
  if (!chunk->done) {
    if (w.scan.kind == ScanKind::kHeal)
      wake_shipper_();  // the scan may wait for what it found to ship
    return Status::Ok();
  }
  *again = true;
  w.done = true;
  w.end = chunk->end;
  w.hurried = true;
  shipper_.Hurry();
  if (w.scan.kind == ScanKind::kHeal) {
    wake_shipper_();
    Finish(w.end);
    return Status::Ok();
  }
  w.writer->EndTransaction();
  w.encoded += w.writer->Seal();
  wake_shipper_();
  return Status::Ok();
}

Status Snapshotter::FlushPart(bool last) {
  Work& w = *work_;
  while (w.encoded.size() >= settings_.part_bytes || (last && w.encoded.size() > 0)) {
    const std::string_view bytes = std::string_view(w.encoded).substr(
        0, std::min<uint64_t>(settings_.part_bytes, w.encoded.size()));
    const std::string key = PartKey(shipper_.epoch(), w.scan.start.txid.value,
                                    static_cast<uint32_t>(w.parts.size()), random_.Next64());
    auto put = store_.Put(key, bytes, PutCondition::Create());
    if (!put.ok()) return put.status().Context("put " + key);
    w.parts.push_back({key, bytes.size(), Hash64(AsBytes(bytes))});
    w.part_bytes += bytes.size();
    w.encoded.erase(0, bytes.size());
  }
  return Status::Ok();
}

Status Snapshotter::Publish(bool* again) {
  Work& w = *work_;
  if (!w.first_slot) w.first_slot = shipper_.SlotAfter(w.scan.start.txid);
  if (shipper_.acknowledged().txid < w.end.txid || !w.first_slot) {
    wake_shipper_();
    return Status::Ok();  // invariant 1
  }
  const Epoch epoch = shipper_.epoch();
  const std::string key = SnapshotKey(w.scan.start.txid, w.end.txid, epoch, w.random);
  if (w.epoch != epoch) {  // the name would be of an object that was never stored
    w.object.clear();
    w.stored = false;
    w.epoch = epoch;
  }
  if (w.object.empty()) {
    // The last piece goes inline when it is small: most snapshots are one object.
    if (!w.parts.empty()) GUILDLITE_RETURN_IF_ERROR(FlushPart(true));
    ObjectHeader h;
    h.kind = ObjectKind::kSnapshot;
    h.lineage = shipper_.lineage();
    h.epoch = epoch;
    h.session = shipper_.session();
    h.first_txid = w.scan.start.txid;
    h.last_txid = h.continues_from = w.end.txid;
    h.time_ms = w.end.time_ms;
    h.page_size = w.end.page_size;
    h.database_pages = w.end.database_pages;
    h.mark = w.end.mark_valid ? w.end.mark : WalMark();
    h.history_hash = w.end.history_hash;
    h.rolling_checksum = w.end.rolling_checksum;
    h.rolling_known = w.end.rolling_known;
    h.parts = w.parts;
    w.object = EncodeObject(h, w.encoded, w.writer->index());
  }
  if (!w.stored) {
    auto put = store_.Put(key, w.object, PutCondition::Create());
    if (!put.ok() && put.status().tag() != Tag::kAlreadyExists) {
      return put.status().Context("put " + key);
    }
    w.stored = true;
  }
  SnapshotRecord record;
  record.key = key;
  record.txid = w.scan.start.txid;
  record.usable_from = w.end.txid;
  record.first_slot = *w.first_slot;
  // Acknowledged through E: E is below the next slot, whatever else is.
  record.end_slot = w.scan.start.txid == w.end.txid ? record.first_slot : shipper_.next_slot();
  record.epoch = epoch;
  record.history_hash = w.scan.start.history_hash;
  record.usable_history_hash = w.end.history_hash;
  record.time_ms = w.end.time_ms;
  record.label = w.label;
  record.bytes = w.object.size() + w.part_bytes;
  record.database_bytes = uint64_t{w.end.database_pages} * w.end.page_size;
  auto updated = UpdateManifest(store_, random_, [&](Manifest& m) -> Status {
    GUILDLITE_RETURN_IF_ERROR(m.CheckOwner(epoch, shipper_.session()));
    for (const SnapshotRecord& s : m.snapshots) {
      if (s.key == key) return Status::Ok();
    }
    m.snapshots.push_back(record);
    return Status::Ok();
  });
  if (!updated.ok()) return updated.status().Context("enter the snapshot into the manifest");
  {
    const std::lock_guard lock(mutex_);
    last_bytes_ = record.bytes;
    owed_ = false;
    ++taken_;
    last_error_ = Status::Ok();
  }
  shipper_.SnapshotTaken();
  on_taken_();
  *again = true;
  Finish(w.end);
  return Status::Ok();
}

}  // namespace guildlite
