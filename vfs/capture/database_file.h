// DatabaseFile: reading the main database file by position. The shim implements it over a handle of
// its own from the base VFS (never open(2): closing it would drop SQLite's POSIX locks; never the
// application's sqlite3_file, which may be remapped while we read, hazard H14). What it reads may
// be torn or newer than what is captured: every caller proves a page by its hash.
#pragma once

#include <cstdint>
#include <span>

#include "guildlite/status.h"

namespace guildlite {

class DatabaseFile {
 public:
  virtual ~DatabaseFile() = default;
  // Bytes read; fewer than asked only at the end of the file. Thread-safe.
  virtual Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) = 0;
  virtual Result<uint64_t> Size() = 0;
};

}  // namespace guildlite
