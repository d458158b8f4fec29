#include "vfs/format/running_hash.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

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
