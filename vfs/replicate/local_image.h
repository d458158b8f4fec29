// The database as it is committed at one moment, page by page: WAL frames over the file.
//
// It is that moment's as long as what is published stays the same: whoever reads looks again
// afterwards. A checkpoint meanwhile moves pages from one place to the other and changes none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "guildlite/status.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/database_file.h"
#include "vfs/capture/frame_index.h"
#include "vfs/capture/wal_tailer.h"

namespace guildlite {

class LocalImage {
 public:
  // BUSY: the WAL is being reset. `database` outlives it.
  static Result<std::unique_ptr<LocalImage>> Open(DatabaseFile& database,
                                                  const std::string& wal_path,
                                                  const Published& published);
  uint32_t page_size() const { return page_size_; }  // 0: no page at all
  uint32_t pages() const { return pages_; }
  Status Read(Pgno pgno, std::span<std::byte> out);

 private:
  explicit LocalImage(DatabaseFile& database) : database_(database) {}

  DatabaseFile& database_;
  File wal_;
  std::optional<WalTailer> tailer_;
  FrameIndex frames_;
  uint32_t page_size_ = 0;
  uint32_t pages_ = 0;
};

// What the chain of a WAL that nobody writes has committed, as recovery would publish it. No file,
// or none that is a WAL: nothing.
Result<Published> PublishedByChain(const std::string& wal_path);

}  // namespace guildlite
