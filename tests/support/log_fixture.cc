#include "tests/support/log_fixture.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/objects/object_key.h"

namespace guildlite::testing {
namespace {

std::string_view PageOf(std::string_view file, uint32_t page_size, uint32_t pgno) {
  return file.substr(uint64_t{pgno - 1} * page_size, page_size);
}

}  // namespace

void MakeTurbulent(LogFixture& log, std::mt19937_64& random, int steps) {
  const auto dice = [&](uint64_t n) { return random() % n; };
  // The first scan, with commits in between, as after replication_start() on a living database.
  for (uint64_t n = dice(4); n > 0; n--) log.CommitRandom(random);
  log.BeginScan();
  for (uint64_t n = dice(5); n > 0; n--) {
    log.ScanPages(static_cast<uint32_t>(dice(15)));
    log.CommitRandom(random);
    if (dice(2) == 0) log.Ship();
  }
  log.ScanPages();
  if (dice(2) == 0) log.CommitRandom(random);
  log.EndScan();

  const Txid first = log.manifest().snapshots.front().usable_from;
  bool scanning = false;
  for (int i = 0; i < steps; i++) {
    // Nothing goes back beyond the first snapshot, nor beyond what an epoch froze; an undo takes
    // back nothing a snapshot was made of.
    Txid rewind_floor = first;
    if (!log.manifest().past_epochs.empty()) {
      rewind_floor = std::max(rewind_floor, log.manifest().past_epochs.back().last_txid);
    }
    Txid undo_floor = rewind_floor;
    for (const SnapshotRecord& s : log.manifest().snapshots) {
      undo_floor = std::max(undo_floor, s.usable_from);
    }
    switch (dice(14)) {
      case 0:
        log.CutBatch();
        break;
      case 1:
      case 2:
        log.Ship();
        break;
      case 3:
        log.Void();
        break;
      case 4:
        if (!scanning && log.tip() > undo_floor) {
          log.Undo(Txid(undo_floor.value + 1 + dice(log.tip().value - undo_floor.value)));
        }
        break;
      case 5:
        if (!scanning) log.Fence();
        break;
      case 6:
        if (!scanning) {
          log.Fence(Txid(rewind_floor.value + dice(log.tip().value - rewind_floor.value + 1)));
        }
        break;
      case 7:
        if (!scanning && !log.heal_open()) log.HealBegin();
        break;
      case 8:
        if (log.heal_open()) log.HealEnd();
        break;
      case 9:
        if (scanning) {
          log.ScanPages();
          log.EndScan();
        } else if (!log.heal_open()) {
          log.BeginScan();
        }
        scanning = !scanning && !log.heal_open();
        break;
      default:
        if (scanning) log.ScanPages(static_cast<uint32_t>(dice(10)));
        log.CommitRandom(random);
    }
  }
  log.Ship();
}

uint64_t RollingChecksum(std::string_view file, uint32_t page_size) {
  uint64_t sum = 0;
  for (uint32_t pgno = 1; pgno <= file.size() / page_size; pgno++) {
    if (Pgno(pgno) == LockPage(page_size)) continue;
    sum += PageHash(Pgno(pgno), AsBytes(PageOf(file, page_size, pgno)));
  }
  return sum;
}

struct LogFixture::Scan {
  uint64_t as_of = 0;  // S
  size_t point = 0;    // of S
  Slot first_slot;
  uint32_t next = 1;           // the next page to scan
  std::set<uint32_t> touched;  // changed after S before they were scanned
  std::map<uint32_t, std::string> images;
};

LogFixture::LogFixture(ObjectStore& store, const Settings& settings)
    : store_(store), settings_(settings), last_time_ms_(settings.first_time_ms) {
  manifest_.lineage = settings.lineage;
  manifest_.session = Session(7);
  manifest_.owner = "fixture";
  points_.push_back({.position = {settings.lineage, Epoch(1), Txid(0),
                                  static_cast<uint32_t>(HistoryStart(settings.lineage))},
                     .time_ms = settings.first_time_ms,
                     .file = {},
                     .history_hash = HistoryStart(settings.lineage),
                     .live = true});
  SaveManifest();
  PutLog(Header(ObjectKind::kFence), "");
}

LogFixture::~LogFixture() = default;

void LogFixture::SaveManifest() {
  manifest_.rev++;
  manifest_.nonce = random_++;
  const Status valid = manifest_.Validate();
  assert(valid.ok());
  static_cast<void>(valid);
  const auto put = store_.Put(kManifestKey, manifest_.Encode(), PutCondition::Overwrite());
  assert(put.ok());
  static_cast<void>(put);
}

ObjectHeader LogFixture::Header(ObjectKind kind) const {
  const Point& tip = Tip();
  ObjectHeader h;
  h.kind = kind;
  h.lineage = settings_.lineage;
  h.epoch = Epoch(epoch_);
  h.session = Session(7);
  h.slot = h.last_slot = next_slot_;
  h.first_txid = h.last_txid = h.continues_from = Txid(tip_);
  h.time_ms = tip.time_ms;
  h.page_size = settings_.page_size;
  h.database_pages = database_pages();
  h.history_hash = tip.history_hash;
  return h;
}

std::string LogFixture::PutParts(ObjectHeader* header, uint64_t slot_or_txid,
                                 const std::string& body) {
  size_t done = 0;
  for (uint32_t n = 0; body.size() - done > settings_.part_bytes; n++) {
    const std::string part = body.substr(done, settings_.part_bytes);
    done += part.size();
    const std::string key = PartKey(header->epoch, slot_or_txid, n, random_++);
    const auto put = store_.Put(key, part, PutCondition::Create());
    assert(put.ok());
    static_cast<void>(put);
    header->parts.push_back({key, part.size(), Hash64(AsBytes(part))});
  }
  return body.substr(done);
}

void LogFixture::PutLog(ObjectHeader header, const std::string& body) {
  header.previous_hash = previous_hash_;
  const std::string inline_body = PutParts(&header, next_slot_.value, body);
  const std::string object = EncodeObject(header, inline_body);
  const auto put = store_.Put(LogKey(next_slot_), object, PutCondition::Create());
  assert(put.ok());
  static_cast<void>(put);
  previous_hash_ = ObjectHash(object);
  next_slot_ = next_slot_.Next();
}

Txid LogFixture::Commit(const Pages& pages, uint32_t database_pages_after) {
  const uint32_t page_size = settings_.page_size;
  if (!writer_) {
    writer_ = std::make_unique<BatchWriter>(BatchWriter::Settings{
        .page_size = page_size, .block_pages_max = settings_.block_pages_max});
  }
  const std::string before = Tip().file;
  Point point;
  point.file = before;
  point.file.resize(uint64_t{database_pages_after} * page_size, '\0');
  HistoryHash history(Tip().history_hash, Txid(tip_ + 1), database_pages_after);
  for (const auto& [pgno, image] : pages) {
    assert(image.size() == page_size && pgno >= 1 && pgno <= database_pages_after);
    history.Add(Pgno(pgno), PageHash(Pgno(pgno), AsBytes(image)));
    std::memcpy(point.file.data() + uint64_t{pgno - 1} * page_size, image.data(), page_size);
  }
  point.history_hash = history.Finish();
  point.rolling_checksum = RollingChecksum(point.file, page_size);
  point.time_ms = last_time_ms_ += 1000;
  point.restorable = checksum_known_ && !heal_begin_;
  point.live = true;
  tip_++;
  point.position = {settings_.lineage, Epoch(epoch_), Txid(tip_),
                    static_cast<uint32_t>(point.history_hash)};

  Transaction t;
  t.txid = Txid(tip_);
  t.mark = {.salt1 = 1, .salt2 = 2, .frame = static_cast<uint32_t>(tip_)};
  t.time_ms = point.time_ms;
  t.heal = heal_begin_.has_value();
  t.database_pages = database_pages_after;
  t.history_hash = point.history_hash;
  t.rolling_known = point.restorable;
  t.rolling_checksum = point.restorable ? point.rolling_checksum : 0;
  writer_->BeginTransaction(t);
  for (const auto& [pgno, image] : pages) {
    bool has_base = pgno <= before.size() / page_size;
    if (scan_ && pgno >= scan_->next && scan_->touched.insert(pgno).second) has_base = false;
    writer_->AddPage(Pgno(pgno), PageHash(Pgno(pgno), AsBytes(image)), AsBytes(image),
                     [&, page = pgno](std::span<std::byte> out) {
                       if (!has_base) return false;
                       std::memcpy(out.data(), PageOf(before, page_size, page).data(), out.size());
                       return true;
                     });
  }
  writer_->EndTransaction();
  if (!body_first_) body_first_ = Txid(tip_);
  points_.push_back(std::move(point));
  return Txid(tip_);
}

Txid LogFixture::CommitRandom(std::mt19937_64& random, uint32_t database_pages_max) {
  const uint32_t page_size = settings_.page_size;
  const uint32_t before = database_pages();
  uint32_t after = std::max(before, 1u);
  const auto dice = [&](uint64_t n) { return random() % n; };
  if (dice(3) == 0) after = static_cast<uint32_t>(1 + dice(database_pages_max));
  std::set<uint32_t> chosen{1};
  for (uint32_t pgno = before + 1; pgno <= after; pgno++) chosen.insert(pgno);
  for (uint64_t n = dice(6); n > 0; n--) chosen.insert(static_cast<uint32_t>(1 + dice(after)));
  Pages pages;
  for (const uint32_t pgno : chosen) {
    pages.emplace_back(pgno,
                       pgno <= before && dice(5) != 0
                           ? EditPage(std::string(PageOf(Tip().file, page_size, pgno)), random())
                           : MakePage(page_size, random()));
  }
  std::shuffle(pages.begin(), pages.end(), random);
  return Commit(pages, after);
}

void LogFixture::CutBatch() {
  if (writer_ && !writer_->empty()) body_ += writer_->Seal();
}

void LogFixture::Ship() {
  CutBatch();
  if (!body_first_) return;
  ObjectHeader h = Header(ObjectKind::kData);
  h.first_txid = *body_first_;
  h.rolling_known = Tip().restorable;
  h.rolling_checksum = h.rolling_known ? Tip().rolling_checksum : 0;
  PutLog(h, body_);
  body_.clear();
  body_first_.reset();
}

void LogFixture::Void() {
  Ship();
  PutLog(Header(ObjectKind::kVoid), "");
}

size_t LogFixture::LiveIndex(uint64_t txid) const {
  for (size_t i = points_.size(); i-- > 0;) {
    if (points_[i].live && points_[i].position.txid == Txid(txid)) return i;
  }
  assert(false);
  return 0;
}

const LogFixture::Point& LogFixture::LivePoint(Txid txid) const {
  return points_[LiveIndex(txid.value)];
}

void LogFixture::TakeBackAbove(uint64_t txid) {
  assert(!scan_);
  for (Point& p : points_) {
    if (p.position.txid > Txid(txid)) p.live = false;
  }
  // The next commit goes on from there.
  const size_t at = LiveIndex(txid);
  std::rotate(points_.begin() + static_cast<ptrdiff_t>(at),
              points_.begin() + static_cast<ptrdiff_t>(at) + 1, points_.end());
  tip_ = txid;
  if (heal_begin_ && txid <= *heal_begin_) heal_begin_.reset();
}

void LogFixture::Undo(Txid first) {
  Ship();
  ObjectHeader h = Header(ObjectKind::kUndo);
  h.first_txid = first;
  h.continues_from = Txid(first.value - 1);
  for (Point& p : points_) {
    if (p.live && p.position.txid >= first) p.restorable = false;
  }
  TakeBackAbove(first.value - 1);
  PutLog(h, "");
}

void LogFixture::Fence(std::optional<Txid> continues_from) {
  Ship();
  epoch_++;
  ObjectHeader h = Header(ObjectKind::kFence);
  if (continues_from && continues_from->value < tip_) {
    h.continues_from = *continues_from;
    TakeBackAbove(continues_from->value);
  }
  manifest_.past_epochs.push_back({.epoch = manifest_.epoch,
                                   .last_txid = Txid(tip_),
                                   .history_hash = Tip().history_hash,
                                   .fence = next_slot_});
  manifest_.epoch = Epoch(epoch_);
  PutLog(h, "");
  SaveManifest();
}

void LogFixture::HealBegin() {
  Ship();
  PutLog(Header(ObjectKind::kHealBegin), "");
  if (!heal_begin_) heal_begin_ = tip_;
}

void LogFixture::HealEnd() {
  Ship();
  ObjectHeader h = Header(ObjectKind::kHealEnd);
  h.rolling_known = true;
  h.rolling_checksum = Tip().rolling_checksum;
  points_.back().restorable = true;
  heal_begin_.reset();
  PutLog(h, "");
}

void LogFixture::BeginScan() {
  Ship();
  scan_ = std::make_unique<Scan>();
  scan_->as_of = tip_;
  scan_->point = points_.size() - 1;
  scan_->first_slot = next_slot_;
}

void LogFixture::ScanPages(uint32_t count) {
  const uint32_t total =
      static_cast<uint32_t>(points_[scan_->point].file.size() / settings_.page_size);
  for (; count > 0 && scan_->next <= total; count--, scan_->next++) {
    const uint32_t pgno = scan_->next;
    // The file as it is now; a page that went away will come back in full, if it does.
    if (scan_->touched.contains(pgno) || pgno > database_pages()) continue;
    scan_->images[pgno] = PageOf(Tip().file, settings_.page_size, pgno);
  }
  if (scan_->next > total) {
    scan_->next = UINT32_MAX;
    checksum_known_ = true;
  }
}

std::string LogFixture::EndScan(const std::string& label) {
  Ship();
  // Below the first usable point there is no way in, whatever checksums are known by then.
  if (manifest_.snapshots.empty()) {
    for (Point& p : points_) p.restorable = false;
  }
  // The header of the snapshot proves its point, even where the log does not.
  assert(scan_->next == UINT32_MAX && !heal_begin_);
  points_.back().restorable = true;
  const Point& as_of = points_[scan_->point];
  const Point& end = Tip();
  BatchWriter writer({.page_size = settings_.page_size,
                      .level = 1,
                      .block_pages_max = std::min(settings_.block_pages_max, kSnapshotChunkPages)});
  Transaction t;
  t.txid = Txid(scan_->as_of);
  t.time_ms = as_of.time_ms;
  t.database_pages = static_cast<uint32_t>(as_of.file.size() / settings_.page_size);
  t.history_hash = as_of.history_hash;
  writer.BeginTransaction(t);
  for (const auto& [pgno, image] : scan_->images) {
    writer.AddPage(Pgno(pgno), PageHash(Pgno(pgno), AsBytes(image)), AsBytes(image), {});
  }
  writer.EndTransaction();
  const std::string body = writer.Seal();

  ObjectHeader h = Header(ObjectKind::kSnapshot);
  h.slot = h.last_slot = Slot(0);
  h.first_txid = Txid(scan_->as_of);
  h.rolling_known = true;
  h.rolling_checksum = end.rolling_checksum;
  const std::string inline_body = PutParts(&h, scan_->as_of, body);
  const std::string object = EncodeObject(h, inline_body, writer.index());
  const std::string key = SnapshotKey(Txid(scan_->as_of), Txid(tip_), Epoch(epoch_), random_++);
  const auto put = store_.Put(key, object, PutCondition::Create());
  assert(put.ok());
  static_cast<void>(put);
  manifest_.snapshots.push_back({.key = key,
                                 .txid = Txid(scan_->as_of),
                                 .usable_from = Txid(tip_),
                                 .first_slot = scan_->first_slot,
                                 .end_slot = scan_->as_of == tip_ ? scan_->first_slot : next_slot(),
                                 .epoch = Epoch(epoch_),
                                 .history_hash = as_of.history_hash,
                                 .usable_history_hash = end.history_hash,
                                 .time_ms = end.time_ms,
                                 .label = label,
                                 .bytes = object.size(),
                                 .database_bytes = end.file.size()});
  std::stable_sort(manifest_.snapshots.begin(), manifest_.snapshots.end(),
                   [](const auto& a, const auto& b) { return a.usable_from < b.usable_from; });
  SaveManifest();
  scan_.reset();
  return key;
}

std::string LogFixture::Snapshot(const std::string& label) {
  BeginScan();
  ScanPages();
  return EndScan(label);
}

}  // namespace guildlite::testing
