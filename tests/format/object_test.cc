// The envelope: headers, index and trailer of every kind of object.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

using namespace guildlite::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ObjectHeader SomeHeader() {
  return {.kind = ObjectKind::kData,
          .lineage = Lineage(0x0123456789abcdef),
          .epoch = Epoch(3),
          .session = Session(0xfedcba9876543210),
          .slot = Slot(1000),
          .last_slot = Slot(1000),
          .first_txid = Txid(5000),
          .last_txid = Txid(5004),
          .time_ms = 1'800'000'000'123,
          .page_size = 4096,
          .database_pages = 12345,
          .mark = {1, 2, 3, 4, 5},
          .history_hash = 6,
          .rolling_checksum = 7,
          .rolling_known = true,
          .previous_hash = 8,
          .continues_from = Txid(5004)};
}

// The header with the given bytes replaced and its checksum made right again: what only a broken or
// a later writer makes.
std::string Reseal(std::string object, size_t offset, std::string_view bytes) {
  object.replace(offset, bytes.size(), bytes);
  const size_t end = LoadBig32(object.data() + 6) - 8;
  std::string hash;
  PutBig64(&hash, Hash64(AsBytes(object).first(end)));
  return object.replace(end, 8, hash);
}

std::string Message(const Result<ObjectHeader>& result) { return result.status().ToString(); }

TEST(ObjectEnvelope, EveryFieldComesBack) {
  ObjectHeader all = SomeHeader();
  all.kind = ObjectKind::kSegment;
  all.last_slot = Slot(2000);
  all.continues_from = Txid(17);
  all.time_ms = -5;
  all.key_id = 0xffffffff;
  all.mark.frame = 0xffffffff;
  all.parts = {{"parts/00000003-x", 1u << 20, 99}, {"p", UINT64_MAX / 4, 100}};
  ObjectHeader unknown = SomeHeader();
  unknown.rolling_known = false;
  unknown.rolling_checksum = 0;
  unknown.last_slot = Slot();
  unknown.continues_from = Txid();
  for (const ObjectHeader& header : {SomeHeader(), all, unknown, ObjectHeader{}}) {
    const std::string object = EncodeObject(header, "body");
    const Result<ObjectHeader> decoded = DecodeHeader(object, "log/1");
    ASSERT_TRUE(decoded.ok()) << Message(decoded);
    EXPECT_EQ(*decoded, header);
  }
}

TEST(ObjectEnvelope, AWholeObjectOpens) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  const Result<ObjectView> view = OpenObject(object, "log/1");
  ASSERT_TRUE(view.ok()) << view.status().ToString();
  EXPECT_EQ(view->header, SomeHeader());
  EXPECT_EQ(AsText(view->inline_body), "some body");
  EXPECT_EQ(view->object_hash, ObjectHash(object));
  EXPECT_TRUE(view->index.empty());
}

TEST(ObjectEnvelope, OneWithoutBodyIsSmall) {
  ObjectHeader fence = SomeHeader();
  fence.kind = ObjectKind::kFence;
  const std::string object = EncodeObject(fence, {});
  EXPECT_LE(object.size(), 120u);
  EXPECT_TRUE(OpenObject(object, "log/1").ok());
}

TEST(ObjectEnvelope, TheIndexComesBack) {
  const std::vector<IndexEntry> index = {{20, 1000, Pgno(500), 64, Txid(7)},
                                         {1020, 5, Pgno(2), 1, Txid(7)},
                                         {1030, 3000, Pgno(0xfffffffe), 256, Txid(900)}};
  ObjectHeader header = SomeHeader();
  header.kind = ObjectKind::kSnapshot;
  header.parts = {{"snapshot/1", 4000, 3}};
  const std::string object = EncodeObject(header, std::string(30, 'x'), index);
  const Result<ObjectView> view = OpenObject(object, "snapshot");
  ASSERT_TRUE(view.ok()) << view.status().ToString();
  EXPECT_EQ(view->index, index);

  header.parts[0].size = 3990;  // the last block now ends 10 bytes beyond parts and body together
  const Result<ObjectView> beyond =
      OpenObject(EncodeObject(header, std::string(30, 'x'), index), "snapshot");
  EXPECT_THAT(beyond.status().ToString(), HasSubstr("snapshot: index entry 2: the block ends"));
}

TEST(ObjectEnvelope, EveryTruncationIsDetected) {
  const std::string object =
      EncodeObject(SomeHeader(), "some body", {{0, 9, Pgno(1), 1, Txid(5000)}});
  for (size_t size = 0; size < object.size(); ++size) {
    const Result<ObjectView> view = OpenObject(object.substr(0, size), "log/1");
    ASSERT_FALSE(view.ok()) << size;
    EXPECT_EQ(view.status().tag(), Tag::kChainBroken) << size;
    EXPECT_THAT(view.status().message(), HasSubstr("log/1: ")) << size;
  }
  EXPECT_FALSE(OpenObject(object + '\0', "log/1").ok());
}

TEST(ObjectEnvelope, EveryFlippedBitIsDetected) {
  ObjectHeader header = SomeHeader();
  header.parts = {{"parts/a", 10, 11}};
  const std::string object = EncodeObject(header, "some body", {{0, 9, Pgno(1), 1, Txid(5000)}});
  for (size_t at = 0; at < object.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = object;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      const Result<ObjectView> view = OpenObject(damaged, "log/1");
      ASSERT_FALSE(view.ok()) << at << "." << bit;
      const bool version = at == 4 || at == 5;
      EXPECT_TRUE(view.status().tag() == Tag::kChainBroken ||
                  (version && view.status().tag() == Tag::kFormatTooNew))
          << at << "." << bit << ": " << view.status().ToString();
    }
  }
}

TEST(ObjectEnvelope, MessagesNameTheObjectAndThePlace) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  std::string damaged = object;
  damaged[20] = 'x';
  EXPECT_EQ(Message(DecodeHeader(damaged, "log/7")),
            "CHAIN_BROKEN: log/7: header checksum: does not match");
  damaged = object;
  damaged[object.size() - 20] = 'x';
  EXPECT_EQ(OpenObject(damaged, "log/7").status().ToString(),
            "CHAIN_BROKEN: log/7: trailer checksum: does not match header, body and index");
  EXPECT_THAT(Message(DecodeHeader(object.substr(0, 90), "log/7")),
              HasSubstr("log/7: header length: "));
}

TEST(ObjectEnvelope, ALaterVersionIsRefusedBeforeAnythingElseIsRead) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  for (const std::string_view rest : {std::string_view(object).substr(6), std::string_view()}) {
    const std::string later = object.substr(0, 4) + std::string("\0\x02", 2) + std::string(rest);
    EXPECT_EQ(DecodeHeader(later, "log/1").status().tag(), Tag::kFormatTooNew);
    EXPECT_EQ(OpenObject(later, "log/1").status().tag(), Tag::kFormatTooNew);
  }
}

TEST(ObjectEnvelope, WhatVersionOneDoesNotKnowIsALaterWriters) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  for (const auto& [offset, byte] : {std::pair<size_t, char>{10, 0}, {10, 9}, {11, 2}, {12, 2}}) {
    const Result<ObjectHeader> header =
        DecodeHeader(Reseal(object, offset, std::string(1, byte)), "log/1");
    EXPECT_EQ(header.status().tag(), Tag::kFormatTooNew) << Message(header);
  }
}

TEST(ObjectEnvelope, ImpossibleHeadersAreRefusedEvenWithARightChecksum) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, 13, "\x08"), "x")), HasSubstr("page size"));
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, 11, std::string(1, '\0')), "x")),
              HasSubstr("rolling checksum"));
  EXPECT_THAT(
      Message(DecodeHeader(Reseal(object, kHeaderFixedSize, "\xff\xff\xff\xff\xff\x01"), "x")),
      HasSubstr("CHAIN_BROKEN: x: header"));
  // The last byte before the checksum is the number of parts.
  const size_t parts = LoadBig32(object.data() + 6) - 9;
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, parts, "\x7f"), "x")), HasSubstr("do not fit"));
  // A fence with parts.
  ObjectHeader header = SomeHeader();
  header.parts = {{"parts/a", 10, 11}};
  EXPECT_THAT(Message(DecodeHeader(Reseal(EncodeObject(header, {}), 10, "\x02"), "x")),
              HasSubstr("kind 2 has none"));
}

TEST(ObjectEnvelope, AnEncryptedOneAsksForItsKey) {
  ObjectHeader header = SomeHeader();
  header.key_id = 4;
  const std::string object = EncodeObject(header, "some body");
  EXPECT_TRUE(DecodeHeader(object, "log/1").ok());
  EXPECT_EQ(OpenObject(object, "log/1").status().tag(), Tag::kWrongKey);
}

TEST(ObjectEnvelope, AHeaderLongerThanTheFirstReadSaysHowLongItIs) {
  ObjectHeader header = SomeHeader();
  for (uint64_t i = 0; i < 500; ++i) {
    header.parts.push_back({"parts/00000003-" + std::to_string(i), 100 + i, i});
  }
  const std::string object = EncodeObject(header, "tail");
  const std::string_view first = std::string_view(object).substr(0, kHeaderReadBytes);
  EXPECT_EQ(DecodeHeader(first, "log/1").status().tag(), Tag::kChainBroken);
  const Result<uint64_t> length = HeaderLength(first, "log/1");
  ASSERT_TRUE(length.ok());
  const Result<ObjectHeader> decoded = DecodeHeader(object.substr(0, *length), "log/1");
  ASSERT_TRUE(decoded.ok()) << Message(decoded);
  EXPECT_EQ(*decoded, header);
}

// The largest sum of a body is below 2^64: more is no body.
TEST(ObjectEnvelope, PartsThatOverflowAreRefused) {
  ObjectHeader header = SomeHeader();
  header.parts = {{"a", UINT64_MAX, 1}, {"b", 2, 1}};
  EXPECT_THAT(Message(DecodeHeader(EncodeObject(header, {}), "x")),
              HasSubstr("header part 1: a size of 2"));
}

}  // namespace
}  // namespace guildlite
