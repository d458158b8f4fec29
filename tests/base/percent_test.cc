#include "vfs/base/percent.h"

#include <gtest/gtest.h>

namespace guildlite {
namespace {

TEST(Percent, EncodesAllButTheUnreservedBytes) {
  EXPECT_EQ(PercentEncode("AZaz09-._~"), "AZaz09-._~");
  EXPECT_EQ(PercentEncode("a b/c+d%\xc3\xbc"), "a%20b%2Fc%2Bd%25%C3%BC");
  EXPECT_EQ(PercentEncode("a/b c", "/"), "a/b%20c");
  EXPECT_EQ(PercentEncode(std::string_view("\0\xff", 2)), "%00%FF");
}

TEST(Percent, DecodesWhatWasEncoded) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(PercentDecode(PercentEncode(all)), all);
  EXPECT_EQ(PercentDecode("a%2fb%2Fc"), "a/b/c");
  EXPECT_EQ(PercentDecode("a+b"), "a+b");
}

TEST(Percent, RefusesAPercentThatLacksItsDigits) {
  for (const char* text : {"%", "a%", "a%4", "%zz", "%4g", "%%41"}) {
    EXPECT_EQ(PercentDecode(text), std::nullopt) << text;
  }
}

TEST(DecodeUrlPath, GivesOneMeaning) {
  EXPECT_EQ(DecodeUrlPath("a").value(), "a");
  EXPECT_EQ(DecodeUrlPath("a/b%20c/d e/%c3%BC").value(), "a/b c/d e/\xc3\xbc");
  EXPECT_EQ(DecodeUrlPath("a:b@c/.../..b").value(), "a:b@c/.../..b");
  for (const char* path : {"", "/", "a/", "/a", "a//b", ".", "a/..", "%2e%2E", "a%2Fb", "a%00",
                           "a%", "a?b", "a#b", "\xc3\xbc", "a\nb", "a\\b", "{name}"}) {
    EXPECT_FALSE(DecodeUrlPath(path).ok()) << path;
  }
}

}  // namespace
}  // namespace guildlite
