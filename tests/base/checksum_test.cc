#include "vfs/base/checksum.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

std::string Ramp(size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += static_cast<char>(i * 31 + 7);
  return out;
}

// By hand from "Checksum Algorithm", sqlite.org/fileformat2.html: s0 += x[0] + s1; s1 += x[1] + s0.
TEST(Checksum, WalChecksumIsSqlites) {
  const std::string bytes("\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4", 16);
  WalChecksum big;
  big.Update(AsBytes(bytes), true);
  EXPECT_EQ(big.s0, 1u + 3 + 3);  // 1, then 1 + (3 + 3)
  EXPECT_EQ(big.s1, 3u + 4 + 7);  // 2 + 1 = 3, then 3 + (4 + 7)
  WalChecksum little;
  little.Update(AsBytes(bytes).first(8), false);
  EXPECT_EQ(little.s0, 0x01000000u);
  EXPECT_EQ(little.s1, 0x03000000u);
}

TEST(Checksum, WalChecksumGoesOnWhereItStopped) {
  const std::string bytes = Ramp(4096);
  for (const bool big_endian : {false, true}) {
    WalChecksum whole, parts;
    whole.Update(AsBytes(bytes), big_endian);
    parts.Update(AsBytes(bytes).first(24), big_endian);
    parts.Update({}, big_endian);
    parts.Update(AsBytes(bytes).subspan(24), big_endian);
    EXPECT_EQ(whole, parts);
  }
}

// Written to objects and page tables: these numbers can never change. They were computed with
// xxHash's own library over the bytes the format names.
TEST(Checksum, HashesAreTheFormats) {
  const std::string page = Ramp(512);
  EXPECT_EQ(PageHash(Pgno(1), AsBytes(page)), 0x986ec0df11edd8f9u);
  EXPECT_EQ(Hash64(AsBytes("guildlite")), 0x61f3a5a2d30af473u);
  EXPECT_EQ(HistoryStart(Lineage(0x0123456789abcdef)), 0x2eeaf09d1cb5f662u);
  HistoryHash history(1, Txid(2), 3);
  history.Add(Pgno(4), 5);
  EXPECT_EQ(history.Finish(), 0x491fbfa6b367917du);
}

TEST(Checksum, APageHashNamesContentAndPlaceAndIsNeverZero) {
  const std::string page = Ramp(4096);
  std::set<uint64_t> hashes;
  for (uint32_t pgno = 1; pgno <= 100; ++pgno) hashes.insert(PageHash(Pgno(pgno), AsBytes(page)));
  std::string changed = page;
  changed[4095] ^= 1;
  hashes.insert(PageHash(Pgno(1), AsBytes(changed)));
  EXPECT_EQ(hashes.size(), 101u);
  EXPECT_EQ(hashes.count(0), 0u);
}

TEST(Checksum, AHistoryHashNamesEverythingInOrder) {
  const auto hash = [](uint64_t previous, uint64_t txid, uint32_t pages,
                       std::vector<std::pair<uint32_t, uint64_t>> entries) {
    HistoryHash h(previous, Txid(txid), pages);
    for (const auto& [pgno, page_hash] : entries) h.Add(Pgno(pgno), page_hash);
    return h.Finish();
  };
  const std::set<uint64_t> all = {hash(1, 2, 3, {{4, 5}, {6, 7}}),
                                  hash(9, 2, 3, {{4, 5}, {6, 7}}),
                                  hash(1, 9, 3, {{4, 5}, {6, 7}}),
                                  hash(1, 2, 9, {{4, 5}, {6, 7}}),
                                  hash(1, 2, 3, {{9, 5}, {6, 7}}),
                                  hash(1, 2, 3, {{4, 9}, {6, 7}}),
                                  hash(1, 2, 3, {{6, 7}, {4, 5}}),
                                  hash(1, 2, 3, {{4, 5}}),
                                  hash(1, 2, 3, {})};
  EXPECT_EQ(all.size(), 9u);
  EXPECT_EQ(hash(1, 2, 3, {{4, 5}}), hash(1, 2, 3, {{4, 5}}));
  EXPECT_NE(HistoryStart(Lineage(1)), HistoryStart(Lineage(2)));
}

std::string RandomBytes(size_t size) {
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// XXH3 takes short inputs, up to 240 bytes, and stripes of 64 in blocks of 1024 each another way.
constexpr size_t kSizes[] = {0, 1, 3, 8, 16, 17, 128, 240, 241, 256, 1023, 1024, 1025, 70000};

TEST(RunningHash, OfPiecesIsTheHashOfTheWhole) {
  for (const size_t size : kSizes) {
    const std::string bytes = RandomBytes(size);
    for (const size_t piece : {1, 7, 64, 100, 4096}) {
      RunningHash hash;
      for (size_t at = 0; at < size; at += piece) {
        hash.Update(AsBytes(std::string_view(bytes).substr(at, piece)));
        hash.Update({});
      }
      EXPECT_EQ(hash.Digest(), Hash64(AsBytes(bytes))) << size << " bytes by " << piece;
    }
  }
}

TEST(RunningHash, MayBeAskedInBetween) {
  const std::string bytes = RandomBytes(3000);
  RunningHash hash;
  for (size_t at = 0; at < bytes.size(); at += 300) {
    EXPECT_EQ(hash.Digest(), Hash64(AsBytes(bytes).first(at)));
    hash.Update(AsBytes(bytes).subspan(at, 300));
  }
  EXPECT_EQ(hash.Digest(), Hash64(AsBytes(bytes)));
  EXPECT_EQ(hash.Digest(), Hash64(AsBytes(bytes))) << "asking changes nothing";
}

TEST(RunningHash, BeginsAgainAtReset) {
  RunningHash hash;
  hash.Update(AsBytes(RandomBytes(5000)));
  hash.Reset();
  EXPECT_EQ(hash.Digest(), Hash64({}));
  hash.Update(AsBytes("guildlite"));
  EXPECT_EQ(hash.Digest(), Hash64(AsBytes("guildlite")));
}

}  // namespace
}  // namespace guildlite
