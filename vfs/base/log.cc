#include "vfs/base/log.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "vfs/base/time_text.h"

namespace guildlite {
namespace {

constexpr int64_t kMinuteMs = 60000;

std::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kOff:
      return "off";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "?";
}

// A line break in a message would be a line of its own to whoever reads the log.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else {
      std::array<char, 8> escape;
      std::snprintf(escape.data(), escape.size(), "\\x%02x", byte);
      out += escape.data();
    }
  }
  return out;
}

std::string TextLine(std::string_view time, LogLevel level, std::string_view tag,
                     std::string_view database, std::string_view message) {
  std::string line =
      std::string(time) + " guildlite " + std::string(LevelName(level)) + " " + std::string(tag);
  if (!database.empty()) line += " " + Escaped(database);
  return line + ": " + Escaped(message) + "\n";
}

std::string JsonLine(std::string_view time, LogLevel level, std::string_view tag,
                     std::string_view database, std::string_view message) {
  nlohmann::ordered_json line;
  line["time"] = time;
  line["level"] = LevelName(level);
  line["tag"] = tag;
  if (!database.empty()) line["database"] = database;
  line["message"] = message;
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

LogSettings LogSettingsFrom(const Environment& environment) {
  LogSettings settings;
  const std::string level = environment("GUILDLITE_LOG").value_or("");
  for (const LogLevel l : {LogLevel::kOff, LogLevel::kWarn, LogLevel::kInfo, LogLevel::kDebug}) {
    if (level == LevelName(l)) settings.level = l;
  }
  settings.json = environment("GUILDLITE_LOG_FORMAT").value_or("") == "json";
  return settings;
}

Logger::Logger(Clock& clock, const LogSettings& settings, Sink sink)
    : clock_(clock), settings_(settings), sink_(std::move(sink)) {}

Logger::Verdict Logger::Admit(LogLevel level, std::string_view tag, std::string_view database) {
  if (level == LogLevel::kDebug) return {};
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return {};  // a line too many rather than a wait (invariant 3)
  const int64_t now_ms = clock_.MonotonicMs();
  auto key = std::pair(std::string(tag), std::string(database));
  if (places_.size() >= kPlacesMax && !places_.contains(key)) {
    // What was quiet for a minute owes nobody a summary but its own next line.
    std::erase_if(places_, [&](const auto& entry) {
      return entry.second.left_out == 0 && now_ms - entry.second.window_start_ms >= kMinuteMs;
    });
    if (places_.size() >= kPlacesMax) key = {};
  }
  const auto [it, is_new] = places_.try_emplace(std::move(key));
  Place& place = it->second;
  Verdict verdict;
  if (is_new || now_ms - place.window_start_ms >= kMinuteMs) {
    verdict.left_out_before = place.left_out;
    place = {now_ms, 0, 0};
  }
  if (place.lines >= kLinesPerMinute) {
    ++place.left_out;
    verdict.print = false;
    return verdict;
  }
  verdict.last = ++place.lines == kLinesPerMinute;
  return verdict;
}

void Logger::Log(LogLevel level, std::string_view tag, std::string_view database,
                 std::string_view message) {
  if (level == LogLevel::kOff || !Enabled(level)) return;
  const Verdict verdict = Admit(level, tag, database);
  if (!verdict.print) return;
  std::string text(message.substr(0, kLineBytesMax));
  std::string note;
  if (verdict.left_out_before > 0) {
    note +=
        " [" + std::to_string(verdict.left_out_before) + " more like this before were left out]";
  }
  if (verdict.last) note += " [more like this within a minute will be left out]";

  const std::string time = FormatTime(clock_.NowMs());
  const auto make = settings_.json ? &JsonLine : &TextLine;
  std::string line = make(time, level, tag, database, text + note);
  // Escaping lengthens a byte to six at most, so this fits long before the message is used up.
  while (line.size() > kLineBytesMax && text.size() > 16) {
    text.resize(text.size() / 2);
    line = make(time, level, tag, database.substr(0, 512), text + "..." + note);
  }
  if (line.size() > kLineBytesMax) return;  // not of this program: our tags are short
  sink_(line);
  if (const Hook hook = hook_.load(std::memory_order_acquire)) {
    const std::string plain = std::string(tag) + (database.empty() ? "" : " ") +
                              std::string(database) + ": " + text + note;
    hook(level, plain.c_str());
  }
}

Logger& ProcessLogger() {
  static auto* const logger =
      new Logger(SystemClock(), LogSettingsFrom(ProcessEnvironment()),
                 [](std::string_view line) { WriteLine(STDERR_FILENO, line); });
  return *logger;
}

void WriteLine(int fd, std::string_view line) {
  // write(2) to a pipe nobody reads raises SIGPIPE, which ends a host that did not ask for it.
  // Blocked here for this thread, and taken away if we raised it.
  sigset_t pipe_signal, before, pending;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  sigemptyset(&pending);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const int saved_errno = errno;
  ssize_t n;
  do {
    n = ::write(fd, line.data(), line.size());
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == EPIPE && !was_pending) {
    const timespec now = {0, 0};
    while (sigtimedwait(&pipe_signal, nullptr, &now) < 0 && errno == EINTR) {
    }
  }
  errno = saved_errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace guildlite
