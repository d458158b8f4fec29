// The frames of a block: what the prefix is worth, and that it keeps being worth it when it is
// large.
#include "vfs/format/page_codec.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

using namespace guildlite::testing;

// Bytes no compressor makes smaller: only a match in the prefix can.
std::string Noise(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string noise;
  while (noise.size() < size) PutBig64(&noise, random());
  noise.resize(size);
  return noise;
}

std::string EditEveryPage(std::string bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (size_t page = 0; page < bytes.size(); page += 4096) {
    bytes[page + random() % 4096] ^= 0x55;
  }
  return bytes;
}

TEST(PageCodec, ALargePrefixIsFoundFromItsFirstByteToItsLast) {
  PageEncoder encoder(3);
  PageDecoder decoder;
  // 1 MiB is a full block; 16 MiB the largest a reader accepts: with its prefix it fills the
  // window.
  for (const size_t size : {256u << 10, 600u << 10, 1u << 20, 3u << 20, 16u << 20}) {
    SCOPED_TRACE(size);
    const std::string prefix = Noise(size, size);
    const std::string images = EditEveryPage(prefix, 7);
    std::string frame;
    encoder.EncodeImages(AsBytes(prefix), AsBytes(images), &frame);
    EXPECT_LT(frame.size(), size / 4096 * 40);
    std::string out(size, '\0');
    ASSERT_TRUE(decoder.DecodeImages(AsBytes(frame), AsBytes(prefix),
                                     std::as_writable_bytes(std::span(out))));
    EXPECT_TRUE(out == images);
  }
}

// The page hashes in the meta prove the images; the frame itself carries no checksum.
TEST(PageCodec, AnotherPrefixGivesOtherBytesOrNone) {
  PageEncoder encoder(3);
  PageDecoder decoder;
  const std::string prefix = Noise(4096, 1);
  const std::string images = EditEveryPage(prefix, 2);
  std::string frame;
  encoder.EncodeImages(AsBytes(prefix), AsBytes(images), &frame);
  std::string out(4096, '\0');
  const auto decode = [&](std::string_view with) {
    return decoder.DecodeImages(AsBytes(frame), AsBytes(with),
                                std::as_writable_bytes(std::span(out))) &&
           out == images;
  };
  for (const size_t at : {0, 1000, 4095}) {
    std::string wrong = prefix;
    wrong[at] ^= 1;
    EXPECT_FALSE(decode(wrong)) << at;
  }
  EXPECT_FALSE(decode({}));
  EXPECT_FALSE(decode(Noise(8192, 1)));
  EXPECT_TRUE(decode(prefix)) << "a failure leaves the decoder as good as new";
}

TEST(PageCodec, ExactlyOneFrameOfExactlyTheSizeIsAccepted) {
  PageEncoder encoder(3);
  PageDecoder decoder;
  const std::string images = MakePage(4096, 1);
  std::string frame;
  encoder.EncodeImages({}, AsBytes(images), &frame);
  const auto decode = [&](const std::string& bytes, size_t size) {
    std::string out(size, '\0');
    return decoder.DecodeImages(AsBytes(bytes), {}, std::as_writable_bytes(std::span(out)));
  };
  EXPECT_TRUE(decode(frame, 4096));
  EXPECT_FALSE(decode(frame, 4095));
  EXPECT_FALSE(decode(frame, 4097));
  EXPECT_FALSE(decode(frame, 8192));
  EXPECT_FALSE(decode(frame + frame, 8192));
  EXPECT_FALSE(decode(frame + "x", 4096));
  EXPECT_FALSE(decode({}, 4096));
  const std::string skippable("\x50\x2a\x4d\x18\x00\x00\x00\x00", 8);
  EXPECT_FALSE(decode(frame + skippable, 4096));
  EXPECT_FALSE(decode(skippable + frame, 4096));
}

TEST(PageCodec, AFrameDoesNotDependOnTheOnesBefore) {
  const std::string prefix = Noise(100 << 10, 1);
  const std::string images = EditEveryPage(prefix, 2);
  std::string expected;
  PageEncoder(3).EncodeImages(AsBytes(prefix), AsBytes(images), &expected);
  PageEncoder used(3);
  std::string ignored;
  used.EncodeImages(AsBytes(Noise(2 << 20, 3)), AsBytes(Noise(2 << 20, 3)), &ignored);
  used.EncodeMeta(Noise(1000, 4));
  used.EncodeImages({}, AsBytes(images), &ignored);
  std::string frame;
  used.EncodeImages(AsBytes(prefix), AsBytes(images), &frame);
  EXPECT_TRUE(frame == expected);
}

TEST(PageCodec, AMetaIsCompressedOnlyWhereThatMakesItSmaller) {
  PageEncoder encoder(3);
  EXPECT_FALSE(encoder.EncodeMeta(Noise(1000, 1)).has_value());
  EXPECT_FALSE(encoder.EncodeMeta("aaaaaaaaaaaaaaaaaaaaaaaaaaa").has_value());
  const std::string text = MakePage(1000, 1);
  const std::optional<std::string> packed = encoder.EncodeMeta(text);
  ASSERT_TRUE(packed.has_value());
  std::string out(text.size(), '\0');
  ASSERT_TRUE(PageDecoder().DecodeMeta(AsBytes(*packed), std::as_writable_bytes(std::span(out))));
  EXPECT_EQ(out, text);
}

}  // namespace
}  // namespace guildlite
