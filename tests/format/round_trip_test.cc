// What goes in comes out: bodies of random histories, in every way they can be read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

using namespace guildlite::testing;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kHistoryBefore = 0x1234567890abcdef;

// GUILDLITE_TEST_SEED repeats a run.
uint64_t Seed() {
  const char* const given = std::getenv("GUILDLITE_TEST_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device()();
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
  return seed;
}

Images SomeDatabase(uint32_t page_size, uint32_t pages) {
  Images images;
  for (uint32_t pgno = 1; pgno <= pages; ++pgno) images[pgno] = MakePage(page_size, pgno);
  return images;
}

TransactionSpec Update(std::initializer_list<uint32_t> pgnos, const Images& state, uint64_t seed) {
  TransactionSpec t;
  t.header.database_pages = state.rbegin()->first;
  t.header.rolling_known = true;
  for (const uint32_t pgno : pgnos) {
    const auto old = state.find(pgno);
    t.pages.push_back({pgno, EditPage(old->second, seed + pgno)});
  }
  return t;
}

TEST(SegmentRoundTrip, RandomHistoriesOfEveryPageSizeComeBack) {
  const uint64_t seed = Seed();
  SCOPED_TRACE("GUILDLITE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
    SCOPED_TRACE(page_size);
    const Images before = SomeDatabase(page_size, 40);
    const std::vector<TransactionSpec> history = RandomHistory(
        random, {.page_size = page_size, .transactions = 30}, before, Txid(7), kHistoryBefore);
    const std::string body = EncodeBatch(history, before, {.page_size = page_size});
    Replica replica(before);
    const DecodeSettings settings{.page_size = page_size, .history_before = kHistoryBefore};
    const Status status = Decode(body, settings, replica);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(replica.seen, history);
    Images after = before;
    for (const TransactionSpec& t : history) Apply(t, &after);
    EXPECT_EQ(replica.images, after);
  }
}

TEST(SegmentRoundTrip, ABlockMayStraddleAnyPiecesOfTheSource) {
  const uint64_t seed = Seed();
  SCOPED_TRACE("GUILDLITE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const Images before = SomeDatabase(512, 40);
  const std::vector<TransactionSpec> history =
      RandomHistory(random, {.transactions = 12}, before, Txid(1), kHistoryBefore);
  const std::string body = EncodeBatch(history, before, {.page_size = 512, .block_pages_max = 5});
  for (size_t piece = 1; piece <= 300; ++piece) {
    Replica replica(before);
    PiecewiseSource source(AsBytes(body), piece);
    const Status status =
        DecodeBody(source, {.page_size = 512, .history_before = kHistoryBefore}, replica, "parts");
    ASSERT_TRUE(status.ok()) << piece << ": " << status.ToString();
    ASSERT_EQ(replica.seen, history) << piece;
  }
}

TEST(SegmentRoundTrip, ATransactionLargerThanABlockContinuesInTheNext) {
  const Images before = SomeDatabase(512, 40);
  std::vector<TransactionSpec> history = {Update({9, 3, 4, 5, 30, 31, 2}, before, 1),
                                          Update({3, 9}, before, 2)};
  Chain(&history, Txid(1), kHistoryBefore);
  std::vector<IndexEntry> index;
  const std::string body =
      EncodeBatch(history, before, {.page_size = 512, .block_pages_max = 3}, &index);
  Replica replica(before);
  ASSERT_TRUE(Decode(body, {.history_before = kHistoryBefore}, replica).ok());
  EXPECT_EQ(replica.seen, history);
  // 9 3 4 | 5 30 31 | 2 then 3 9: their versions before are those of this very batch.
  EXPECT_THAT(replica.bases_read, ElementsAre(9, 3, 4, 5, 30, 31, 2, 3, 9));
  ASSERT_EQ(index.size(), 3u);
  EXPECT_EQ(index[0].first_pgno, Pgno(3));
  EXPECT_EQ(index[0].last_txid, Txid(1));
  EXPECT_EQ(index[1].first_pgno, Pgno(5));
  EXPECT_EQ(index[1].offset, index[0].offset + index[0].size);
  EXPECT_EQ(index[2].pages, 3u);
  EXPECT_EQ(index[2].last_txid, Txid(2));
}

TEST(SegmentRoundTrip, ASecondVersionInABlockNeedsNoBase) {
  const Images before = SomeDatabase(512, 5);
  std::vector<TransactionSpec> history = {Update({2, 3}, before, 1), Update({3, 4}, before, 2)};
  Chain(&history, Txid(1), kHistoryBefore);
  const std::string body = EncodeBatch(history, before, {.page_size = 512});
  Replica replica(before);
  ASSERT_TRUE(Decode(body, {.history_before = kHistoryBefore}, replica).ok());
  EXPECT_EQ(replica.seen, history);
  EXPECT_THAT(replica.bases_read, ElementsAre(2, 3, 4));
}

TEST(SegmentRoundTrip, APageWithoutAKnownBaseIsWholeAndAsksForNone) {
  const Images before = SomeDatabase(512, 5);
  std::vector<TransactionSpec> history = {Update({2, 3}, before, 1)};
  Chain(&history, Txid(1), kHistoryBefore);
  Images known = before;
  known.erase(2);
  const std::string body = EncodeBatch(history, known, {.page_size = 512});
  Replica replica(known);
  ASSERT_TRUE(Decode(body, {.history_before = kHistoryBefore}, replica).ok());
  EXPECT_EQ(replica.seen, history);
  EXPECT_THAT(replica.bases_read, ElementsAre(3));
}

TEST(SegmentRoundTrip, MetasAloneAreReadWithoutAnyBase) {
  const Images before = SomeDatabase(512, 40);
  std::mt19937_64 random(1);
  std::vector<TransactionSpec> history =
      RandomHistory(random, {.transactions = 50}, before, Txid(1), kHistoryBefore);
  const std::string body = EncodeBatch(history, before, {.page_size = 512});
  Replica replica;
  const Status status = Decode(body, {.images = false, .history_before = kHistoryBefore}, replica);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_THAT(replica.bases_read, IsEmpty());
  for (TransactionSpec& t : history) {
    for (PageSpec& page : t.pages) page.image.clear();
  }
  EXPECT_EQ(replica.seen, history);
}

TEST(SegmentRoundTrip, ReadingStopsAtThePointInTimeAskedFor) {
  const Images before = SomeDatabase(512, 40);
  std::mt19937_64 random(2);
  const std::vector<TransactionSpec> history =
      RandomHistory(random, {.transactions = 20}, before, Txid(1), kHistoryBefore);
  const std::string body = EncodeBatch(history, before, {.page_size = 512, .block_pages_max = 10});
  for (size_t stop = 1; stop <= 20; ++stop) {
    Replica replica(before);
    replica.stop_after = stop;
    ASSERT_TRUE(Decode(body, {.history_before = kHistoryBefore}, replica).ok());
    EXPECT_EQ(replica.seen.size(), stop);
  }
}

TEST(SegmentRoundTrip, BatchesFollowEachOtherInABody) {
  const Images before = SomeDatabase(512, 40);
  std::mt19937_64 random(3);
  const std::vector<TransactionSpec> history =
      RandomHistory(random, {.transactions = 20}, before, Txid(5), kHistoryBefore);
  BatchWriter writer({.page_size = 512});
  Images state = before;
  std::string body;
  for (size_t i = 0; i < history.size(); ++i) {
    AddTo(&writer, history[i], &state);
    if (i % 7 == 6 || i + 1 == history.size()) {
      EXPECT_EQ(writer.transactions(), i % 7 + 1);
      body += writer.Seal();
      EXPECT_TRUE(writer.empty());
    }
  }
  Replica replica(before);
  const Status status = Decode(body, {.history_before = kHistoryBefore}, replica);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(replica.seen, history);
}

TEST(SegmentRoundTrip, AHugeTransactionCanBeTakenWhileItIsWritten) {
  const Images before = SomeDatabase(512, 900);
  TransactionSpec huge;
  huge.header.database_pages = 900;
  for (uint32_t pgno = 1; pgno <= 900; ++pgno) {
    huge.pages.push_back({pgno, EditPage(before.at(pgno), pgno)});
  }
  std::vector<TransactionSpec> history = {huge};
  Chain(&history, Txid(1), kHistoryBefore);
  const std::string whole = EncodeBatch(history, before, {.page_size = 512});

  BatchWriter writer({.page_size = 512});
  std::string body;
  size_t takes_with_bytes = 0;
  writer.BeginTransaction(history[0].header);
  for (const PageSpec& page : history[0].pages) {
    writer.AddPage(Pgno(page.pgno), PageHash(Pgno(page.pgno), AsBytes(page.image)),
                   AsBytes(page.image), [&](std::span<std::byte> out) {
                     std::ranges::copy(AsBytes(before.at(page.pgno)), out.begin());
                     return true;
                   });
    const std::string taken = writer.TakeEncoded();
    takes_with_bytes += taken.empty() ? 0 : 1;
    body += taken;
    EXPECT_EQ(writer.encoded_bytes(), body.size());
  }
  writer.EndTransaction();
  body += writer.Seal();
  EXPECT_EQ(takes_with_bytes, 4u);  // the batch header with page 1, then a block each 256 pages
  EXPECT_EQ(body, whole) << "taking early must not change the bytes";
  ASSERT_EQ(writer.index().size(), 4u);
  EXPECT_GT(writer.index()[3].offset, writer.index()[2].offset);
  EXPECT_EQ(*IndexBody(*BytesSource(AsBytes(body)), "body"), writer.index());
  Replica replica(before);
  ASSERT_TRUE(Decode(body, {.history_before = kHistoryBefore}, replica).ok());
  EXPECT_EQ(replica.seen, history);
}

TEST(SegmentRoundTrip, TransactionsWithoutPagesAreKept) {
  std::vector<TransactionSpec> history(3000);
  for (TransactionSpec& t : history) t.header.database_pages = 1;
  Chain(&history, Txid(1), kHistoryBefore);
  std::vector<IndexEntry> index;
  const std::string body = EncodeBatch(history, {}, {.page_size = 512}, &index);
  EXPECT_EQ(index.size(), 3u);  // kBlockPartsMax each
  EXPECT_EQ(*IndexBody(*BytesSource(AsBytes(body)), "body"), index);
  Replica replica;
  const Status status = Decode(body, {.history_before = kHistoryBefore}, replica);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(replica.seen, history);
}

TEST(SegmentRoundTrip, ASnapshotIsOneTransactionInPageOrderWithoutBases) {
  const Images images = SomeDatabase(1024, 200);
  TransactionSpec snapshot;
  snapshot.header = {.txid = Txid(),
                     .history_hash = 77,
                     .rolling_checksum = 5,
                     .rolling_known = true};  // as of txid 0: the first scan
  snapshot.header.database_pages = 200;
  for (const auto& [pgno, image] : images) snapshot.pages.push_back({pgno, image});
  std::vector<IndexEntry> index;
  const std::string body =
      EncodeBatch({snapshot}, {},
                  {.page_size = 1024, .level = 1, .block_pages_max = kSnapshotChunkPages}, &index);
  ASSERT_EQ(index.size(), 4u);
  EXPECT_EQ(index[3].first_pgno, Pgno(193));
  EXPECT_EQ(index[3].pages, 8u);
  Replica replica;
  const Status status = Decode(body, {.page_size = 1024, .check_history = false}, replica);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(replica.images, images);
  EXPECT_EQ(replica.seen[0].header, snapshot.header);
}

TEST(SegmentRoundTrip, MarksOfSeveralWalGenerationsAndOfNoneAreKept) {
  std::vector<TransactionSpec> history(5);
  for (TransactionSpec& t : history) t.header.database_pages = 1;
  history[0].header.heal = true;
  history[1].header.mark = {1, 2, 300, 4, 5};
  history[3].header.mark = {1, 2, 299, 6, 7};
  history[4].header.mark = {9, 8, 0xffffffff, 6, 7};
  Chain(&history, Txid(1), kHistoryBefore);
  Replica replica;
  const Status status = Decode(EncodeBatch(history, {}, {.page_size = 512}),
                               {.history_before = kHistoryBefore}, replica);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(replica.seen, history);
}

TEST(SegmentRoundTrip, TheLargestNumbersAreKept) {
  std::vector<TransactionSpec> history(2);
  history[0].header.time_ms = INT64_MIN;
  history[1].header.time_ms = INT64_MAX;
  history[1].header.database_pages = 0xffffffff;
  history[1].header.free_pages = 0xffffffff;
  history[1].pages.push_back({0xffffffff, MakePage(512, 1)});
  history[1].pages.push_back({1, MakePage(512, 2)});
  Chain(&history, Txid(UINT64_MAX - 1), kHistoryBefore);
  Replica replica;
  const Status status = Decode(EncodeBatch(history, {}, {.page_size = 512}),
                               {.history_before = kHistoryBefore}, replica);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(replica.seen, history);
}

TEST(BatchWriter, BlockHasTellsWhetherABaseWillBeAskedFor) {
  const std::string a = MakePage(512, 1), b = MakePage(512, 2);
  BatchWriter writer({.page_size = 512, .block_pages_max = 2});
  const auto add = [&](uint32_t pgno, const std::string& image) {
    const bool expected = !writer.BlockHas(Pgno(pgno));
    bool asked = false;
    writer.AddPage(Pgno(pgno), PageHash(Pgno(pgno), AsBytes(image)), AsBytes(image),
                   [&](std::span<std::byte>) {
                     asked = true;
                     return false;
                   });
    EXPECT_EQ(asked, expected) << pgno;
    return asked;
  };
  Transaction t{.txid = Txid(1), .database_pages = 3};
  writer.BeginTransaction(t);
  EXPECT_TRUE(add(1, a));
  writer.EndTransaction();
  t.txid = Txid(2);
  writer.BeginTransaction(t);
  EXPECT_FALSE(add(1, b));
  writer.EndTransaction();
  t.txid = Txid(3);
  writer.BeginTransaction(t);
  EXPECT_TRUE(add(1, a)) << "the block is full: this version opens the next";
  writer.EndTransaction();
}

TEST(BatchWriter, TheSameCallsGiveTheSameBytesWhateverTheWriterEncodedBefore) {
  const Images before = SomeDatabase(4096, 300);
  std::mt19937_64 random(4);
  const std::vector<TransactionSpec> history = RandomHistory(
      random, {.page_size = 4096, .transactions = 60, .pages_max = 20, .database_pages = 300},
      before, Txid(1), kHistoryBefore);
  const std::string fresh = EncodeBatch(history, before, {.page_size = 4096});
  BatchWriter used({.page_size = 4096});
  for (int round = 0; round < 3; ++round) {
    Images state = before;
    for (const TransactionSpec& t : history) AddTo(&used, t, &state);
    EXPECT_EQ(used.Seal(), fresh) << round;
  }
}

#ifndef NDEBUG
TEST(BatchWriterDeathTest, WhatMayNotBeInASegmentStopsTheWriter) {
  const std::string image = MakePage(512, 1);
  const uint32_t lock_page = LockPage(512).value;
  const auto write = [&](std::initializer_list<uint32_t> pgnos, uint32_t database_pages,
                         uint64_t hash_error) {
    BatchWriter writer({.page_size = 512});
    writer.BeginTransaction({.txid = Txid(1), .database_pages = database_pages});
    for (const uint32_t pgno : pgnos) {
      writer.AddPage(Pgno(pgno), PageHash(Pgno(pgno), AsBytes(image)) + hash_error, AsBytes(image),
                     {});
    }
  };
  EXPECT_DEATH(write({0}, 9, 0), "pgno");
  EXPECT_DEATH(write({10}, 9, 0), "pgno");
  EXPECT_DEATH(write({lock_page}, lock_page + 1, 0), "pgno");
  EXPECT_DEATH(write({4, 5, 4}, 9, 0), "first_in_transaction");
  EXPECT_DEATH(write({4}, 9, 1), "hash");
}

TEST(BatchWriterDeathTest, TransactionsFollowEachOtherAndTimeNeverGoesBack) {
  const auto write = [](const Transaction& second) {
    BatchWriter writer({.page_size = 512});
    writer.BeginTransaction({.txid = Txid(1), .time_ms = 5});
    writer.EndTransaction();
    writer.BeginTransaction(second);
  };
  EXPECT_DEATH(write({.txid = Txid(3), .time_ms = 5}), "txid");
  EXPECT_DEATH(write({.txid = Txid(2), .time_ms = 4}), "time_ms");
}
#endif

}  // namespace
}  // namespace guildlite
