#include "vfs/objects/local_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <system_error>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "vfs/base/file_io.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr std::string_view kTempPrefix = ".tmp-";
constexpr std::string_view kLockName = ".guildlite-lock";
constexpr time_t kTempAgeMaxSeconds = 24 * 3600;
constexpr int64_t kLockPollMsMax = 50;

// Not base's File: what an error means depends on its number, which File has turned into text.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) {
    do {
      // As cp(1) makes files: who may read them is the umask's and the root directory's business.
      fd_ = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EINTR);
    error_ = fd_ < 0 ? errno : 0;
  }
  Descriptor(Descriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), error_(other.error_) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int fd() const { return fd_; }
  int error() const { return error_; }  // of open(2); 0 = open

  // The rest return 0 or an errno value.
  int Write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR) return errno;
      if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
    }
    return 0;
  }
  int Sync() const {
    while (::fsync(fd_) != 0) {
      if (errno != EINTR) return errno;
    }
    return 0;
  }
  // Cuts `out` where the file ends.
  int Read(uint64_t offset, Bytes* out) const {
    size_t done = 0;
    while (done < out->size()) {
      const ssize_t n =
          ::pread(fd_, out->data() + done, out->size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno != EINTR) return errno;
      if (n == 0) break;
      if (n > 0) done += static_cast<size_t>(n);
    }
    out->resize(done);
    return 0;
  }

 private:
  int fd_ = -1;
  int error_ = 0;
};

int SyncDirectoryAt(const std::string& path) {
  const Descriptor directory(path, O_RDONLY | O_DIRECTORY);
  return directory.error() != 0 ? directory.error() : directory.Sync();
}

std::string VersionOf(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  std::array<char, 33> text;
  std::snprintf(text.data(), text.size(), "%016llx%016llx",
                static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text.data();
}

bool IsOwnName(std::string_view segment) {
  return segment.starts_with(kTempPrefix) || segment == kLockName;
}

Status CheckKey(std::string_view key) {
  bool good = IsValidKey(key);
  for (size_t at = 0; good && at != std::string_view::npos;) {
    const size_t slash = key.find('/', at);
    good = !IsOwnName(key.substr(at, slash - at));
    at = slash == std::string_view::npos ? slash : slash + 1;
  }
  if (good) return Status::Ok();
  return Status(Tag::kBadArgument, "object key '" + std::string(key) + "' is malformed");
}

bool IsDirectory(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

// Makes the new name `path` durable. When that fails the object is there, but a power loss may take
// it.
Status SyncName(const std::string& path) {
  const std::string directory = DirectoryOf(path);
  const int error = SyncDirectoryAt(directory);
  if (error == 0) return Status::Ok();
  return Status(Tag::kOutcomeUnknown, StoreErrnoStatus(error, "fsync", directory).message(), true);
}

Status Vanished(const std::string& path) {
  return Status(Tag::kStoreUnreachable,
                "put " + path + ": its directory or temporary file was removed meanwhile", true);
}

// `.tmp-` and 16 hex digits: what WriteTemp() makes, and nobody else by accident.
bool IsTempName(std::string_view name) {
  return name.size() == kTempPrefix.size() + 16 && name.starts_with(kTempPrefix) &&
         name.find_first_not_of("0123456789abcdef", kTempPrefix.size()) == std::string_view::npos;
}

}  // namespace

Status StoreErrnoStatus(int error, std::string_view doing, std::string_view path) {
  const std::string message =
      std::string(doing) + " " + std::string(path) + ": " + std::generic_category().message(error);
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      return Status(
          Tag::kStoreDenied,
          message + "; the user this program runs as needs to read, write and search there");
    case ENOSPC:
    case EDQUOT:
      return Status(Tag::kDiskFull, message, true);
    case ENOENT:
      return Status(Tag::kNoBucket, message +
                                        "; only the last component of a store's path is created: "
                                        "make the one above it, or mount its volume");
    case ENOTDIR:
    case EISDIR:
      return Status(Tag::kNoBucket, message + "; a file and a directory are in each other's place");
    case ELOOP:
    case ENAMETOOLONG:
      return Status(Tag::kBadUrl, message);
    case EXDEV:
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOLCK:
      return Status(Tag::kStoreUnsafe, message +
                                           "; a store needs a file system with hard links and "
                                           "flock(2), and all of it in one");
    case EIO:
    case ESTALE:
    case ETIMEDOUT:
    case ENODEV:
    case ENXIO:
    case ENOTCONN:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EREMOTEIO:
    case EBUSY:
    case EAGAIN:
    case EINTR:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return Status(Tag::kStoreUnreachable, message, true);
    default:
      return Status(Tag::kLocalIo, message);
  }
}

// Invariant 3, for the life of the object.
class LocalStore::Lock {
 public:
  static Result<Lock> Take(const std::string& root, Clock& clock) {
    const std::string path = root + "/" + std::string(kLockName);
    const int64_t give_up_ms = clock.MonotonicMs() + kLockWaitMs;
    int64_t pause_ms = 1;
    for (;;) {
      Descriptor file(path, O_RDONLY | O_CREAT);
      if (file.error() != 0) return StoreErrnoStatus(file.error(), "open", path);
      if (::flock(file.fd(), LOCK_EX | LOCK_NB) == 0) {
        // Somebody may have removed the file meanwhile: a lock of what nobody else opens is none.
        struct stat ours, named;
        if (::fstat(file.fd(), &ours) == 0 && ::stat(path.c_str(), &named) == 0 &&
            ours.st_ino == named.st_ino && ours.st_dev == named.st_dev) {
          return Lock(std::move(file));
        }
      } else if (errno != EWOULDBLOCK && errno != EINTR) {
        return StoreErrnoStatus(errno, "lock", path);
      }
      if (clock.MonotonicMs() >= give_up_ms) {
        return Status(Tag::kStoreUnreachable,
                      "lock " + path + ": another process has held it for " +
                          std::to_string(kLockWaitMs) + " ms; is it stopped?",
                      true);
      }
      std::mutex mutex;
      std::condition_variable never;
      std::unique_lock lock(mutex);
      clock.WaitFor(never, lock, pause_ms);
      pause_ms = std::min(pause_ms * 2, kLockPollMsMax);
    }
  }
  Lock(Lock&&) noexcept = default;
  // Said aloud, not left to close(2): a child forked meanwhile holds the same open file.
  ~Lock() {
    if (file_.fd() >= 0) ::flock(file_.fd(), LOCK_UN);
  }

 private:
  explicit Lock(Descriptor file) : file_(std::move(file)) {}
  Descriptor file_;
};

LocalStore::LocalStore(std::string root, Clock& clock, Random& random)
    : root_(std::move(root)), clock_(clock), random_(random) {}

std::string LocalStore::PathOf(std::string_view key) const {
  return root_ + "/" + std::string(key);
}

Result<std::string> LocalStore::Put(std::string_view key, std::string_view bytes,
                                    const PutCondition& condition) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const std::string path = PathOf(key);
  GUILDLITE_RETURN_IF_ERROR(MakeDirectoryDurable(DirectoryOf(path)));
  auto temp = WriteTemp(bytes);
  if (!temp.ok()) return temp.status();
  const Status status = condition.kind == PutCondition::Kind::kCreate
                            ? Create(*temp, path)
                            : Replace(*temp, path, condition);
  if (!status.ok()) return status;
  return VersionOf(bytes);
}

Status LocalStore::Create(const std::string& temp, const std::string& path) {
  const int error = ::link(temp.c_str(), path.c_str()) == 0 ? 0 : errno;
  // Before the fsync, which then covers it where both names are in one directory. If it fails, the
  // file is swept in a day.
  ::unlink(temp.c_str());
  switch (error) {
    case 0:
      return SyncName(path);
    case EEXIST: {
      if (IsDirectory(path)) return StoreErrnoStatus(EISDIR, "create", path);
      const Status synced = SyncName(path);
      return synced.ok() ? Status(Tag::kAlreadyExists, "create " + path + ": it exists") : synced;
    }
    case ENOENT:
      return Vanished(path);
    // link(2): "The filesystem containing oldpath and newpath does not support the creation of hard
    // links."
    case EPERM:
      return StoreErrnoStatus(EOPNOTSUPP, "link", path);
    default:
      return StoreErrnoStatus(error, "link", path);
  }
}

Status LocalStore::Replace(const std::string& temp, const std::string& path,
                           const PutCondition& condition) {
  const Status status = ReplaceLocked(temp, path, condition);
  if (!status.ok()) ::unlink(temp.c_str());
  return status;
}

Status LocalStore::ReplaceLocked(const std::string& temp, const std::string& path,
                                 const PutCondition& condition) {
  auto lock = Lock::Take(root_, clock_);
  if (!lock.ok()) return lock.status();
  if (condition.kind == PutCondition::Kind::kMatch) {
    const Descriptor file(path, O_RDONLY | O_NONBLOCK);
    if (file.error() != 0 && file.error() != ENOENT) {
      return StoreErrnoStatus(file.error(), "open", path);
    }
    bool matches = false;
    if (file.error() == 0) {
      struct stat st;
      if (::fstat(file.fd(), &st) != 0) return StoreErrnoStatus(errno, "stat", path);
      Bytes bytes(static_cast<size_t>(st.st_size), '\0');
      if (const int error = file.Read(0, &bytes); error != 0) {
        return StoreErrnoStatus(error, "read", path);
      }
      matches = VersionOf(bytes) == condition.version;
    }
    if (!matches) return Status(Tag::kPrecondition, "replace " + path + ": it changed meanwhile");
  }
  if (::rename(temp.c_str(), path.c_str()) != 0) {
    return errno == ENOENT ? Vanished(path) : StoreErrnoStatus(errno, "rename to", path);
  }
  // Inside the lock: the next swap must not become durable before this one.
  return SyncName(path);
}

Result<std::string> LocalStore::WriteTemp(std::string_view bytes) {
  std::string path;
  {
    constexpr int kTries = 8;  // 64 random bits collide only with a broken source
    std::optional<Descriptor> file;
    for (int i = 0; i < kTries && (!file || file->error() == EEXIST); ++i) {
      std::array<char, 17> name;
      std::snprintf(name.data(), name.size(), "%016llx",
                    static_cast<unsigned long long>(random_.Next64()));
      path = root_ + "/" + std::string(kTempPrefix) + name.data();
      file.emplace(path, O_WRONLY | O_CREAT | O_EXCL);
    }
    if (file->error() != 0) return StoreErrnoStatus(file->error(), "create", path);
    int error = file->Write(bytes);
    if (error == 0) error = file->Sync();
    if (error != 0) {
      ::unlink(path.c_str());
      return StoreErrnoStatus(error, "write", path);
    }
  }
  SweepTemps(path);
  return path;
}

void LocalStore::SweepTemps(const std::string& newest) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(swept_, true)) return;
  }
  struct stat ours;
  if (::stat(newest.c_str(), &ours) != 0) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(root_.c_str()), &::closedir);
  if (!directory) return;
  while (const dirent* entry = ::readdir(directory.get())) {
    struct stat st;
    if (IsTempName(entry->d_name) &&
        ::fstatat(::dirfd(directory.get()), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(st.st_mode) && st.st_mtim.tv_sec < ours.st_mtim.tv_sec - kTempAgeMaxSeconds) {
      ::unlinkat(::dirfd(directory.get()), entry->d_name, 0);
    }
  }
}

// mkdir(2) of `path` and of what is above it down from the root, each name fsynced once.
Status LocalStore::MakeDirectoryDurable(const std::string& path) {
  bool done_before;
  {
    const std::lock_guard lock(mutex_);
    done_before = durable_directories_.contains(path);
  }
  // Looked at each time: somebody may have removed it since.
  if (done_before && IsDirectory(path)) return Status::Ok();
  const std::string parent = DirectoryOf(path);
  if (path != root_) GUILDLITE_RETURN_IF_ERROR(MakeDirectoryDurable(parent));
  const bool made = ::mkdir(path.c_str(), 0777) == 0;
  if (!made && !(errno == EEXIST && IsDirectory(path))) {
    if (errno == EEXIST) return StoreErrnoStatus(ENOTDIR, "create directory", path);
    return StoreErrnoStatus(errno, "create directory", path);
  }
  // A root that was there may stand in a directory that is not ours to open.
  if (const int error = SyncDirectoryAt(parent); error != 0 && (made || error != EACCES)) {
    return StoreErrnoStatus(error, "fsync", parent);
  }
  const std::lock_guard lock(mutex_);
  durable_directories_.insert(path);
  return Status::Ok();
}

Status LocalStore::Missing(const std::string& path) const {
  struct stat st;
  if (::stat(root_.c_str(), &st) == 0) {
    if (!S_ISDIR(st.st_mode)) return StoreErrnoStatus(ENOTDIR, "open", root_);
  } else if (errno != ENOENT) {
    return StoreErrnoStatus(errno, "open", root_);
  } else if (!IsDirectory(DirectoryOf(root_))) {
    return StoreErrnoStatus(ENOENT, "open", root_);
  }
  return Status(Tag::kNotFound, "open " + path + ": no such object");
}

Result<StoredObject> LocalStore::Get(std::string_view key, std::optional<ByteRange> range) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const std::string path = PathOf(key);
  // O_NONBLOCK: somebody's FIFO by this name must not hold us.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  if (file.error() == ENOENT || file.error() == ENOTDIR) return Missing(path);
  if (file.error() != 0) return StoreErrnoStatus(file.error(), "open", path);
  struct stat st;
  if (::fstat(file.fd(), &st) != 0) return StoreErrnoStatus(errno, "stat", path);
  if (S_ISDIR(st.st_mode)) return Missing(path);
  if (!S_ISREG(st.st_mode)) {
    return Status(Tag::kLocalIo, "open " + path + ": not a regular file; it is not ours");
  }
  const auto size = static_cast<uint64_t>(st.st_size);
  const uint64_t offset = std::min(range ? range->offset : 0, size);
  const uint64_t length = std::min(range ? range->length : size, size - offset);
  StoredObject object;
  object.size = size;
  object.bytes.resize(length);
  if (const int error = file.Read(offset, &object.bytes); error != 0) {
    return StoreErrnoStatus(error, "read", path);
  }
  if (object.bytes.size() == size) object.version = VersionOf(object.bytes);
  return object;
}

Result<std::vector<ListEntry>> LocalStore::List(std::string_view prefix,
                                                std::string_view start_after, size_t limit) {
  std::vector<ListEntry> entries;
  GUILDLITE_RETURN_IF_ERROR(Walk("", prefix, start_after, limit, &entries));
  return entries;
}

// `directory_key` is "" or ends with '/'.
Status LocalStore::Walk(const std::string& directory_key, std::string_view prefix,
                        std::string_view start_after, size_t limit,
                        std::vector<ListEntry>* entries) const {
  const std::string path = PathOf(directory_key);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
  if (!directory) {
    if (errno != ENOENT && errno != ENOTDIR) return StoreErrnoStatus(errno, "list", path);
    const Status missing = Missing(path);
    return missing.tag() == Tag::kNotFound ? Status::Ok() : missing;
  }
  // Directories with their '/', so that the order of names is the order of the keys below them:
  // "a-b" comes before "a/c".
  std::vector<std::pair<std::string, uint64_t>> found;
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(directory.get());
    if (!entry) {
      if (errno != 0) return StoreErrnoStatus(errno, "list", path);
      break;
    }
    std::string key = directory_key + entry->d_name;
    if (IsOwnName(entry->d_name) || !IsValidKey(key)) continue;
    const bool leads_to_prefix = prefix.starts_with(key);
    if (!leads_to_prefix && !key.starts_with(prefix)) continue;
    struct stat st;
    if (::fstatat(::dirfd(directory.get()), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // deleted meanwhile
      return StoreErrnoStatus(errno, "stat", path + entry->d_name);
    }
    if (S_ISDIR(st.st_mode)) {
      key += '/';
    } else if (!S_ISREG(st.st_mode)) {
      continue;
    }
    found.emplace_back(std::move(key), static_cast<uint64_t>(st.st_size));
  }
  std::sort(found.begin(), found.end());
  for (auto& [key, size] : found) {
    if (entries->size() >= limit) break;
    if (key.back() == '/') {
      const bool may_hold = prefix.starts_with(key) || key.starts_with(prefix);
      const bool is_past = key > start_after || start_after.starts_with(key);
      if (may_hold && is_past) {
        GUILDLITE_RETURN_IF_ERROR(Walk(key, prefix, start_after, limit, entries));
      }
    } else if (key.starts_with(prefix) && key > start_after) {
      entries->push_back({std::move(key), size});
    }
  }
  return Status::Ok();
}

Status LocalStore::Delete(std::string_view key) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const std::string path = PathOf(key);
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) return StoreErrnoStatus(errno, "stat", path);
    const Status missing = Missing(path);
    return missing.tag() == Tag::kNotFound ? Status::Ok() : missing;
  }
  if (S_ISDIR(st.st_mode)) return Status::Ok();
  auto lock = Lock::Take(root_, clock_);
  if (!lock.ok()) return lock.status();
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return StoreErrnoStatus(errno, "remove", path);
  }
  return Status::Ok();
}

}  // namespace guildlite
