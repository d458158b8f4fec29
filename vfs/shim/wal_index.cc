#include "vfs/shim/wal_index.h"

#include <array>
#include <cstring>

#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

constexpr size_t kWords = 12;  // WalIndexHdr, 48 bytes
constexpr size_t kChecksummedWords = 10;
// A writer is between its two copies for tens of nanoseconds; if it was descheduled there the
// caller comes back with the next trigger.
constexpr int kTries = 16;

using Words = std::array<uint32_t, kWords>;

Words Load(const volatile uint32_t* from) {
  Words words;
  // Another thread or process may be writing: word by word, so that only the
  // comparison and the checksum have to tell. Acquire keeps copy 2 behind copy 1 (and, unlike a
  // fence, is understood by the thread sanitizer).
  for (size_t i = 0; i < kWords; ++i) words[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
  return words;
}

// walChecksumBytes() of wal.c with nativeCksum = 1.
bool ChecksumIsRight(const Words& words) {
  uint32_t s1 = 0;
  uint32_t s2 = 0;
  for (size_t i = 0; i < kChecksummedWords; i += 2) {
    s1 += words[i] + s2;
    s2 += words[i + 1] + s1;
  }
  return s1 == words[10] && s2 == words[11];
}

}  // namespace

std::optional<Published> ReadPublished(const volatile void* region0, uint32_t* page_size) {
  const auto* words = static_cast<const volatile uint32_t*>(region0);
  for (int tries = 0; tries < kTries; ++tries) {
    const Words first = Load(words);
    const Words second = Load(words + kWords);
    if (first != second || !ChecksumIsRight(first)) continue;

    std::array<unsigned char, kWords * 4> bytes;
    std::memcpy(bytes.data(), first.data(), bytes.size());
    const bool is_init = bytes[12] != 0;
    if (!is_init || first[0] != kWalVersion) return std::nullopt;
    if (page_size != nullptr) {
      uint16_t size;
      std::memcpy(&size, &bytes[14], sizeof size);
      *page_size = (size & 0xfe00u) + ((size & 0x0001u) << 16);
    }
    return Published{.salt1 = LoadBig32(&bytes[32]),
                     .salt2 = LoadBig32(&bytes[36]),
                     .max_frame = first[4],
                     .database_pages = first[5],
                     .cksum1 = first[6],
                     .cksum2 = first[7]};
  }
  return std::nullopt;
}

}  // namespace guildlite
