// The program's log: stderr, one line each, never stdout.
//
//   2026-01-02T03:04:05.678Z guildlite warn FENCED /data/app.db: epoch 3 belongs to another writer
//   {"time":"...","level":"warn","tag":"FENCED","database":"/data/app.db","message":"..."}
//
//   1. A line is one write(2) of at most kLineBytesMax bytes, so that lines of several threads and
//      processes on one pipe do not mix (PIPE_BUF). A longer message is cut, control bytes are
//      escaped.
//   2. warn and info are limited to kLinesPerMinute per tag and database: a store that is down for
//      a day must not fill the disk of the host's logs. The last line before the pause says so, the
//      first after it how many were left out. debug was asked for, and is not limited.
//   3. Logging never fails, never raises SIGPIPE in the host, and never waits for a lock: in the
//      child of a fork(2) it may be held by a thread that is not there.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "guildlite/clock.h"
#include "guildlite/options.h"

namespace guildlite {

enum class LogLevel { kOff, kWarn, kInfo, kDebug };

struct LogSettings {
  LogLevel level = LogLevel::kWarn;
  bool json = false;
};
// GUILDLITE_LOG and GUILDLITE_LOG_FORMAT. What is not understood is the default: where else would
// it be said?
LogSettings LogSettingsFrom(const Environment& environment);

class Logger {
 public:
  static constexpr size_t kLineBytesMax = 4096;
  static constexpr int kLinesPerMinute = 10;
  static constexpr size_t kPlacesMax = 1024;  // (tag, database) remembered; beyond, they share one

  // Gets each line with its '\n'.
  using Sink = std::function<void(std::string_view line)>;
  // Also gets what is logged, without time and level: for sqlite3_log. From any thread.
  using Hook = void (*)(LogLevel level, const char* text);

  Logger(Clock& clock, const LogSettings& settings, Sink sink);

  // `tag`: of a status, or a word in its style; `database`: a path, "" where there is none.
  void Log(LogLevel level, std::string_view tag, std::string_view database,
           std::string_view message);
  bool Enabled(LogLevel level) const { return level <= settings_.level; }
  void SetHook(Hook hook) { hook_.store(hook, std::memory_order_release); }

 private:
  struct Place {
    int64_t window_start_ms = 0;
    int lines = 0;
    uint64_t left_out = 0;
  };
  struct Verdict {
    bool print = true;
    bool last = false;  // of this minute
    uint64_t left_out_before = 0;
  };
  Verdict Admit(LogLevel level, std::string_view tag, std::string_view database);

  Clock& clock_;
  const LogSettings settings_;
  const Sink sink_;
  std::atomic<Hook> hook_{nullptr};
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Place> places_;  // guarded by mutex_
};

// The process's logger: stderr, configured by the environment at its first use, never destroyed.
Logger& ProcessLogger();
inline void Log(LogLevel level, std::string_view tag, std::string_view database,
                std::string_view message) {
  ProcessLogger().Log(level, tag, database, message);
}

// One write(2) to `fd` that cannot raise SIGPIPE in the host. What cannot be written is lost.
void WriteLine(int fd, std::string_view line);

}  // namespace guildlite
