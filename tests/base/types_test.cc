#include "guildlite/types.h"

#include <gtest/gtest.h>

#include <string>

namespace guildlite {
namespace {

TEST(Types, APositionIsFixedWidthHex) {
  const Position position{Lineage(0x0123456789abcdef), Epoch(3), Txid(0x10), 0xdeadbeef};
  EXPECT_EQ(position.ToString(), "0123456789abcdef-00000003-0000000000000010-deadbeef");
  EXPECT_EQ(Position::Parse(position.ToString()), position);
  const Position most{Lineage(UINT64_MAX), Epoch(UINT32_MAX), Txid(UINT64_MAX), UINT32_MAX};
  EXPECT_EQ(Position::Parse(most.ToString()), most);
  EXPECT_EQ(Position::Parse(Position{}.ToString()), Position{});
}

TEST(Types, APositionIsParsedExactly) {
  const std::string good = "0123456789abcdef-00000003-0000000000000010-deadbeef";
  ASSERT_TRUE(Position::Parse(good).has_value());
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(Position::Parse(good.substr(0, i)).has_value());
    for (const char c : {'g', 'A', ' ', '+', '\0'}) {
      std::string bad = good;
      bad[i] = c;
      EXPECT_FALSE(Position::Parse(bad).has_value()) << bad;
    }
    std::string swapped = good;
    swapped[i] = good[i] == '-' ? '0' : '-';
    EXPECT_FALSE(Position::Parse(swapped).has_value()) << swapped;
  }
  EXPECT_FALSE(Position::Parse(good + "0").has_value());
  EXPECT_FALSE(Position::Parse("").has_value());
}

// PENDING_BYTE / page size + 1, as PENDING_BYTE_PAGE in SQLite's btreeInt.h.
TEST(Types, TheLockPageHoldsByte0x40000000) {
  EXPECT_EQ(LockPage(512), Pgno(2097153));
  EXPECT_EQ(LockPage(4096), Pgno(262145));
  EXPECT_EQ(LockPage(65536), Pgno(16385));
}

TEST(Types, PageSizesArePowersOfTwoFrom512To65536) {
  int valid = 0;
  for (uint32_t n = 0; n <= 70000; ++n) valid += IsValidPageSize(n) ? 1 : 0;
  EXPECT_EQ(valid, 8);
  EXPECT_TRUE(IsValidPageSize(512));
  EXPECT_TRUE(IsValidPageSize(65536));
  EXPECT_FALSE(IsValidPageSize(1 << 31));
}

TEST(Types, StrongTypesOrderAndStep) {
  EXPECT_LT(Txid(1), Txid(2));
  EXPECT_EQ(Txid(1).Next(), Txid(2));
  static_assert(!std::is_convertible_v<uint64_t, Txid>);
  static_assert(!std::is_convertible_v<Txid, Slot>);
}

TEST(Types, AWalGenerationIsItsSalts) {
  const WalMark a{1, 2, 3, 4, 5}, b{1, 2, 9, 9, 9}, c{1, 3, 3, 4, 5};
  EXPECT_TRUE(a.SameGeneration(b));
  EXPECT_FALSE(a.SameGeneration(c));
}

}  // namespace
}  // namespace guildlite
