// A program that links guildlite and uses it through its own connections:
//
//   client write <database> <url>     registers, replicates, writes, waits until it is in the store
//   client restore <copy> <url>       registers, restores into a new file, prints what is in it
//   client again                      registers from many threads at once, and over what went wrong
//
// Prints what it sees; exits non-zero, with the message, at the first call that fails.

#include <guildlite/guildlite.h>
#include <sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

[[noreturn]] void Die(const std::string& doing, const char* message) {
  std::fprintf(stderr, "%s: %s\n", doing.c_str(), message ? message : "no message");
  std::exit(1);
}

void Register() {
  char* error = nullptr;
  if (guildlite_register(&error) != SQLITE_OK) Die("guildlite_register", error);
  if (error != nullptr) Die("guildlite_register set a message and succeeded", error);
}

class Database {
 public:
  explicit Database(const std::string& path) {
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) Die("opening " + path, sqlite3_errmsg(db_));
  }
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // The first column of the last row; "" when there is none or it is NULL. The parameter is a text.
  std::string Run(const std::string& sql, const std::string& parameter = "") {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
      Die(sql, sqlite3_errmsg(db_));
    }
    if (sqlite3_bind_parameter_count(statement) > 0) {
      sqlite3_bind_text(statement, 1, parameter.c_str(), -1, SQLITE_TRANSIENT);
    }
    std::string value;
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      const unsigned char* const text = sqlite3_column_text(statement, 0);
      value = text ? reinterpret_cast<const char*>(text) : "";
    }
    if (code != SQLITE_DONE) Die(sql, sqlite3_errmsg(db_));
    sqlite3_finalize(statement);
    return value;
  }

 private:
  sqlite3* db_ = nullptr;
};

void Write(const std::string& path, const std::string& url) {
  Register();
  Database db(path);
  db.Run("select replication_start(?)", url);
  db.Run("create table members(id text primary key, score integer)");
  db.Run(
      "insert into members with recursive n(i) as (select 1 union all select i + 1 from n "
      "where i < 5000) select '8138478876571' || i, i from n");
  const std::string position = db.Run("select replication_sync()");
  std::printf("shipped %s\n", position.c_str());
  // In a thread of its own and on a connection of its own: it, too, is replicated.
  std::thread([&path] {
    Database second(path);
    second.Run("update members set score = score + 1 where score % 2 = 0");
    second.Run("select replication_sync()");
  }).join();
  std::printf("state %s\n",
              db.Run("select state || ' ' || pending from replication_status").c_str());
}

void Restore(const std::string& path, const std::string& url) {
  Register();
  {
    Database nothing(":memory:");
    const std::string position = nothing.Run("select snapshot_restore('" + path + "', ?)", url);
    std::printf("restored %s\n", position.c_str());
  }
  Database copy(path);
  std::printf("members %s\n",
              copy.Run("select count(*) || ' ' || sum(score) from members").c_str());
}

void Again() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++) threads.emplace_back(Register);
  for (std::thread& thread : threads) thread.join();
  std::printf("default vfs %s\n", sqlite3_vfs_find(nullptr)->zName);
  sqlite3_reset_auto_extension();
  Register();
  Database db(":memory:");
  std::printf("version %s\n", db.Run("select guildlite_version()").c_str());
  std::printf("sqlite %s\n", sqlite3_libversion());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "write" && argc == 4) {
    Write(argv[2], argv[3]);
  } else if (what == "restore" && argc == 4) {
    Restore(argv[2], argv[3]);
  } else if (what == "again" && argc == 2) {
    Again();
  } else {
    return 2;
  }
  return 0;
}
