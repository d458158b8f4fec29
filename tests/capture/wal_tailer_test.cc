#include "vfs/capture/wal_tailer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/support/wal_builder.h"
#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::WalBuilder;
using End = WalTailer::End;

std::vector<uint32_t> PageNumbers(const WalTransaction& t) {
  std::vector<uint32_t> numbers;
  for (const FrameRef& p : t.pages) numbers.push_back(p.pgno.value);
  return numbers;
}

std::vector<uint32_t> Frames(const WalTransaction& t) {
  std::vector<uint32_t> frames;
  for (const FrameRef& p : t.pages) frames.push_back(p.frame);
  return frames;
}

// One file, its builder and a tailer on it.
struct Wal : WalBuilder {
  using WalBuilder::WalBuilder;

  WalTailer::Outcome Next(const WalMark& from, const std::optional<Published>& bound) {
    auto outcome = tailer.Next(from, bound);
    EXPECT_TRUE(outcome.ok()) << outcome.status().ToString();
    if (!outcome.ok()) return {};
    if (outcome->end == End::kTransaction) {
      Check(outcome->transaction);
      EXPECT_EQ(outcome->mark, outcome->transaction.end);
    }
    return *std::move(outcome);
  }
  // What holds of every transaction.
  void Check(const WalTransaction& t) {
    std::map<uint32_t, int> seen;
    uint32_t previous = 0;
    for (size_t i = 0; i < t.pages.size(); ++i) {
      const FrameRef& p = t.pages[i];
      EXPECT_EQ(seen[p.pgno.value]++, 0);
      EXPECT_LE(p.pgno.value, t.database_pages);
      EXPECT_NE(p.pgno, LockPage(page_size()));
      EXPECT_GT(p.frame, previous);
      EXPECT_LE(p.frame, t.end.frame);
      previous = p.frame;
      if (!t.images.empty()) {
        ASSERT_EQ(t.images.size(), t.pages.size() * page_size());
        const auto image = std::span(t.images).subspan(i * page_size(), page_size());
        EXPECT_EQ(PageHash(p.pgno, image), p.hash);
      }
    }
  }
  WalMark start() const {
    auto header = tailer.ReadHeader();
    EXPECT_TRUE(header.ok()) << header.status().ToString();
    return header.ok() ? WalTailer::Start(*header) : WalMark{};
  }
  uint64_t Hash(uint32_t pgno, uint64_t seed) const {
    return PageHash(Pgno(pgno), AsBytes(Page(seed)));
  }

  WalTailer tailer{file()};
};

// --- whole transactions ---

TEST(WalTailer, DeliversTransactionsInOrderWithAndWithoutABound) {
  for (const bool big_endian : {false, true}) {
    for (const uint32_t page_size : {512u, 4096u, 65536u}) {
      Wal wal(page_size, big_endian);
      wal.Frame(1, 0, uint64_t{1}).Frame(2, 2, uint64_t{2});
      const WalMark first = wal.mark();
      wal.Frame(3, 3, uint64_t{3});
      const WalMark second = wal.mark();
      wal.Write();
      for (const bool bounded : {true, false}) {
        const auto bound = bounded ? std::optional(wal.published()) : std::nullopt;
        auto one = wal.Next(wal.start(), bound);
        ASSERT_EQ(one.end, End::kTransaction);
        EXPECT_EQ(one.transaction.end, first);
        EXPECT_EQ(one.transaction.database_pages, 2u);
        EXPECT_THAT(one.transaction.pages, ElementsAre(FrameRef{Pgno(1), 1, wal.Hash(1, 1)},
                                                       FrameRef{Pgno(2), 2, wal.Hash(2, 2)}));
        EXPECT_EQ(AsText(one.transaction.images), wal.Page(1) + wal.Page(2));
        auto two = wal.Next(first, bound);
        ASSERT_EQ(two.end, End::kTransaction);
        EXPECT_EQ(two.transaction.end, second);
        auto three = wal.Next(second, bound);
        EXPECT_EQ(three.end, bounded ? End::kBound : End::kChainEnd);
        EXPECT_EQ(three.mark, second);
      }
      EXPECT_EQ(wal.tailer.chain_breaks(), 0u);
    }
  }
}

TEST(WalTailer, DoesNotDeliverAnUnfinishedTransaction) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark committed = wal.mark();
  wal.Frame(1, 0, uint64_t{2}).Frame(2, 0, uint64_t{3}).Write();
  EXPECT_EQ(wal.Next(wal.start(), std::nullopt).end, End::kTransaction);
  const auto rest = wal.Next(committed, std::nullopt);
  EXPECT_EQ(rest.end, End::kChainEnd);
  EXPECT_EQ(rest.mark, committed);
}

TEST(WalTailer, LastVersionOfAPageWinsAndOrderIsThatOfTheFrames) {
  Wal wal;
  wal.Frame(5, 0, uint64_t{1}).Frame(2, 0, uint64_t{2}).Frame(5, 0, uint64_t{3});
  wal.Frame(1, 0, uint64_t{4}).Frame(2, 0, uint64_t{5}).Frame(3, 5, uint64_t{6}).Write();
  const auto t = wal.Next(wal.start(), wal.published()).transaction;
  EXPECT_THAT(PageNumbers(t), ElementsAre(5, 1, 2, 3));
  EXPECT_THAT(Frames(t), ElementsAre(3, 4, 5, 6));
  EXPECT_EQ(AsText(t.images), wal.Page(3) + wal.Page(4) + wal.Page(5) + wal.Page(6));
}

// A spilled page of a transaction that later shrinks the database stays in the committed range.
TEST(WalTailer, DropsPagesBeyondTheCommittedSize) {
  Wal wal;
  wal.Frame(28, 0, uint64_t{1}).Frame(16, 0, uint64_t{2}).Frame(17, 0, uint64_t{3});
  wal.Frame(1, 16, uint64_t{4}).Write();
  const auto t = wal.Next(wal.start(), wal.published()).transaction;
  EXPECT_EQ(t.database_pages, 16u);
  EXPECT_THAT(PageNumbers(t), ElementsAre(16, 1));
  EXPECT_EQ(AsText(t.images), wal.Page(2) + wal.Page(4));
}

TEST(WalTailer, DropsACommitFrameBeyondTheCommittedSizeButNotTheCommit) {
  Wal wal;
  wal.Frame(9, 3, uint64_t{1}).Write();
  const auto outcome = wal.Next(wal.start(), wal.published());
  ASSERT_EQ(outcome.end, End::kTransaction);
  EXPECT_THAT(outcome.transaction.pages, IsEmpty());
  EXPECT_THAT(outcome.transaction.images, IsEmpty());
  EXPECT_EQ(outcome.mark, wal.mark());
}

TEST(WalTailer, DropsTheLockPage) {
  Wal wal(65536);
  const uint32_t lock_page = 0x40000000 / 65536 + 1;
  wal.Frame(lock_page - 1, 0, uint64_t{1}).Frame(lock_page, 0, uint64_t{2});
  wal.Frame(lock_page + 1, lock_page + 1, uint64_t{3}).Write();
  const auto t = wal.Next(wal.start(), wal.published()).transaction;
  EXPECT_THAT(PageNumbers(t), ElementsAre(lock_page - 1, lock_page + 1));
  EXPECT_EQ(AsText(t.images), wal.Page(1) + wal.Page(3));
}

TEST(WalTailer, CarriesImagesUpToTheLimitAndReadsThemBackBeyond) {
  const uint32_t page_size = 4096, most = WalTailer::kInlineBytesMax / page_size;
  for (const uint32_t frames : {most, most + 1}) {
    Wal wal(page_size);
    for (uint32_t f = 1; f < frames; ++f) wal.Frame(f, 0, uint64_t{f});
    wal.Frame(frames, frames, uint64_t{frames}).Write();
    const auto t = wal.Next(wal.start(), wal.published()).transaction;
    ASSERT_EQ(t.pages.size(), frames);
    EXPECT_EQ(t.images.size(), frames == most ? WalTailer::kInlineBytesMax : 0u);
    for (const FrameRef& p : t.pages) {
      std::vector<std::byte> image(page_size);
      ASSERT_TRUE(wal.tailer.ReadPage(p.frame, page_size, image).ok());
      EXPECT_EQ(PageHash(p.pgno, image), p.hash);
    }
    std::vector<std::byte> image(page_size);
    EXPECT_EQ(wal.tailer.ReadPage(frames + 1, page_size, image).tag(), Tag::kLocalIo);
  }
}

// --- the bound ---

// H11: the commit frame is in the file, but SQLite has not published it and may roll it back.
TEST(WalTailer, ACommitFrameBeyondTheBoundIsNotACommit) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const Published published = wal.published();
  const WalMark committed = wal.mark();
  wal.Frame(2, 2, uint64_t{2}).Write();
  ASSERT_EQ(wal.Next(wal.start(), published).mark, committed);
  EXPECT_EQ(wal.Next(committed, published).end, End::kBound);

  wal.Rewind(committed).Frame(3, 3, uint64_t{3}).Write();
  const auto t = wal.Next(committed, wal.published()).transaction;
  EXPECT_THAT(PageNumbers(t), ElementsAre(3));
  EXPECT_EQ(wal.tailer.chain_breaks(), 0u);
}

TEST(WalTailer, WithoutABoundNothingReadIsKept) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark committed = wal.mark();
  wal.Frame(2, 2, uint64_t{2}).Write();
  ASSERT_EQ(wal.Next(wal.start(), std::nullopt).mark, committed);
  wal.Rewind(committed).Frame(3, 3, uint64_t{3}).Write();
  EXPECT_THAT(PageNumbers(wal.Next(committed, std::nullopt).transaction), ElementsAre(3));
  wal.Rewind(committed).Frame(4, 4, uint64_t{4}).Write();
  EXPECT_THAT(PageNumbers(wal.Next(committed, wal.published()).transaction), ElementsAre(4));
}

TEST(WalTailer, WhatWasReadIsDroppedWhenTheBoundMovesBack) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Frame(2, 2, uint64_t{2});
  const WalMark second = wal.mark();
  const Published then = wal.published();
  wal.Frame(3, 3, uint64_t{3}).Write();
  ASSERT_EQ(wal.Next(wal.start(), wal.published()).mark, first);  // reads all three
  // A recovery that lost frame 3; it is written anew.
  wal.Rewind(second).Frame(4, 4, uint64_t{4}).Write();
  ASSERT_EQ(wal.Next(first, then).mark, second);
  EXPECT_THAT(PageNumbers(wal.Next(second, wal.published()).transaction), ElementsAre(4));
}

TEST(WalTailer, KeptBytesOutliveAResetButServeNoOtherGeneration) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Frame(2, 2, uint64_t{2});
  const WalMark second = wal.mark();
  const Published old = wal.published();
  wal.Write();
  ASSERT_EQ(wal.Next(wal.start(), old).mark, first);
  wal.Reset(0x1001, 0x3000).Frame(7, 7, uint64_t{7}).Frame(8, 8, uint64_t{8}).Write();
  // Read while it was published, proven by the chain: the reset does not undo that commit.
  EXPECT_THAT(PageNumbers(wal.Next(first, old).transaction), ElementsAre(2));
  // The new generation has frames at the same places.
  auto seven = wal.Next(wal.start(), wal.published());
  EXPECT_THAT(PageNumbers(seven.transaction), ElementsAre(7));
  EXPECT_THAT(PageNumbers(wal.Next(seven.mark, wal.published()).transaction), ElementsAre(8));
  EXPECT_EQ(wal.Next(first, old).end, End::kOtherGeneration);
  EXPECT_EQ(wal.Next(second, std::nullopt).end, End::kOtherGeneration);
}

TEST(WalTailer, StaleFramesOfTheOldGenerationAreNoCommits) {
  Wal wal;
  for (uint32_t f = 1; f <= 5; ++f) wal.Frame(f, f, uint64_t{f});
  wal.Reset(0x1001, 0x3000).Frame(9, 9, uint64_t{9}).Write();
  const auto t = wal.Next(wal.start(), std::nullopt);
  EXPECT_THAT(PageNumbers(t.transaction), ElementsAre(9));
  EXPECT_EQ(wal.Next(t.mark, std::nullopt).end, End::kChainEnd);
}

TEST(WalTailer, ABoundOfAnotherGenerationIsToldApart) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1}).Write();
  const WalMark start = wal.start();
  Published published = wal.published();
  ++published.salt1;
  EXPECT_EQ(wal.Next(start, published).end, End::kOtherGeneration);
  // The bound is right, the file went on (a stranger's reset after the bound was read).
  const Published old = wal.published();
  wal.Reset(0x1001, 0x3000).Write();
  EXPECT_EQ(wal.Next(start, old).end, End::kOtherGeneration);
  EXPECT_EQ(wal.Next(start, std::nullopt).end, End::kOtherGeneration);
}

TEST(WalTailer, AnEmptiedOrTornHeaderEndsTheGeneration) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  wal.Write();
  const WalMark mark = wal.start();
  const Published published = wal.published();
  wal.memory_file().Set("");
  EXPECT_EQ(wal.Next(mark, published).end, End::kOtherGeneration);
  EXPECT_EQ(wal.Next(mark, std::nullopt).end, End::kOtherGeneration);
  wal.memory_file().Set(wal.bytes().substr(0, 31));
  EXPECT_EQ(wal.Next(mark, published).end, End::kOtherGeneration);
  wal.bytes()[17] ^= 1;
  wal.Write();
  EXPECT_EQ(wal.Next(mark, std::nullopt).end, End::kOtherGeneration);
}

TEST(WalTailer, EqualSaltsInAnotherHeaderAreNotTheSameFile) {
  Wal wal(512), other(1024);
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Frame(2, 2, uint64_t{2}).Write();
  ASSERT_EQ(wal.Next(wal.start(), std::nullopt).mark, first);
  other.Frame(1, 1, uint64_t{1}).Frame(2, 2, uint64_t{2});
  wal.memory_file().Set(other.bytes());
  EXPECT_EQ(wal.Next(first, std::nullopt).end, End::kOtherGeneration);
}

TEST(WalTailer, ABoundBelowTheMarkIsNothingMore) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const Published late = wal.published();
  wal.Frame(2, 2, uint64_t{2}).Write();
  EXPECT_EQ(wal.Next(wal.mark(), late).end, End::kBound);
}

TEST(WalTailer, APublishedFrameThatIsMissingOrForeignIsAnError) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Frame(2, 2, uint64_t{2}).Write();
  Published published = wal.published();
  published.max_frame = 3;
  EXPECT_EQ(wal.tailer.Next(wal.mark(), published).status().tag(), Tag::kLocalIo);
  published.max_frame = 0xffffffff;
  EXPECT_EQ(wal.tailer.Next(wal.mark(), published).status().tag(), Tag::kLocalIo);

  wal.Rewind(first).Frame(2, 0, uint64_t{2}).Write();  // published, yet no commit frame
  EXPECT_EQ(wal.tailer.Next(first, wal.published()).status().tag(), Tag::kLocalIo);
  wal.Rewind(first).Frame(0, 2, uint64_t{2}).Write();  // no page number
  EXPECT_EQ(wal.tailer.Next(first, wal.published()).status().tag(), Tag::kLocalIo);
  wal.Rewind(first).Frame(2, 2, uint64_t{2});
  wal.bytes()[32 + 536 + 8] ^= 1;  // another salt
  wal.Write();
  EXPECT_EQ(wal.tailer.Next(first, wal.published()).status().tag(), Tag::kLocalIo);
  // The error leaves nothing behind.
  wal.Rewind(first).Frame(2, 2, uint64_t{2}).Write();
  EXPECT_EQ(wal.Next(first, wal.published()).end, End::kTransaction);
}

TEST(WalTailer, AFailingReadIsAnError) {
  const File closed;
  WalTailer tailer(closed);
  const WalMark mark{1, 2, 3, 4, 5};
  EXPECT_EQ(tailer.ReadHeader().status().tag(), Tag::kLocalIo);
  EXPECT_EQ(tailer.Contains(mark).status().tag(), Tag::kLocalIo);
  EXPECT_EQ(tailer.Next(mark, std::nullopt).status().tag(), Tag::kLocalIo);
  EXPECT_EQ(tailer.Next(mark, Published{1, 2, 4, 1, 0, 0}).status().tag(), Tag::kLocalIo);
}

// --- header and marks ---

TEST(WalTailer, ReadHeaderTellsMissingFromWrong) {
  Wal wal;
  EXPECT_EQ(wal.tailer.ReadHeader().status().tag(), Tag::kNotFound);
  wal.memory_file().Set(wal.bytes().substr(0, 31));
  EXPECT_EQ(wal.tailer.ReadHeader().status().tag(), Tag::kNotFound);
  wal.bytes()[24] ^= 1;
  wal.Write();
  EXPECT_EQ(wal.tailer.ReadHeader().status().tag(), Tag::kChainBroken);
}

TEST(WalTailer, ContainsExactlyThePointsOfTheFile) {
  Wal wal;
  std::vector<WalMark> marks{wal.mark()};
  for (uint32_t f = 1; f <= 3; ++f) marks.push_back(wal.Frame(f, f, uint64_t{f}).mark());
  wal.Write();
  for (const WalMark& mark : marks) {
    EXPECT_TRUE(*wal.tailer.Contains(mark)) << mark.frame;
    for (uint32_t WalMark::*field :
         {&WalMark::salt1, &WalMark::salt2, &WalMark::cksum1, &WalMark::cksum2}) {
      WalMark other = mark;
      other.*field ^= 1;
      EXPECT_FALSE(*wal.tailer.Contains(other));
    }
  }
  WalMark beyond = marks.back();
  ++beyond.frame;
  EXPECT_FALSE(*wal.tailer.Contains(beyond));
  wal.Rewind(marks[1]).Frame(2, 2, uint64_t{22}).Write();
  EXPECT_TRUE(*wal.tailer.Contains(marks[1]));
  EXPECT_FALSE(*wal.tailer.Contains(marks[2]));
  wal.Reset(0x1001, 0x3000).Write();
  EXPECT_FALSE(*wal.tailer.Contains(marks[1]));
  wal.memory_file().Set("");
  EXPECT_FALSE(*wal.tailer.Contains(marks[0]));
}

// --- padding ---

TEST(WalTailer, PaddingRepeatsAreNotTransactions) {
  for (const bool bounded : {true, false}) {
    Wal wal;
    wal.Frame(1, 0, uint64_t{1}).Frame(2, 2, uint64_t{2}).Repeat().Repeat().Repeat();
    const WalMark padded = wal.mark();
    wal.Frame(3, 3, uint64_t{3}).Repeat().Write();
    const auto bound = bounded ? std::optional(wal.published()) : std::nullopt;
    const auto one = wal.Next(wal.start(), bound);
    EXPECT_EQ(one.mark, padded);
    EXPECT_THAT(PageNumbers(one.transaction), ElementsAre(1, 2));
    EXPECT_THAT(Frames(one.transaction), ElementsAre(1, 2));
    const auto two = wal.Next(padded, bound);
    EXPECT_EQ(two.mark, wal.mark());
    EXPECT_THAT(PageNumbers(two.transaction), ElementsAre(3));
    EXPECT_EQ(wal.Next(two.mark, bound).end, bounded ? End::kBound : End::kChainEnd);
  }
}

TEST(WalTailer, PaddingIsTakenOnlyAsFarAsTheBoundAndSkippedLater) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1}).Repeat();
  const WalMark half = wal.mark();
  const Published published = wal.published();
  wal.Repeat().Repeat().Write();
  const WalMark whole = wal.mark();
  ASSERT_EQ(wal.Next(wal.start(), published).mark, half);
  const auto rest = wal.Next(half, wal.published());
  EXPECT_EQ(rest.end, End::kBound);
  EXPECT_EQ(rest.mark, whole);
  EXPECT_EQ(wal.Next(half, std::nullopt).end, End::kChainEnd);
  EXPECT_EQ(wal.Next(half, std::nullopt).mark, whole);

  wal.Frame(2, 2, uint64_t{2}).Write();
  WalTailer fresh(wal.file());  // knows nothing of the frame before
  for (WalTailer* tailer : {&wal.tailer, &fresh}) {
    const auto next = *tailer->Next(half, wal.published());
    ASSERT_EQ(next.end, End::kTransaction);
    EXPECT_THAT(PageNumbers(next.transaction), ElementsAre(2));
  }
}

TEST(WalTailer, AnotherPageSizeOrImageIsATransactionOfItsOwn) {
  for (const auto& [pgno, size, seed] :
       {std::tuple{1u, 2u, uint64_t{2}}, std::tuple{1u, 3u, uint64_t{1}},
        std::tuple{2u, 2u, uint64_t{1}}}) {
    Wal wal;
    wal.Frame(1, 2, uint64_t{1});
    const WalMark first = wal.mark();
    wal.Frame(pgno, size, seed).Write();
    EXPECT_EQ(wal.Next(wal.start(), wal.published()).mark, first);
    const auto second = wal.Next(first, wal.published());
    EXPECT_EQ(second.end, End::kTransaction);
    EXPECT_EQ(second.mark, wal.mark());
  }
}

TEST(WalTailer, ARepeatThatBreaksTheChainIsNotPaddingInRecovery) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Repeat();
  wal.bytes().back() ^= 1;
  wal.Write();
  EXPECT_EQ(wal.Next(wal.start(), std::nullopt).mark, first);
  EXPECT_EQ(wal.Next(first, std::nullopt).mark, first);
}

// --- the broken chain (H1) ---

// After spill, ROLLBACK TO and COMMIT, SQLite 3.40.1 leaves frames without salts and checksums and
// publishes them; the next transaction continues from the published checksum.
TEST(WalTailer, TakesPublishedFramesByPositionWhereTheChainBreaks) {
  Wal wal;
  wal.Frame(1, 3, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Frame(1, 0, uint64_t{2}).UnsealedFrame(3, 0, 3).UnsealedFrame(2, 3, 4);
  const WalMark broken = wal.mark();
  const Published published = wal.published();
  wal.Write();
  const auto one = wal.Next(first, published);
  ASSERT_EQ(one.end, End::kTransaction);
  EXPECT_THAT(PageNumbers(one.transaction), ElementsAre(1, 3, 2));
  EXPECT_EQ(AsText(one.transaction.images), wal.Page(2) + wal.Page(3) + wal.Page(4));
  EXPECT_EQ(one.mark, broken);
  EXPECT_EQ(wal.tailer.chain_breaks(), 1u);
  EXPECT_EQ(wal.Next(broken, published).end, End::kBound);
  EXPECT_TRUE(*wal.tailer.Contains(broken));

  // The chain goes on from the published checksum.
  wal.Frame(2, 3, uint64_t{5}).Write();
  const auto two = wal.Next(broken, wal.published());
  ASSERT_EQ(two.end, End::kTransaction);
  EXPECT_EQ(two.mark, wal.mark());
  EXPECT_THAT(PageNumbers(two.transaction), ElementsAre(2));
  EXPECT_EQ(wal.tailer.chain_breaks(), 1u);
  // Recovery would not get there.
  EXPECT_EQ(wal.Next(first, std::nullopt).end, End::kChainEnd);
}

TEST(WalTailer, SeveralTransactionsInABrokenRangeKeepTheirEnds) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.UnsealedFrame(1, 0, 2).UnsealedFrame(2, 2, 3);      // frames 2, 3
  wal.UnsealedFrame(1, 2, 4);                             // frame 4
  wal.Frame(3, 0, uint64_t{5}).Frame(1, 3, uint64_t{6});  // frames 5, 6: sealed again
  const WalMark sixth = wal.mark();
  wal.Frame(2, 3, uint64_t{7}).Write();
  const auto one = wal.Next(first, wal.published());
  EXPECT_THAT(PageNumbers(one.transaction), ElementsAre(1, 2));
  // In the middle of the range the true checksum is not known: the mark has what is stored.
  EXPECT_EQ(one.mark, (WalMark{first.salt1, first.salt2, 3, 0, 0}));
  EXPECT_TRUE(*wal.tailer.Contains(one.mark));
  const auto two = wal.Next(one.mark, wal.published());
  EXPECT_THAT(PageNumbers(two.transaction), ElementsAre(1));
  EXPECT_EQ(two.mark.frame, 4u);
  EXPECT_TRUE(*wal.tailer.Contains(two.mark));
  const auto three = wal.Next(two.mark, wal.published());
  EXPECT_THAT(PageNumbers(three.transaction), ElementsAre(3, 1));
  EXPECT_EQ(three.mark, sixth);
  EXPECT_EQ(wal.tailer.chain_breaks(), 3u);
  // From here the stored checksums are a chain again.
  EXPECT_EQ(wal.Next(three.mark, wal.published()).mark, wal.mark());
  EXPECT_EQ(wal.tailer.chain_breaks(), 3u);
  // A mark in the middle serves with a larger bound, and to a tailer that knows nothing.
  const Published before = wal.published();
  wal.Frame(1, 3, uint64_t{8}).Write();
  WalTailer fresh(wal.file());
  WalMark mark = one.mark;
  for (int n = 0; n < 4; ++n) mark = fresh.Next(mark, wal.published())->mark;
  EXPECT_EQ(mark, wal.mark());
  EXPECT_LT(before.max_frame, mark.frame);
}

TEST(WalTailer, PaddingAfterABrokenCommitIsPadding) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.UnsealedFrame(2, 2, 2).Repeat().Repeat().Write();
  const auto t = wal.Next(first, wal.published());
  EXPECT_THAT(Frames(t.transaction), ElementsAre(2));
  EXPECT_EQ(t.mark, wal.mark());
  EXPECT_EQ(wal.tailer.chain_breaks(), 1u);
}

TEST(WalTailer, ABreakIsNotCountedBeforeTheTransactionThatHasIt) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  wal.UnsealedFrame(2, 2, 2).Write();
  EXPECT_EQ(wal.Next(wal.start(), wal.published()).end, End::kTransaction);
  EXPECT_EQ(wal.tailer.chain_breaks(), 0u);
}

TEST(WalTailer, NothingIsTakenByPositionFromAnotherGeneration) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.Write();
  const WalMark start = wal.start();
  wal.UnsealedFrame(2, 2, 2);
  const Published published = wal.published();
  ASSERT_EQ(wal.Next(start, wal.published()).mark,
            first);  // knows the header, keeps frame 2's bytes
  wal.Reset(0x1001, 0x3000).Write();
  EXPECT_EQ(wal.Next(first, published).end, End::kOtherGeneration);
  EXPECT_EQ(wal.tailer.chain_breaks(), 0u);
}

// A stranger's reset while we read: the header first, then frame after frame, sealed or not yet.
// What is delivered is of the old generation, whole; by position only the header can tell.
TEST(WalTailer, NothingIsTakenByPositionWhileAResetRunsAgainstTheRead) {
  const uint32_t frames = 100;
  Wal wal(4096);
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  for (uint32_t f = 2; f <= frames; ++f) wal.UnsealedFrame(f, f == frames ? frames : 0, f);
  const Published published = wal.published();
  const std::string before = wal.bytes();
  std::vector<uint64_t> hashes;
  for (uint32_t f = 2; f <= frames; ++f) hashes.push_back(wal.Hash(f, f));

  for (const bool sealed : {false, true}) {
    wal.Reset(0x1001, 0x3000);
    for (uint32_t f = 1; f <= frames; ++f) {
      sealed ? wal.Frame(f, f, uint64_t{1000}) : wal.UnsealedFrame(f, f, 1000);
    }
    const std::string after = wal.bytes();
    for (int round = 0; round < 100; ++round) {
      wal.memory_file().Set(before);
      WalTailer tailer(wal.file());
      std::atomic<bool> go = false;
      std::thread stranger([&] {
        while (!go) {
        }
        ASSERT_TRUE(wal.file().WriteAt(0, AsBytes(after).first(32)).ok());
        for (size_t at = 32; at < after.size(); at += 4120) {
          ASSERT_TRUE(wal.file().WriteAt(at, AsBytes(after).subspan(at, 4120)).ok());
        }
      });
      go = true;
      const auto outcome = tailer.Next(first, published);
      stranger.join();
      ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
      if (outcome->end == End::kOtherGeneration) continue;
      ASSERT_EQ(outcome->end, End::kTransaction);
      ASSERT_EQ(outcome->transaction.pages.size(), hashes.size());
      for (size_t i = 0; i < hashes.size(); ++i) {
        ASSERT_EQ(outcome->transaction.pages[i].hash, hashes[i]);
      }
    }
  }
}

// A recovery by SQLite loses frames the chain cannot reach; new ones come to the same places under
// the same salts. A mark behind them must not be taken for a point of the new history.
TEST(WalTailer, NothingIsTakenByPositionAfterAMarkThatWasOverwritten) {
  Wal wal;
  wal.Frame(1, 1, uint64_t{1});
  const WalMark first = wal.mark();
  wal.UnsealedFrame(2, 2, 2);
  const WalMark lost = wal.mark();
  wal.Write();
  ASSERT_EQ(wal.Next(first, wal.published()).mark, lost);
  wal.Rewind(first).Frame(3, 3, uint64_t{3}).Frame(4, 4, uint64_t{4}).Write();
  EXPECT_FALSE(*wal.tailer.Contains(lost));
  EXPECT_EQ(wal.Next(lost, wal.published()).end, End::kOtherGeneration);
}

// --- damage ---

// Everything delivered from `bytes` without a bound, and the ends of it with one.
std::vector<WalMark> Deliver(Wal* wal, const std::string& bytes, const WalMark& start,
                             const std::optional<Published>& bound) {
  wal->memory_file().Set(bytes);
  WalTailer tailer(wal->file());
  std::vector<WalMark> ends;
  WalMark mark = start;
  for (;;) {
    auto outcome = tailer.Next(mark, bound);
    if (!outcome.ok()) {
      EXPECT_EQ(outcome.status().tag(), Tag::kLocalIo);
      return ends;
    }
    if (outcome->end != End::kTransaction) return ends;
    wal->Check(outcome->transaction);
    EXPECT_GT(outcome->mark.frame, mark.frame);
    ends.push_back(mark = outcome->mark);
  }
}

struct DamageTest : ::testing::Test {
  DamageTest() {
    wal.Frame(1, 0, uint64_t{1}).Frame(2, 2, uint64_t{2}).Repeat();
    ends.push_back(wal.mark());
    wal.Frame(1, 0, uint64_t{3}).Frame(3, 0, uint64_t{4}).Frame(3, 3, uint64_t{5});
    ends.push_back(wal.mark());
    wal.Frame(1, 3, uint64_t{6});
    ends.push_back(wal.mark());
    wal.Write();
    start = wal.start();
  }
  // How many of the transactions lie whole in the first `size` bytes; padding may be cut.
  size_t WholeIn(size_t size) const {
    size_t n = 0;
    for (const uint32_t commit_frame : {2u, 6u, 7u}) n += size >= 32 + commit_frame * size_t{536};
    return n;
  }
  Wal wal;
  WalMark start;
  std::vector<WalMark> ends;
};

TEST_F(DamageTest, TruncationAtEveryLengthGivesAPrefix) {
  const std::string whole = wal.bytes();
  for (size_t size = 0; size <= whole.size(); ++size) {
    const auto got = Deliver(&wal, whole.substr(0, size), start, std::nullopt);
    EXPECT_EQ(got.size(), WholeIn(size)) << size;
    Deliver(&wal, whole.substr(0, size), start, wal.published());
  }
}

TEST_F(DamageTest, AFlipOfAnyByteGivesThePrefixBeforeIt) {
  const std::string whole = wal.bytes();
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] ^= 0x20;
    // A flip in the padding costs the padding frame, and with it all that follows it.
    const size_t frame = i < 32 ? 0 : (i - 32) / 536;
    const size_t expected = i < 32 ? 0 : WholeIn(32 + frame * 536);
    EXPECT_EQ(Deliver(&wal, bytes, start, std::nullopt).size(), expected) << i;
    Deliver(&wal, bytes, start, wal.published());
  }
}

// --- WALs written by SQLite ---

// tests/data/wal; make_golden_wals.cc says what the files are and how they came to be.
struct Golden {
  struct Commit {
    uint32_t end_frame, database_pages, cksum1, cksum2;
    uint64_t content;
    std::map<uint32_t, uint64_t> changed;
  };
  uint32_t page_size = 0;
  size_t recovers = 0;
  std::vector<Commit> commits;
  std::vector<uint64_t> base;  // page hashes of the database file
  std::string wal;
};

constexpr char kGoldens[] = GUILDLITE_TEST_DATA "/wal/";

std::string ReadGolden(const std::string& file) {
  auto content = ReadWholeFile(kGoldens + file);
  EXPECT_TRUE(content.ok()) << content.status().ToString();
  return content.ok() ? *content : "";
}

Golden LoadGolden(const std::string& name) {
  Golden g;
  std::istringstream lines(ReadGolden(name + ".txt"));
  for (std::string word; lines >> word;) {
    if (word == "page_size") lines >> g.page_size;
    if (word == "recovers") lines >> g.recovers;
    if (word == "transaction") {
      Golden::Commit c;
      lines >> c.end_frame >> c.database_pages;
      lines >> std::hex >> c.cksum1 >> c.cksum2 >> c.content >> std::dec;
      g.commits.push_back(c);
    }
    if (word == "page") {
      uint32_t pgno;
      lines >> pgno;
      lines >> std::hex >> g.commits.back().changed[pgno] >> std::dec;
    }
  }
  const std::string db = ReadGolden(name + ".db");
  for (size_t at = 0; at < db.size(); at += g.page_size) {
    const Pgno pgno(static_cast<uint32_t>(g.base.size() + 1));
    g.base.push_back(PageHash(pgno, AsBytes(db).subspan(at, g.page_size)));
  }
  g.wal = ReadGolden(name + ".wal");
  return g;
}

struct GoldenTest : ::testing::TestWithParam<std::string> {
  GoldenTest() : g(LoadGolden(GetParam())), memory(g.wal), tailer(memory.file()) {
    auto header = tailer.ReadHeader();
    EXPECT_TRUE(header.ok());
    if (!header.ok()) return;
    EXPECT_EQ(header->page_size, g.page_size);
    start = WalTailer::Start(*header);
  }
  Published At(const Golden::Commit& c) const {
    return {start.salt1, start.salt2, c.end_frame, c.database_pages, c.cksum1, c.cksum2};
  }
  // `t` is commit `n`: every page that changed is in it, and what is in it makes the content.
  void Expect(const WalTransaction& t, size_t n) {
    ASSERT_LT(n, g.commits.size());
    const Golden::Commit& c = g.commits[n];
    EXPECT_EQ(t.end.frame, c.end_frame);
    ASSERT_EQ(t.database_pages, c.database_pages);
    if (n == 0) hashes = g.base;
    hashes.resize(c.database_pages);
    std::map<uint32_t, uint64_t> delivered;
    for (size_t i = 0; i < t.pages.size(); ++i) {
      const FrameRef& p = t.pages[i];
      ASSERT_LE(p.pgno.value, c.database_pages);
      delivered[p.pgno.value] = hashes[p.pgno.value - 1] = p.hash;
      std::vector<std::byte> image(g.page_size);
      ASSERT_TRUE(tailer.ReadPage(p.frame, g.page_size, image).ok());
      EXPECT_EQ(PageHash(p.pgno, image), p.hash);
      EXPECT_EQ(AsText(image), AsText(std::span(t.images).subspan(i * g.page_size, g.page_size)));
    }
    for (const auto& [pgno, hash] : c.changed) EXPECT_EQ(delivered[pgno], hash) << pgno;
    uint64_t content = 0;
    for (const uint64_t hash : hashes) content += hash;
    EXPECT_EQ(content, c.content) << "transaction " << n;
  }
  // All transactions after `mark` within `bound`, commits `n` on; returns where it stopped.
  WalMark ReadAll(WalMark mark, const std::optional<Published>& bound, size_t* n) {
    for (;;) {
      auto outcome = tailer.Next(mark, bound);
      EXPECT_TRUE(outcome.ok()) << outcome.status().ToString();
      if (!outcome.ok() || outcome->end != End::kTransaction) return mark;
      Expect(outcome->transaction, (*n)++);
      mark = outcome->mark;
      EXPECT_TRUE(*tailer.Contains(mark));
    }
  }
  bool broken() const { return g.recovers < g.commits.size(); }

  Golden g;
  testing::MemoryFile memory;
  WalTailer tailer;
  WalMark start;
  std::vector<uint64_t> hashes;
};

TEST_P(GoldenTest, CommitByCommit) {
  WalMark mark = start;
  size_t n = 0;
  for (const Golden::Commit& c : g.commits) {
    mark = ReadAll(mark, At(c), &n);
    EXPECT_EQ(mark, (WalMark{start.salt1, start.salt2, c.end_frame, c.cksum1, c.cksum2}));
  }
  EXPECT_EQ(n, g.commits.size());
  EXPECT_EQ(tailer.chain_breaks() > 0, broken());
}

TEST_P(GoldenTest, AllCommitsUnderOneBound) {
  size_t n = 0;
  const WalMark mark = ReadAll(start, At(g.commits.back()), &n);
  EXPECT_EQ(n, g.commits.size());
  EXPECT_EQ(mark.frame, g.commits.back().end_frame);
  EXPECT_EQ(tailer.chain_breaks() > 0, broken());
}

TEST_P(GoldenTest, RecoversWhatSqliteRecovers) {
  size_t n = 0;
  ReadAll(start, std::nullopt, &n);
  EXPECT_EQ(n, g.recovers);
  EXPECT_EQ(tailer.chain_breaks(), 0u);
}

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  const auto files = ListDirectory(kGoldens);
  if (!files.ok()) return names;
  for (const std::string& file : *files) {
    if (file.ends_with(".wal")) names.push_back(file.substr(0, file.size() - 4));
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Sqlite, GoldenTest, ::testing::ValuesIn(GoldenNames()),
                         [](const auto& test) { return test.param; });

// --- against a model ---

// A random history written frame by frame, with spills, rollbacks, padding, resets and broken
// chains, read by one tailer at random times with the bounds of those times.
TEST(WalTailer, ReadsWhatARandomWriterCommitted) {
  std::mt19937_64 random(testing::TestSeed());
  const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
  for (int round = 0; round < 60; ++round) {
    Wal wal(512u << random() % 4, chance(30), static_cast<uint32_t>(random()), 77);
    const bool padding = chance(30), breaks = chance(30);
    struct Commit {
      WalMark end;
      uint32_t database_pages;
      std::map<uint32_t, uint64_t> pages;  // pgno -> hash
    };
    std::vector<Commit> commits;
    size_t delivered = 0;
    wal.Write();
    WalMark mark = wal.start();
    uint64_t broken = 0;
    for (int step = 0; step < 60; ++step) {
      const WalMark before = wal.mark();
      Published published = wal.published();
      const size_t frames = 1 + random() % (chance(5) ? 600 : 6);
      const bool commit = chance(85);
      const uint32_t size = 1 + static_cast<uint32_t>(random() % 40);
      const bool unsealed = breaks && commit && chance(10);
      std::map<uint32_t, uint64_t> pages;
      for (size_t f = 1; f <= frames; ++f) {
        const auto pgno = 1 + static_cast<uint32_t>(random() % 40);
        const uint64_t seed = random();
        const uint32_t commit_pages = commit && f == frames ? size : 0;
        if (unsealed) {
          wal.UnsealedFrame(pgno, commit_pages, seed);
        } else {
          wal.Frame(pgno, commit_pages, seed);
        }
        if (pgno <= size) pages[pgno] = wal.Hash(pgno, seed);
      }
      if (commit) {
        if (padding) {
          for (uint64_t n = random() % 4; n > 0; --n) wal.Repeat();
        }
        commits.push_back({wal.mark(), size, pages});
        published = wal.published();
      }
      broken += unsealed;
      wal.Write();
      if (!commit) wal.Rewind(before);
      // Several transactions in one read need every break to be the bound's own frame to have exact
      // marks; the test of the middle of a range is above.
      if (chance(40) || unsealed || breaks) {
        for (;;) {
          const auto outcome = wal.Next(mark, published);
          if (outcome.end != End::kTransaction) {
            ASSERT_EQ(outcome.end, End::kBound);
            ASSERT_EQ(outcome.mark.frame, mark.frame);
            break;
          }
          ASSERT_LT(delivered, commits.size());
          const Commit& expected = commits[delivered++];
          ASSERT_EQ(outcome.mark, expected.end);
          ASSERT_EQ(outcome.transaction.database_pages, expected.database_pages);
          std::map<uint32_t, uint64_t> got;
          for (const FrameRef& p : outcome.transaction.pages) got[p.pgno.value] = p.hash;
          ASSERT_EQ(got, expected.pages);
          mark = outcome.mark;
        }
        ASSERT_EQ(delivered, commits.size());
        if (chance(30)) {
          wal.Reset(wal.mark().salt1 + 1, static_cast<uint32_t>(random())).Write();
          mark = wal.start();
        }
      }
    }
    EXPECT_EQ(wal.tailer.chain_breaks(), broken);
  }
}

}  // namespace
}  // namespace guildlite
