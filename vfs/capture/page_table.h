// PageTable: the hash of every page of the captured state, and with it the rolling checksum.
//
// It says what the log believes the database to be, page by page: that proves the base of a
// compressed page, recognises a page that somebody else changed, and sums up the whole database in
// O(changed pages). 8 bytes a page in memory (2 MB for a database of 1 GB) and a file of the same
// size.
//
// Invariants:
//   1. sum() is the sum modulo 2^64 of all known hashes, and complete() holds exactly when every
//      page of 1..pages() but the lock page is known: then sum() is the rolling checksum.
//   2. The file's entries are absolute and its header names the transaction they belong to. Flush()
//      writes entries first and the header after: between the two a crash leaves entries newer than
//      the header, which re-applying the spool from the header's transaction on makes whole again.
//   3. Nothing on disk is trusted at load beyond the header's own checksum: the caller compares the
//      sum with what the newest sealed batch says.
//
// Not thread-safe: the capture mutex guards it. It never touches the database.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "guildlite/status.h"
#include "guildlite/types.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/transaction.h"

namespace guildlite {

// Where capture stands: the state after transaction `txid`.
struct CapturedState {
  Txid txid;
  WalMark mark;             // of its commit frame
  bool mark_valid = false;  // false: no WAL existed then (all of it was in the database file)
  uint64_t history_hash = 0;
  uint64_t rolling_checksum = 0;
  bool rolling_known = false;
  uint32_t page_size = 0;  // 0: an empty file, nothing captured yet
  uint32_t database_pages = 0;
  uint32_t free_pages = 0;
  int64_t time_ms = 0;
  bool operator==(const CapturedState&) const = default;

  static CapturedState After(const Transaction& t, uint32_t page_size) {
    return {.txid = t.txid,
            .mark = t.mark,
            .mark_valid = t.mark != WalMark(),
            .history_hash = t.history_hash,
            .rolling_checksum = t.rolling_checksum,
            .rolling_known = t.rolling_known,
            .page_size = page_size,
            .database_pages = t.database_pages,
            .free_pages = t.free_pages,
            .time_ms = t.time_ms};
  }
};

class PageTable {
 public:
  uint32_t pages() const { return static_cast<uint32_t>(hashes_.size()); }
  // 0 when not known or beyond the end.
  uint64_t Get(Pgno pgno) const {
    return pgno.value == 0 || pgno.value > hashes_.size() ? 0 : hashes_[pgno.value - 1];
  }
  // REQUIRES: 1 <= pgno <= pages(). A hash of 0 forgets the page.
  void Set(Pgno pgno, uint64_t hash);
  // Pages beyond are forgotten, new ones are unknown.
  void Resize(uint32_t pages, uint32_t page_size);
  void Clear() { Resize(0, page_size_ == 0 ? 4096 : page_size_); }

  uint64_t sum() const { return sum_; }
  bool complete() const { return unknown_ == 0; }
  uint32_t unknown() const { return unknown_; }

  // Entries changed since the last Flush().
  size_t dirty() const { return dirty_list_.size(); }
  // Writes the changed entries, then the header with `state`. `sync`: power loss cannot undo it.
  Status Flush(const File& file, const CapturedState& state, bool sync);
  // Replaces the content. kNotFound when the file holds no table (empty, another version, or a
  // header whose checksum is wrong: torn by a power loss).
  Result<CapturedState> Load(const File& file);

 private:
  std::vector<uint64_t> hashes_;
  std::vector<bool> dirty_;
  std::vector<uint32_t> dirty_list_;  // indexes; may name pages that were cut off since
  uint64_t sum_ = 0;
  uint32_t unknown_ = 0;
  uint32_t page_size_ = 0;
};

}  // namespace guildlite
