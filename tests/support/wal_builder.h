// WalBuilder: a -wal file built frame by frame, the good and the bad ones.
//
// It keeps the bytes, the index of the next frame and the checksum chain; every call overwrites
// from the next frame on and leaves what lies beyond, as SQLite does. The bytes are an independent
// statement of the format: nothing here comes from vfs/capture/wal_format.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "guildlite/types.h"
#include "vfs/base/checksum.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/wal_tailer.h"

namespace guildlite::testing {

// An unnamed file in memory.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content = {});
  // The whole content becomes `content`.
  void Set(std::string_view content);
  const File& file() const { return file_; }

 private:
  File file_;
};

class WalBuilder {
 public:
  explicit WalBuilder(uint32_t page_size = 512, bool big_endian = false, uint32_t salt1 = 0x1000,
                      uint32_t salt2 = 0x2000);

  // A page whose bytes follow from `seed`.
  std::string Page(uint64_t seed) const;

  // Appends a valid frame. `commit_pages` != 0 makes it a commit frame.
  WalBuilder& Frame(uint32_t pgno, uint32_t commit_pages, std::string_view page);
  WalBuilder& Frame(uint32_t pgno, uint32_t commit_pages, uint64_t seed) {
    return Frame(pgno, commit_pages, Page(seed));
  }
  // A frame as walEncodeFrame() leaves it while a re-checksum pass is owed: no salts, no checksum.
  // The chain goes on as if it were not there.
  WalBuilder& UnsealedFrame(uint32_t pgno, uint32_t commit_pages, uint64_t seed);
  // The last frame written, again, as padding to the sector end.
  WalBuilder& Repeat();

  // The next frame overwrites the one after `mark`.
  WalBuilder& Rewind(const WalMark& mark);
  // A new generation: the header is overwritten, the next frame is 1, old frames stay behind it.
  WalBuilder& Reset(uint32_t salt1, uint32_t salt2);

  // The bytes become those of the file; until then they are only here.
  WalBuilder& Write();
  const File& file() const { return file_.file(); }
  MemoryFile& memory_file() { return file_; }

  // After the last frame written.
  WalMark mark() const { return {salt1_, salt2_, frame_, chain_.s0, chain_.s1}; }
  // What the wal-index says when everything up to the last frame is committed.
  Published published() const;

  uint32_t page_size() const { return page_size_; }
  std::string& bytes() { return bytes_; }

 private:
  void Append(std::string_view header, std::string_view page);
  void WriteHeader();

  uint32_t page_size_;
  bool big_endian_;
  uint32_t salt1_, salt2_;
  uint32_t sequence_ = 0;
  uint32_t frame_ = 0;
  uint32_t database_pages_ = 0;
  WalChecksum chain_;
  std::string bytes_;
  std::string last_;  // the last frame appended
  MemoryFile file_;
};

// The seed of a random test: GUILDLITE_SEED if set, else a new one. Prints it.
uint64_t TestSeed();

}  // namespace guildlite::testing
