// The four checksums of the project, and what each proves.
//
//   WAL checksum      SQLite's own, "Checksum Algorithm" in sqlite.org/fileformat2.html: a frame
//                     belongs to this WAL generation and follows its predecessor.
//   page hash         XXH3-64 of the page image, seeded with its page number: this image, at this
//                     place. Never 0: 0 means "not known" in a page table.
//   rolling checksum  the sum modulo 2^64 of the page hashes of all pages but the lock page: the
//                     content of the whole database, kept in O(changed pages).
//   history hash      chains (previous, txid, database pages, each page number and hash): a point
//                     in history. Needs no page table, exists from txid 1.
#pragma once

#include <cstdint>
#include <span>

#include "guildlite/types.h"

namespace guildlite {

struct WalChecksum {
  uint32_t s0 = 0;
  uint32_t s1 = 0;
  // REQUIRES: bytes.size() % 8 == 0. `big_endian` is bit 0 of the WAL magic.
  void Update(std::span<const std::byte> bytes, bool big_endian);
  auto operator<=>(const WalChecksum&) const = default;
};

uint64_t PageHash(Pgno pgno, std::span<const std::byte> page);

// XXH3-64 of arbitrary bytes: headers, trailers, object chains.
uint64_t Hash64(std::span<const std::byte> bytes, uint64_t seed = 0);

// Hash64 of bytes that come in pieces: a batch is written and read as a stream.
class RunningHash {
 public:
  RunningHash();
  ~RunningHash();
  RunningHash(const RunningHash&) = delete;
  RunningHash& operator=(const RunningHash&) = delete;

  void Reset();
  void Update(std::span<const std::byte> bytes);
  // Equals Hash64 of everything since Reset(), concatenated. More may follow.
  uint64_t Digest() const;

 private:
  struct State;
  State* state_;
};

// Usage: HistoryHash h(previous, txid, database_pages); h.Add(pgno, hash)...; h.Finish(). Pages are
// added in commit order: both the capturing and the decoding side see them so, and neither has to
// hold the page list of a huge transaction to sort it.
class HistoryHash {
 public:
  HistoryHash(uint64_t previous, Txid txid, uint32_t database_pages);
  void Add(Pgno pgno, uint64_t page_hash);
  uint64_t Finish() const { return hash_.Digest(); }

 private:
  RunningHash hash_;
};

// The history hash before txid 1.
uint64_t HistoryStart(Lineage lineage);

}  // namespace guildlite
