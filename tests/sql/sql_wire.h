// The wire between a test and the program that runs SQLite for it (sql_child.cc): a message is a
// list of strings, a number of them and then each with its size, on a stream socket.
//
//   request   "open" path flags | "run" id sql value... | "load" id module | "content" id |
//             "close" id | "hold" 0 or 1
//   answer    code, message, columns, then the cells row by row
//
// Both ends are built together: there is no version in it, and numbers are the machine's.
#pragma once

#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <variant>
#include <vector>

namespace guildlite::testing {

// The child's end of the socket.
inline constexpr int kChildFd = 3;

struct Blob {
  std::string bytes;
  bool operator==(const Blob&) const = default;
};
using Value = std::variant<std::monostate, int64_t, double, std::string, Blob>;

inline bool SendAll(int fd, const char* bytes, size_t size) {
  while (size != 0) {
    const ssize_t n = ::send(fd, bytes, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

inline bool ReceiveAll(int fd, char* bytes, size_t size) {
  while (size != 0) {
    const ssize_t n = ::recv(fd, bytes, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

inline bool SendList(int fd, const std::vector<std::string>& list) {
  std::string bytes;
  const auto number = [&](uint64_t n) {
    bytes.append(reinterpret_cast<const char*>(&n), sizeof n);
  };
  number(list.size());
  for (const std::string& s : list) {
    number(s.size());
    bytes += s;
  }
  return SendAll(fd, bytes.data(), bytes.size());
}

inline bool ReceiveList(int fd, std::vector<std::string>* list) {
  uint64_t count = 0;
  if (!ReceiveAll(fd, reinterpret_cast<char*>(&count), sizeof count)) return false;
  list->assign(count, "");
  for (std::string& s : *list) {
    uint64_t size = 0;
    if (!ReceiveAll(fd, reinterpret_cast<char*>(&size), sizeof size)) return false;
    s.resize(size);
    if (!ReceiveAll(fd, s.data(), size)) return false;
  }
  return true;
}

inline std::string EncodeValue(const Value& value) {
  if (const auto* n = std::get_if<int64_t>(&value)) return "i" + std::to_string(*n);
  if (const auto* r = std::get_if<double>(&value)) {
    return "r" + std::string(reinterpret_cast<const char*>(r), sizeof *r);
  }
  if (const auto* t = std::get_if<std::string>(&value)) return "t" + *t;
  if (const auto* b = std::get_if<Blob>(&value)) return "b" + b->bytes;
  return "n";
}

inline Value DecodeValue(const std::string& text) {
  const std::string rest = text.substr(1);
  switch (text[0]) {
    case 'i':
      return Value(int64_t{std::stoll(rest)});
    case 'r': {
      double r = 0;
      std::memcpy(&r, rest.data(), sizeof r);
      return Value(r);
    }
    case 't':
      return Value(rest);
    case 'b':
      return Value(Blob{rest});
    default:
      return Value();
  }
}

}  // namespace guildlite::testing
