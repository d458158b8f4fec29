#include "tests/shim/shim_fixture.h"

#include <unistd.h>

#include <algorithm>

namespace guildlite::testing {
namespace {

const char* NameOf(DiscardReason reason) {
  switch (reason) {
    case DiscardReason::kReset:
    case DiscardReason::kLoneReset:
      return "reset";
    case DiscardReason::kTruncate:
      return "truncate";
    case DiscardReason::kClose:
      return "close";
  }
  return "?";
}

const sqlite3_api_routines* g_routines = nullptr;

int TakeRoutines(sqlite3*, char**, const sqlite3_api_routines* routines) {
  g_routines = routines;
  return SQLITE_OK;
}

const sqlite3_api_routines* FindRoutines() {
  const auto entry = reinterpret_cast<void (*)()>(&TakeRoutines);
  sqlite3_auto_extension(entry);
  sqlite3* db = nullptr;
  sqlite3_open(":memory:", &db);
  sqlite3_close(db);
  sqlite3_cancel_auto_extension(entry);
  return g_routines;
}

}  // namespace

void RecordingEvents::Record(std::string call) {
  {
    const std::lock_guard lock(mutex_);
    calls_.push_back(call);
  }
  if (on_call) on_call(call);
}

void RecordingEvents::IndexMapped(const void* owner, const volatile void* region0) {
  {
    const std::lock_guard lock(mutex_);
    mappings_.emplace_back(owner, region0);
  }
  Record("map");
}

void RecordingEvents::IndexUnmapping(const void* owner) {
  {
    const std::lock_guard lock(mutex_);
    const size_t erased =
        std::erase_if(mappings_, [owner](const auto& mapping) { return mapping.first == owner; });
    EXPECT_EQ(erased, 1u);
  }
  Record("unmap");
}

Status RecordingEvents::BeforeWriteLock() {
  Record("lock");
  return write_lock_answer;
}

// Not recorded: whoever counts the hooks of a WAL has written in rollback mode to get one.
Status RecordingEvents::BeforeRollbackWrite() { return rollback_write_answer; }

void RecordingEvents::BeforeWriteUnlock() { Record("unlock"); }

void RecordingEvents::CheckpointBegins() { Record("checkpoint"); }

Status RecordingEvents::Committed(std::optional<uint32_t> exclusive_commit_frame) {
  Record(exclusive_commit_frame ? "committed@" + std::to_string(*exclusive_commit_frame)
                                : "committed");
  return commit_answer;
}

bool RecordingEvents::MayDiscardWal(DiscardReason reason) {
  Record(std::string("discard:") + NameOf(reason));
  return may_discard;
}

void RecordingEvents::WalHeaderWriting(std::span<const std::byte, kWalHeaderSize> header) {
  EXPECT_TRUE(WalHeader::Decode(header).has_value());
  Record("header");
}

std::vector<std::string> RecordingEvents::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(calls_, {});
}

std::vector<std::string> RecordingEvents::TakeHooks() {
  std::vector<std::string> calls = Take();
  std::erase_if(calls, [](const std::string& call) {
    return call == "map" || call == "unmap" || call == "checkpoint";
  });
  return calls;
}

size_t RecordingEvents::Count(const std::string& call) {
  const std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count(calls_.begin(), calls_.end(), call));
}

std::optional<Published> RecordingEvents::ReadIndex(uint32_t* page_size) {
  const std::lock_guard lock(mutex_);
  if (mappings_.empty()) return std::nullopt;
  return ReadPublished(mappings_.front().second, page_size);
}

size_t RecordingEvents::mapped() {
  const std::lock_guard lock(mutex_);
  return mappings_.size();
}

Status TestHost::FirstOpened(Node& node) {
  return first_opened ? first_opened(node) : Status::Ok();
}
Status TestHost::OpenedAsMain(Node& node, sqlite3* db) {
  return opened_as_main ? opened_as_main(node, db) : Status::Ok();
}
void TestHost::LastClosing(Node& node) {
  if (last_closing) last_closing(node);
}

TestHost& Host() {
  static TestHost* const host = new TestHost;
  return *host;
}

const sqlite3_api_routines* Routines() {
  static const sqlite3_api_routines* const routines = FindRoutines();
  return routines;
}

Connection::Connection(const std::string& name, int flags, const char* vfs) {
  open_code_ = sqlite3_open_v2(name.c_str(), &db_, flags, vfs);
  sqlite3_extended_result_codes(db_, 1);
}

Connection::~Connection() {
  if (db_ == nullptr) return;
  EXPECT_EQ(Close(), SQLITE_OK);
}

int Connection::Close() { return sqlite3_close(std::exchange(db_, nullptr)); }

int Connection::Run(const std::string& sql) {
  return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
}

void Connection::Ok(const std::string& sql) {
  ASSERT_EQ(Run(sql), SQLITE_OK) << sql << ": " << sqlite3_errmsg(db_);
}

std::string Connection::Text(const std::string& sql) {
  std::string text;
  const auto row = [](void* out, int columns, char** values, char**) {
    auto& rows = *static_cast<std::string*>(out);
    if (!rows.empty()) rows += '\n';
    for (int i = 0; i < columns; ++i) {
      if (i > 0) rows += '|';
      rows += values[i] != nullptr ? values[i] : "NULL";
    }
    return 0;
  };
  const int code = sqlite3_exec(db_, sql.c_str(), row, &text, nullptr);
  EXPECT_EQ(code, SQLITE_OK) << sql << ": " << sqlite3_errmsg(db_);
  return text;
}

ShimTest::ShimTest() {
  const Result<Registered> registered = RegisterShim(Host(), Routines());
  EXPECT_TRUE(registered.ok()) << registered.status().ToString();
  std::string pattern = ::testing::TempDir() + "guildlite_shim_XXXXXX";
  directory_ = mkdtemp(pattern.data());
}

ShimTest::~ShimTest() {
  Host().first_opened = nullptr;
  Host().opened_as_main = nullptr;
  Host().last_closing = nullptr;
  std::filesystem::remove_all(directory_);
}

Connection ShimTest::OpenWal(const std::string& name, const char* vfs) {
  Connection c(Path(name), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, vfs);
  c.Ok("PRAGMA journal_mode=WAL");
  c.Ok("PRAGMA wal_autocheckpoint=0");
  c.Ok("CREATE TABLE t(a)");
  if (vfs == nullptr) Install(c.db());
  events_->Take();
  return c;
}

void ShimTest::Install(sqlite3* db) {
  const std::shared_ptr<Node> node = FindNode(db);
  ASSERT_NE(node, nullptr);
  node->Install(events_);
}

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

}  // namespace guildlite::testing
