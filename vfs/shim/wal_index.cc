#include "vfs/shim/wal_index.h"

#include <array>
#include <cstring>

#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

constexpr size_t kWords = 12;  // WalIndexHdr, 48 bytes
constexpr size_t kChecksummedWords = 10;
// A writer is between its two copies for tens of nanoseconds, unless it was descheduled or killed
// there: then one copy alone has to do.
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

// What both copies say; with patience only. Else the one that is whole: copy 2 is written first and
// copy 1 after a barrier (walIndexWriteHdr()), so while either is being written the other is whole,
// and both are of states that were committed: by then nothing can take the newer one back.
std::optional<Words> LoadHeader(const volatile uint32_t* words) {
  Words first;
  Words second;
  for (int tries = 0; tries < kTries; ++tries) {
    first = Load(words);
    second = Load(words + kWords);
    if (first == second) break;
  }
  if (ChecksumIsRight(first)) return first;
  if (ChecksumIsRight(second)) return second;
  return std::nullopt;
}

}  // namespace

std::optional<Published> ReadPublished(const volatile void* region0, uint32_t* page_size) {
  const auto header = LoadHeader(static_cast<const volatile uint32_t*>(region0));
  if (!header) return std::nullopt;
  const Words& words = *header;
  std::array<unsigned char, kWords * 4> bytes;
  std::memcpy(bytes.data(), words.data(), bytes.size());
  const bool is_init = bytes[12] != 0;
  if (!is_init || words[0] != kWalVersion) return std::nullopt;
  if (page_size != nullptr) {
    uint16_t size;
    std::memcpy(&size, &bytes[14], sizeof size);
    *page_size = (size & 0xfe00u) + ((size & 0x0001u) << 16);
  }
  return Published{.salt1 = LoadBig32(&bytes[32]),
                   .salt2 = LoadBig32(&bytes[36]),
                   .max_frame = words[4],
                   .database_pages = words[5],
                   .cksum1 = words[6],
                   .cksum2 = words[7]};
}

}  // namespace guildlite
