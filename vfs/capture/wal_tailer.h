// WalTailer: WAL bytes -> whole transactions. The single truth of what was committed: live capture,
// recovery after a crash and commits of processes that never loaded us all come through here.
//
// It reads the -wal file through its own descriptor and never looks at what passes through VFS
// callbacks: headers seen in passing lie (spilled frames carry zero salts and checksums until the
// commit rewrites them).
//
// Invariants:
//   1. A transaction is delivered only if its commit frame is at or below the bound. Live, the
//      bound is mxFrame of the wal-index header: a commit frame on disk is not a commit yet, SQLite
//      may still roll back and reuse it (hazard H11). In recovery there is no bound and the
//      checksum chain alone decides, as in walIndexRecover() of wal.c.
//   2. Every frame delivered has the generation's salts and continues the checksum chain, with one
//      exception: SQLite before its fix (3.40.1 has the bug) writes commit frames with zero
//      checksums after spill + ROLLBACK TO, so the published index covers frames the chain cannot
//      reach (H1). With a bound, and the generation's header unchanged before and after the read,
//      such frames are taken by position and the chain is reseeded from the published checksum;
//      chain_breaks() counts.
//   3. Padding repeats of a commit frame (same page number, same size, same bytes, directly after
//      it) are not transactions of their own. A commit of that one page, unchanged, looks the same
//      and is passed over too: it leaves the database as it was.
//   4. Memory is bounded by the page list of one transaction (16 bytes a frame) plus one chunk.
//   5. Bytes read are kept for a later call only up to the bound in force when they were read: what
//      lies beyond may be rolled back and overwritten. Without a bound nothing is kept. Kept bytes
//      serve only the generation whose header was read before them, and are dropped when the bound
//      moves back.
//   6. What was read after a header, and proves itself by the chain from a mark of that generation,
//      needs no further look at the header. Whatever cannot prove itself so (by position, the end
//      of the chain, a short file) is believed only after the header was read again and is the
//      same: a reset writes the header before it overwrites the first frame (sqlite3WalFrames() in
//      wal.c).
//
// It does not wait, does not write, takes no lock and keeps no position that outlives it: the
// caller owns the mark. One thread at a time; ReadHeader(), Contains() and ReadPage() from any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "guildlite/status.h"
#include "guildlite/types.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/wal_format.h"

namespace guildlite {

// What the wal-index header says is committed (WalIndexHdr in wal.c), both copies being equal.
struct Published {
  uint32_t salt1 = 0;
  uint32_t salt2 = 0;
  uint32_t max_frame = 0;       // mxFrame
  uint32_t database_pages = 0;  // nPage
  uint32_t cksum1 = 0;          // aFrameCksum: of frame max_frame
  uint32_t cksum2 = 0;
  bool operator==(const Published&) const = default;
};

struct FrameRef {
  Pgno pgno;
  uint32_t frame = 0;  // 1-based index in the WAL
  uint64_t hash = 0;   // PageHash of the image: what ReadPage() must give again
  bool operator==(const FrameRef&) const = default;
};

struct WalTransaction {
  // Mark of its commit frame (after padding, of the last repeat). Of a frame taken by position it
  // carries the published checksum if it is the bound's frame, else the one stored in its header.
  WalMark end;
  uint32_t database_pages = 0;  // of the commit frame
  // Last version of each page, ascending frame; only pages <= database_pages, never the lock page.
  std::vector<FrameRef> pages;
  // The images of `pages`, in that order, when the frames of the transaction, superseded ones
  // included, are together at most kInlineBytesMax; else empty and ReadPage() fetches them.
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

  // Whether `mark` is a point of the generation now in the file: salts equal and, for frame > 0,
  // the stored checksum and salts of that frame are the mark's. A commit frame that SQLite left
  // without salts and checksum (invariant 2) cannot be told from another such: it counts as the
  // mark's. O(1).
  Result<bool> Contains(const WalMark& mark) const;

  enum class End {
    kTransaction,  // `transaction` is set
    kBound,        // nothing more at or below the bound
    kChainEnd,     // no bound given: the chain ends here, without a further commit
    // `from` is not a point of what is in the file: the header has other salts (it was reset), or
    // (bounded only) the frame of `from` was overwritten under the same salts.
    kOtherGeneration,
  };
  struct Outcome {
    End end = End::kChainEnd;
    WalTransaction transaction;
    // Where to go on. kTransaction: its end. kBound, kChainEnd: `from`, moved past padding repeats
    // that were not there yet when the transaction was delivered.
    WalMark mark;
  };
  // The first transaction after `from`. With `bound`, at most to bound->max_frame, and only if the
  // bound is of the same generation as `from` (else kOtherGeneration). Without, by the chain alone.
  // A bound below `from` is kBound: whether it is only late or SQLite lost frames (a recovery after
  // invariant 2's bug does), the caller alone can know.
  // Errors: LOCAL_IO only: reading failed, or a published frame is missing or is no frame of this
  // generation. Without a bound, a torn or unexpected frame is an Outcome, not an error.
  Result<Outcome> Next(const WalMark& from, const std::optional<Published>& bound);

  // Page image of a frame delivered before. REQUIRES: out.size() == page size.
  // The caller verifies it (FrameRef::hash): a foreign reset may have overwritten it since.
  Status ReadPage(uint32_t frame, uint32_t page_size, std::span<std::byte> out) const;

  // How many transactions had frames that had to be taken by position (invariant 2).
  uint64_t chain_breaks() const { return chain_breaks_; }

 private:
  // The commit frame at `mark`, for telling repeats of it (invariant 3).
  struct CommitFrame {
    WalMark mark;
    Pgno pgno;
    uint32_t commit_pages = 0;
    std::vector<std::byte> page;
  };
  class Scan;

  // Reads the header again: whether it is of the generation of `from`, and the one known of that
  // generation if there is one. Then header_ is set, else not; what was kept of another is dropped.
  Result<bool> SameGeneration(const WalMark& from);
  Result<bool> ContainsFrame(const WalHeader& header, const WalMark& mark) const;
  // The bytes of `frame`, kept or read ahead to at most `last`. Empty: the file ends before its
  // end. Valid until the next call.
  Result<std::span<const std::byte>> FrameAt(uint32_t frame, uint32_t last);
  // Whether a frame repeats commit_.
  bool Repeats(const FrameHeader& header, std::span<const std::byte> page) const;
  // Fills commit_ with the frame at `mark` unless it is there.
  Status LoadCommitFrame(const WalMark& mark);
  Result<Outcome> Unpublishable(const WalMark& from, uint32_t frame, std::string_view what);
  void DropBuffer();

  const File& wal_;
  uint64_t chain_breaks_ = 0;

  std::optional<WalHeader> header_;  // of the generation everything below was read from
  std::vector<std::byte> buffer_;    // whole frames first_ .. first_ + count_ - 1
  uint32_t first_ = 0;
  uint32_t count_ = 0;
  uint32_t buffer_bound_ = 0;  // the bound in force when it was read
  size_t read_ahead_ = 0;      // bytes of the next read
  CommitFrame commit_;
};

}  // namespace guildlite
