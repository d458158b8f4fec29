#include "vfs/base/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cassert>
#include <cstring>
#include <string>

#include "vfs/base/bytes.h"

namespace guildlite {

// "Checksum Algorithm", sqlite.org/fileformat2.html#checksum_algorithm; walChecksumBytes() in
// wal.c.
void WalChecksum::Update(std::span<const std::byte> bytes, bool big_endian) {
  assert(bytes.size() % 8 == 0);
  const bool swap = big_endian != (std::endian::native == std::endian::big);
  uint32_t a = s0, b = s1;
  const std::byte* p = bytes.data();
  const std::byte* const end = p + bytes.size();
  if (swap) {
    for (; p != end; p += 8) {
      uint32_t x[2];
      std::memcpy(x, p, 8);
      a += __builtin_bswap32(x[0]) + b;
      b += __builtin_bswap32(x[1]) + a;
    }
  } else {
    for (; p != end; p += 8) {
      uint32_t x[2];
      std::memcpy(x, p, 8);
      a += x[0] + b;
      b += x[1] + a;
    }
  }
  s0 = a;
  s1 = b;
}

uint64_t PageHash(Pgno pgno, std::span<const std::byte> page) {
  const uint64_t h = XXH3_64bits_withSeed(page.data(), page.size(), pgno.value);
  return h == 0 ? 1 : h;
}

uint64_t Hash64(std::span<const std::byte> bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

struct RunningHash::State {
  XXH3_state_t xxh;
};

// Aligned: XXH3_state_t asks for 64 bytes, C++17 new obeys.
RunningHash::RunningHash() : state_(new State) { Reset(); }
RunningHash::~RunningHash() { delete state_; }

void RunningHash::Reset() { XXH3_64bits_reset(&state_->xxh); }
void RunningHash::Update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size());
}
uint64_t RunningHash::Digest() const { return XXH3_64bits_digest(&state_->xxh); }

HistoryHash::HistoryHash(uint64_t previous, Txid txid, uint32_t database_pages) {
  std::string head;
  PutBig64(&head, previous);
  PutBig64(&head, txid.value);
  PutBig32(&head, database_pages);
  hash_.Update(AsBytes(head));
}

void HistoryHash::Add(Pgno pgno, uint64_t page_hash) {
  std::string entry;
  PutBig32(&entry, pgno.value);
  PutBig64(&entry, page_hash);
  hash_.Update(AsBytes(entry));
}

uint64_t HistoryStart(Lineage lineage) {
  std::string b;
  PutBig64(&b, lineage.value);
  return Hash64(AsBytes(b));
}

}  // namespace guildlite
