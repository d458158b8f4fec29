#include "vfs/base/bytes.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/sim_clock.h"

namespace guildlite {
namespace {

TEST(Bytes, BigEndianIsBigEndian) {
  std::string out;
  PutBig16(&out, 0x0102);
  PutBig32(&out, 0x03040506);
  PutBig64(&out, 0x0708090a0b0c0d0e);
  EXPECT_EQ(out, std::string("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e", 14));
  EXPECT_EQ(LoadBig16(out.data()), 0x0102);
  EXPECT_EQ(LoadBig32(out.data() + 2), 0x03040506u);
  EXPECT_EQ(LoadBig64(out.data() + 6), 0x0708090a0b0c0d0eu);
  const std::string high = "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8";
  EXPECT_EQ(LoadBig16(high.data()), 0xfffe);
  EXPECT_EQ(LoadBig32(high.data()), 0xfffefdfcu);
  EXPECT_EQ(LoadBig64(high.data()), 0xfffefdfcfbfaf9f8u);
}

TEST(Bytes, ACursorReadsWhatWasPut) {
  std::string out;
  out.push_back('\xab');
  PutBig16(&out, 1);
  PutBig32(&out, 2);
  PutBig64(&out, 3);
  PutVarint(&out, 300);
  PutVarint(&out, ZigZag(-5));
  out += "rest";
  Cursor cursor(AsBytes(out));
  EXPECT_EQ(cursor.U8(), 0xab);
  EXPECT_EQ(cursor.Big16(), 1);
  EXPECT_EQ(cursor.Big32(), 2u);
  EXPECT_EQ(cursor.Big64(), 3u);
  EXPECT_EQ(cursor.Varint(), 300u);
  EXPECT_EQ(cursor.SignedVarint(), -5);
  EXPECT_EQ(cursor.remaining(), 4u);
  EXPECT_EQ(AsText(cursor.Take(4)), "rest");
  EXPECT_FALSE(cursor.failed());
  EXPECT_EQ(cursor.offset(), out.size());
}

TEST(Bytes, ACursorNeverReadsPastItsEnd) {
  const std::string bytes = "\x80\x80\x80";
  for (size_t n = 0; n <= 3; ++n) {
    Cursor cursor(AsBytes(bytes).first(n));
    EXPECT_EQ(cursor.Big32(), 0u);
    EXPECT_TRUE(cursor.failed());
    EXPECT_EQ(cursor.U8(), 0) << "once failed, zeros";
    EXPECT_TRUE(cursor.Take(0).empty());
    EXPECT_EQ(cursor.Varint(), 0u);
  }
  Cursor open_end(AsBytes(bytes));
  EXPECT_EQ(open_end.Varint(), 0u);
  EXPECT_TRUE(open_end.failed());
  Cursor huge(AsBytes(bytes));
  EXPECT_TRUE(huge.Take(SIZE_MAX).empty());
  EXPECT_TRUE(huge.failed());
}

TEST(Bytes, VarintsOfEveryLength) {
  std::vector<uint64_t> values = {0, 1, 127, 128, UINT64_MAX, UINT64_MAX - 1};
  for (int bit = 7; bit < 64; ++bit) {
    values.insert(values.end(), {(1ull << bit) - 1, 1ull << bit, (1ull << bit) + 1});
  }
  SimRandom random(TestSeed(1));
  for (int i = 0; i < 1000; ++i) values.push_back(random.Next64() >> random.Below(64));
  for (const uint64_t value : values) {
    std::string out;
    PutVarint(&out, value);
    EXPECT_LE(out.size(), 10u);
    Cursor cursor(AsBytes(out));
    EXPECT_EQ(cursor.Varint(), value);
    EXPECT_EQ(cursor.remaining(), 0u);
    EXPECT_FALSE(cursor.failed());
    for (size_t n = 0; n < out.size(); ++n) {
      Cursor cut(AsBytes(out).first(n));
      EXPECT_EQ(cut.Varint(), 0u);
      EXPECT_TRUE(cut.failed());
    }
  }
}

// One value, one encoding: a signature over bytes is then one over values.
TEST(Bytes, RefusesVarintsThatAreNotTheShortest) {
  for (const std::string& bad :
       {std::string("\x80\x00", 2), std::string("\xff\x80\x00", 3),
        std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10),  // 65 bits
        std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11)}) {
    Cursor cursor(AsBytes(bad));
    EXPECT_EQ(cursor.Varint(), 0u);
    EXPECT_TRUE(cursor.failed());
  }
}

TEST(Bytes, ZigZagKeepsSmallMagnitudesSmall) {
  EXPECT_EQ(ZigZag(0), 0u);
  EXPECT_EQ(ZigZag(-1), 1u);
  EXPECT_EQ(ZigZag(1), 2u);
  for (const int64_t v : {int64_t{0}, int64_t{-1}, int64_t{1}, std::numeric_limits<int64_t>::min(),
                          std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(UnZigZag(ZigZag(v)), v);
  }
}

}  // namespace
}  // namespace guildlite
