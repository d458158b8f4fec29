#include "vfs/base/time_text.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>

namespace guildlite {
namespace {

// Takes what it is asked for from the front of the text, or fails and stays failed.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool failed() const { return failed_; }
  bool empty() const { return text_.empty(); }
  char Peek() const { return text_.empty() ? '\0' : text_.front(); }

  // Exactly `digits` decimal digits, at most `max`.
  int Number(size_t digits, int max) {
    int v = 0;
    for (size_t i = 0; i < digits; i++) {
      if (!IsDigit(Peek())) return Fail();
      v = v * 10 + (Peek() - '0');
      text_.remove_prefix(1);
    }
    return v <= max ? v : Fail();
  }
  // One or more digits after the point; the first three count.
  int Milliseconds() {
    int v = 0;
    int scale = 100;
    if (!IsDigit(Peek())) return Fail();
    while (IsDigit(Peek())) {
      v += (Peek() - '0') * scale;
      scale /= 10;
      text_.remove_prefix(1);
    }
    return v;
  }
  bool Accept(char c) {
    if (failed_ || Peek() != c || text_.empty()) return false;
    text_.remove_prefix(1);
    return true;
  }
  void Expect(char c) {
    if (!Accept(c)) Fail();
  }

 private:
  static bool IsDigit(char c) { return c >= '0' && c <= '9'; }
  int Fail() {
    failed_ = true;
    text_ = {};
    return 0;
  }

  std::string_view text_;
  bool failed_ = false;
};

}  // namespace

std::optional<int64_t> ParseTime(std::string_view text) {
  using namespace std::chrono;
  Scanner in(text);
  const int y = in.Number(4, 9999);
  in.Expect('-');
  const int m = in.Number(2, 12);
  in.Expect('-');
  const int d = in.Number(2, 31);
  if (in.failed()) return std::nullopt;
  const year_month_day date{year(y), month(static_cast<unsigned>(m)),
                            day(static_cast<unsigned>(d))};
  if (!date.ok()) return std::nullopt;

  milliseconds t = sys_days(date).time_since_epoch();
  if (!in.empty()) {
    if (!in.Accept(' ') && !in.Accept('T') && !in.Accept('t')) return std::nullopt;
    t += hours(in.Number(2, 23));
    in.Expect(':');
    t += minutes(in.Number(2, 59));
    if (in.Accept(':')) {
      t += seconds(in.Number(2, 59));
      if (in.Accept('.')) t += milliseconds(in.Milliseconds());
    }
    // RFC 3339 4.3: "-00:00" is UTC whose local offset is not known.
    if (in.Peek() == '+' || in.Peek() == '-') {
      const bool east = in.Accept('+');
      if (!east) in.Expect('-');
      minutes offset = hours(in.Number(2, 23));
      in.Expect(':');
      offset += minutes(in.Number(2, 59));
      t -= east ? offset : -offset;
    } else if (!in.Accept('Z')) {
      in.Accept('z');
    }
  }
  if (in.failed() || !in.empty()) return std::nullopt;
  return t.count();
}

std::string FormatTime(int64_t time_ms) {
  using namespace std::chrono;
  const sys_time<milliseconds> t{milliseconds(time_ms)};
  const sys_days midnight = floor<days>(t);
  const year_month_day date(midnight);
  const hh_mm_ss<milliseconds> clock(t - midnight);
  std::array<char, 64> buf;
  std::snprintf(
      buf.data(), buf.size(), "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ", static_cast<int>(date.year()),
      static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
      static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
      static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  return buf.data();
}

}  // namespace guildlite
