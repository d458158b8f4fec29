// The file a restore grows in: `.<name>.guildlite-restore-<hex>` beside the target until it is
// whole, then at once the target.
//
//   1. The temp file is locked (flock) as long as its restore runs. Create() removes the unlocked
//      ones of the same name: what killed restores left.
//   2. Publish() never replaces anything and never leaves a name it could not make durable.
//   3. No descriptor of ours is open on the file once it has its final name: closing one would drop
//      the POSIX locks of whoever in this process has opened it as a database by then (fcntl(2)).
//
// Writes that follow each other are gathered; reads see them. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/status.h"
#include "vfs/base/file_io.h"

namespace guildlite {

// EXISTS if there is a file of that name, or one SQLite would take for part of it.
Status CheckNothingAt(const std::string& path);

class RestoreFile {
 public:
  // BAD_ARGUMENT: no such directory.
  static Result<std::unique_ptr<RestoreFile>> Create(const std::string& directory,
                                                     const std::string& name, Random& random);
  // Removes the temp file, with whatever SQLite left beside it.
  ~RestoreFile();
  RestoreFile(const RestoreFile&) = delete;
  RestoreFile& operator=(const RestoreFile&) = delete;

  const std::string& temp_path() const { return temp_path_; }

  Status Write(uint64_t offset, std::span<const std::byte> bytes);
  // All of `out`, or LOCAL_IO.
  Status Read(uint64_t offset, std::span<std::byte> out);
  Status Resize(uint64_t size);
  // Takes the temp name away; Publish() is not possible any more.
  void Unlink();
  // Nothing may be done with the file afterwards.
  Status Publish(const std::string& path);

 private:
  RestoreFile(File file, std::string temp_path);
  Status Flush();

  File file_;
  std::string temp_path_;
  bool named_ = true;
  std::vector<std::byte> gathered_;
  uint64_t gathered_offset_ = 0;
};

}  // namespace guildlite
