#include "vfs/shim/node_registry.h"

#include <sqlite3ext.h>

#include <algorithm>
#include <cstddef>

#include "guildlite/clock.h"

namespace guildlite {
namespace {

std::optional<FileIdentity> Identity(const std::string& path) {
  const Result<FileIdentity> identity = IdentityOf(path);
  if (!identity.ok()) return std::nullopt;
  return identity.value();
}

// A handle of our own from the base VFS, opened as a main database so that os_unix.c keeps it in
// the inode's table: unixClose() then defers the close(2) while any connection of this process
// holds a lock (setPendingFd()), which a close(2) of ours would drop. It takes no lock, maps
// nothing, and READONLY|MAIN_DB has no effect on the file at close.
class OwnFile final : public DatabaseFile {
 public:
  static Result<std::unique_ptr<DatabaseFile>> Open(const sqlite3_api_routines& api,
                                                    sqlite3_vfs& vfs, const std::string& path,
                                                    const std::string& wal_path) {
    auto own = std::unique_ptr<OwnFile>(new OwnFile(api, vfs));
    const std::string journal_path = path + "-journal";
    own->name_ =
        api.create_filename(path.c_str(), journal_path.c_str(), wal_path.c_str(), 0, nullptr);
    if (own->name_ == nullptr) return Status(Tag::kLocalIo, "out of memory opening " + path);
    int flags = 0;
    const int code = vfs.xOpen(&vfs, own->name_, own->file(),
                               SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READONLY, &flags);
    if (code != SQLITE_OK) return own->Error(code, "opening");
    return std::unique_ptr<DatabaseFile>(std::move(own));
  }

  ~OwnFile() override {
    if (file()->pMethods != nullptr) file()->pMethods->xClose(file());
    if (name_ != nullptr) api_.free_filename(name_);
  }

  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    const std::lock_guard lock(mutex_);
    size_t done = 0;
    while (done < out.size()) {
      const size_t wanted = std::min(out.size() - done, kReadBytesMax);
      const Result<size_t> got = ReadOnce(offset + done, out.subspan(done, wanted));
      if (!got.ok()) return got;
      done += got.value();
      if (got.value() < wanted) break;
    }
    return done;
  }

  Result<uint64_t> Size() override {
    const std::lock_guard lock(mutex_);
    return SizeLocked();
  }

 private:
  // seekAndRead() of os_unix.c takes at most 0x1ffff bytes at a time.
  static constexpr size_t kReadBytesMax = 64 * 1024;
  static constexpr int kTries = 8;

  OwnFile(const sqlite3_api_routines& api, sqlite3_vfs& vfs)
      : api_(api), memory_(static_cast<size_t>(vfs.szOsFile) / sizeof(std::max_align_t) + 1) {}

  sqlite3_file* file() { return reinterpret_cast<sqlite3_file*>(memory_.data()); }

  Status Error(int code, const char* doing) {
    return {Tag::kLocalIo, std::string(doing) + " " + (name_ != nullptr ? name_ : "a database") +
                               ": " + api_.errstr(code)};
  }

  Result<uint64_t> SizeLocked() {
    sqlite3_int64 size = 0;
    const int code = file()->pMethods->xFileSize(file(), &size);
    if (code != SQLITE_OK) return Error(code, "measuring");
    return static_cast<uint64_t>(size);
  }

  // xRead fills up with zeros at the end of the file and says SHORT_READ but not how short, so the
  // answer comes from the size, and from a full read of what that leaves: a file that grows or
  // shrinks meanwhile never passes zeros off as content.
  Result<size_t> ReadOnce(uint64_t offset, std::span<std::byte> out) {
    size_t wanted = out.size();
    for (int tries = 0; tries < kTries; ++tries) {
      if (wanted == 0) return size_t{0};
      const int code = file()->pMethods->xRead(file(), out.data(), static_cast<int>(wanted),
                                               static_cast<sqlite3_int64>(offset));
      if (code == SQLITE_OK) return wanted;
      if (code != SQLITE_IOERR_SHORT_READ) return Error(code, "reading");
      const Result<uint64_t> size = SizeLocked();
      if (!size.ok()) return size.status();
      const uint64_t left = size.value() > offset ? size.value() - offset : 0;
      wanted = static_cast<size_t>(std::min<uint64_t>(left, out.size()));
    }
    return Status(Tag::kLocalIo, std::string("reading ") + name_ + ": its size keeps changing");
  }

  const sqlite3_api_routines& api_;
  std::mutex mutex_;  // builds without pread(2) lseek the descriptor
  std::vector<std::max_align_t> memory_;
  const char* name_ = nullptr;  // the file keeps this pointer
};

}  // namespace

// ---------------------------------------------------------------------------------------- OpenNode

Result<std::unique_ptr<DatabaseFile>> OpenNode::OpenDatabaseFile() {
  return OwnFile::Open(api_, vfs_, path_, wal_path_);
}

void OpenNode::Install(std::shared_ptr<WalEvents> events) { Switch(std::move(events)); }

void OpenNode::Remove() { Switch(nullptr); }

void OpenNode::Switch(std::shared_ptr<WalEvents> events) {
  const std::lock_guard mapping_lock(mapping_mutex_);
  WalEvents* const before = current_.load(std::memory_order_relaxed);
  WalEvents* const after = events.get();
  if (before == after) return;
  {
    const std::lock_guard lock(events_mutex_);
    if (events != nullptr) ever_installed_.push_back(events);
    active_ = std::move(events);
    granted_generation_.reset();
  }
  // The mappings first: the first hook that reaches the new object already finds its index.
  if (after != nullptr) {
    for (const Mapping& m : mappings_) after->IndexMapped(m.owner, m.region0);
  }
  current_.store(after, std::memory_order_release);
  if (before != nullptr) {
    for (const Mapping& m : mappings_) before->IndexUnmapping(m.owner);
  }
}

std::shared_ptr<WalEvents> OpenNode::events() const {
  const std::lock_guard lock(events_mutex_);
  return active_;
}

std::optional<Salts> OpenNode::granted_generation() const {
  const std::lock_guard lock(events_mutex_);
  return granted_generation_;
}

void OpenNode::NoteGranted(const WalEvents* by, std::optional<Salts> generation) {
  const std::lock_guard lock(events_mutex_);
  if (by == active_.get()) granted_generation_ = generation;
}

void OpenNode::Mapped(const void* owner, const volatile void* region0) {
  const std::lock_guard lock(mapping_mutex_);
  mappings_.push_back({owner, region0});
  if (WalEvents* const events = current_events()) events->IndexMapped(owner, region0);
}

void OpenNode::Unmapping(const void* owner) {
  const std::lock_guard lock(mapping_mutex_);
  const auto found = std::find_if(mappings_.begin(), mappings_.end(),
                                  [owner](const Mapping& m) { return m.owner == owner; });
  if (found == mappings_.end()) return;
  mappings_.erase(found);
  if (WalEvents* const events = current_events()) events->IndexUnmapping(owner);
}

// ------------------------------------------------------------------------------------ NodeRegistry

Result<NodeRegistry::Joined> NodeRegistry::Join(const sqlite3_api_routines& api, sqlite3_vfs& vfs,
                                                const std::string& path,
                                                const std::string& wal_path) {
  const std::thread::id me = std::this_thread::get_id();
  const int64_t deadline = SystemClock().MonotonicMs() + kOpenWaitMs;
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto found = nodes_.find(path);
    if (found == nodes_.end()) break;
    OpenNode& node = *found->second;
    if (node.state_ == OpenNode::State::kOpen) {
      const std::optional<FileIdentity> now = Identity(path);
      if (!now || !node.identity_ || now->SameFile(*node.identity_)) {
        ++node.files_;
        return Joined{.node = found->second, .first = false};
      }
      nodes_.erase(found);
      break;
    }
    if (node.busy_thread_ == me) {
      ++node.files_;
      return Joined{.node = found->second, .first = false};
    }
    const int64_t left = deadline - SystemClock().MonotonicMs();
    if (left <= 0) {
      return Status(Tag::kBusy,
                    "opening " + path + ": another connection is still " +
                        (node.state_ == OpenNode::State::kOpening ? "opening" : "closing") + " it",
                    true);
    }
    SystemClock().WaitFor(changed_, lock, left);
  }
  auto node = std::make_shared<OpenNode>(api, vfs, path, wal_path);
  node->busy_thread_ = me;
  node->files_ = 1;
  nodes_[path] = node;
  return Joined{.node = std::move(node), .first = true};
}

void NodeRegistry::Settle(OpenNode& node) {
  const std::lock_guard lock(mutex_);
  node.state_ = OpenNode::State::kOpen;
  node.busy_thread_ = {};
  changed_.notify_all();
}

void NodeRegistry::Identify(OpenNode& node) {
  std::optional<FileIdentity> identity = Identity(node.path());
  const std::lock_guard lock(mutex_);
  node.identity_ = identity;
}

bool NodeRegistry::WasReplaced(OpenNode& node) {
  const std::optional<FileIdentity> now = Identity(node.path());
  const std::lock_guard lock(mutex_);
  return now && node.identity_ && !now->SameFile(*node.identity_);
}

bool NodeRegistry::Leave(OpenNode& node) {
  const std::lock_guard lock(mutex_);
  if (--node.files_ > 0) return false;
  // A connection the host opened and closed again inside LastClosing().
  if (node.state_ == OpenNode::State::kClosing) return false;
  node.state_ = OpenNode::State::kClosing;
  node.busy_thread_ = std::this_thread::get_id();
  return true;
}

void NodeRegistry::Gone(OpenNode& node) {
  const std::lock_guard lock(mutex_);
  node.busy_thread_ = {};
  const auto found = nodes_.find(node.path());
  if (found != nodes_.end() && found->second.get() == &node) nodes_.erase(found);
  changed_.notify_all();
}

Result<bool> NodeRegistry::FirstMain(OpenNode& node) {
  const int64_t deadline = SystemClock().MonotonicMs() + kOpenWaitMs;
  std::unique_lock lock(mutex_);
  while (node.main_ == OpenNode::Main::kSettling) {
    const int64_t left = deadline - SystemClock().MonotonicMs();
    if (left <= 0) {
      return Status(Tag::kBusy,
                    "opening " + node.path() + ": another connection is still opening it", true);
    }
    SystemClock().WaitFor(changed_, lock, left);
  }
  if (node.main_ == OpenNode::Main::kSettled) return false;
  node.main_ = OpenNode::Main::kSettling;
  return true;
}

void NodeRegistry::MainSettled(OpenNode& node, bool succeeded) {
  const std::lock_guard lock(mutex_);
  node.main_ = succeeded ? OpenNode::Main::kSettled : OpenNode::Main::kUnknown;
  changed_.notify_all();
}

int NodeRegistry::files(const OpenNode& node) {
  const std::lock_guard lock(mutex_);
  return node.files_;
}

std::shared_ptr<OpenNode> NodeRegistry::Find(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(path);
  return found == nodes_.end() ? nullptr : found->second;
}

std::shared_ptr<OpenNode> NodeRegistry::FindByWal(std::string_view wal_path) {
  const std::lock_guard lock(mutex_);
  for (const auto& [path, node] : nodes_) {
    if (node->wal_path() == wal_path) return node;
  }
  return nullptr;
}

MainFile* NodeRegistry::FindMain(const char* name) {
  const std::lock_guard lock(mutex_);
  const auto found = mains_.find(name);
  return found == mains_.end() ? nullptr : found->second;
}

void NodeRegistry::AddMain(const char* name, MainFile* file) {
  const std::lock_guard lock(mutex_);
  mains_[name] = file;
}

void NodeRegistry::RemoveMain(const char* name) {
  const std::lock_guard lock(mutex_);
  mains_.erase(name);
}

}  // namespace guildlite
