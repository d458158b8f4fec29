// WalTailer: WAL bytes -> whole transactions. The single truth of what was committed: live capture,
// recovery after a crash and commits of processes that never loaded us all come through here.
//
// It reads the -wal file through its own descriptor and never looks at what passes through VFS
// callbacks: headers seen in passing lie (spilled frames carry zero salts and checksums until the
// commit rewrites them).
//
// Invariants:
//   1. A transaction is delivered only if its commit frame is at or below the bound. Live, the bound
//      is mxFrame of the wal-index header: a commit frame on disk is not a commit yet, SQLite may
//      still roll back and reuse it (hazard H11). In recovery there is no bound and the checksum
//      chain alone decides, as in walIndexRecover() of wal.c.
//   2. Every frame delivered has the generation's salts and continues the checksum chain, with one
//      exception: SQLite before its fix (3.40.1 has the bug) writes commit frames with zero checksums
//      after spill + ROLLBACK TO, so the published index covers frames the chain cannot reach (H1).
//      With a bound, and the generation's header unchanged before and after the read, such frames are
//      taken by position and the chain is reseeded from the published checksum; chain_breaks() counts.
//   3. Padding repeats of a commit frame (same page number, same size, same bytes, directly after it)
//      are not transactions of their own.
//   4. Memory is bounded by the page list of one transaction (16 bytes a frame) plus one chunk.
//
// It does not wait, does not write, takes no lock and keeps no position that outlives it: the caller
// owns the mark.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "guildlite/status.h"
#include "guildlite/types.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/wal_format.h"

namespace guildlite {

// What the wal-index header says is committed (WalIndexHdr in wal.c), read consistently by the shim.
struct Published {
  uint32_t salt1 = 0;
  uint32_t salt2 = 0;
  uint32_t max_frame = 0;        // mxFrame
  uint32_t database_pages = 0;   // nPage
  uint32_t cksum1 = 0;           // aFrameCksum: of frame max_frame
  uint32_t cksum2 = 0;
  bool operator==(const Published&) const = default;
};

struct FrameRef {
  Pgno pgno;
  uint32_t frame = 0;  // 1-based index in the WAL
};

struct WalTransaction {
  WalMark end;                   // mark of its commit frame (after padding, of the last repeat)
  uint32_t database_pages = 0;   // of the commit frame
  // Last version of each page, ascending frame; only pages <= database_pages, never the lock page.
  std::vector<FrameRef> pages;
  // The images of `pages`, in that order, when all together are at most kInlineBytesMax; else empty
  // and ReadPage() fetches them.
  std::vector<std::byte> images;
};

class WalTailer {
 public:
  static constexpr size_t kInlineBytesMax = 1 << 20;

  // `wal` must outlive the tailer. The same file, whatever its generation.
  explicit WalTailer(const File& wal) : wal_(wal) {}

  // The header now in the file. kNotFound: shorter than a header (empty, or not written yet);
  // kChainBroken: not a WAL header (magic, version or checksum wrong: torn or another program's).
  Result<WalHeader> ReadHeader() const;

  // The mark right after `header`: frame 0, its checksum.
  static WalMark Start(const WalHeader& header);

  // Whether `mark` is a point of the generation now in the file: salts equal and, for frame > 0, the
  // stored checksum and salts of that frame are the mark's. O(1).
  Result<bool> Contains(const WalMark& mark) const;

  enum class End {
    kTransaction,  // `transaction` is set
    kBound,        // nothing more at or below the bound
    kChainEnd,     // no bound given: the chain ends here, without a further commit
    kOtherGeneration,  // the header in the file has other salts than `from`: it was reset
  };
  struct Outcome {
    End end = End::kChainEnd;
    WalTransaction transaction;
  };
  // The first transaction after `from`. With `bound`, at most to bound->max_frame, and only if the
  // bound is of the same generation as `from` (else kOtherGeneration). Without, by the chain alone.
  // Errors: LOCAL_IO only. A torn or unexpected frame is an Outcome, not an error.
  Result<Outcome> Next(const WalMark& from, const std::optional<Published>& bound);

  // Page image of a frame delivered before. REQUIRES: out.size() == page size.
  // The caller verifies it (page hash): a foreign reset may have overwritten it since.
  Status ReadPage(uint32_t frame, uint32_t page_size, std::span<std::byte> out) const;

  // How often frames had to be taken by position (invariant 2).
  uint64_t chain_breaks() const { return chain_breaks_; }

 private:
  const File& wal_;
  uint64_t chain_breaks_ = 0;
};

}  // namespace guildlite
