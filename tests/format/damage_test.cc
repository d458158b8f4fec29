// The reader believes nothing: truncated, flipped and forged bodies, and bases that are not the
// ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

using namespace guildlite::testing;
using ::testing::HasSubstr;

constexpr uint64_t kHistoryBefore = 42;
constexpr uint32_t kPageSize = 512;

struct Small {
  Images before;
  std::vector<TransactionSpec> history;
  std::string body;
};

// Three blocks, three transactions, the middle one in two blocks; metas large enough to be
// compressed when `packed`.
Small SmallBody(bool packed = false) {
  Small small;
  const uint32_t pages = packed ? 80 : 4;
  for (uint32_t pgno = 1; pgno <= pages; ++pgno) small.before[pgno] = MakePage(kPageSize, pgno);
  Images state = small.before;
  for (uint64_t i = 0; i < 3; ++i) {
    TransactionSpec t;
    t.header.database_pages = pages;
    t.header.time_ms = 1'800'000'000'000 + static_cast<int64_t>(i);
    t.header.mark = {0xaabbccdd, 0x11223344, static_cast<uint32_t>(i + 1), 1, 2};
    t.header.rolling_known = i != 1;
    for (uint32_t pgno = pages; pgno >= 3 - i % 2; --pgno) {
      t.pages.push_back({pgno, EditPage(state[pgno], pgno + i)});
    }
    Apply(t, &state);
    small.history.push_back(std::move(t));
  }
  Chain(&small.history, Txid(100), kHistoryBefore);
  small.body = EncodeBatch(small.history, small.before,
                           {.page_size = kPageSize, .block_pages_max = packed ? 100u : 3u});
  return small;
}

Status Read(std::string_view body, const Images& before, DecodeSettings settings = {}) {
  settings.page_size = kPageSize;
  settings.history_before = kHistoryBefore;
  Replica replica(before);
  return Decode(body, settings, replica);
}

TEST(SegmentDamage, EveryTruncationOfABodyIsDetected) {
  const Small small = SmallBody();
  ASSERT_TRUE(Read(small.body, small.before).ok());
  for (size_t size = 1; size < small.body.size(); ++size) {
    for (const bool images : {true, false}) {
      const Status status = Read(small.body.substr(0, size), small.before, {.images = images});
      ASSERT_EQ(status.tag(), Tag::kChainBroken) << size << ": " << status.ToString();
      EXPECT_THAT(status.message(), HasSubstr("test object: batch 0 ")) << size;
    }
  }
}

void ExpectEveryFlipDetected(const Small& small, int step) {
  for (size_t at = 0; at < small.body.size(); ++at) {
    for (int mask = 1; mask < 256; mask += step) {
      std::string damaged = small.body;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      for (const bool images : {true, false}) {
        const Status status = Read(damaged, small.before, {.images = images});
        ASSERT_FALSE(status.ok()) << at << " ^ " << mask;
        // A base that is not there is the visitor's answer, passed on.
        EXPECT_TRUE(status.tag() == Tag::kChainBroken || status.tag() == Tag::kNotFound ||
                    (at == 1 && status.tag() == Tag::kFormatTooNew))
            << at << " ^ " << mask << ": " << status.ToString();
      }
    }
  }
}

TEST(SegmentDamage, EveryFlippedByteOfABodyIsDetected) { ExpectEveryFlipDetected(SmallBody(), 13); }

TEST(SegmentDamage, EveryFlippedByteOfABodyWithPackedMetasIsDetected) {
  ExpectEveryFlipDetected(SmallBody(/*packed=*/true), 127);
}

TEST(SegmentDamage, AWrongBaseIsDetected) {
  const Small small = SmallBody();
  for (const uint32_t pgno : {2u, 3u, 4u}) {
    Images wrong = small.before;
    // Another byte anywhere may not matter, as nothing need be copied from there; another page
    // does.
    wrong[pgno] = MakePage(kPageSize, 1000);
    const Status status = Read(small.body, wrong);
    EXPECT_EQ(status.tag(), Tag::kChainBroken) << pgno;
    EXPECT_THAT(status.message(), HasSubstr("a base is not the version before")) << pgno;
  }
}

TEST(SegmentDamage, AnErrorOfTheBaseIsPassedOn) {
  const Small small = SmallBody();
  const Status status = Read(small.body, {});
  EXPECT_EQ(status.tag(), Tag::kNotFound);
}

TEST(SegmentDamage, AHistoryThatDoesNotFollowIsDetected) {
  const Small small = SmallBody();
  Replica replica(small.before);
  const Status status = Decode(small.body, {.history_before = kHistoryBefore + 1}, replica);
  EXPECT_EQ(status.tag(), Tag::kChainBroken);
  EXPECT_THAT(status.message(), HasSubstr("transaction 100: its history hash"));
  EXPECT_TRUE(Decode(small.body, {.check_history = false}, replica = Replica(small.before)).ok());
}

TEST(SegmentDamage, AnotherPageSizeIsDetected) {
  const Small small = SmallBody();
  Replica replica(small.before);
  const Status status =
      Decode(small.body, {.page_size = 1024, .history_before = kHistoryBefore}, replica);
  EXPECT_THAT(status.ToString(), HasSubstr("batch header: page size 512 instead of 1024"));
}

TEST(SegmentDamage, AMissingBatchIsDetected) {
  const Small small = SmallBody();
  const Status status = Read(small.body + small.body, small.before);
  EXPECT_THAT(status.ToString(), HasSubstr("batch 1 (up to body offset "));
  EXPECT_THAT(status.ToString(), HasSubstr("begins with transaction 100 after 102"));
}

TEST(SegmentDamage, AnErrorOfTheSourceIsPassedOn) {
  class Failing final : public BodySource {
   public:
    explicit Failing(std::string_view bytes) : bytes_(bytes) {}
    Result<std::span<const std::byte>> Next() override {
      if (bytes_.empty()) return {Tag::kStoreUnreachable, "no part"};
      return AsBytes(std::exchange(bytes_, {}));
    }

   private:
    std::string_view bytes_;
  };
  const Small small = SmallBody();
  for (size_t size = 0; size <= small.body.size(); ++size) {
    Failing source(std::string_view(small.body).substr(0, size));
    Replica replica(small.before);
    const Status status = DecodeBody(source, {.history_before = kHistoryBefore}, replica, "log/1");
    ASSERT_EQ(status.tag(), Tag::kStoreUnreachable) << size << ": " << status.ToString();
  }
}

// ---- Forged bodies: every checksum right, and still not true. ---------------------------------

struct Forged {
  uint32_t page_size = kPageSize;
  std::string meta;
  std::string images = "x";
  uint64_t count = 1;
};

std::string Forge(const Forged& f) {
  std::string body = {'B', 0x11};
  PutBig64(&body, 0);
  PutVarint(&body, 1);
  PutVarint(&body, 0);
  body += 'K';
  PutVarint(&body, f.meta.size());
  PutVarint(&body, f.images.size());
  body += f.meta + f.images + 'E';
  PutVarint(&body, f.count);
  PutBig64(&body, Hash64(AsBytes(body)));
  body.resize(body.size() - 4);
  return body;
}

// One part that begins a transaction (and, if bit 2 is set, ends it), of a database of `pages`
// pages, with the pages given as zigzag deltas, shifted, plus base bit: as on the wire.
std::string PartOf(uint8_t flags, uint32_t pages, const std::vector<uint64_t>& coded, bool first) {
  std::string part;
  part += static_cast<char>(flags | kPartMarkAbsent);
  if (!first) PutVarint(&part, 0);  // time
  PutVarint(&part, ZigZag(pages));
  PutVarint(&part, 0);
  PutBig64(&part, 0);
  PutVarint(&part, coded.size());
  for (const uint64_t page : coded) PutVarint(&part, page);
  for (size_t i = 0; i < coded.size(); ++i) PutBig64(&part, 1);
  return part;
}

std::string MetaOf(uint8_t flags, uint32_t pages, const std::vector<uint64_t>& coded) {
  return PartOf(flags | kPartLast, pages, coded, /*first=*/true);
}

std::string ForgedError(const Forged& forged) {
  Replica replica;
  return Decode(Forge(forged), {.images = false, .check_history = false}, replica).ToString();
}

constexpr uint8_t kWhole = kPartBegins | kPartEnds;
uint64_t Step(int64_t delta) { return ZigZag(delta) << 1; }

TEST(ForgedBody, TheForgeryItselfIsSoundWithoutATwist) {
  EXPECT_EQ(ForgedError({.meta = MetaOf(kWhole, 9, {Step(4), Step(-1)})}), "OK");
}

TEST(ForgedBody, ThePagesOfATransactionMustBePossible) {
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(0)})}),
              HasSubstr("transaction 1: page 0 of a database of 9 pages"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(10)})}),
              HasSubstr("page 10 of a database of 9 pages"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(3), Step(1), Step(-1)})}),
              HasSubstr("page 3 comes twice"));
  const uint32_t lock_page = LockPage(kPageSize).value;
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, lock_page + 1, {Step(lock_page)})}),
              HasSubstr("is the lock page"));
}

TEST(ForgedBody, TransactionsMustBeginAndEnd) {
  EXPECT_THAT(ForgedError({.meta = MetaOf(kPartBegins, 9, {Step(4)})}),
              HasSubstr("transaction 1 has no end"));
  const std::string twice =
      PartOf(kPartBegins, 9, {Step(4)}, true) + PartOf(kWhole | kPartLast, 0, {Step(1)}, false);
  EXPECT_THAT(ForgedError({.meta = twice}), HasSubstr("begins inside transaction 1"));
  EXPECT_THAT(ForgedError({.meta = {static_cast<char>(kPartEnds | kPartLast), 0}, .images = ""}),
              HasSubstr("meta part 0: nothing to continue"));
}

TEST(ForgedBody, ASecondVersionInABlockHasNoBase) {
  const std::string meta =
      PartOf(kWhole, 9, {Step(4) | 1}, true) + PartOf(kWhole | kPartLast, 0, {Step(0) | 1}, false);
  EXPECT_THAT(ForgedError({.meta = meta, .count = 2}), HasSubstr("page 4 has a base although"));
}

TEST(ForgedBody, CountsMustFitWhatIsThere) {
  std::string meta = MetaOf(kWhole, 9, {});
  meta.back() = 127;
  EXPECT_THAT(ForgedError({.meta = meta}), HasSubstr("127 pages do not fit"));
  std::string many;
  for (uint32_t i = 0; i < kBlockPartsMax; ++i) many += PartOf(kWhole, i == 0 ? 9 : 0, {}, i == 0);
  EXPECT_THAT(ForgedError({.meta = many}), HasSubstr("meta part 1024: cut short"));
  many += PartOf(kWhole | kPartLast, 0, {}, false);
  EXPECT_THAT(ForgedError({.meta = many}), HasSubstr("meta part 1024: more parts than"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(4)}) + "x"}),
              HasSubstr("1 bytes after its last part"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(4)}), .images = ""}),
              HasSubstr("images length: 0 bytes for 1 pages"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {}), .images = "x"}),
              HasSubstr("images length: 1 bytes for 0 pages"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(4)}), .images = std::string(5000, 'x')}),
              HasSubstr("images length: 5000 bytes for 1 pages"));
  EXPECT_THAT(ForgedError({.meta = std::string(kBlockMetaBytesMax + 1, 'x')}),
              HasSubstr("meta length"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(4)}), .count = 2}),
              HasSubstr("end mark: 2 transactions, found 1 up to 1"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole, 9, {Step(4)}), .count = 0}),
              HasSubstr("end mark: 0 transactions, found 1 up to 1"));
}

TEST(ForgedBody, FlagsMustMakeSense) {
  EXPECT_THAT(ForgedError({.meta = PartOf(kPartBegins, 9, {Step(4)}, true) +
                                   static_cast<char>(kPartEnds | kPartLast | kPartHeal) + '\0'}),
              HasSubstr("flags"));
  EXPECT_THAT(ForgedError({.meta = MetaOf(kWhole | kPartOtherSalts, 9, {Step(4)})}),
              HasSubstr("flags"));
}

TEST(ForgedBody, APageThatIsNotItsHashIsNamed) {
  Images before;
  before[1] = MakePage(kPageSize, 1);
  BatchWriter writer({.page_size = kPageSize});
  TransactionSpec t;
  t.header.database_pages = 1;
  t.pages.push_back({1, before[1]});
  std::vector<TransactionSpec> history = {t};
  Chain(&history, Txid(1), kHistoryBefore);
  std::string body = EncodeBatch(history, {}, {.page_size = kPageSize});
  std::string hash;
  PutBig64(&hash, PageHash(Pgno(1), AsBytes(before[1])));
  body[body.find(hash)] ^= 1;
  EXPECT_THAT(Read(body, {}).ToString(), HasSubstr("block 0 (up to body offset "));
  EXPECT_THAT(Read(body, {}).ToString(),
              HasSubstr("transaction 1: page 1: does not match its hash"));
}

// ---- Spool files ------------------------------------------------------------------------------

TEST(ScanBatches, FramesWholeBatchesAndIgnoresATornTail) {
  const Small small = SmallBody();
  Small packed = SmallBody(/*packed=*/true);
  const std::string spool = small.body + packed.body + small.body;
  for (size_t size = 0; size <= spool.size(); ++size) {
    const Result<std::vector<BatchSummary>> batches =
        ScanBatches(*BytesSource(AsBytes(spool).first(size)));
    ASSERT_TRUE(batches.ok());
    const size_t whole = size_t{size >= small.body.size()} +
                         size_t{size >= small.body.size() + packed.body.size()} +
                         size_t{size == spool.size()};
    ASSERT_EQ(batches->size(), whole) << size;
  }
  const Result<std::vector<BatchSummary>> batches = ScanBatches(*BytesSource(AsBytes(spool)));
  EXPECT_EQ((*batches)[1].size, packed.body.size());
  EXPECT_EQ((*batches)[1].page_size, kPageSize);
  EXPECT_EQ((*batches)[1].first_txid, Txid(100));
  EXPECT_EQ((*batches)[1].last_txid, Txid(102));
}

TEST(ScanBatches, ADamagedBatchEndsTheList) {
  const Small small = SmallBody();
  for (size_t at = 0; at < small.body.size(); ++at) {
    std::string spool = small.body + small.body;
    spool[small.body.size() + at] ^= 0x20;
    const Result<std::vector<BatchSummary>> batches = ScanBatches(*BytesSource(AsBytes(spool)));
    if (at == 1) {
      EXPECT_EQ(batches.status().tag(), Tag::kFormatTooNew);
      continue;
    }
    ASSERT_TRUE(batches.ok()) << at;
    EXPECT_EQ(batches->size(), 1u) << at;
  }
}

}  // namespace
}  // namespace guildlite
