// The main databases open in this process, one OpenNode each, and the protocol of first and last.
//
// A node is found by the full path SQLite passes to xOpen (xFullPathname of the base VFS has
// resolved symbolic links). If that path names another inode than the node's, the file was replaced
// while open: newcomers get a fresh node and the old one lives on, unregistered, until its own
// files close.
//
// Invariants:
//   1. FirstOpened() and LastClosing() of one path never overlap; whoever comes meanwhile waits, at
//      most kOpenWaitMs, and is then told BUSY. A call from inside the callback itself does not
//      wait. The same holds of OpenedAsMain() and others who have the file as main.
//   2. No lock of the registry is held while the host, an events object or a VFS is called; the one
//      exception is a node's mapping lock, held over IndexMapped and IndexUnmapping so that each
//      mapping is announced to each events object exactly once.
//   3. An events object stays alive as long as its node (a connection may be inside a call), and is
//      told IndexUnmapping for whatever it was told IndexMapped, also when it is removed or
//      replaced.
//
// It knows nothing of file methods.
#pragma once

#include <sqlite3.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vfs/base/file_io.h"
#include "vfs/shim/shim_host.h"

namespace guildlite {

class MainFile;

// salt1 and salt2: the name of a WAL generation.
using Salts = std::pair<uint32_t, uint32_t>;

class OpenNode final : public Node {
 public:
  // `vfs` opens our own handles: the one the application's connection uses below us.
  OpenNode(const sqlite3_api_routines& api, sqlite3_vfs& vfs, std::string path,
           std::string wal_path)
      : api_(api), vfs_(vfs), path_(std::move(path)), wal_path_(std::move(wal_path)) {}
  OpenNode(const OpenNode&) = delete;
  OpenNode& operator=(const OpenNode&) = delete;

  const std::string& path() const override { return path_; }
  const std::string& wal_path() const override { return wal_path_; }
  Result<std::unique_ptr<DatabaseFile>> OpenDatabaseFile() override;
  void Install(std::shared_ptr<WalEvents> events) override;
  void Remove() override;
  std::shared_ptr<WalEvents> events() const override;
  bool writable() const override { return writable_.load(std::memory_order_relaxed); }
  bool first_read_only() const override { return first_read_only_; }
  void ExpectReplacement() override { replaceable_.store(true, std::memory_order_relaxed); }

  // The hot path's question; null when not replicated.
  WalEvents* current_events() const { return current_.load(std::memory_order_acquire); }
  bool replaceable() const { return replaceable_.load(std::memory_order_relaxed); }
  void set_writable() { writable_.store(true, std::memory_order_relaxed); }
  // By the first opener, before FirstOpened().
  void NoteFirst() { first_read_only_ = !writable(); }
  // The generation that a reset with leave of the present events object has begun in the index.
  std::optional<Salts> granted_generation() const;
  void NoteGranted(const WalEvents* by, std::optional<Salts> generation);
  void Mapped(const void* owner, const volatile void* region0);
  void Unmapping(const void* owner);

 private:
  friend class NodeRegistry;
  struct Mapping {
    const void* owner;
    const volatile void* region0;
  };
  void Switch(std::shared_ptr<WalEvents> events);

  const sqlite3_api_routines& api_;
  sqlite3_vfs& vfs_;
  const std::string path_;
  const std::string wal_path_;
  std::atomic<WalEvents*> current_{nullptr};
  std::atomic<bool> writable_{false};
  std::atomic<bool> replaceable_{false};
  bool first_read_only_ = false;  // constant once the node is open

  std::mutex mapping_mutex_;
  std::vector<Mapping> mappings_;

  mutable std::mutex events_mutex_;
  std::shared_ptr<WalEvents> active_;
  std::vector<std::shared_ptr<WalEvents>> ever_installed_;
  std::optional<Salts> granted_generation_;  // by active_

  // Under the registry's mutex.
  enum class State { kOpening, kOpen, kClosing } state_ = State::kOpening;
  std::thread::id busy_thread_;  // who runs FirstOpened or LastClosing
  enum class Main { kUnknown, kSettling, kSettled } main_ = Main::kUnknown;
  int files_ = 0;
  std::optional<FileIdentity> identity_;
};

class NodeRegistry {
 public:
  // Longer than any bounded callback of the host in good health; a restore may take longer, then
  // the second opener is told BUSY instead of hanging.
  static constexpr int64_t kOpenWaitMs = 60'000;

  struct Joined {
    std::shared_ptr<OpenNode> node;
    bool first = false;  // the caller must call Settle() or Leave()
  };
  // Counts one more file of the main database at `path`.
  Result<Joined> Join(const sqlite3_api_routines& api, sqlite3_vfs& vfs, const std::string& path,
                      const std::string& wal_path);
  // The first file is open: others may come in.
  void Settle(OpenNode& node);
  // Notes which inode the node stands for.
  void Identify(OpenNode& node);
  // Whether the path names another inode since Identify().
  bool WasReplaced(OpenNode& node);
  // One file less. True when it was the last: newcomers wait until Gone().
  bool Leave(OpenNode& node);
  void Gone(OpenNode& node);
  // Whether the caller is the first to have the node as main: it must call MainSettled(). Waits, as
  // Join() does, for whoever is between the two. After a failure the next is the first again.
  Result<bool> FirstMain(OpenNode& node);
  void MainSettled(OpenNode& node, bool succeeded);

  // How many files of it are open.
  int files(const OpenNode& node);

  std::shared_ptr<OpenNode> Find(const std::string& path);
  std::shared_ptr<OpenNode> FindByWal(std::string_view wal_path);

  // The open main file whose name SQLite keeps at `name` (the very pointer:
  // sqlite3_filename_database() of a WAL's name points to the name its pager passed to xOpen).
  MainFile* FindMain(const char* name);
  void AddMain(const char* name, MainFile* file);
  void RemoveMain(const char* name);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::shared_ptr<OpenNode>> nodes_;
  std::unordered_map<const char*, MainFile*> mains_;
};

}  // namespace guildlite
