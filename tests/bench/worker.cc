#include "tests/bench/worker.h"

#include <sched.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

namespace guildlite::bench {
namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "worker: %s\n", what.c_str());
  std::_Exit(1);
}

void Exec(sqlite3* db, const std::string& sql) {
  char* error = nullptr;
  if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error) != SQLITE_OK) {
    Die(sql + ": " + (error ? error : ""));
  }
}

int64_t Int(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* s = nullptr;
  if (sqlite3_prepare_v2(db, sql.c_str(), -1, &s, nullptr) != SQLITE_OK) Die(sqlite3_errmsg(db));
  int64_t value = 0;
  if (sqlite3_step(s) == SQLITE_ROW) value = sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return value;
}

int64_t FileSize(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 ? int64_t{st.st_size} : 0;
}

int64_t CountEntries(const char* directory) {
  int64_t n = 0;
  for (const auto& entry : fs::directory_iterator(directory)) {
    (void)entry;
    ++n;
  }
  return n;
}

int64_t StatusField(const std::string& path, const std::string& field) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with(field + ":")) return std::atoll(line.c_str() + field.size() + 1);
  }
  return 0;
}

int64_t VoluntarySwitches() {
  int64_t n = 0;
  for (const auto& task : fs::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(::getpid())) continue;  // the sleeping main thread
    n += StatusField(task.path().string() + "/status", "voluntary_ctxt_switches");
  }
  return n;
}

// Counts resets: the number of frames the hook reports falls back.
struct HookState {
  int last = 0;
  int64_t resets = 0;
};
int OnWal(void* arg, sqlite3* db, const char* name, int frames) {
  auto* state = static_cast<HookState*>(arg);
  if (frames < state->last) ++state->resets;
  state->last = frames;
  // What sqlite3_wal_autocheckpoint(db, 1000) does, whose only hook this takes the place of.
  if (frames >= 1000) sqlite3_wal_checkpoint(db, name);
  return SQLITE_OK;
}

void Work(const WorkerRun& run) {
  std::string directory = (fs::temp_directory_path() / "guildlite-bench-XXXXXX").string();
  if (!::mkdtemp(directory.data())) Die("no temporary directory");
  if (run.one_core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  // Never wakes; gone with the process.
  if (run.threaded) std::thread([] { ::pause(); }).detach();
  WorkerResult result;
  const std::string path = directory + "/app.db";
  sqlite3* db = nullptr;
  if (sqlite3_open(path.c_str(), &db) != SQLITE_OK) Die("open");
  Exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL");
  if (run.workload == "bot") {
    Exec(db,
         "CREATE TABLE m(id INTEGER PRIMARY KEY, guild TEXT, author TEXT, at INT, body TEXT);"
         "CREATE INDEX m_guild ON m(guild, at); CREATE INDEX m_author ON m(author)");
    Exec(db, "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < " +
                 std::to_string(run.rows) +
                 ") INSERT INTO m SELECT i, CAST(100000000000000000 + (i*7919 % 400) AS TEXT), "
                 "CAST(200000000000000000 + (i*104729 % 20000) AS TEXT), 1700000000 + i, "
                 "'message ' || hex(randomblob(20 + i % 40)) FROM c");
  } else {
    Exec(db, "CREATE TABLE k(id INTEGER PRIMARY KEY, n INT, t TEXT)");
    Exec(db,
         "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 2000) "
         "INSERT INTO k SELECT i, 0, hex(randomblob(30)) FROM c");
  }
  Exec(db, "PRAGMA wal_checkpoint(TRUNCATE)");
  if (run.mode != "plain") {
    sqlite3_enable_load_extension(db, 1);
    char* error = nullptr;
    const auto before = Steady::now();
    if (sqlite3_load_extension(db, GUILDLITE_MODULE, nullptr, &error) != SQLITE_OK) Die(error);
    result.load_ms = std::chrono::duration<double, std::milli>(Steady::now() - before).count();
  }
  if (run.mode == "replicated") {
    fs::create_directory(directory + "/store");
    Exec(db, "SELECT replication_start('file://" + directory +
                 "/store/app', '{\"sync_interval_ms\":" + std::to_string(run.sync_interval_ms) +
                 "}')");
    Exec(db, "SELECT replication_sync(600000)");
  }
  HookState hook;
  sqlite3_wal_hook(db, OnWal, &hook);
  sqlite3_stmt* statement = nullptr;
  const char* const sql =
      run.workload == "bot"
          ? "INSERT INTO m(guild, author, at, body) VALUES(CAST(100000000000000000 + ?1 % 400 AS "
            "TEXT), CAST(200000000000000000 + ?1 % 20000 AS TEXT), 1800000000 + ?2, 'message ' || "
            "hex(randomblob(20 + ?1 % 40)))"
          : "UPDATE k SET n = n + 1 WHERE id = 1 + ?1 % 2000";
  if (sqlite3_prepare_v2(db, sql, -1, &statement, nullptr) != SQLITE_OK) Die(sqlite3_errmsg(db));
  const int64_t bytes_before =
      run.mode == "replicated" ? Int(db, "SELECT bytes_sent FROM replication_status") : 0;
  const int64_t puts_before =
      run.mode == "replicated" ? Int(db, "SELECT puts FROM replication_status") : 0;
  std::mt19937_64 random(7);
  std::vector<float> times(static_cast<size_t>(run.commits));
  const auto start = Steady::now();
  for (int64_t i = 0; i < run.commits; ++i) {
    if (run.rate_per_s != 0) {
      std::this_thread::sleep_until(start +
                                    std::chrono::nanoseconds(i * 1000000000 / run.rate_per_s));
    }
    const auto before = Steady::now();
    sqlite3_bind_int64(statement, 1, static_cast<int64_t>(random() >> 2));
    sqlite3_bind_int64(statement, 2, i);
    if (sqlite3_step(statement) != SQLITE_DONE) Die(sqlite3_errmsg(db));
    sqlite3_reset(statement);
    times[static_cast<size_t>(i)] =
        std::chrono::duration<float, std::micro>(Steady::now() - before).count();
    if ((i & 63) == 0) {
      result.wal_bytes_max = std::max(result.wal_bytes_max, FileSize(path + "-wal"));
    }
  }
  result.seconds = std::chrono::duration<double>(Steady::now() - start).count();
  result.commits_per_s = static_cast<double>(run.commits) / result.seconds;
  result.wal_resets = hook.resets;
  std::sort(times.begin(), times.end());
  result.p50_us = times[times.size() / 2];
  result.p99_us = times[times.size() * 99 / 100];
  result.max_us = times.back();
  if (run.mode == "replicated") {
    Exec(db, "SELECT replication_sync(600000)");
    const std::string from = " FROM replication_status";
    result.gate_helped = Int(db, "SELECT gate_helped" + from);
    result.gate_refused = Int(db, "SELECT gate_refused" + from);
    result.pages = Int(db, "SELECT pages" + from);
    result.pages_without_base = Int(db, "SELECT pages_without_base" + from);
    result.bytes_sent = Int(db, "SELECT bytes_sent" + from) - bytes_before;
    result.puts = Int(db, "SELECT puts" + from) - puts_before;
    std::this_thread::sleep_for(std::chrono::milliseconds(2000));
    const int64_t switches = VoluntarySwitches();
    std::this_thread::sleep_for(std::chrono::seconds(5));
    result.idle_switches = VoluntarySwitches() - switches;
  }
  result.rss_kb = StatusField("/proc/self/status", "VmRSS");
  result.threads = CountEntries("/proc/self/task");
  result.descriptors = CountEntries("/proc/self/fd");
  sqlite3_finalize(statement);
  sqlite3_close(db);
  fs::remove_all(directory);
  std::printf(
      "%.9g %.9g %lld %lld %.9g %.9g %.9g %lld %lld %lld %lld %lld %lld %lld %lld %lld %.9g %lld\n",
      result.seconds, result.commits_per_s, static_cast<long long>(result.wal_bytes_max),
      static_cast<long long>(result.wal_resets), result.p50_us, result.p99_us, result.max_us,
      static_cast<long long>(result.rss_kb), static_cast<long long>(result.threads),
      static_cast<long long>(result.descriptors), static_cast<long long>(result.gate_helped),
      static_cast<long long>(result.gate_refused), static_cast<long long>(result.pages),
      static_cast<long long>(result.pages_without_base), static_cast<long long>(result.bytes_sent),
      static_cast<long long>(result.puts), result.load_ms,
      static_cast<long long>(result.idle_switches));
  std::fflush(stdout);
  std::_Exit(0);
}

}  // namespace

void MaybeBeWorker(int argc, char** argv) {
  if (argc != 10 || std::strcmp(argv[1], "--worker") != 0) return;
  WorkerRun run;
  run.mode = argv[2];
  run.workload = argv[3];
  run.commits = std::atoll(argv[4]);
  run.rate_per_s = std::atoll(argv[5]);
  run.rows = std::atoll(argv[6]);
  run.sync_interval_ms = std::atoll(argv[7]);
  run.one_core = std::atoi(argv[8]) != 0;
  run.threaded = std::atoi(argv[9]) != 0;
  Work(run);
}

WorkerResult RunWorker(const WorkerRun& run) {
  std::ostringstream command;
  command << "/proc/" << ::getpid() << "/exe --worker " << run.mode << ' ' << run.workload << ' '
          << run.commits << ' ' << run.rate_per_s << ' ' << run.rows << ' ' << run.sync_interval_ms
          << ' ' << (run.one_core ? 1 : 0) << ' ' << (run.threaded ? 1 : 0);
  FILE* const pipe = ::popen(command.str().c_str(), "r");
  if (!pipe) std::abort();
  std::array<char, 1024> line{};
  const bool read = std::fgets(line.data(), line.size(), pipe) != nullptr;
  const int status = ::pclose(pipe);
  WorkerResult r;
  std::istringstream in(line.data());
  in >> r.seconds >> r.commits_per_s >> r.wal_bytes_max >> r.wal_resets >> r.p50_us >> r.p99_us >>
      r.max_us >> r.rss_kb >> r.threads >> r.descriptors >> r.gate_helped >> r.gate_refused >>
      r.pages >> r.pages_without_base >> r.bytes_sent >> r.puts >> r.load_ms >> r.idle_switches;
  if (!read || status != 0 || in.fail()) {
    std::fprintf(stderr, "worker failed: %s\n", command.str().c_str());
    std::abort();
  }
  return r;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

}  // namespace guildlite::bench
