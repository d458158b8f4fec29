// Local files, as the project uses them: positioned reads and writes, create-or-replace that
// survives power loss, and directory listing. Every error names the path and the system's reason;
// ENOSPC and EDQUOT become DISK_FULL, the rest LOCAL_IO.
//
// Never for a database or a -shm file: close(2) of any descriptor of those drops the process's
// POSIX locks (fcntl(2)). A -wal carries no locks and is safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/status.h"

namespace guildlite {

Status ErrnoStatus(int error, std::string_view doing, std::string_view path);

struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  bool operator==(const FileIdentity&) const = default;
  bool SameFile(const FileIdentity& o) const { return device == o.device && inode == o.inode; }
};

// A descriptor and its path; closes in the destructor. All descriptors are close-on-exec.
class File {
 public:
  File() = default;
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  // `flags` as for open(2). kNotFound for ENOENT.
  static Result<File> Open(const std::string& path, int flags, mode_t mode = 0600);

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  void Close();

  // Bytes read; fewer than asked only at the end of the file.
  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) const;
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) const;
  Result<uint64_t> Size() const;
  Status Truncate(uint64_t size) const;
  Status Sync() const;      // fsync
  Status SyncData() const;  // fdatasync
  Result<FileIdentity> Identity() const;

 private:
  int fd_ = -1;
  std::string path_;
};

Result<FileIdentity> IdentityOf(const std::string& path);  // kNotFound for ENOENT
bool FileExists(const std::string& path);
Result<std::string> ReadWholeFile(const std::string& path);  // kNotFound for ENOENT
// Temp file beside it, fsync, rename, fsync of the directory: the old content or the new, never
// less.
Status ReplaceFile(const std::string& path, std::string_view content);
Status SyncDirectory(const std::string& path);
Status MakeDirectory(const std::string& path);  // Ok if it is there already
Status RemoveFile(const std::string& path);     // Ok if it is gone already
// Names in a directory, sorted, without "." and "..".
Result<std::vector<std::string>> ListDirectory(const std::string& path);

std::string DirectoryOf(std::string_view path);  // "." when there is no slash
std::string BaseName(std::string_view path);

// /proc/sys/kernel/random/boot_id: equal means no power loss and no reboot in between.
std::string BootId();

}  // namespace guildlite
