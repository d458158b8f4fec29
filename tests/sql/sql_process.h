// Processes for the tests of the SQL surface, and the fixture that has them. A module once loaded
// stays in its process and is its default VFS from then on; so every program a test speaks of (the
// owner, the stranger, the one that is killed) is a process of its own (sql_child.cc), serving
// statements over a socket.
//
//   1. Nothing is loaded in a process before Load().
//   2. A process has of the environment what the test gives it, and no other GUILDLITE_*.
//   3. No call waits for ever: a process that does not answer within kAnswerSeconds is killed and
//      fails the test.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/sql/sql_wire.h"
#include "tests/support/temp_dir.h"

namespace guildlite::testing {

inline constexpr int kAnswerSeconds = 120;

// What a statement gave: rows, or an error with SQLite's extended code and message.
struct Answer {
  int code = SQLITE_OK;
  std::string message;
  std::vector<std::vector<Value>> rows;

  bool ok() const { return code == SQLITE_OK; }
  std::string tag() const { return message.substr(0, message.find(':')); }
  std::string Text() const;  // rows by newline, columns by '|'
};

inline void PrintTo(const Answer& answer, std::ostream* out) { *out << answer.Text(); }

// A tagged error, and nothing of the form that a person could not act on.
MATCHER_P2(Fails, tag, code, "") {
  return arg.code == code && arg.message.starts_with(std::string(tag) + ": ") &&
         arg.message.size() > std::string(tag).size() + 12;
}

class Connection;

class SqlProcess {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;
  explicit SqlProcess(const Environment& environment = {});
  SqlProcess(const SqlProcess&) = delete;
  ~SqlProcess();  // Exit(), which must be 0

  Connection Open(const std::string& path, int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  void Kill();  // SIGKILL
  int Exit();   // returns from main(), so exit handlers run; connections are left as they are
  std::string Log() const;  // its stderr so far
  // From now on every store in a directory whose path contains `part` hangs in its next put of a
  // new object, until let go.
  void HoldStores(bool held, const std::string& part = "");
  pid_t pid() const { return pid_; }

 private:
  friend class Connection;
  void Send(const std::vector<std::string>& request);
  Answer Receive();
  Answer Call(const std::vector<std::string>& request);

  TempDir directory_;
  pid_t pid_ = -1;
  int socket_ = -1;
};

// A connection in a SqlProcess, which must outlive it. Closed with its process, or by Close().
class Connection {
 public:
  Connection() = default;
  // Statements, the values bound to the first of them.
  Answer Run(const std::string& sql, const std::vector<Value>& values = {});
  void Ok(const std::string& sql, const std::vector<Value>& values = {});
  std::string Text(const std::string& sql, const std::vector<Value>& values = {});
  int64_t Number(const std::string& sql, const std::vector<Value>& values = {});
  // In two halves, so that two processes are at work at the same time.
  void Send(const std::string& sql, const std::vector<Value>& values = {});
  Answer Receive();

  Answer Load(const std::string& module = GUILDLITE_MODULE);
  std::string Content();  // the database's pages as this connection reads them
  int Close();
  int open_code() const { return open_code_; }

 private:
  friend class SqlProcess;
  Connection(SqlProcess* process, std::string id, int open_code)
      : process_(process), id_(std::move(id)), open_code_(open_code) {}
  SqlProcess* process_ = nullptr;
  std::string id_;
  int open_code_ = SQLITE_OK;
};

// /usr/bin/sqlite3, which never heard of us.
struct ShellAnswer {
  int status = -1;     // of exit
  std::string output;  // and what it complained of
};
ShellAnswer Shell(const std::string& database, const std::string& sql);

std::string FileBytes(const std::string& path);
void WriteFileBytes(const std::string& path, const std::string& bytes);
// Regular files below `directory`, sorted, relative to it; lock and temporary files left out.
std::vector<std::string> FilesBelow(const std::string& directory);
uint64_t BytesBelow(const std::string& directory);
// Names of all that is in `directory`, sorted.
std::vector<std::string> NamesIn(const std::string& directory);
// Empty when equal; else which page differs first, as page numbers say more than bytes.
std::string Difference(const std::string& expected, const std::string& got);

class SqlTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return directory_.File(name); }
  std::string Url(const std::string& name = "store") const { return "file://" + Path(name); }

  // A connection that loads the module, which must succeed.
  Connection OpenLoaded(SqlProcess& process, const std::string& path);
  // The same, replicating to `url`.
  Connection OpenStarted(SqlProcess& process, const std::string& path, const std::string& url);

  // What the store gives back, as a file's bytes; by a process that knows only the url.
  Answer RestoreTo(const std::string& path, const std::string& url, const Value& at = {});
  std::string Restored(const std::string& url, const Value& at = {});
  // What a stock SQLite in another process reads from the database at `path`.
  std::string StockContent(const std::string& path);
  // Commits by `owner` are in the store, and what comes back is what it reads, page by page.
  void ExpectInStore(Connection& owner, const std::string& url);
  // A loaded process without a database.
  Connection& Reader();

 private:
  TempDir directory_;
  std::unique_ptr<SqlProcess> reader_process_;
  Connection reader_;
  int restores_ = 0;
};

}  // namespace guildlite::testing
