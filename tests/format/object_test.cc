// The envelope: headers, index and trailer of every kind of object.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <iterator>

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

// Where the fields of SomeHeader() are: FORMAT.md, "Header", with a length of one byte.
constexpr size_t kVersionAt = 4;
constexpr size_t kKindAt = 6;
constexpr size_t kFlagsAt = 7;
constexpr size_t kEpochAt = 24;
constexpr size_t kPageSizeAt = 27;

// The header with the given bytes replaced and its checksum made right again: what only a broken or
// a later writer makes.
std::string Reseal(std::string object, size_t offset, std::string_view bytes) {
  const size_t end = *HeaderLength(object, "") - 4;
  object.replace(offset, bytes.size(), bytes);
  std::string hash;
  PutBig64(&hash, Hash64(AsBytes(object).first(end)));
  return object.replace(end, 4, hash.substr(0, 4));
}

std::string Message(const Result<ObjectHeader>& result) { return result.status().ToString(); }

TEST(ObjectEnvelope, EveryFieldComesBack) {
  ObjectHeader all = SomeHeader();
  all.kind = ObjectKind::kSegment;
  all.session = Session(0xfedcba9876543210);
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
  unknown.mark = WalMark();
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

// Two transactions, and the header an honest writer gives the object they are in.
struct Shipped {
  ObjectHeader header;
  std::string body;
};
Shipped TwoTransactions() {
  std::vector<TransactionSpec> history(2);
  for (uint32_t i = 0; i < 2; ++i) {
    Transaction& t = history[i].header;
    t.time_ms = 1'800'000'000'000 + i;
    t.database_pages = 7 + i;
    t.mark = {1, 2, 3 + i, 4, 5};
    t.rolling_known = true;
    history[i].pages.push_back({i + 1, MakePage(1024, i)});
  }
  Chain(&history, Txid(5000), 1);
  Shipped shipped{SomeHeader(), EncodeBatch(history, {}, {.page_size = 1024})};
  ObjectHeader& h = shipped.header;
  const Transaction& last = history[1].header;
  h.last_txid = h.continues_from = last.txid;
  h.time_ms = last.time_ms;
  h.page_size = 1024;
  h.database_pages = last.database_pages;
  h.mark = last.mark;
  h.history_hash = last.history_hash;
  h.rolling_checksum = last.rolling_checksum;
  return shipped;
}

TEST(ObjectEnvelope, WhatTheBodySaysOfTheStateTheHeaderDoesNotRepeat) {
  const auto [header, body] = TwoTransactions();
  const std::string object = EncodeObject(header, body);
  EXPECT_EQ(*HeaderLength(object, ""), 31u);
  const Result<ObjectHeader> alone = DecodeHeader(object, "log/1");
  ASSERT_TRUE(alone.ok()) << Message(alone);
  EXPECT_TRUE(alone->state_inside);
  EXPECT_EQ(alone->epoch, header.epoch);
  EXPECT_EQ(alone->slot, header.slot);
  EXPECT_EQ(alone->last_txid, Txid()) << "not known without the body";
  const Result<ObjectView> whole = OpenObject(object, "log/1");
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  EXPECT_EQ(whole->header, header);
}

// A heal's mark, a checksum that a scan has made known since: the header may know another state.
TEST(ObjectEnvelope, AStateThatIsNotTheBodysIsWrittenOut) {
  const auto [header, body] = TwoTransactions();
  const std::function<void(ObjectHeader&)> twists[] = {
      [](ObjectHeader& h) { h.mark = WalMark(); },
      [](ObjectHeader& h) { h.mark.cksum2 = 6; },
      [](ObjectHeader& h) { h.rolling_checksum = 9; },
      [](ObjectHeader& h) { h.rolling_known = false, h.rolling_checksum = 0; },
      [](ObjectHeader& h) { h.history_hash = 9; },
      [](ObjectHeader& h) { h.time_ms = 9; },
      [](ObjectHeader& h) { h.database_pages = 9; },
      [](ObjectHeader& h) { h.page_size = 2048; },
      [](ObjectHeader& h) { h.first_txid = Txid(1); },
      [](ObjectHeader& h) { h.last_txid = Txid(9); },
      [](ObjectHeader& h) { h.continues_from = Txid(9); },
      [](ObjectHeader& h) { h.last_slot = Slot(9); },
      [](ObjectHeader& h) { h.kind = ObjectKind::kSegment; },
  };
  for (size_t i = 0; i < std::size(twists); ++i) {
    ObjectHeader other = header;
    twists[i](other);
    const std::string object = EncodeObject(other, body);
    const Result<ObjectHeader> alone = DecodeHeader(object, "log/1");
    ASSERT_TRUE(alone.ok()) << i << ": " << Message(alone);
    EXPECT_EQ(*alone, other) << i;
    EXPECT_EQ(OpenObject(object, "log/1")->header, other) << i;
  }
}

TEST(ObjectEnvelope, AStateLeftToABodyThatHasNoneIsRefused) {
  const auto [header, body] = TwoTransactions();
  std::string head = EncodeObject(header, body);
  head.resize(*HeaderLength(head, ""));
  const auto with = [&](std::string_view forged) {
    std::string object = head + std::string(forged);
    PutBig64(&object, Hash64(AsBytes(object)));
    return OpenObject(object, "log/7").status().ToString();
  };
  EXPECT_EQ(with(body), "OK");
  EXPECT_EQ(with({}), "CHAIN_BROKEN: log/7: body: empty, and the header leaves the state to it");
  EXPECT_THAT(with("some body of another kind"), HasSubstr("CHAIN_BROKEN: log/7: batch 0"));
  EXPECT_THAT(with(std::string_view(body).substr(0, body.size() - 1)),
              HasSubstr("end mark hash: cut short"));
}

TEST(ObjectEnvelope, OneWithoutBodyIsSmall) {
  ObjectHeader fence = SomeHeader();
  fence.kind = ObjectKind::kFence;
  const std::string object = EncodeObject(fence, {});
  EXPECT_LE(object.size(), 92u);
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
  const auto [header, body] = TwoTransactions();
  for (const std::string& object :
       {EncodeObject(SomeHeader(), "some body", {{0, 9, Pgno(1), 1, Txid(5000)}}),
        EncodeObject(header, body)}) {
    for (size_t size = 0; size < object.size(); ++size) {
      const Result<ObjectView> view = OpenObject(object.substr(0, size), "log/1");
      ASSERT_FALSE(view.ok()) << size;
      EXPECT_EQ(view.status().tag(), Tag::kChainBroken) << size;
      EXPECT_THAT(view.status().message(), HasSubstr("log/1: ")) << size;
    }
    EXPECT_FALSE(OpenObject(object + '\0', "log/1").ok());
  }
}

TEST(ObjectEnvelope, EveryFlippedBitIsDetected) {
  const auto [header, body] = TwoTransactions();
  ObjectHeader with_parts = SomeHeader();
  with_parts.parts = {{"parts/a", 10, 11}};
  for (const std::string& object :
       {EncodeObject(with_parts, "some body", {{0, 9, Pgno(1), 1, Txid(5000)}}),
        EncodeObject(header, body)}) {
    for (size_t at = 0; at < object.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string damaged = object;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
        const Result<ObjectView> view = OpenObject(damaged, "log/1");
        ASSERT_FALSE(view.ok()) << at << "." << bit;
        const bool version = at == kVersionAt;
        EXPECT_TRUE(view.status().tag() == Tag::kChainBroken ||
                    (version && view.status().tag() == Tag::kFormatTooNew))
            << at << "." << bit << ": " << view.status().ToString();
      }
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
  damaged[object.size() - 9] = 'x';
  EXPECT_EQ(
      OpenObject(damaged, "log/7").status().ToString(),
      "CHAIN_BROKEN: log/7: trailer checksum: does not match header, body and index, or is not "
      "at the end of the 93 bytes that are there");
  EXPECT_THAT(Message(DecodeHeader(object.substr(0, 60), "log/7")),
              HasSubstr("log/7: header length: "));
}

TEST(ObjectEnvelope, ALaterVersionIsRefusedBeforeAnythingElseIsRead) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  for (const std::string_view rest : {std::string_view(object).substr(5), std::string_view()}) {
    const std::string later = object.substr(0, 4) + std::string("\x02", 1) + std::string(rest);
    EXPECT_EQ(DecodeHeader(later, "log/1").status().tag(), Tag::kFormatTooNew);
    EXPECT_EQ(OpenObject(later, "log/1").status().tag(), Tag::kFormatTooNew);
  }
}

TEST(ObjectEnvelope, WhatVersionOneDoesNotKnowIsALaterWriters) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  for (const auto& [offset, byte] : {std::pair<size_t, char>{kKindAt, 0x10},
                                     {kKindAt, 0x19},
                                     {kKindAt, 0x21},
                                     {kFlagsAt, 0x10}}) {
    const Result<ObjectHeader> header =
        DecodeHeader(Reseal(object, offset, std::string(1, byte)), "log/1");
    EXPECT_EQ(header.status().tag(), Tag::kFormatTooNew) << Message(header);
  }
}

TEST(ObjectEnvelope, ImpossibleHeadersAreRefusedEvenWithARightChecksum) {
  const std::string object = EncodeObject(SomeHeader(), "some body");
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, kPageSizeAt, "\x08"), "x")),
              HasSubstr("page size"));
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, kFlagsAt, "\x02"), "x")),
              HasSubstr("bytes after its last field"));
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, kFlagsAt, "\x07"), "x")),
              HasSubstr("flags: 7 for kind 1"));
  EXPECT_THAT(Message(DecodeHeader(Reseal(object, kEpochAt, "\xff\xff\xff\xff\xff\x01"), "x")),
              HasSubstr("CHAIN_BROKEN: x: header"));
  // The last byte before the checksum is the number of parts, if anything needs that to be there.
  ObjectHeader header = SomeHeader();
  header.key_id = 1;
  const std::string more = EncodeObject(header, {});
  const size_t parts = *HeaderLength(more, "") - 5;
  EXPECT_THAT(Message(DecodeHeader(Reseal(more, parts, "\x7f"), "x")), HasSubstr("do not fit"));
  // A fence with parts.
  header = SomeHeader();
  header.kind = ObjectKind::kSegment;
  header.parts = {{"parts/a", 10, 11}};
  EXPECT_THAT(Message(DecodeHeader(Reseal(EncodeObject(header, {}), kKindAt, "\x12"), "x")),
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
