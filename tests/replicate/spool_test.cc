#include "vfs/replicate/spool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/segment_spec.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wal_builder.h"
#include "vfs/base/bytes.h"
#include "vfs/base/file_io.h"
#include "vfs/format/segment_writer.h"

namespace guildlite {
namespace {

using testing::EncodeBatch;
using testing::Images;
using testing::MakePage;
using testing::TransactionSpec;

constexpr uint32_t kPageSize = 512;

class SpoolTest : public ::testing::Test {
 protected:
  SpoolTest() { EXPECT_TRUE(MakeDirectory(Folder()).ok()); }
  std::string Folder() const { return dir_.File("spool"); }

  // A batch of `count` transactions of `pages` pages each, first txid `first`.
  static SealedBatch Batch(uint64_t first, uint64_t count = 1, uint32_t pages = 1) {
    std::vector<TransactionSpec> transactions;
    for (uint64_t i = 0; i < count; ++i) {
      TransactionSpec t;
      t.header.txid = Txid(first + i);
      t.header.time_ms = 1000;
      t.header.database_pages = pages;
      t.header.history_hash = (first + i) * 1000;
      for (uint32_t p = 1; p <= pages; ++p) t.pages.push_back({p, MakePage(kPageSize, first + p)});
      transactions.push_back(std::move(t));
    }
    SealedBatch b;
    b.first = Txid(first);
    b.last = transactions.back().header;
    b.page_size = kPageSize;
    b.bytes = EncodeBatch(transactions, Images(), {.page_size = kPageSize});
    return b;
  }
  static std::string Bytes(uint64_t first, uint64_t count = 1, uint32_t pages = 1) {
    return Batch(first, count, pages).bytes;
  }
  struct Recovered {
    Txid end;
    std::vector<uint64_t> transactions;
    std::map<uint32_t, uint64_t> pages;
  };
  Recovered Recover(Spool& spool, uint64_t table, uint64_t acknowledged) {
    Recovered r;
    auto end = spool.Recover(
        Txid(table), Txid(acknowledged),
        [&](const Transaction& t) { r.transactions.push_back(t.txid.value); },
        [&](const Transaction&, const PageEntry& e) { r.pages[e.pgno.value] = e.hash; });
    EXPECT_TRUE(end.ok()) << end.status().ToString();
    if (end.ok()) r.end = *end;
    return r;
  }
  static std::vector<uint64_t> Firsts(Spool& spool) {
    std::vector<uint64_t> firsts;
    for (const SealedBatch* b : spool.pending()) firsts.push_back(b->first.value);
    return firsts;
  }
  static void ExpectBytes(Spool& spool, size_t index, const std::string& bytes) {
    const SealedBatch* batch = spool.pending()[index];
    ASSERT_EQ(batch->size, bytes.size());
    auto read = spool.Read(*batch, 0, batch->size);
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    EXPECT_TRUE(*read == bytes);
    auto part = spool.Read(*batch, 3, 5);
    ASSERT_TRUE(part.ok());
    EXPECT_EQ(*part, bytes.substr(3, 5));
  }
  size_t Files() const {
    auto names = ListDirectory(Folder());
    EXPECT_TRUE(names.ok());
    return names.ok() ? names->size() : 0;
  }

  TempDir dir_;
};

using Numbers = std::vector<uint64_t>;

TEST_F(SpoolTest, HoldsBatchesInOrderInMemoryUntilWrittenOut) {
  Spool spool(Folder());
  spool.Append(Batch(1, 3));
  spool.Append(Batch(4));
  EXPECT_EQ(Firsts(spool), (Numbers{1, 4}));
  EXPECT_FALSE(spool.all_in_files());
  EXPECT_EQ(Files(), 0u);
  EXPECT_EQ(spool.pending_bytes(), Bytes(1, 3).size() + Bytes(4).size());
  ASSERT_TRUE(spool.WriteOut().ok());
  EXPECT_TRUE(spool.all_in_files());
  EXPECT_EQ(Files(), 1u);
  EXPECT_EQ(spool.file_bytes(), spool.pending_bytes());
  ExpectBytes(spool, 0, Bytes(1, 3));
  ExpectBytes(spool, 1, Bytes(4));
}

TEST_F(SpoolTest, WhatWasWrittenOutComesBackInAnotherProcess) {
  {
    Spool spool(Folder());
    spool.Append(Batch(1, 3));
    spool.Append(Batch(4));
    ASSERT_TRUE(spool.WriteOut().ok());
    spool.Append(Batch(5, 2, 7));
    ASSERT_TRUE(spool.WriteOut().ok());
    spool.Append(Batch(7));  // in memory: gone with the process, its frames are in the WAL
  }
  Spool spool(Folder());
  const Recovered r = Recover(spool, 0, 0);
  EXPECT_EQ(r.end, Txid(6));
  EXPECT_EQ(r.transactions, (Numbers{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(r.pages.size(), 7u);
  EXPECT_EQ(Firsts(spool), (Numbers{1, 4, 5}));
  EXPECT_EQ(spool.pending()[0]->last.txid, Txid(3));
  EXPECT_EQ(spool.pending()[0]->last.history_hash, 3000u);
  ExpectBytes(spool, 0, Bytes(1, 3));
  ExpectBytes(spool, 2, Bytes(5, 2, 7));
  spool.Append(Batch(7));
  ASSERT_TRUE(spool.WriteOut().ok());
  Spool again(Folder());
  EXPECT_EQ(Recover(again, 0, 0).end, Txid(7));
}

TEST_F(SpoolTest, AppliesWhatIsAboveTheTableAndQueuesWhatIsNotAcknowledged) {
  {
    Spool spool(Folder());
    for (uint64_t txid = 1; txid <= 5; ++txid) spool.Append(Batch(txid));
    ASSERT_TRUE(spool.WriteOut().ok());
  }
  for (uint64_t table = 0; table <= 5; ++table) {
    for (uint64_t acknowledged = 0; acknowledged <= 5; ++acknowledged) {
      Spool spool(Folder());
      const Recovered r = Recover(spool, table, acknowledged);
      EXPECT_EQ(r.end, Txid(5));
      EXPECT_EQ(r.transactions.size(), 5 - table);
      EXPECT_EQ(spool.pending().size(), 5 - acknowledged);
    }
  }
}

// After a power loss: at every length, the whole batches before the cut and nothing else; and what
// is written next follows them.
TEST_F(SpoolTest, ATornTailIsDroppedAndWrittenOver) {
  const std::string bytes = Bytes(1, 2) + Bytes(3) + Bytes(4, 1, 3);
  const size_t ends[] = {0, Bytes(1, 2).size(), Bytes(1, 2).size() + Bytes(3).size()};
  const uint64_t lasts[] = {0, 2, 3};
  for (size_t n = 0; n < bytes.size(); n += 7) {
    const std::string path = Folder() + "/0000000000000001";
    ASSERT_TRUE(ReplaceFile(path, bytes.substr(0, n)).ok());
    int whole = 0;
    while (whole < 2 && ends[whole + 1] <= n) ++whole;
    Spool spool(Folder());
    EXPECT_EQ(Recover(spool, 0, 0).end, Txid(lasts[whole])) << n;
    if (whole == 0) {
      EXPECT_FALSE(FileExists(path)) << n;
    } else {
      EXPECT_EQ(IdentityOf(path)->size, ends[whole]) << n;
    }
    spool.Append(Batch(lasts[whole] + 1));
    ASSERT_TRUE(spool.WriteOut().ok());
    Spool again(Folder());
    EXPECT_EQ(Recover(again, 0, 0).end, Txid(lasts[whole] + 1)) << n;
    ASSERT_TRUE(again.Discard().ok());
  }
}

TEST_F(SpoolTest, AFlippedByteEndsWhatIsBelieved) {
  const std::string bytes = Bytes(1) + Bytes(2);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    ASSERT_TRUE(ReplaceFile(Folder() + "/0000000000000001", damaged).ok());
    Spool spool(Folder());
    Numbers seen;
    auto end = spool.Recover(
        Txid(), Txid(), [&](const Transaction& t) { seen.push_back(t.txid.value); },
        [](const Transaction&, const PageEntry&) {});
    if (end.ok()) {
      EXPECT_EQ(*end, Txid(at < Bytes(1).size() ? 0 : 1)) << at;
    }
  }
}

TEST_F(SpoolTest, AGapEndsItAndWhatFollowsIsRemoved) {
  ASSERT_TRUE(ReplaceFile(Folder() + "/0000000000000001", Bytes(1) + Bytes(3)).ok());
  ASSERT_TRUE(ReplaceFile(Folder() + "/0000000000000004", Bytes(4)).ok());
  {
    Spool spool(Folder());
    EXPECT_EQ(Recover(spool, 0, 0).end, Txid(1));
    EXPECT_EQ(Firsts(spool), (Numbers{1}));
  }
  EXPECT_EQ(Files(), 1u);
  // Nor may it begin with one.
  ASSERT_TRUE(ReplaceFile(Folder() + "/0000000000000001", Bytes(7)).ok());
  Spool spool(Folder());
  EXPECT_EQ(Recover(spool, 5, 0).end, Txid(5));
  EXPECT_TRUE(spool.pending().empty());
  EXPECT_EQ(Files(), 0u);
}

TEST_F(SpoolTest, OtherFilesInTheFolderAreLeftAlone) {
  ASSERT_TRUE(ReplaceFile(Folder() + "/note.txt", "mine").ok());
  Spool spool(Folder());
  EXPECT_EQ(Recover(spool, 3, 3).end, Txid(3));
  ASSERT_TRUE(spool.Discard().ok());
  EXPECT_TRUE(FileExists(Folder() + "/note.txt"));
}

// Invariant 5: else a WAL reset would leave a hole between the table and the WAL.
TEST_F(SpoolTest, AcknowledgedInMemoryStaysUntilItIsInAFileOrInTheTable) {
  Spool spool(Folder());
  spool.Append(Batch(1));
  spool.Append(Batch(2));
  spool.Acknowledge(Txid(2));
  EXPECT_TRUE(spool.pending().empty());
  EXPECT_EQ(spool.pending_bytes(), 0u);
  EXPECT_FALSE(spool.all_in_files());
  ASSERT_TRUE(spool.WriteOut().ok());
  {
    Spool left(Folder());
    EXPECT_EQ(Recover(left, 0, 2).transactions, (Numbers{1, 2}));
  }
  spool.Append(Batch(3));
  spool.Acknowledge(Txid(3));
  EXPECT_FALSE(spool.all_in_files());
  ASSERT_TRUE(spool.TableFlushed(Txid(3)).ok());
  EXPECT_TRUE(spool.all_in_files());
  ASSERT_TRUE(spool.WriteOut().ok());
  EXPECT_EQ(Files(), 0u);
}

// Invariant 3.
TEST_F(SpoolTest, AFileGoesOnlyWhenAcknowledgedAndInTheTable) {
  for (const bool table_first : {false, true}) {
    Spool spool(Folder());
    spool.Append(Batch(1));
    spool.Append(Batch(2));
    ASSERT_TRUE(spool.WriteOut().ok());
    if (table_first) {
      ASSERT_TRUE(spool.TableFlushed(Txid(2)).ok());
      EXPECT_EQ(Files(), 1u);
      spool.Acknowledge(Txid(1));
      ASSERT_TRUE(spool.TableFlushed(Txid(2)).ok());
      EXPECT_EQ(Files(), 1u);
      spool.Acknowledge(Txid(2));
    } else {
      spool.Acknowledge(Txid(2));
      EXPECT_EQ(Files(), 1u);
      ASSERT_TRUE(spool.TableFlushed(Txid(1)).ok());
      EXPECT_EQ(Files(), 1u);
    }
    ASSERT_TRUE(spool.TableFlushed(Txid(2)).ok());
    EXPECT_EQ(Files(), 0u);
    EXPECT_EQ(spool.file_bytes(), 0u);
    spool.Append(Batch(3));
    ASSERT_TRUE(spool.WriteOut().ok());
    EXPECT_EQ(Firsts(spool), (Numbers{3}));
    ExpectBytes(spool, 0, Bytes(3));
    ASSERT_TRUE(spool.Discard().ok());
  }
}

TEST_F(SpoolTest, ATransactionLargerThanMemoryGoesStraightToTheFile) {
  const std::string whole = Bytes(2, 1, 500);
  Spool spool(Folder());
  spool.Append(Batch(1));
  const size_t third = whole.size() / 3;
  ASSERT_TRUE(spool.AppendPartial(Txid(2), whole.substr(0, third)).ok());
  ASSERT_TRUE(spool.AppendPartial(Txid(2), whole.substr(third, third)).ok());
  EXPECT_EQ(Firsts(spool), (Numbers{1})) << "it is no batch before its end";
  {
    // Killed here, it never happened: its frames are in the WAL.
    std::filesystem::copy(Folder(), dir_.File("killed"));
    Spool killed(dir_.File("killed"));
    EXPECT_EQ(Recover(killed, 0, 0).end, Txid(1));
  }
  SealedBatch rest = Batch(2, 1, 500);
  rest.bytes = whole.substr(2 * third);
  spool.Append(std::move(rest));
  EXPECT_TRUE(spool.all_in_files());
  EXPECT_EQ(Firsts(spool), (Numbers{1, 2}));
  ExpectBytes(spool, 1, whole);
  spool.Append(Batch(3));
  ASSERT_TRUE(spool.WriteOut().ok());
  ExpectBytes(spool, 1, whole);
  Spool left(Folder());
  EXPECT_EQ(Recover(left, 0, 0).end, Txid(3));
  ExpectBytes(left, 1, whole);
}

// A killed transaction of any size is in the file; what is opened with must not be.
TEST_F(SpoolTest, RecoversWithoutTheFileInMemory) {
  const std::string large = Bytes(2, 1, 9000);
  ASSERT_GT(large.size(), 1u << 20) << "more than is read at once";
  {
    Spool spool(Folder());
    spool.Append(Batch(1));
    ASSERT_TRUE(spool.AppendPartial(Txid(2), large.substr(0, 1000)).ok());
    SealedBatch rest = Batch(2, 1, 9000);
    rest.bytes = large.substr(1000);
    spool.Append(std::move(rest));
    ASSERT_TRUE(spool.AppendPartial(Txid(3), "B").ok());
  }
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    std::filesystem::resize_file(entry.path(), 1ull << 40);  // more than any memory
  }
  Spool spool(Folder());
  const Recovered r = Recover(spool, 0, 0);
  EXPECT_EQ(r.end, Txid(2));
  EXPECT_EQ(r.pages.size(), 9000u);
  ExpectBytes(spool, 1, large);
}

// Invariant 4: a WAL that is never reset must not keep every batch in memory.
TEST_F(SpoolTest, MemoryIsBoundedWithoutAnyWriteOut) {
  Spool spool(Folder());
  uint64_t total = 0;
  for (uint64_t txid = 1; txid <= 40; ++txid) {
    SealedBatch batch = Batch(txid, 1, 4000);
    total += batch.bytes.size();
    spool.Append(std::move(batch));
    uint64_t in_memory = 0;
    for (const SealedBatch* b : spool.pending()) in_memory += b->bytes.size();
    EXPECT_LE(in_memory, Spool::kMemoryMax);
  }
  ASSERT_GT(total, 2 * Spool::kMemoryMax);
  EXPECT_EQ(spool.pending_bytes(), total);
  ExpectBytes(spool, 0, Bytes(1, 1, 4000));
  ExpectBytes(spool, 39, Bytes(40, 1, 4000));
}

TEST_F(SpoolTest, BeginsAnotherFileWhenOneIsFull) {
  const std::string bytes = Bytes(1, 1, 4000);
  const uint64_t n = Spool::kFileSizeMax / bytes.size() + 3;
  {
    Spool spool(Folder());
    for (uint64_t txid = 1; txid <= n; ++txid) {
      spool.Append(Batch(txid, 1, 4000));
      ASSERT_TRUE(spool.WriteOut().ok());
    }
    EXPECT_EQ(Files(), 2u);
    spool.Acknowledge(Txid(n - 1));
    ASSERT_TRUE(spool.TableFlushed(Txid(n)).ok());
    EXPECT_EQ(Files(), 1u);
    EXPECT_EQ(Firsts(spool), (Numbers{n}));
  }
  Spool spool(Folder());
  EXPECT_EQ(Recover(spool, n, n - 1).end, Txid(n));
  ExpectBytes(spool, 0, Bytes(n, 1, 4000));
}

// Numbers begin anew after a drop: what was acknowledged before says nothing about them.
TEST_F(SpoolTest, ADiscardedSpoolForgetsWhatWasAcknowledged) {
  Spool spool(Folder());
  spool.Append(Batch(1, 9));
  ASSERT_TRUE(spool.WriteOut().ok());
  spool.Acknowledge(Txid(9));
  ASSERT_TRUE(spool.TableFlushed(Txid(9)).ok());
  ASSERT_TRUE(spool.Discard().ok());
  spool.Append(Batch(4));
  EXPECT_EQ(Firsts(spool), (Numbers{4}));
  EXPECT_EQ(spool.pending_bytes(), Bytes(4).size());
}

TEST_F(SpoolTest, ABatchThatVanishedFromItsFileIsAnErrorNotGarbage) {
  Spool spool(Folder());
  for (uint64_t txid = 1; txid <= 12; ++txid) spool.Append(Batch(txid, 1, 4000));
  ASSERT_TRUE(spool.WriteOut().ok());
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    std::filesystem::resize_file(entry.path(), 10);
  }
  const SealedBatch* first = spool.pending()[0];
  ASSERT_TRUE(first->bytes.empty());
  EXPECT_EQ(spool.Read(*first, 0, first->size).status().tag(), Tag::kLocalIo);
}

// A disk that is full, by the limit on a file's size.
class FullDisk {
 public:
  explicit FullDisk(uint64_t file_size_max) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{file_size_max, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_{};
};

TEST_F(SpoolTest, AFailedWriteOutKeepsEverythingAndSucceedsLater) {
  const std::string first = Bytes(1, 1, 50), second = Bytes(2, 1, 50);
  Spool spool(Folder());
  spool.Append(Batch(1, 1, 50));
  ASSERT_TRUE(spool.WriteOut().ok());
  spool.Append(Batch(2, 1, 50));
  {
    const FullDisk full(first.size() + second.size() / 2);
    EXPECT_FALSE(spool.WriteOut().ok());
  }
  EXPECT_FALSE(spool.all_in_files());
  ExpectBytes(spool, 1, second);
  {
    Spool killed(Folder());
    EXPECT_EQ(Recover(killed, 0, 0).end, Txid(1));
  }
  // (That look cut the torn tail off, as a restart would.)
  ASSERT_TRUE(spool.WriteOut().ok());
  Spool left(Folder());
  EXPECT_EQ(Recover(left, 0, 0).end, Txid(2));
  ExpectBytes(left, 0, first);
  ExpectBytes(left, 1, second);
}

TEST_F(SpoolTest, AHugeBatchWhoseEndFailsHidesNothingBehindIt) {
  const std::string whole = Bytes(1, 1, 500);
  const size_t half = whole.size() / 2;
  Spool spool(Folder());
  ASSERT_TRUE(spool.AppendPartial(Txid(1), whole.substr(0, half)).ok());
  {
    const FullDisk full(half + 10);
    SealedBatch rest = Batch(1, 1, 500);
    rest.bytes = whole.substr(half);
    spool.Append(std::move(rest));
  }
  EXPECT_FALSE(spool.all_in_files());
  ExpectBytes(spool, 0, whole);
  spool.Append(Batch(2));
  ASSERT_TRUE(spool.WriteOut().ok());
  Spool left(Folder());
  EXPECT_EQ(Recover(left, 0, 0).end, Txid(2));
  ExpectBytes(left, 0, whole);
  ExpectBytes(left, 1, Bytes(2));
}

// Any order of calls, killed anywhere: what was in files and is not in the table comes back.
TEST_F(SpoolTest, KilledAtRandomNothingBetweenTableAndFilesIsMissing) {
  std::mt19937_64 random(testing::TestSeed());
  uint64_t txid = 0, table = 0, acknowledged = 0, written = 0;
  auto spool = std::make_unique<Spool>(Folder());
  for (int i = 0; i < 1500; ++i) {
    switch (random() % 6) {
      case 0:
      case 1: {
        const uint64_t count = 1 + random() % 3;
        spool->Append(Batch(txid + 1, count));
        txid += count;
        break;
      }
      case 2:
        ASSERT_TRUE(spool->WriteOut().ok());
        written = txid;
        break;
      case 3: {
        const auto pending = spool->pending();
        if (pending.empty()) break;
        acknowledged = pending[random() % pending.size()]->last.txid.value;
        spool->Acknowledge(Txid(acknowledged));
        break;
      }
      case 4:
        ASSERT_TRUE(spool->WriteOut().ok());
        written = table = txid;
        ASSERT_TRUE(spool->TableFlushed(Txid(table)).ok());
        break;
      case 5: {
        if (random() % 4 != 0) break;
        spool = std::make_unique<Spool>(Folder());
        const Recovered r = Recover(*spool, table, acknowledged);
        ASSERT_EQ(r.end, Txid(std::max(written, table)));
        txid = written = r.end.value;
        if (acknowledged > txid) {
          // In the log but not here: captured again from the WAL, and the table takes them alone.
          txid = written = table = acknowledged;
          ASSERT_TRUE(spool->TableFlushed(Txid(table)).ok());
        }
        break;
      }
    }
    uint64_t next = acknowledged + 1;
    for (const SealedBatch* b : spool->pending()) {
      ASSERT_EQ(b->first, Txid(next));
      next = b->last.txid.value + 1;
      auto bytes = spool->Read(*b, 0, b->size);
      ASSERT_TRUE(bytes.ok());
      ASSERT_TRUE(*bytes == Bytes(b->first.value, b->last.txid.value - b->first.value + 1));
    }
    ASSERT_EQ(next, txid + 1);
  }
}

}  // namespace
}  // namespace guildlite
