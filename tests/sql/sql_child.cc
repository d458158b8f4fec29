// The program behind a SqlProcess: SQLite with nothing loaded, told by a socket what to open and
// run.
//
// "hold" makes link(2), by which a store in a directory creates its objects, wait until it is let
// go again, or for ever: a store that hangs. The definition here wins over the C library's for
// whatever this process loads.

#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/sql/sql_wire.h"

namespace guildlite::testing {
namespace {

std::mutex hold_mutex;
// Never destroyed: that would wait for whoever still waits in it when the process ends.
std::condition_variable& hold_changed = *new std::condition_variable;
bool held = false;
std::string held_part;

std::vector<std::string> ErrorOf(sqlite3* db, int rc) {
  return {std::to_string(rc), db ? sqlite3_errmsg(db) : sqlite3_errstr(rc), "0"};
}

void Bind(sqlite3_stmt* statement, int i, const Value& value) {
  if (const auto* n = std::get_if<int64_t>(&value)) sqlite3_bind_int64(statement, i, *n);
  if (const auto* r = std::get_if<double>(&value)) sqlite3_bind_double(statement, i, *r);
  if (const auto* t = std::get_if<std::string>(&value)) {
    sqlite3_bind_text64(statement, i, t->data(), t->size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  if (const auto* b = std::get_if<Blob>(&value)) {
    sqlite3_bind_blob64(statement, i, b->bytes.data(), b->bytes.size(), SQLITE_TRANSIENT);
  }
}

Value ColumnOf(sqlite3_stmt* statement, int i) {
  const auto size = static_cast<size_t>(sqlite3_column_bytes(statement, i));
  switch (sqlite3_column_type(statement, i)) {
    case SQLITE_INTEGER:
      return Value(int64_t{sqlite3_column_int64(statement, i)});
    case SQLITE_FLOAT:
      return Value(sqlite3_column_double(statement, i));
    case SQLITE_TEXT:
      return Value(
          std::string(reinterpret_cast<const char*>(sqlite3_column_text(statement, i)), size));
    case SQLITE_BLOB:
      return Value(
          Blob{std::string(static_cast<const char*>(sqlite3_column_blob(statement, i)), size)});
    default:
      return Value();
  }
}

std::vector<std::string> ServeRun(sqlite3* db, const std::vector<std::string>& request) {
  std::vector<std::string> answer = {"0", "", "0"};
  const char* at = request[2].c_str();
  for (bool first = true; *at != '\0'; first = false) {
    sqlite3_stmt* statement = nullptr;
    int rc = sqlite3_prepare_v2(db, at, -1, &statement, &at);
    if (rc != SQLITE_OK) return ErrorOf(db, sqlite3_extended_errcode(db));
    if (!statement) continue;
    for (size_t i = 3; first && i < request.size(); ++i) {
      Bind(statement, static_cast<int>(i) - 2, DecodeValue(request[i]));
    }
    const int columns = sqlite3_column_count(statement);
    if (columns > 0) answer[2] = std::to_string(columns);
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
      for (int i = 0; i < columns; ++i) answer.push_back(EncodeValue(ColumnOf(statement, i)));
    }
    if (rc != SQLITE_DONE) {
      auto error = ErrorOf(db, sqlite3_extended_errcode(db));
      sqlite3_finalize(statement);
      return error;
    }
    sqlite3_finalize(statement);
  }
  return answer;
}

std::vector<std::string> ServeLoad(sqlite3* db, const std::string& module) {
  sqlite3_enable_load_extension(db, 1);
  char* message = nullptr;
  const int rc = sqlite3_load_extension(db, module.c_str(), nullptr, &message);
  std::vector<std::string> answer = {std::to_string(rc), message ? message : "", "0"};
  sqlite3_free(message);
  return answer;
}

std::vector<std::string> ServeContent(sqlite3* db) {
  sqlite3_int64 size = 0;
  unsigned char* bytes = sqlite3_serialize(db, "main", &size, 0);
  if (!bytes && size != 0) return ErrorOf(db, SQLITE_NOMEM);
  std::vector<std::string> answer = {
      "0", "", "1", "b" + std::string(reinterpret_cast<char*>(bytes), static_cast<size_t>(size))};
  sqlite3_free(bytes);
  return answer;
}

void Serve(int fd) {
  std::map<std::string, sqlite3*> connections;
  std::vector<std::string> request;
  while (ReceiveList(fd, &request)) {
    const std::string& verb = request[0];
    std::vector<std::string> answer;
    if (verb == "open") {
      sqlite3* db = nullptr;
      const int rc = sqlite3_open_v2(request[1].c_str(), &db, std::stoi(request[2]), nullptr);
      sqlite3_extended_result_codes(db, 1);
      sqlite3_busy_timeout(db, 10000);
      const std::string id = std::to_string(connections.size());
      connections[id] = db;
      answer = {std::to_string(rc), sqlite3_errmsg(db), "1", "t" + id};
    } else if (verb == "run") {
      answer = ServeRun(connections[request[1]], request);
    } else if (verb == "load") {
      answer = ServeLoad(connections[request[1]], request[2]);
    } else if (verb == "content") {
      answer = ServeContent(connections[request[1]]);
    } else if (verb == "hold") {
      const std::lock_guard lock(hold_mutex);
      held = request[1] == "1";
      held_part = request[2];
      hold_changed.notify_all();
      answer = {"0", "", "0"};
    } else if (verb == "close") {
      const int rc = sqlite3_close(connections[request[1]]);
      connections[request[1]] = nullptr;
      answer = {std::to_string(rc), "", "0"};
    }
    if (!SendList(fd, answer)) return;
  }
}

}  // namespace
}  // namespace guildlite::testing

extern "C" __attribute__((visibility("default"))) int link(const char* from,
                                                           const char* to) noexcept {
  {
    using namespace guildlite::testing;
    std::unique_lock lock(hold_mutex);
    hold_changed.wait(lock, [&] { return !held || !std::strstr(to, held_part.c_str()); });
  }
  return static_cast<int>(::syscall(SYS_link, from, to));
}

int main() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  guildlite::testing::Serve(guildlite::testing::kChildFd);
  return 0;
}
