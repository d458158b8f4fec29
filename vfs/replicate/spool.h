// The spool: sealed batches that the store has not acknowledged, in order.
//
// The WAL itself is the queue; a batch is written here only when the WAL frames it came from are
// about to be reused, when memory is full, or while a transaction too large for memory is encoded.
// The bytes are exactly those that ship.
//
// Invariants:
//   1. Batches are consecutive: each starts one txid after its predecessor's last.
//   2. WriteOut() hands every byte to the kernel before the WAL may be reset (kill -9 keeps them);
//      it does not fsync: after power loss a torn tail is recognised by the batch's own hash and
//      dropped.
//   3. A file goes only when all its batches are acknowledged and the page table's header is past
//      them (re-applying them is what makes a half-written table whole).
//   4. Memory holds at most kMemoryMax of encoded bytes; beyond that they live in the file alone.
//   5. A batch acknowledged while it is still in memory alone is kept until it is in a file or the
//      page table's header is past it: else a WAL reset would leave a hole between table and WAL.
//
// Not thread-safe: the capture mutex guards it. Names: spool/<first txid %016x>.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "guildlite/status.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/transaction.h"

namespace guildlite {

struct SealedBatch {
  Txid first;
  Transaction last;           // the state after the batch
  int64_t first_time_ms = 0;  // commit time of its first transaction; 0: not known
  uint32_t page_size = 0;
  uint64_t size = 0;
  bool starts_object = false;  // a scan began right before it: no earlier batch in the same object
  // Where the bytes are: in memory, in a spool file, or both.
  std::string bytes;
  uint64_t file = 0;  // first txid in the name; 0: in memory only
  uint64_t offset = 0;
};

class Spool {
 public:
  static constexpr uint64_t kMemoryMax = 4 << 20;
  static constexpr uint64_t kFileSizeMax = 16 << 20;  // then the next file begins

  explicit Spool(std::string directory) : directory_(std::move(directory)) {}

  // Reads what an earlier process left, in order. `page` gets every page entry and `transaction`
  // every transaction of batches whose last txid is above `table`. Batches above `acknowledged` are
  // queued. A gap ends it: what follows is removed. Returns the last txid found, or `table` when
  // none.
  Result<Txid> Recover(Txid table, Txid acknowledged,
                       const std::function<void(const Transaction&)>& transaction,
                       const std::function<void(const Transaction&, const PageEntry&)>& page);
  // Everything goes, files too.
  Status Discard();

  // A batch complete in memory.
  void Append(SealedBatch batch);
  // Bytes of a batch still being encoded, straight to the file; Append() with the rest ends it.
  Status AppendPartial(Txid first, std::string_view bytes);
  // Every batch is in a file afterwards.
  Status WriteOut();
  // Makes what is in files survive power loss.
  Status Sync() const;
  bool all_in_files() const { return unsaved_ == 0; }

  // Not acknowledged, in order.
  std::span<const SealedBatch* const> pending();
  // Reads [offset, offset+length) of a queued batch.
  Result<std::string> Read(const SealedBatch& batch, uint64_t offset, uint64_t length) const;
  void Acknowledge(Txid txid);
  // The page table's header is now at this transaction (invariants 3 and 5).
  Status TableFlushed(Txid table_header);

  // Not acknowledged.
  uint64_t pending_bytes() const { return pending_bytes_; }
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  struct FileInfo {
    uint64_t first = 0;
    Txid last;
    uint64_t size = 0;
  };
  std::string Name(uint64_t first) const;
  Status OpenFor(uint64_t first);
  void DropDone();

  std::string directory_;
  std::deque<SealedBatch> queue_;
  std::vector<const SealedBatch*> pending_;  // scratch of pending()
  size_t unsaved_ = 0;                       // of queue_, at its back
  uint64_t pending_bytes_ = 0;
  uint64_t memory_bytes_ = 0;
  uint64_t file_bytes_ = 0;
  uint64_t partial_bytes_ = 0;  // of the batch being encoded, already in the file
  std::deque<FileInfo> files_;
  File current_;  // files_.back()
  Txid acknowledged_;
  Txid table_;
};

}  // namespace guildlite
