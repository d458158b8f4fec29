// A replicated database told step by step: what a writer would have left in the store, and what
// every one of its transactions must restore to.
//
//   LogFixture log(store, {.page_size = 512});
//   log.Commit({{1, page}}, 1);      // txid 1, in the batch being filled
//   log.Ship();                      // one DATA object
//   log.Snapshot("monday");          // of the tip
//   for (const LogFixture::Point& p : log.points()) ... p.file is the database at p.txid
//
// Encodes with BatchWriter and EncodeObject, with no other part of the writing side: a mistake
// there cannot hide here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "guildlite/object_store.h"
#include "vfs/capture/transaction.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/manifest.h"

namespace guildlite::testing {

class LogFixture {
 public:
  struct Settings {
    uint32_t page_size = 512;
    uint32_t block_pages_max = kBlockPagesMax;
    // Bodies longer than this are cut into parts of this size, the rest inline.
    uint64_t part_bytes = UINT64_MAX;
    Lineage lineage{0x6775696c646c6974};
    int64_t first_time_ms = 1'790'000'000'000;
  };
  struct Point {
    Position position;
    int64_t time_ms = 0;
    std::string file;  // the whole database, byte for byte
    uint64_t history_hash = 0;
    uint64_t rolling_checksum = 0;
    bool restorable = false;  // to a reader of the whole log, by its txid or its position
    bool live = false;        // of the history that holds now: by its txid
  };
  using Pages = std::vector<std::pair<uint32_t, std::string>>;

  // An empty database: manifest, and the FENCE of epoch 1 in slot 1.
  LogFixture(ObjectStore& store, const Settings& settings);
  ~LogFixture();
  LogFixture(const LogFixture&) = delete;
  LogFixture& operator=(const LogFixture&) = delete;

  Txid Commit(const Pages& pages, uint32_t database_pages);
  // Edits a few pages, and sometimes grows or shrinks the database to at most `database_pages_max`.
  Txid CommitRandom(std::mt19937_64& random, uint32_t database_pages_max = 40);
  // Ends the batch; the next object holds several.
  void CutBatch();
  // Everything committed since the last one, as one DATA object. Nothing without a commit.
  void Ship();

  void Void();
  // The transactions from `first` on never happened.
  void Undo(Txid first);
  // The next epoch; a rewind if `continues_from` is below the tip.
  void Fence(std::optional<Txid> continues_from = std::nullopt);
  void HealBegin();
  void HealEnd();
  bool heal_open() const { return heal_begin_.has_value(); }

  // A snapshot while transactions go on: S is the tip at BeginScan(); ScanPages() reads the next
  // pages; after the last one EndScan() makes the tip E. A commit does not know its checksum before
  // all pages of the first scan are read.
  void BeginScan();
  void ScanPages(uint32_t count = UINT32_MAX);
  std::string EndScan(const std::string& label = "");
  // All of that at once; the key.
  std::string Snapshot(const std::string& label = "");

  // Writes the manifest as it is in manifest().
  void SaveManifest();
  Manifest& manifest() { return manifest_; }

  Txid tip() const { return Txid(tip_); }
  Slot next_slot() const { return next_slot_; }
  // All points there ever were; the last one is txid tip() of the live history.
  const std::vector<Point>& points() const { return points_; }
  const Point& LivePoint(Txid txid) const;

 private:
  struct Scan;

  ObjectHeader Header(ObjectKind kind) const;
  void PutLog(ObjectHeader header, const std::string& body);
  // Moves what is too long for one object into parts; what is left is the inline body.
  std::string PutParts(ObjectHeader* header, uint64_t slot_or_txid, const std::string& body);
  void TakeBackAbove(uint64_t txid);
  size_t LiveIndex(uint64_t txid) const;
  const Point& Tip() const { return points_.back(); }
  uint32_t database_pages() const {
    return static_cast<uint32_t>(Tip().file.size() / settings_.page_size);
  }

  ObjectStore& store_;
  const Settings settings_;
  Manifest manifest_;
  uint64_t random_ = 0x1000;  // names only
  std::vector<Point> points_;
  uint64_t tip_ = 0;
  int64_t last_time_ms_;
  uint32_t epoch_ = 1;
  Slot next_slot_{1};
  uint64_t previous_hash_ = 0;
  bool checksum_known_ = false;  // the page table is whole
  std::optional<uint64_t> heal_begin_;

  std::unique_ptr<BatchWriter> writer_;
  std::string body_;  // sealed batches of the object being filled
  std::optional<Txid> body_first_;
  std::unique_ptr<Scan> scan_;
};

// Everything that can happen to a log, in random order: a first scan on a living database, then
// `steps` more steps, shipped. REQUIRES: nothing was committed to `log` yet.
void MakeTurbulent(LogFixture& log, std::mt19937_64& random, int steps);

// The rolling checksum of a database file.
uint64_t RollingChecksum(std::string_view file, uint32_t page_size);

}  // namespace guildlite::testing
