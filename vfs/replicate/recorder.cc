#include "vfs/replicate/recorder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

// Encoded bytes at which the open batch is sealed: an object stays a moderate request.
constexpr uint64_t kBatchBytesMax = 4 << 20;
// The gate encodes what is left of the open block on the application's thread, so blocks are kept
// small; a transaction's pages seldom have more to say to each other than 64 of them can.
constexpr uint32_t kLogBlockPages = 64;
// How often a page that matches neither table nor WAL is read again before the scan calls it a page
// written behind our back. A torn read lasts as long as one page write of a checkpoint.
constexpr uint32_t kScanRetriesMax = 64;
// Positions told apart without asking the store; 256 KiB.
constexpr size_t kChecksMax = 65536;
// Encoded differences of a heal that wait for the store: then the scan waits too.
constexpr uint64_t kHealPendingMax = 16 << 20;

CapturedState EndOf(const SealedBatch& batch) {
  return CapturedState::After(batch.last, batch.page_size);
}

}  // namespace

class Recorder::Guard {
 public:
  explicit Guard(Recorder& r) : r_(r) { r_.Lock(); }
  ~Guard() { r_.Unlock(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Recorder& r_;
};

Recorder::Recorder(Clock& clock, Sidecar& sidecar, std::string database_path, std::string wal_path,
                   std::unique_ptr<DatabaseFile> database,
                   std::function<std::optional<Published>()> published, const Settings& settings)
    : clock_(clock),
      sidecar_(sidecar),
      database_path_(std::move(database_path)),
      wal_path_(std::move(wal_path)),
      database_(std::move(database)),
      published_(std::move(published)),
      settings_(settings),
      spool_(sidecar.spool_directory()) {}

Recorder::~Recorder() = default;

void Recorder::Lock() {
  std::unique_lock lock(mutex_);
  unlocked_.wait(lock, [&] { return !locked_; });
  locked_ = true;
}

bool Recorder::LockFor(int64_t wait_ms) {
  std::unique_lock lock(mutex_);
  const int64_t deadline = clock_.MonotonicMs() + wait_ms;
  while (locked_) {
    const int64_t left = deadline - clock_.MonotonicMs();
    if (left <= 0) return false;
    clock_.WaitFor(unlocked_, lock, left);
  }
  locked_ = true;
  return true;
}

void Recorder::Unlock() {
  {
    const std::lock_guard lock(mutex_);
    locked_ = false;
  }
  unlocked_.notify_one();
}

// What a capture begun while the store was away has left.
void Recorder::Reset() {
  writer_.reset();
  taken_ = 0;
  markers_.clear();
  checks_.clear();
  skip_.reset();
  scan_.reset();
  counters_.scan_pages = 0;
  healing_ = dropped_ = log_ahead_ = false;
}

void Recorder::StartFirst(Txid txid, uint64_t history_hash) {
  const Guard guard(*this);
  Reset();
  (void)spool_.Discard();
  state_ = CapturedState();
  state_.txid = txid;
  state_.history_hash = history_hash;
  state_.time_ms = clock_.NowMs();
  any_generation_ = true;
  BeginScanLocked(ScanKind::kFirst);
}

void Recorder::StartAt(const CapturedState& state, PageTable table, Txid acknowledged,
                       const std::optional<FileIdentity>& unchanged) {
  const Guard guard(*this);
  Reset();
  any_generation_ = false;
  state_ = state;
  table_ = std::move(table);
  table_header_ = state.txid;
  table_must_flush_ = true;
  spool_.Acknowledge(acknowledged);
  if (!spool_.pending().empty()) unacknowledged_.assign(state_.database_pages, true);
  wal_dirty_ = true;  // what an earlier process captured from it may not be on disk yet
  link_ = sidecar_.ReadLink();
  if (!unchanged) return;
  unchanged_ = unchanged;
  const auto now = IdentityOf(database_path_);
  if (!now.ok() || !(*now == *unchanged)) {
    BeginHealLocked("the database was written before replication could go on");
  }
}

void Recorder::StartHeal(const CapturedState& state, PageTable table) {
  const Guard guard(*this);
  Reset();
  state_ = state;
  table_ = std::move(table);
  table_must_flush_ = true;
  if (!spool_.pending().empty()) unacknowledged_.assign(state_.database_pages, true);
  wal_dirty_ = true;
  BeginHealLocked("");
}

// -- The WAL -----------------------------------------------------------------------------------

Status Recorder::EnsureWalOpen() {
  if (wal_.is_open()) {
    // Deleted and created again (last close by another process, journal_mode and back): the name
    // counts.
    const auto named = IdentityOf(wal_path_);
    if (named.ok()) {
      const auto held = wal_.Identity();
      if (held.ok() && held->SameFile(*named)) return Status::Ok();
    }
    tailer_.reset();
    wal_.Close();
    header_.reset();
  }
  auto file = File::Open(wal_path_, O_RDONLY);
  if (!file.ok()) return file.status();
  wal_ = std::move(*file);
  tailer_.emplace(wal_);
  header_.reset();
  return Status::Ok();
}

// A reset by another process lost nothing if the generation we followed ended where we stand:
// exactly one reset happened (salt1 grows by one with each, walRestartHdr() in wal.c), our last
// frame is still at its place, so the file was not cut below it, and what follows it is not of our
// generation.
bool Recorder::NothingMissedBefore(const Published& published) {
  const WalMark& mark = state_.mark;
  if (!state_.mark_valid || mark.frame == 0 || !wal_.is_open()) return false;
  if (published.salt1 != mark.salt1 + 1 || published.max_frame >= mark.frame) return false;
  const uint32_t page_size = state_.page_size;
  std::array<std::byte, kFrameHeaderSize> bytes;
  // journal_size_limit may have cut the file inside our frame, and with it what followed.
  const auto size = wal_.Size();
  if (!size.ok() || *size < FrameOffset(mark.frame + 1, page_size)) return false;
  auto n = wal_.ReadAt(FrameOffset(mark.frame, page_size), bytes);
  if (!n.ok() || *n != bytes.size()) return false;
  const FrameHeader ours = FrameHeader::Decode(bytes);
  if (ours.salt1 != mark.salt1 || ours.salt2 != mark.salt2 ||
      ours.checksum != WalChecksum{mark.cksum1, mark.cksum2}) {
    return false;
  }
  n = wal_.ReadAt(FrameOffset(mark.frame + 1, page_size), bytes);
  if (!n.ok()) return false;
  if (*n == bytes.size()) {
    const FrameHeader next = FrameHeader::Decode(bytes);
    if (next.salt1 == mark.salt1 && next.salt2 == mark.salt2) return false;
  } else if (*n != 0) {
    return false;
  }
  // What was read must still be what it was: the new generation has not reached our frames.
  const auto again = published_();
  return again && again->salt1 == published.salt1 && again->salt2 == published.salt2 &&
         again->max_frame < mark.frame;
}

Status Recorder::EnterGeneration(const Published& published) {
  auto header = tailer_->ReadHeader();
  if (!header.ok()) {
    const Tag tag = header.status().tag();
    // Not written yet, or being written: the caller sees that it is still behind.
    return tag == Tag::kNotFound || tag == Tag::kChainBroken ? Status::Ok() : header.status();
  }
  if (header->salt1 != published.salt1 || header->salt2 != published.salt2) return Status::Ok();
  if (!any_generation_ && state_.mark_valid && state_.mark.salt1 == header->salt1 &&
      state_.mark.salt2 == header->salt2) {
    header_ = *header;  // the file was opened anew, the generation is the one we are in
    if (frame_of_.empty()) {
      // Captured by an earlier process: until a checkpoint these frames alone hold their pages.
      for (uint32_t frame = 1; frame <= state_.mark.frame; ++frame) {
        std::array<std::byte, kFrameHeaderSize> bytes;
        auto n = wal_.ReadAt(FrameOffset(frame, header->page_size), bytes);
        if (!n.ok() || *n != bytes.size()) break;
        const Pgno pgno = FrameHeader::Decode(bytes).pgno;
        if (pgno.value != 0) frame_of_.Set(pgno, frame);
      }
    }
    return Status::Ok();
  }
  const bool linked = link_ && link_->salt1 == header->salt1 && link_->salt2 == header->salt2 &&
                      link_->txid == state_.txid && link_->history_hash == state_.history_hash;
  // A first scan that has read nothing yet takes the file as it finds it: VACUUM may have changed
  // it in another journal mode.
  const bool nothing_read = any_generation_ && scan_ && scan_->kind == ScanKind::kFirst;
  if (state_.page_size != 0 && state_.page_size != header->page_size && !nothing_read) {
    diverged_ = "the page size of the database changed from " + std::to_string(state_.page_size) +
                " to " + std::to_string(header->page_size);
    return Status::Ok();
  }
  if (!linked && !any_generation_ && !NothingMissedBefore(published)) {
    BeginHealLocked("the WAL was reset by another process before its end was captured");
    estimated_ = true;
  }
  SealOpen();
  frame_of_.Clear();
  sealed_ahead_ = false;
  header_ = *header;
  state_.mark = WalTailer::Start(*header);
  state_.mark_valid = true;
  any_generation_ = false;
  unchanged_.reset();
  closed_over_ = false;
  if (state_.page_size != header->page_size) {
    state_.page_size = header->page_size;
    if (scan_ && scan_->kind == ScanKind::kFirst) BeginScanLocked(ScanKind::kFirst);
  }
  return Status::Ok();
}

bool Recorder::BehindLocked() {
  if (dropped_ || !diverged_.empty()) return false;
  const auto published = published_();
  if (!published) return false;
  if (published->max_frame == 0) return false;
  return !state_.mark_valid || any_generation_ || state_.mark.salt1 != published->salt1 ||
         state_.mark.salt2 != published->salt2 || state_.mark.frame < published->max_frame;
}

// No connection has the index any more, but our own close has passed its gate and checkpointed
// everything: while the file is as it was under that lock, it holds all that is committed.
bool Recorder::AtRestLocked() {
  if (!closed_over_ || !unchanged_) return false;
  if (const auto wal = IdentityOf(wal_path_); wal.ok() && wal->size != 0) return false;
  const auto now = IdentityOf(database_path_);
  return now.ok() && *now == *unchanged_;
}

bool Recorder::SeesAllLocked() { return published_().has_value() || AtRestLocked(); }

bool Recorder::SeesAll() {
  const Guard guard(*this);
  return SeesAllLocked();
}

bool Recorder::Behind() {
  const Guard guard(*this);
  return BehindLocked();
}

Result<uint64_t> Recorder::CatchUp(uint64_t limit) {
  const Guard guard(*this);
  return CatchUpLocked(limit);
}

Result<uint64_t> Recorder::CatchUpLocked(uint64_t limit) {
  uint64_t done = 0;
  while (done < limit) {
    if (dropped_ || !diverged_.empty()) return done;
    const auto published = published_();
    if (!published) {
      if (any_generation_ && AtRestLocked()) {
        any_generation_ = false;
        state_.mark_valid = false;
        // What it was to read was measured before the WAL came into the file.
        if (scan_) BeginScanLocked(scan_->kind);
      }
      return done;
    }
    const bool same = state_.mark_valid && state_.mark.salt1 == published->salt1 &&
                      state_.mark.salt2 == published->salt2;
    if (closed_over_ && published->max_frame == 0) {
      // The -wal is another one than the one given up: WAL mode again, after another journal mode
      // whose writes left no frames. While the close itself is under way it is still the same.
      const auto wal = IdentityOf(wal_path_);
      if (wal.ok() && closed_wal_ && !(*wal == *closed_wal_)) {
        closed_over_ = false;
        BeginHealLocked("the database left WAL mode and came back");
        continue;
      }
    }
    if (published->max_frame == 0 && any_generation_) {
      // A scan begins on an empty WAL: the first frames to come follow what it reads. Which salts
      // they will have is known if the index has some; a WAL yet to be created gets random ones
      // (walFrames() in wal.c), and is recognised when our own connection writes its header.
      any_generation_ = false;
      state_.mark_valid = false;
      unchanged_.reset();
      if (auto id = IdentityOf(database_path_); id.ok()) unchanged_ = *id;
      if (published->salt1 != 0) {
        link_ = WalLink{published->salt1, published->salt2, state_.txid, state_.history_hash};
        GUILDLITE_RETURN_IF_ERROR(sidecar_.WriteLink(*link_));
      }
      break;
    }
    if (published->max_frame == 0 && !state_.mark_valid && unchanged_) {
      // Another process may have brought a WAL, checkpointed it and taken it away before we looked.
      const auto now = IdentityOf(database_path_);
      if (now.ok() && !(*now == *unchanged_) && published_() == published) {
        BeginHealLocked(
            "the database was written by another process while its WAL was not followed");
        continue;
      }
    }
    if (published->max_frame == 0) {
      const bool linked = link_ && link_->salt1 == published->salt1 &&
                          link_->salt2 == published->salt2 && link_->txid == state_.txid;
      if (state_.mark_valid && !same && !linked && !any_generation_) {
        // Reset by ourselves just now: the release of the WRITE lock links it.
        if (granted_.load(std::memory_order_relaxed)) break;
        // Reset by another process, and nothing written since: the old frames are still there to
        // tell whether we saw them all. Without salts there is not even the old file any more.
        if (!NothingMissedBefore(*published)) {
          BeginHealLocked("the WAL was reset by another process before its end was captured");
          continue;
        }
        link_ = WalLink{published->salt1, published->salt2, state_.txid, state_.history_hash};
        GUILDLITE_RETURN_IF_ERROR(sidecar_.WriteLink(*link_));
      }
      break;
    }
    if (same && !any_generation_ && header_ && published->max_frame == state_.mark.frame) break;
    if (Status opened = EnsureWalOpen(); !opened.ok()) {
      return opened.tag() == Tag::kNotFound ? Result<uint64_t>(done) : Result<uint64_t>(opened);
    }
    if (!same || !header_ || any_generation_) {
      const WalMark before = state_.mark;
      GUILDLITE_RETURN_IF_ERROR(EnterGeneration(*published));
      if (!header_ || header_->salt1 != published->salt1 || header_->salt2 != published->salt2) {
        return done;
      }
      if (!(before == state_.mark) || !same) continue;
    }
    if (published->max_frame < state_.mark.frame) {
      diverged_ = "the WAL ends at frame " + std::to_string(published->max_frame) +
                  ", before frame " + std::to_string(state_.mark.frame) +
                  " that was captured and may be in the store";
      return done;
    }
    while (done < limit && diverged_.empty()) {
      auto outcome = tailer_->Next(state_.mark, published);
      if (!outcome.ok()) return outcome.status();
      if (outcome->end != WalTailer::End::kTransaction) {
        if (outcome->end == WalTailer::End::kBound) estimated_ = false;
        counters_.chain_breaks = tailer_->chain_breaks();
        // Past padding repeats of the last commit, which are no transactions.
        if (outcome->end == WalTailer::End::kBound) state_.mark = outcome->mark;
        break;
      }
      GUILDLITE_RETURN_IF_ERROR(Apply(outcome->transaction));
      if (dropped_) return done;
      ++done;
    }
    if (state_.mark.frame >= published->max_frame) estimated_ = false;
    const auto again = published_();
    if (!again || *again == *published) break;
  }
  return done;
}

// -- Encoding ----------------------------------------------------------------------------------

bool Recorder::ReadBase(Pgno pgno, uint64_t hash, std::span<std::byte> out) {
  if (hash == 0) return false;
  if (scan_ && scan_->kind == ScanKind::kSnapshot && pgno.value <= scan_->pages &&
      !scan_->touched[pgno.value - 1] && !scan_->scanned[pgno.value - 1]) {
    return false;  // invariant 4
  }
  if (const uint32_t frame = frame_of_.Get(pgno); frame != 0 && tailer_) {
    if (tailer_->ReadPage(frame, state_.page_size, out).ok() && PageHash(pgno, out) == hash) {
      return true;
    }
  }
  auto n = database_->ReadAt(uint64_t{pgno.value - 1} * state_.page_size, out);
  return n.ok() && *n == out.size() && PageHash(pgno, out) == hash;
}

Status Recorder::Apply(const WalTransaction& wal) {
  const uint32_t page_size = header_->page_size;
  const bool held = !wal.images.empty();
  const auto read = [&](size_t i, std::span<std::byte> out) -> Status {
    if (held) {
      std::memcpy(out.data(), wal.images.data() + i * page_size, page_size);
      return Status::Ok();
    }
    GUILDLITE_RETURN_IF_ERROR(tailer_->ReadPage(wal.pages[i].frame, page_size, out));
    if (PageHash(wal.pages[i].pgno, out) == wal.pages[i].hash) return Status::Ok();
    return Status(Tag::kChainBroken, "WAL frame " + std::to_string(wal.pages[i].frame) +
                                         " changed while it was being captured");
  };
  std::vector<PageEntry> entries(wal.pages.size());
  uint32_t free_pages = state_.free_pages;
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i] = {wal.pages[i].pgno, wal.pages[i].hash};
    if (entries[i].pgno == Pgno(1)) {
      // "In-header freelist page count", sqlite.org/fileformat2.html, offset 36 of page 1.
      std::vector<std::byte> page(page_size);
      GUILDLITE_RETURN_IF_ERROR(read(i, page));
      free_pages = LoadBig32(page.data() + 36);
    }
  }
  Transaction t;
  t.mark = wal.end;
  t.database_pages = wal.database_pages;
  t.free_pages = free_pages;
  int64_t now = clock_.NowMs();
  if (estimated_) {
    if (auto id = wal_.Identity(); id.ok()) now = std::min(now, id->mtime_ns / 1000000);
    t.time_estimated = true;
  }
  t.time_ms = std::max(state_.time_ms, now);
  GUILDLITE_RETURN_IF_ERROR(Encode(&t, entries, read));
  if (dropped_) return Status::Ok();
  for (const FrameRef& ref : wal.pages) frame_of_.Set(ref.pgno, ref.frame);
  state_.mark = wal.end;
  wal_dirty_ = true;
  ++counters_.transactions;
  counters_.pages += entries.size();
  return Status::Ok();
}

// Numbers `t`, brings table, hashes and state up to it, and encodes it unless the log has it
// already.
Status Recorder::Encode(Transaction* t, const std::vector<PageEntry>& entries,
                        const std::function<Status(size_t, std::span<std::byte>)>& read_image) {
  t->txid = state_.txid.Next();
  std::vector<uint64_t> before(entries.size());
  if (t->database_pages != table_.pages()) table_.Resize(t->database_pages, state_.page_size);
  if (unacknowledged_.size() < t->database_pages) unacknowledged_.resize(t->database_pages, false);
  HistoryHash history(state_.history_hash, t->txid, t->database_pages);
  for (size_t i = 0; i < entries.size(); ++i) {
    const Pgno pgno = entries[i].pgno;
    before[i] = table_.Get(pgno);
    table_.Set(pgno, entries[i].hash);
    unacknowledged_[pgno.value - 1] = true;
    history.Add(pgno, entries[i].hash);
  }
  t->history_hash = history.Finish();
  t->rolling_known = table_.complete() && !healing_ && !(scan_ && scan_->kind == ScanKind::kFirst);
  t->rolling_checksum = t->rolling_known ? table_.sum() : 0;

  checks_.push_back(static_cast<uint32_t>(t->history_hash));
  if (checks_.size() > kChecksMax) checks_.pop_front();
  state_.txid = t->txid;
  state_.history_hash = t->history_hash;
  state_.rolling_known = t->rolling_known;
  state_.rolling_checksum = t->rolling_checksum;
  state_.database_pages = t->database_pages;
  state_.free_pages = t->free_pages;
  state_.time_ms = t->time_ms;

  const auto touch = [&](Pgno pgno) {
    if (scan_ && pgno.value <= scan_->pages) scan_->touched[pgno.value - 1] = true;
  };
  if (skip_ && t->txid <= skip_->first) {
    table_must_flush_ = true;
    for (const PageEntry& e : entries) touch(e.pgno);
    if (t->txid == skip_->first) {
      const bool same = t->history_hash == skip_->second;
      skip_.reset();
      if (!same) {
        log_ahead_ = true;
        Drop("the log holds other transactions than this database's WAL");
      }
    }
    return Status::Ok();
  }

  if (!writer_) {
    writer_ = std::make_unique<BatchWriter>(
        BatchWriter::Settings{.page_size = state_.page_size, .block_pages_max = kLogBlockPages});
  }
  if (writer_->empty()) open_first_ms_ = t->time_ms;
  writer_->BeginTransaction(*t);
  std::vector<std::byte> image(state_.page_size);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (Status s = read_image(i, image); !s.ok()) {
      // The frames are gone from under us. What was encoded of it is useless, and so is the table.
      Drop(s.message());
      return Status::Ok();
    }
    const Pgno pgno = entries[i].pgno;
    bool has_base = false;
    writer_->AddPage(pgno, entries[i].hash, image, [&](std::span<std::byte> out) {
      has_base = ReadBase(pgno, before[i], out);
      if (!has_base) ++counters_.pages_without_base;
      return has_base;
    });
    touch(pgno);
    if (writer_->encoded_bytes() - taken_ >= kBatchBytesMax) {
      // One transaction larger than a batch: what is finished goes to the file.
      const Txid first = writer_->first_txid();
      taken_ = writer_->encoded_bytes();
      if (Status s = spool_.AppendPartial(first, writer_->TakeEncoded()); !s.ok()) {
        Drop(s.message());
        return Status::Ok();
      }
      if (taken_ > settings_.spool_limit_bytes) {
        DropOverLimit();
        return Status::Ok();
      }
    }
  }
  writer_->EndTransaction();
  last_ = *t;
  if (writer_->encoded_bytes() >= kBatchBytesMax / 4) SealOpen();
  return Status::Ok();
}

void Recorder::SealOpen() {
  if (!writer_ || writer_->empty()) return;
  SealedBatch batch;
  batch.first = writer_->first_txid();
  batch.last = last_;
  batch.first_time_ms = open_first_ms_;
  batch.page_size = state_.page_size;
  batch.starts_object = batch_starts_object_;
  batch.bytes = writer_->Seal();
  taken_ = 0;
  batch_starts_object_ = false;
  spool_.Append(std::move(batch));
  if (spool_.pending_bytes() > settings_.spool_limit_bytes) DropOverLimit();
}

void Recorder::DropOverLimit() {
  Drop("the spool reached its limit of " + std::to_string(settings_.spool_limit_bytes) +
       " bytes while the store was away");
}

// -- The gate ----------------------------------------------------------------------------------

Status Recorder::SecureLocked() {
  for (int tries = 0;; ++tries) {
    auto n = CatchUpLocked(UINT64_MAX);
    if (!n.ok()) return n.status();
    counters_.gate_helped += *n != 0 ? 1 : 0;
    if (!BehindLocked()) break;
    if (tries == 3) return Status(Tag::kLocalIo, "the WAL could not be read to its published end");
  }
  SealOpen();
  GUILDLITE_RETURN_IF_ERROR(spool_.WriteOut());
  if (table_must_flush_) GUILDLITE_RETURN_IF_ERROR(FlushLocked(false));
  return Status::Ok();
}

Status Recorder::SealAhead() {
  const Guard guard(*this);
  if (std::exchange(sealed_ahead_, true)) return Status::Ok();
  SealOpen();
  return spool_.WriteOut();
}

bool Recorder::SecureForDiscard(int64_t wait_ms, bool closing) {
  if (!LockFor(wait_ms)) {
    const std::lock_guard lock(mutex_);
    ++counters_.gate_refused;
    return false;
  }
  // Local commits never fail for replication's sake: what cannot be secured is healed later,
  // loudly.
  if (const Status s = SecureLocked(); !s.ok()) Drop(s.message());
  if (closing) {
    closed_over_ = true;
    closed_wal_.reset();
    if (auto wal = IdentityOf(wal_path_); wal.ok()) closed_wal_ = *wal;
  }
  // Without an index nobody knows what the WAL held; a scan that has read nothing yet need not.
  if (closing && (any_generation_ || published_().has_value())) {
    closing_.store(true, std::memory_order_relaxed);
  }
  granted_.store(!closed_over_ && published_().has_value(), std::memory_order_relaxed);
  Unlock();
  return true;
}

// On every commit, on the application's thread: no mutex unless a gate was passed.
void Recorder::WriteLockTaken() {
  granted_.store(false, std::memory_order_relaxed);
  if (!closed_over_) return;
  // The close did not come about: the same generation goes on.
  const Guard guard(*this);
  const auto published = published_();
  if (published && state_.mark_valid && published->salt1 == state_.mark.salt1 &&
      published->salt2 == state_.mark.salt2 && published->max_frame != 0) {
    closed_over_ = false;
  }
}

void Recorder::WriteLockReleasing() {
  if (!granted_.exchange(false, std::memory_order_relaxed)) return;
  const Guard guard(*this);
  const auto published = published_();
  if (!published || dropped_ || !state_.mark_valid) return;
  if (published->salt1 == state_.mark.salt1 && published->salt2 == state_.mark.salt2) return;
  // Reset under our own WRITE lock, after the gate: nobody else could have written in between.
  if (link_ && link_->salt1 == published->salt1 && link_->salt2 == published->salt2) return;
  link_ = WalLink{published->salt1, published->salt2, state_.txid, state_.history_hash};
  if (!sidecar_.WriteLink(*link_).ok()) warning_ = "cannot write " + sidecar_.directory();
}

void Recorder::WalHeaderWriting(const WalHeader& header, bool exclusive) {
  const Guard guard(*this);
  if (dropped_ || closed_over_) return;
  // While any generation will do nothing was captured yet that this one could fail to follow.
  bool follows = any_generation_ || granted_.load(std::memory_order_relaxed);
  if (!follows && link_ && link_->salt1 == header.salt1 && link_->salt2 == header.salt2) return;
  if (!follows && exclusive && state_.mark_valid) {
    const Status s = SecureLocked();
    if (!s.ok()) Drop(s.message());
    follows = s.ok();
  }
  if (!follows && !state_.mark_valid && unchanged_) {
    // The first WAL since we looked: it follows if the database file is as it was.
    const auto now = IdentityOf(database_path_);
    follows = now.ok() && *now == *unchanged_;
  }
  if (!follows) return;
  link_ = WalLink{header.salt1, header.salt2, state_.txid, state_.history_hash};
  if (!sidecar_.WriteLink(*link_).ok()) warning_ = "cannot write " + sidecar_.directory();
}

void Recorder::CloseAbandoned() {
  const Guard guard(*this);
  closing_.store(false, std::memory_order_relaxed);
  closed_over_ = false;
}

void Recorder::LeavingExclusive() {
  if (!closing_.exchange(false, std::memory_order_relaxed)) return;
  // Still under the lock: whoever writes once it is gone writes in a later tick.
  std::mutex m;
  std::condition_variable cv;
  std::unique_lock lock(m);
  for (auto id = IdentityOf(database_path_); id.ok();) {
    const int64_t age_ms = clock_.NowMs() - id->ctime_ns / 1000000;
    if (age_ms < 0 || age_ms > kCleanGapNs / 1000000) break;
    clock_.WaitFor(cv, lock, kCleanGapNs / 1000000 + 1 - age_ms);
  }
  const Guard guard(*this);
  unchanged_.reset();
  if (auto id = IdentityOf(database_path_); id.ok()) unchanged_ = *id;
  if (scan_ && scan_->kind != ScanKind::kSnapshot) {
    // In locking_mode=EXCLUSIVE more than the close may have come under this lock: commits of
    // another journal mode, which no frame tells of. Pages read before it prove nothing any more.
    any_generation_ = true;
    BeginScanLocked(scan_->kind);
  }
}

void Recorder::IndexLeaving(int64_t wait_ms) {
  if (!LockFor(wait_ms)) return;
  // What cannot be read now is found at the next open.
  (void)CatchUpLocked(UINT64_MAX);
  Unlock();
}

// -- Shipping ----------------------------------------------------------------------------------

void Recorder::SkipUntil(Txid txid, uint64_t history_hash) {
  const Guard guard(*this);
  if (txid > state_.txid) skip_ = {txid, history_hash};
}

Result<std::optional<ShipItem>> Recorder::NextToShip(Txid acknowledged, uint64_t body_max) {
  const Guard guard(*this);
  auto n = CatchUpLocked(4096);
  if (!n.ok()) return n.status();
  SealOpen();
  if (dropped_ || !diverged_.empty()) return std::optional<ShipItem>();
  ShipItem item;
  if (!markers_.empty() && markers_.front().at.txid <= acknowledged) {
    item.kind = markers_.front().kind;
    item.end = markers_.front().at;
    item.first = item.last = item.end.txid;
    return std::optional<ShipItem>(std::move(item));
  }
  const auto pending = spool_.pending();
  if (!pending.empty() && pending.front()->first != acknowledged.Next()) {
    // Whatever the reason, a log with a hole would be no log any more.
    Drop("the queue goes on at txid " + std::to_string(pending.front()->first.value) +
         " but the log ends at txid " + std::to_string(acknowledged.value));
    return std::optional<ShipItem>();
  }
  const SealedBatch* end = nullptr;
  for (const SealedBatch* batch : pending) {
    if (!markers_.empty() && batch->last.txid > markers_.front().at.txid) break;
    if (end && (batch->starts_object || item.body_size + batch->size > body_max)) break;
    if (!end) item.first = batch->first;
    item.body_size += batch->size;
    end = batch;
    if (item.body_size > body_max) break;
    auto bytes = spool_.Read(*batch, 0, batch->size);
    if (!bytes.ok()) return bytes.status();
    item.body += *bytes;
  }
  if (!end) return std::optional<ShipItem>();
  item.end = EndOf(*end);
  item.last = item.end.txid;
  return std::optional<ShipItem>(std::move(item));
}

void Recorder::AcknowledgeThrough(Txid txid) {
  const Guard guard(*this);
  spool_.Acknowledge(txid);
}

std::optional<CapturedState> Recorder::AdoptableEnd(Txid txid, uint64_t history_hash) {
  const Guard guard(*this);
  for (const SealedBatch* batch : spool_.pending()) {
    if (batch->last.txid == txid && batch->last.history_hash == history_hash) return EndOf(*batch);
  }
  return std::nullopt;
}

void Recorder::DropQueue(std::string why) {
  const Guard guard(*this);
  Drop(std::move(why));
}

Result<std::string> Recorder::ReadBody(Txid first, uint64_t offset, uint64_t length) {
  const Guard guard(*this);
  for (const SealedBatch* batch : spool_.pending()) {
    if (batch->first == first) return spool_.Read(*batch, offset, length);
  }
  return Status(Tag::kLocalIo, "a sealed batch left the spool while it was being shipped");
}

void Recorder::Acknowledge(const ShipItem& item) {
  const Guard guard(*this);
  if (item.kind != ObjectKind::kData) {
    if (!markers_.empty() && markers_.front().kind == item.kind) markers_.pop_front();
    // Another heal may have begun, and even ended here, before this end was in the log.
    if (!healing_ && markers_.empty()) (void)sidecar_.WriteHealOwed(false);
    return;
  }
  spool_.Acknowledge(item.last);
  if (spool_.pending().empty() && (!writer_ || writer_->empty())) {
    std::fill(unacknowledged_.begin(), unacknowledged_.end(), false);
  }
}

Status Recorder::SyncWal() {
  int fd = -1;
  {
    const Guard guard(*this);
    if (!wal_dirty_) return Status::Ok();
    if (const Status opened = EnsureWalOpen(); !opened.ok()) {
      return opened.tag() == Tag::kNotFound ? Status::Ok() : opened;  // checkpointed and deleted
    }
    wal_dirty_ = false;
    fd = ::fcntl(wal_.fd(), F_DUPFD_CLOEXEC, 0);
  }
  if (fd < 0) return Status(Tag::kLocalIo, "no descriptor left to sync " + wal_path_, true);
  // Outside the mutex: a sync may take as long as the disk likes.
  const int rc = ::fdatasync(fd);
  const int error = errno;
  ::close(fd);
  if (rc == 0) return Status::Ok();
  const Guard guard(*this);
  wal_dirty_ = true;
  return ErrnoStatus(error, "fdatasync", wal_path_);
}

// -- Scans -------------------------------------------------------------------------------------

uint32_t Recorder::FilePages() {
  if (state_.page_size == 0) {
    // "Page size", sqlite.org/fileformat2.html, offset 16: 1 means 65536.
    std::array<std::byte, 100> head;
    auto n = database_->ReadAt(0, head);
    if (!n.ok() || *n != head.size()) return 0;
    uint32_t size = LoadBig16(head.data() + 16);
    if (size == 1) size = 65536;
    if (!IsValidPageSize(size)) return 0;
    state_.page_size = size;
    state_.free_pages = LoadBig32(head.data() + 36);
  }
  std::array<std::byte, 18> head;
  if (auto n = database_->ReadAt(0, head); n.ok() && *n == head.size()) {
    const uint32_t now = LoadBig16(head.data() + 16) == 1 ? 65536 : LoadBig16(head.data() + 16);
    if (IsValidPageSize(now) && now != state_.page_size) {
      diverged_ = "the page size of the database changed from " + std::to_string(state_.page_size) +
                  " to " + std::to_string(now);
    }
  }
  auto bytes = database_->Size();
  if (!bytes.ok()) return 0;
  return static_cast<uint32_t>((*bytes + state_.page_size - 1) / state_.page_size);
}

void Recorder::BeginScanLocked(ScanKind kind) {
  SealOpen();
  Scan scan;
  scan.id = next_scan_id_++;
  scan.kind = kind;
  if (kind == ScanKind::kSnapshot) {
    scan.pages = state_.database_pages;
  } else {
    scan.pages = FilePages();
    scan.size_owed = kind == ScanKind::kHeal &&
                     (state_.database_pages != scan.pages || (scan_ && scan_->size_owed));
    if (kind == ScanKind::kFirst) table_ = PageTable();
    state_.database_pages = scan.pages;
    if (state_.page_size != 0) table_.Resize(state_.database_pages, state_.page_size);
    state_.rolling_known = false;
    state_.rolling_checksum = 0;
  }
  scan.start = state_;
  scan.touched.assign(scan.pages, false);
  scan.scanned.assign(scan.pages, false);
  batch_starts_object_ = true;
  scan_ = std::move(scan);
  counters_.scanned_pages = 0;
  counters_.scan_pages = scan_->pages;
}

bool Recorder::BeginSnapshotScan() {
  const Guard guard(*this);
  if (scan_ || healing_ || dropped_ || !diverged_.empty() || !table_.complete()) return false;
  if (!CatchUpLocked(UINT64_MAX).ok() || scan_ || healing_) return false;
  BeginScanLocked(ScanKind::kSnapshot);
  return true;
}

void Recorder::BeginHealLocked(std::string why) {
  if (!why.empty()) warning_ = why + "; every page is compared with the store now";
  if (scan_ && scan_->kind == ScanKind::kFirst) {
    // Nothing was established yet: begin again, from the generation that follows.
    any_generation_ = true;
    BeginScanLocked(ScanKind::kFirst);
    return;
  }
  if (skip_) {
    // The log holds transactions that were never seen here: what follows them cannot be numbered.
    Drop(why.empty() ? "the log holds more than the WAL does" : why);
    return;
  }
  SealOpen();
  ++counters_.heals;
  (void)sidecar_.WriteHealOwed(true);
  if (!healing_) {
    healing_ = true;
    markers_.push_back({ObjectKind::kHealBegin, state_});
  }
  any_generation_ = true;
  BeginScanLocked(ScanKind::kHeal);
}

std::optional<Recorder::ScanInfo> Recorder::scan() {
  const Guard guard(*this);
  if (!scan_) return std::nullopt;
  return ScanInfo{scan_->id, scan_->kind, scan_->start};
}

void Recorder::AbandonScan(uint64_t id) {
  const Guard guard(*this);
  if (scan_ && scan_->id == id && scan_->kind == ScanKind::kSnapshot) {
    scan_.reset();
    counters_.scan_pages = 0;
  }
}

Result<ScanChunk> Recorder::ScanStep(uint64_t id, uint32_t pages_max) {
  const auto stale = [] { return Status(Tag::kPrecondition, "the scan was replaced"); };
  ScanChunk chunk;
  std::vector<Pgno> wanted;
  uint32_t page_size = 0;
  {
    const Guard guard(*this);
    if (!scan_ || scan_->id != id) return stale();
    if (!SeesAllLocked() || dropped_) return chunk;
    if (any_generation_) {
      // Which frames count as after what is read now must be settled before it is read.
      auto caught = CatchUpLocked(UINT64_MAX);
      if (!caught.ok()) return caught.status();
      if (!scan_ || scan_->id != id) return stale();
      if (any_generation_) return chunk;
    }
    // Differences may not outrun the store: what they are kept in is what a drop would discard.
    const uint64_t waiting = spool_.pending_bytes() + (writer_ ? writer_->encoded_bytes() : 0);
    if (scan_->kind == ScanKind::kHeal &&
        waiting > std::min(kHealPendingMax, settings_.spool_limit_bytes / 2)) {
      return chunk;
    }
    if (state_.page_size == 0) {
      // An empty file: the first commit, or the header page of journal_mode=WAL, tells the size.
      auto caught = CatchUpLocked(UINT64_MAX);
      if (!caught.ok()) return caught.status();
      if (scan_ && scan_->id == id && FilePages() > 0) BeginScanLocked(scan_->kind);
      if (!scan_ || scan_->id != id) return stale();
      return chunk;
    }
    page_size = state_.page_size;
    const Pgno lock_page = LockPage(page_size);
    while (wanted.size() < pages_max && scan_->next <= scan_->pages) {
      const Pgno p(scan_->next++);
      if (p != lock_page) wanted.push_back(p);
    }
    if (wanted.empty() && !scan_->retry.empty()) {
      const size_t n = std::min<size_t>(pages_max, scan_->retry.size());
      for (size_t i = 0; i < n; ++i) wanted.push_back(Pgno(scan_->retry[i]));
      scan_->retry.erase(scan_->retry.begin(), scan_->retry.begin() + static_cast<ptrdiff_t>(n));
    }
  }
  // Without any lock: a page may be torn or newer than what is captured; it is judged below.
  std::vector<std::byte> images(wanted.size() * page_size);
  std::vector<uint64_t> hashes(wanted.size());
  const auto give_back = [&] {  // REQUIRES the lock
    if (scan_ && scan_->id == id) {
      for (const Pgno p : wanted) scan_->retry.push_back(p.value);
    }
  };
  for (size_t i = 0; i < wanted.size();) {
    size_t run = 1;
    while (i + run < wanted.size() && wanted[i + run].value == wanted[i].value + run) ++run;
    const auto out = std::span(images).subspan(i * page_size, run * page_size);
    auto n = database_->ReadAt(uint64_t{wanted[i].value - 1} * page_size, out);
    if (!n.ok()) {
      const Guard guard(*this);
      give_back();
      return n.status();
    }
    std::fill(out.begin() + static_cast<ptrdiff_t>(*n), out.end(), std::byte{0});
    for (size_t k = i; k < i + run; ++k) {
      hashes[k] = PageHash(wanted[k], std::span(images).subspan(k * page_size, page_size));
    }
    i += run;
  }

  const Guard guard(*this);
  if (!scan_ || scan_->id != id) return stale();
  // Whatever a checkpoint wrote into the file before or while we read it was published before:
  // after this, each such page is touched.
  auto caught = CatchUpLocked(UINT64_MAX);
  if (!caught.ok()) {
    give_back();
    return caught.status();
  }
  if (!scan_ || scan_->id != id) return stale();
  if (BehindLocked() || !SeesAllLocked()) {
    give_back();
    return chunk;
  }
  chunk.ready = true;
  std::vector<PageEntry> differing;
  std::vector<std::byte> differing_images;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Pgno pgno = wanted[i];
    ++counters_.scanned_pages;
    if (pgno.value > state_.database_pages || scan_->touched[pgno.value - 1]) continue;
    const auto image = std::span(images).subspan(i * page_size, page_size);
    const uint64_t known = table_.Get(pgno);
    const auto keep = [&](std::vector<PageEntry>* entries, std::vector<std::byte>* bytes) {
      entries->push_back({pgno, hashes[i]});
      bytes->insert(bytes->end(), image.begin(), image.end());
      scan_->scanned[pgno.value - 1] = true;
    };
    switch (scan_->kind) {
      case ScanKind::kFirst:
        table_.Set(pgno, hashes[i]);
        keep(&chunk.entries, &chunk.images);
        break;
      case ScanKind::kHeal:
        if (hashes[i] != known) keep(&differing, &differing_images);
        scan_->scanned[pgno.value - 1] = true;
        break;
      case ScanKind::kSnapshot:
        if (hashes[i] != known) {
          // Its version is still in the WAL alone, or the read was torn.
          const uint32_t frame = frame_of_.Get(pgno);
          if (frame != 0 && tailer_ && tailer_->ReadPage(frame, page_size, image).ok()) {
            hashes[i] = PageHash(pgno, image);
          }
        }
        if (hashes[i] == known) {
          keep(&chunk.entries, &chunk.images);
        } else {
          --counters_.scanned_pages;
          scan_->retry.push_back(pgno.value);
        }
        break;
    }
  }
  const bool last_step = scan_->next > scan_->pages && scan_->retry.empty();
  if (!differing.empty() || (last_step && scan_->size_owed && scan_->start.txid == state_.txid)) {
    GUILDLITE_RETURN_IF_ERROR(EmitHealPages(differing, differing_images));
    if (!scan_ || scan_->id != id) return stale();
  }
  if (scan_->next > scan_->pages && scan_->retry.size() == wanted.size() && !wanted.empty()) {
    if (++scan_->retries > kScanRetriesMax) {
      BeginHealLocked("page " + std::to_string(scan_->retry.front()) +
                      " of the database file is neither what was captured nor in the WAL");
      return stale();
    }
    return chunk;
  }
  if (scan_->next <= scan_->pages || !scan_->retry.empty()) return chunk;

  // E. Everything is known now.
  SealOpen();
  if (!scan_ || scan_->id != id) return stale();  // over the spool's limit
  if (!table_.complete()) {
    // A page the database counts but nobody ever wrote: read it like the others.
    for (uint32_t p = 1; p <= table_.pages(); ++p) {
      if (table_.Get(Pgno(p)) == 0 && Pgno(p) != LockPage(page_size)) {
        if (p <= scan_->pages) {
          scan_->touched[p - 1] = false;
          scan_->retry.push_back(p);
        } else {
          BeginHealLocked("page " + std::to_string(p) + " was never written");
          return stale();
        }
      }
    }
    return chunk;
  }
  const ScanKind kind = scan_->kind;
  scan_.reset();
  counters_.scan_pages = 0;
  if (kind == ScanKind::kHeal) healing_ = false;
  if (!healing_) {
    state_.rolling_known = true;
    state_.rolling_checksum = table_.sum();
  }
  chunk.done = true;
  chunk.end = state_;
  if (kind == ScanKind::kHeal) markers_.push_back({ObjectKind::kHealEnd, state_});
  batch_starts_object_ = true;
  if (kind != ScanKind::kSnapshot) GUILDLITE_RETURN_IF_ERROR(FlushLocked(false));
  return chunk;
}

Status Recorder::EmitHealPages(const std::vector<PageEntry>& entries,
                               std::span<const std::byte> images) {
  Transaction t;
  t.mark = state_.mark_valid ? state_.mark : WalMark();
  t.heal = true;
  t.time_ms = std::max(state_.time_ms, clock_.NowMs());
  t.time_estimated = true;
  t.database_pages = state_.database_pages;
  t.free_pages = state_.free_pages;
  const uint32_t page_size = state_.page_size;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].pgno == Pgno(1)) t.free_pages = LoadBig32(images.data() + i * page_size + 36);
  }
  // No frames: whatever generation follows the state before it follows the state after it.
  const bool linked =
      link_ && link_->txid == state_.txid && link_->history_hash == state_.history_hash;
  GUILDLITE_RETURN_IF_ERROR(Encode(&t, entries, [&](size_t i, std::span<std::byte> out) {
    std::memcpy(out.data(), images.data() + i * page_size, page_size);
    return Status::Ok();
  }));
  if (linked) {
    link_->txid = state_.txid;
    link_->history_hash = state_.history_hash;
    GUILDLITE_RETURN_IF_ERROR(sidecar_.WriteLink(*link_));
  }
  return Status::Ok();
}

// -- Losing and regaining the thread -----------------------------------------------------------

void Recorder::Drop(std::string why) {
  if (dropped_) return;
  dropped_ = true;
  if (std::exchange(skip_, std::nullopt)) log_ahead_ = true;
  warning_ = why + "; restore points since txid " +
             std::to_string(spool_.pending().empty() ? state_.txid.value
                                                     : spool_.pending().front()->first.value) +
             " are lost, the database itself is compared with the store once it answers";
  (void)sidecar_.WriteHealOwed(true);
  writer_.reset();
  taken_ = 0;
  scan_.reset();
  counters_.scan_pages = 0;
  (void)spool_.Discard();
}

void Recorder::RestartFrom(const CapturedState& log_state, bool same_history) {
  const Guard guard(*this);
  const WalMark mark = state_.mark;
  const uint32_t page_size = state_.page_size;
  state_ = log_state;
  state_.mark = mark;
  if (state_.page_size == 0) state_.page_size = page_size;  // the log holds no page yet
  if (!same_history || log_ahead_) table_ = PageTable();
  Reset();
  for (uint32_t p = 1; p <= table_.pages(); ++p) {
    const bool doubtful = p <= unacknowledged_.size() && unacknowledged_[p - 1];
    if (doubtful && Pgno(p) != LockPage(state_.page_size)) table_.Set(Pgno(p), 0);
  }
  table_.Resize(state_.database_pages, state_.page_size);
  BeginHealLocked("");
}

bool Recorder::dropped() {
  const Guard guard(*this);
  return dropped_;
}

std::string Recorder::diverged() {
  const Guard guard(*this);
  return diverged_;
}

// -- Rest --------------------------------------------------------------------------------------

Status Recorder::FlushLocked(bool sync) {
  if (dropped_ || state_.page_size == 0) return Status::Ok();
  SealOpen();
  GUILDLITE_RETURN_IF_ERROR(spool_.WriteOut());
  if (sync) GUILDLITE_RETURN_IF_ERROR(spool_.Sync());
  GUILDLITE_RETURN_IF_ERROR(table_.Flush(sidecar_.pages(), state_, sync));
  table_header_ = state_.txid;
  table_must_flush_ = false;
  return spool_.TableFlushed(table_header_);
}

Status Recorder::Flush(bool sync) {
  const Guard guard(*this);
  return FlushLocked(sync);
}

Result<CapturedState> Recorder::FlushAtRest(const FileIdentity& file, bool closing) {
  const Guard guard(*this);
  if (dropped_ || !diverged_.empty()) {
    return Status(Tag::kNotDurable, "capture was not complete at close");
  }
  if (state_.page_size == 0) return Status(Tag::kNotDurable, "nothing was captured yet");
  // Either the file is as it was when it was last proven, under the lock of our own close or at
  // open; or the index still says that nothing was committed since a reset of ours.
  const auto published = published_();
  const bool nothing_since = published && published->max_frame == 0 && link_ &&
                             link_->salt1 == published->salt1 && link_->salt2 == published->salt2 &&
                             link_->txid == state_.txid &&
                             link_->history_hash == state_.history_hash;
  if (!nothing_since && !(closing && unchanged_ && *unchanged_ == file)) {
    return Status(Tag::kNotDurable, "another process may have written the database since");
  }
  // Written without a WAL since (journal_mode=DELETE and back): that changes page 1 every time.
  std::vector<std::byte> first(state_.page_size);
  const auto size = database_->Size();
  const auto n = database_->ReadAt(0, first);
  if (!size.ok() || *size != uint64_t{state_.database_pages} * state_.page_size || !n.ok() ||
      *n != first.size() || (*n != 0 && PageHash(Pgno(1), first) != table_.Get(Pgno(1)))) {
    return Status(Tag::kNotDurable, "the database file is not what was captured");
  }
  if (closing) state_.mark_valid = false;
  GUILDLITE_RETURN_IF_ERROR(FlushLocked(closing));
  return state_;
}

void Recorder::Retire() {
  const Guard guard(*this);
  dropped_ = true;
}

CapturedState Recorder::captured() {
  const Guard guard(*this);
  return state_;
}

bool Recorder::healing() {
  const Guard guard(*this);
  return healing_ || dropped_;
}

bool Recorder::unsettled() {
  const Guard guard(*this);
  return healing_ || dropped_ || !markers_.empty();
}

bool Recorder::left_wal() {
  const Guard guard(*this);
  return closed_over_ && !published_();
}

bool Recorder::scan_waits() {
  const Guard guard(*this);
  return scan_ && scan_->kind != ScanKind::kSnapshot && !SeesAllLocked();
}

RecorderCounters Recorder::counters() {
  const Guard guard(*this);
  return counters_;
}

std::optional<uint32_t> Recorder::CheckAt(Txid txid) {
  const Guard guard(*this);
  const uint64_t back = state_.txid.value - txid.value;  // the newest is state_.txid's
  if (txid > state_.txid || back >= checks_.size()) return std::nullopt;
  return checks_[checks_.size() - 1 - back];
}

int64_t Recorder::oldest_pending_ms() {
  const Guard guard(*this);
  const auto pending = spool_.pending();
  if (!pending.empty()) {
    return pending.front()->first_time_ms != 0 ? pending.front()->first_time_ms
                                               : pending.front()->last.time_ms;
  }
  return writer_ && !writer_->empty() ? open_first_ms_ : 0;
}

uint64_t Recorder::pending_bytes() {
  const Guard guard(*this);
  return spool_.pending_bytes();
}

uint64_t Recorder::spool_bytes() {
  const Guard guard(*this);
  return spool_.file_bytes();
}

std::string Recorder::TakeWarning() {
  const Guard guard(*this);
  return std::exchange(warning_, {});
}

}  // namespace guildlite
