#include "vfs/base/file_io.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "vfs/base/bytes.h"

namespace guildlite {

Status ErrnoStatus(int error, std::string_view doing, std::string_view path) {
  const std::string message =
      std::string(doing) + " " + std::string(path) + ": " + std::generic_category().message(error);
  if (error == ENOENT) return Status(Tag::kNotFound, message);
  if (error == ENOSPC || error == EDQUOT) return Status(Tag::kDiskFull, message, true);
  return Status(Tag::kLocalIo, message, error == EINTR || error == EAGAIN);
}

File::~File() { Close(); }

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = std::exchange(other.fd_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

void File::Close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Result<File> File::Open(const std::string& path, int flags, mode_t mode) {
  File f;
  do {
    f.fd_ = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (f.fd_ < 0 && errno == EINTR);
  if (f.fd_ < 0) return ErrnoStatus(errno, "open", path);
  f.path_ = path;
  return f;
}

Result<size_t> File::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "read", path_);
    }
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

Status File::WriteAt(uint64_t offset, std::span<const std::byte> bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write", path_);
    }
    done += static_cast<size_t>(n);
  }
  return Status::Ok();
}

Result<uint64_t> File::Size() const {
  struct stat st;
  if (::fstat(fd_, &st) != 0) return ErrnoStatus(errno, "stat", path_);
  return static_cast<uint64_t>(st.st_size);
}

Status File::Truncate(uint64_t size) const {
  while (::ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "truncate", path_);
  }
  return Status::Ok();
}

Status File::Sync() const {
  while (::fsync(fd_) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "fsync", path_);
  }
  return Status::Ok();
}

Status File::SyncData() const {
  while (::fdatasync(fd_) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "fdatasync", path_);
  }
  return Status::Ok();
}

namespace {

FileIdentity ToIdentity(const struct stat& st) {
  return {static_cast<uint64_t>(st.st_dev), static_cast<uint64_t>(st.st_ino),
          static_cast<uint64_t>(st.st_size),
          int64_t{st.st_mtim.tv_sec} * 1000000000 + st.st_mtim.tv_nsec,
          int64_t{st.st_ctim.tv_sec} * 1000000000 + st.st_ctim.tv_nsec};
}

}  // namespace

Result<FileIdentity> File::Identity() const {
  struct stat st;
  if (::fstat(fd_, &st) != 0) return ErrnoStatus(errno, "stat", path_);
  return ToIdentity(st);
}

Result<FileIdentity> IdentityOf(const std::string& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return ErrnoStatus(errno, "stat", path);
  return ToIdentity(st);
}

bool FileExists(const std::string& path) {
  struct stat st;
  return ::lstat(path.c_str(), &st) == 0;
}

Result<std::string> ReadWholeFile(const std::string& path) {
  auto file = File::Open(path, O_RDONLY);
  if (!file.ok()) return file.status();
  auto size = file->Size();
  if (!size.ok()) return size.status();
  std::string content(*size, '\0');
  auto n = file->ReadAt(0, std::as_writable_bytes(std::span(content.data(), content.size())));
  if (!n.ok()) return n.status();
  content.resize(*n);
  return content;
}

Status ReplaceFile(const std::string& path, std::string_view content) {
  static std::atomic<uint64_t> counter{0};
  const std::string temp =
      path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
  Status status;
  {
    auto file = File::Open(temp, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (!file.ok()) return file.status();
    status = file->WriteAt(0, AsBytes(content));
    if (status.ok()) status = file->Sync();
  }
  if (status.ok() && ::rename(temp.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename to", path);
  }
  if (!status.ok()) {
    ::unlink(temp.c_str());
    return status;
  }
  return SyncDirectory(DirectoryOf(path));
}

Status SyncDirectory(const std::string& path) {
  auto dir = File::Open(path, O_RDONLY | O_DIRECTORY);
  if (!dir.ok()) return dir.status();
  return dir->Sync();
}

Status MakeDirectory(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0 || errno == EEXIST) return Status::Ok();
  return ErrnoStatus(errno, "create directory", path);
}

Status RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return Status::Ok();
  return ErrnoStatus(errno, "remove", path);
}

Result<std::vector<std::string>> ListDirectory(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), &::closedir);
  if (!dir) return ErrnoStatus(errno, "list", path);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (!entry) {
      if (errno != 0) return ErrnoStatus(errno, "list", path);
      break;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string DirectoryOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

std::string BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

std::string BootId() {
  // Size 0 in /proc, so not ReadWholeFile().
  auto file = File::Open("/proc/sys/kernel/random/boot_id", O_RDONLY);
  if (!file.ok()) return {};
  std::string id(64, '\0');
  auto n = file->ReadAt(0, std::as_writable_bytes(std::span(id.data(), id.size())));
  if (!n.ok()) return {};
  id.resize(*n);
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

}  // namespace guildlite
