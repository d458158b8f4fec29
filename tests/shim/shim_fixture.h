// A host, an events object and connections for the tests of the shim, over the real SQLite this
// binary is linked with. The shim's sources are linked in and handed the routines SQLite passes to
// every auto-extension entry: what a loaded module gets, without a module.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "vfs/shim/adopt.h"
#include "vfs/shim/register.h"
#include "vfs/shim/shim_host.h"
#include "vfs/shim/wal_index.h"

namespace guildlite::testing {

// Writes down what it is told, in order, and answers what the test wants.
class RecordingEvents : public WalEvents {
 public:
  void IndexMapped(const void* owner, const volatile void* region0) override;
  void IndexUnmapping(const void* owner) override;
  Status BeforeWriteLock() override;
  Status BeforeRollbackWrite() override;
  Status BeforeExclusiveWrite() override { return exclusive_write_answer; }
  void BeforeWriteUnlock() override;
  Status Committed(std::optional<uint32_t> exclusive_commit_frame) override;
  void CheckpointBegins() override;
  bool MayDiscardWal(DiscardReason reason) override;
  void WalHeaderWriting(std::span<const std::byte, kWalHeaderSize> header) override;

  // All calls so far, and forget them.
  std::vector<std::string> Take();
  // Without the mapping calls and the announcements of checkpoints.
  std::vector<std::string> TakeHooks();
  size_t Count(const std::string& call);
  // As the engine would read it: under the lock that IndexUnmapping takes.
  std::optional<Published> ReadIndex(uint32_t* page_size = nullptr);
  size_t mapped();

  // Answers; set them before they are needed or from the thread that runs the statement.
  Status write_lock_answer = Status::Ok();
  Status rollback_write_answer = Status::Ok();
  Status exclusive_write_answer = Status::Ok();
  Status commit_answer = Status::Ok();
  std::atomic<bool> may_discard = true;
  std::function<void(const std::string&)> on_call;  // after recording, outside the lock

 private:
  void Record(std::string call);
  std::mutex mutex_;
  std::vector<std::string> calls_;
  std::vector<std::pair<const void*, const volatile void*>> mappings_;
};

// One for the whole binary, as RegisterShim() wants it; the callbacks are the test's.
class TestHost : public ShimHost {
 public:
  Status FirstOpened(Node& node) override;
  Status OpenedAsMain(Node& node, sqlite3* db) override;
  void LastClosing(Node& node) override;
  std::function<Status(Node&)> first_opened;
  std::function<Status(Node&, sqlite3*)> opened_as_main;
  std::function<void(Node&)> last_closing;
};
TestHost& Host();

// The routines of this process's SQLite.
const sqlite3_api_routines* Routines();

// A connection; closed by the destructor, which expects success.
class Connection {
 public:
  explicit Connection(const std::string& name,
                      int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                      const char* vfs = nullptr);
  ~Connection();
  Connection(Connection&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}
  Connection& operator=(Connection&&) = delete;

  sqlite3* db() const { return db_; }
  int open_code() const { return open_code_; }
  int Run(const std::string& sql);           // the extended code
  void Ok(const std::string& sql);           // expects success
  std::string Text(const std::string& sql);  // rows by newline, columns by '|'
  int Close();

 private:
  sqlite3* db_ = nullptr;
  int open_code_ = SQLITE_OK;
};

class ShimTest : public ::testing::Test {
 protected:
  ShimTest();
  ~ShimTest() override;

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  // A connection of a new WAL database with table t(a), and its node with `events_` installed.
  Connection OpenWal(const std::string& name = "a.db", const char* vfs = nullptr);
  // Installs `events_` at the node of `db`.
  void Install(sqlite3* db);

  std::string directory_;
  std::shared_ptr<RecordingEvents> events_ = std::make_shared<RecordingEvents>();
};

size_t OpenDescriptors();

}  // namespace guildlite::testing
