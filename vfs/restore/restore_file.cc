#include "vfs/restore/restore_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <utility>

namespace guildlite {
namespace {

constexpr std::string_view kTempMark = ".guildlite-restore-";
constexpr size_t kTempHexDigits = 16;
constexpr size_t kGatherBytesMax = 256 << 10;  // beyond this a larger write(2) gains nothing
constexpr int kNameTriesMax = 8;  // of 64 random bits: only a cleaner can be in the way
// sqlite.org/tempfiles.html; the journal of a database of that name is played back at open.
constexpr std::string_view kSiblings[] = {"-wal", "-shm", "-journal"};

// kNotFound is for objects; of a file or directory it is trouble of the local disk.
Status Local(Status status) {
  if (status.tag() != Tag::kNotFound) return status;
  return Status(Tag::kLocalIo, status.message(), status.retryable());
}

std::string TempPrefix(const std::string& name) { return "." + name + std::string(kTempMark); }

bool IsTempName(std::string_view entry, std::string_view prefix) {
  return entry.size() == prefix.size() + kTempHexDigits && entry.starts_with(prefix) &&
         entry.find_first_not_of("0123456789abcdef", prefix.size()) == std::string_view::npos;
}

void RemoveWithSiblings(const std::string& path) {
  // The siblings first: a kill in between leaves the name by which they are found again.
  for (const std::string_view sibling : kSiblings) ::unlink((path + std::string(sibling)).c_str());
  ::unlink(path.c_str());
}

// Best effort: a leftover costs space, not safety.
void RemoveLeftovers(const std::string& directory, const std::string& name) {
  const auto entries = ListDirectory(directory);
  if (!entries.ok()) return;
  const std::string prefix = TempPrefix(name);
  for (const std::string& entry : *entries) {
    if (!IsTempName(entry, prefix)) continue;
    const std::string path = directory + "/" + entry;
    struct stat st;
    if (::lstat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) continue;
    if (st.st_nlink > 1) {
      // Killed between link(2) and unlink(2): the other name is a database, not to be opened here.
      ::unlink(path.c_str());
      continue;
    }
    const auto file = File::Open(path, O_RDWR | O_NOFOLLOW);
    if (file.ok() && ::flock(file->fd(), LOCK_EX | LOCK_NB) == 0) RemoveWithSiblings(path);
  }
}

std::string Hex(uint64_t n) {
  std::array<char, kTempHexDigits + 1> buf;
  std::snprintf(buf.data(), buf.size(), "%016llx", static_cast<unsigned long long>(n));
  return buf.data();
}

// Gives the temp file its final name, without ever replacing a file.
int LinkOrRename(const std::string& from, const std::string& to) {
  if (::link(from.c_str(), to.c_str()) == 0) return 0;
  // EPERM: "The filesystem containing oldpath and newpath does not support the creation of hard
  // links" (link(2)); FUSE and network mounts say the others.
  if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK) return errno;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  return errno;
}

}  // namespace

Status CheckNothingAt(const std::string& path) {
  if (FileExists(path)) {
    return Status(Tag::kExists, path +
                                    " exists: a restore never replaces a file; move it away, or "
                                    "restore to another name");
  }
  for (const std::string_view sibling : kSiblings) {
    const std::string other = path + std::string(sibling);
    if (FileExists(other)) {
      return Status(Tag::kExists, other +
                                      " exists, without its database: SQLite would apply it to "
                                      "the restored file and damage it; move it away first");
    }
  }
  return Status::Ok();
}

RestoreFile::RestoreFile(File file, std::string temp_path)
    : file_(std::move(file)), temp_path_(std::move(temp_path)) {
  gathered_.reserve(kGatherBytesMax);
}

RestoreFile::~RestoreFile() {
  if (named_) RemoveWithSiblings(temp_path_);
}

Result<std::unique_ptr<RestoreFile>> RestoreFile::Create(const std::string& directory,
                                                         const std::string& name, Random& random) {
  struct stat st;
  if (::stat(directory.c_str(), &st) != 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR) {
      return Status(Tag::kBadArgument,
                    "restore to " + name + ": there is no directory " + directory + "; create it");
    }
    return ErrnoStatus(error, "look at directory", directory);
  }
  if (!S_ISDIR(st.st_mode)) {
    return Status(Tag::kBadArgument, "restore to " + name + ": " + directory + " is no directory");
  }
  RemoveLeftovers(directory, name);
  for (int i = 0; i < kNameTriesMax; i++) {
    const std::string path = directory + "/" + TempPrefix(name) + Hex(random.Next64());
    auto file = File::Open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
    if (!file.ok()) {
      if (FileExists(path)) continue;
      return Local(file.status()).Context("restore into directory " + directory);
    }
    if (::flock(file->fd(), LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      if (error == EWOULDBLOCK) continue;  // a cleaner came first and takes it away
      ::unlink(path.c_str());
      return Local(ErrnoStatus(error, "lock", path));
    }
    // A cleaner may have locked, removed and released it before our lock.
    const auto ours = file->Identity();
    const auto named = IdentityOf(path);
    if (!ours.ok() || !named.ok() || !ours->SameFile(*named)) continue;
    return std::unique_ptr<RestoreFile>(new RestoreFile(std::move(*file), path));
  }
  return Status(Tag::kLocalIo, "restore into directory " + directory + ": no temp name is free",
                true);
}

Status RestoreFile::Write(uint64_t offset, std::span<const std::byte> bytes) {
  if (offset != gathered_offset_ + gathered_.size() ||
      gathered_.size() + bytes.size() > kGatherBytesMax) {
    GUILDLITE_RETURN_IF_ERROR(Flush());
    gathered_offset_ = offset;
  }
  gathered_.insert(gathered_.end(), bytes.begin(), bytes.end());
  return Status::Ok();
}

Status RestoreFile::Flush() {
  if (gathered_.empty()) return Status::Ok();
  GUILDLITE_RETURN_IF_ERROR(Local(file_.WriteAt(gathered_offset_, gathered_)));
  gathered_.clear();
  return Status::Ok();
}

Status RestoreFile::Read(uint64_t offset, std::span<std::byte> out) {
  const uint64_t end = gathered_offset_ + gathered_.size();
  if (offset < end && gathered_offset_ < offset + out.size()) {
    GUILDLITE_RETURN_IF_ERROR(Flush());
  }
  const auto n = file_.ReadAt(offset, out);
  if (!n.ok()) return Local(n.status());
  if (*n != out.size()) {
    return Status(Tag::kLocalIo, "read " + temp_path_ + ": it ends before byte " +
                                     std::to_string(offset + out.size()));
  }
  return Status::Ok();
}

Status RestoreFile::Resize(uint64_t size) {
  GUILDLITE_RETURN_IF_ERROR(Flush());
  return Local(file_.Truncate(size));
}

void RestoreFile::Unlink() {
  RemoveWithSiblings(temp_path_);
  named_ = false;
}

Status RestoreFile::Publish(const std::string& path) {
  GUILDLITE_RETURN_IF_ERROR(Flush());
  GUILDLITE_RETURN_IF_ERROR(Local(file_.Sync()));
  GUILDLITE_RETURN_IF_ERROR(CheckNothingAt(path));
  // Invariant 3, at a price: a second restore to the same name may now take the temp file for a
  // leftover. Then this one fails, and one of the two had to.
  file_.Close();
  if (const int error = LinkOrRename(temp_path_, path); error != 0) {
    if (error == EEXIST) {
      const Status exists = CheckNothingAt(path);
      if (!exists.ok()) return exists;
      return Status(Tag::kExists, path + " existed a moment ago; try again", true);
    }
    if (error == ENOENT) {
      return Status(Tag::kLocalIo, "restore to " + path + ": another restore to it is running",
                    true);
    }
    return Local(ErrnoStatus(error, "link", path));
  }
  RemoveWithSiblings(temp_path_);
  named_ = false;
  if (Status s = Local(SyncDirectory(DirectoryOf(path))); !s.ok()) {
    ::unlink(path.c_str());
    return s;
  }
  return Status::Ok();
}

}  // namespace guildlite
