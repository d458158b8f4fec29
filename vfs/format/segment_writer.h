// Transactions -> sealed batches -> objects.
//
// BatchWriter encodes a run of consecutive transactions. Pages are grouped in blocks of at most
// kBlockPagesMax pages / kBlockBytesMax bytes; a block is one zstd frame at level 3 whose prefix
// (ZSTD_CCtx_refPrefix) is the previous versions of its distinct pages, concatenated in order of
// first appearance, for every page whose previous version the caller could prove.
//
//   1. A base is given only if its PageHash was verified against the captured state right before
//      the block's first version of that page. Within a block a second version needs no base.
//   2. Every version of every transaction is kept, in commit order.
//   3. The same calls give the same bytes (golden files, adoption of a repeated put).
//
// Not thread-safe. Does no I/O. Holds a block of images and bases while filling it and, once it has
// closed one, a compressor (0.5 to 10 MB): a writer that will be idle for long is better dropped.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "guildlite/status.h"
#include "vfs/format/segment_format.h"

namespace guildlite {

class BatchWriter {
 public:
  struct Settings {
    uint32_t page_size = 0;
    int level = 3;                              // 1 for snapshots
    uint32_t block_pages_max = kBlockPagesMax;  // kSnapshotChunkPages for snapshots
    uint32_t block_bytes_max = kBlockBytesMax;  // at most kBlockBytesLimit
  };
  explicit BatchWriter(const Settings& settings);
  ~BatchWriter();
  BatchWriter(const BatchWriter&) = delete;
  BatchWriter& operator=(const BatchWriter&) = delete;

  // Whether the page, added now, would land in a block that already holds a version of it: then no
  // base is wanted. Exact: false when the block is full and the next page opens another.
  bool BlockHas(Pgno pgno) const;

  // REQUIRES: txid is the last one + 1 (any, for the first), time_ms not before the last one's; the
  // previous transaction was ended.
  void BeginTransaction(const Transaction& transaction);
  // Copies the image. May close the block before adding.
  // `read_base` is called at most once, and only if the page has no version in the block it lands
  // in; it fills the span (page_size) and returns true, or returns false: no base. An empty
  // function: none. REQUIRES: hash == PageHash(pgno, image); the transaction has no such page yet.
  void AddPage(Pgno pgno, uint64_t hash, std::span<const std::byte> image,
               const std::function<bool(std::span<std::byte>)>& read_base);
  void EndTransaction();

  bool empty() const { return transactions_ == 0; }
  uint64_t transactions() const { return transactions_; }
  Txid first_txid() const { return first_; }
  // Encoded bytes so far, without the block being filled.
  uint64_t encoded_bytes() const;

  // Moves out the finished bytes so far (to the spool, for a transaction too large to hold); what
  // Seal() returns later continues them.
  std::string TakeEncoded();
  // Closes the batch and returns the (rest of the) bytes. The writer is empty afterwards and may be
  // used for the next batch.
  std::string Seal();
  // Index entries of the blocks sealed; valid after Seal().
  const std::vector<IndexEntry>& index() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  uint64_t transactions_ = 0;
  Txid first_;
};

// A whole object: header, inline body, index, trailer. Of a kData object whose header says of the
// state just what its body does, the header leaves it out.
std::string EncodeObject(const ObjectHeader& header, std::string_view inline_body,
                         const std::vector<IndexEntry>& index = {});

// What the next slot's previous_hash must be: the trailer, Hash64 of all before it.
uint64_t ObjectHash(std::string_view object);

}  // namespace guildlite
