// Big-endian integers, varints and bounds-checked reading of bytes nobody vouches for.
//
// A Cursor never reads past its end: a short read sets failed() and yields zeros from then on, so a
// decoder reads a whole record and asks once. Varints are unsigned LEB128 of at most 10 bytes;
// signed ones are zigzag.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace guildlite {

inline std::span<const std::byte> AsBytes(std::string_view s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}
inline std::string_view AsText(std::span<const std::byte> b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

inline uint32_t LoadBig32(const void* p) {
  const auto* b = static_cast<const unsigned char*>(p);
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | uint32_t{b[3]};
}
inline uint64_t LoadBig64(const void* p) {
  return uint64_t{LoadBig32(p)} << 32 | LoadBig32(static_cast<const unsigned char*>(p) + 4);
}
inline uint16_t LoadBig16(const void* p) {
  const auto* b = static_cast<const unsigned char*>(p);
  return static_cast<uint16_t>(b[0] << 8 | b[1]);
}

inline void PutBig32(std::string* out, uint32_t v) {
  const char b[4] = {static_cast<char>(v >> 24), static_cast<char>(v >> 16),
                     static_cast<char>(v >> 8), static_cast<char>(v)};
  out->append(b, 4);
}
inline void PutBig16(std::string* out, uint16_t v) {
  const char b[2] = {static_cast<char>(v >> 8), static_cast<char>(v)};
  out->append(b, 2);
}
inline void PutBig64(std::string* out, uint64_t v) {
  PutBig32(out, static_cast<uint32_t>(v >> 32));
  PutBig32(out, static_cast<uint32_t>(v));
}
inline void PutVarint(std::string* out, uint64_t v) {
  while (v >= 0x80) {
    out->push_back(static_cast<char>(v | 0x80));
    v >>= 7;
  }
  out->push_back(static_cast<char>(v));
}
inline uint64_t ZigZag(int64_t v) {
  return (static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63);
}
inline int64_t UnZigZag(uint64_t v) {
  return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
}

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool failed() const { return failed_; }
  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  uint8_t U8() {
    const auto b = Take(1);
    return b.empty() ? uint8_t{0} : static_cast<uint8_t>(b[0]);
  }
  uint16_t Big16() {
    const auto b = Take(2);
    return b.empty() ? uint16_t{0} : LoadBig16(b.data());
  }
  uint32_t Big32() {
    const auto b = Take(4);
    return b.empty() ? 0 : LoadBig32(b.data());
  }
  uint64_t Big64() {
    const auto b = Take(8);
    return b.empty() ? 0 : LoadBig64(b.data());
  }
  uint64_t Varint() {
    uint64_t v = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const uint64_t b = U8();
      if (failed_) return 0;
      if (shift == 63 && b > 1) break;  // more than 64 bits
      v |= (b & 0x7f) << shift;
      if (b < 0x80) {
        if (b == 0 && shift > 0) break;  // not the shortest form
        return v;
      }
    }
    failed_ = true;
    return 0;
  }
  int64_t SignedVarint() { return UnZigZag(Varint()); }
  // Empty when fewer than n remain (and then failed()).
  std::span<const std::byte> Take(size_t n) {
    if (failed_ || n > remaining()) {
      failed_ = true;
      return {};
    }
    const auto part = bytes_.subspan(offset_, n);
    offset_ += n;
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
  bool failed_ = false;
};

}  // namespace guildlite
