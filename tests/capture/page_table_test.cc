#include "vfs/capture/page_table.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <random>
#include <string>

#include "tests/support/temp_dir.h"
#include "tests/support/wal_builder.h"
#include "vfs/base/bytes.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

class PageTableTest : public ::testing::Test {
 protected:
  PageTableTest() {
    auto file = File::Open(dir_.File("pages"), O_RDWR | O_CREAT, 0644);
    EXPECT_TRUE(file.ok());
    file_ = std::move(*file);
  }
  static CapturedState State(uint64_t txid, const PageTable& table, uint32_t page_size = 512) {
    CapturedState s;
    s.txid = Txid(txid);
    s.mark = {1, 2, 3, 4, 5};
    s.mark_valid = true;
    s.history_hash = txid * 7;
    s.rolling_known = table.complete();
    s.rolling_checksum = table.sum();
    s.page_size = page_size;
    s.database_pages = table.pages();
    s.free_pages = 9;
    s.time_ms = 1'700'000'000'000;
    return s;
  }
  CapturedState Load(PageTable* table) {
    auto state = table->Load(file_);
    EXPECT_TRUE(state.ok()) << state.status().ToString();
    return state.ok() ? *state : CapturedState();
  }
  static void ExpectEqual(const PageTable& a, const PageTable& b) {
    ASSERT_EQ(a.pages(), b.pages());
    for (uint32_t p = 1; p <= a.pages(); ++p) EXPECT_EQ(a.Get(Pgno(p)), b.Get(Pgno(p))) << p;
    EXPECT_EQ(a.sum(), b.sum());
    EXPECT_EQ(a.unknown(), b.unknown());
  }

  TempDir dir_;
  File file_;
};

TEST_F(PageTableTest, CountsWhatIsUnknownAndSumsWhatIsKnown) {
  PageTable t;
  EXPECT_TRUE(t.complete());
  t.Resize(3, 512);
  EXPECT_EQ(t.unknown(), 3u);
  t.Set(Pgno(1), 10);
  t.Set(Pgno(3), 30);
  EXPECT_EQ(t.sum(), 40u);
  EXPECT_FALSE(t.complete());
  t.Set(Pgno(2), UINT64_MAX);  // the sum is modulo 2^64
  EXPECT_TRUE(t.complete());
  EXPECT_EQ(t.sum(), 39u);
  t.Set(Pgno(3), 0);  // forgotten
  EXPECT_EQ(t.unknown(), 1u);
  EXPECT_EQ(t.sum(), 9u);
  EXPECT_EQ(t.Get(Pgno(0)), 0u);
  EXPECT_EQ(t.Get(Pgno(4)), 0u);
}

TEST_F(PageTableTest, AGrownPageIsUnknownEvenIfItWasKnownBeforeAShrink) {
  PageTable t;
  t.Resize(3, 512);
  for (uint32_t p = 1; p <= 3; ++p) t.Set(Pgno(p), p);
  t.Resize(1, 512);
  EXPECT_TRUE(t.complete());
  EXPECT_EQ(t.sum(), 1u);
  t.Resize(3, 512);
  EXPECT_EQ(t.unknown(), 2u);
  EXPECT_EQ(t.Get(Pgno(3)), 0u);
  EXPECT_EQ(t.sum(), 1u);
}

TEST_F(PageTableTest, NeverWaitsForTheLockPage) {
  const uint32_t lock_page = LockPage(65536).value;
  PageTable t;
  t.Resize(lock_page + 1, 65536);
  EXPECT_EQ(t.unknown(), lock_page);
  for (uint32_t p = 1; p <= lock_page + 1; ++p) {
    if (p != lock_page) t.Set(Pgno(p), p);
  }
  EXPECT_TRUE(t.complete());
  ASSERT_TRUE(t.Flush(file_, State(1, t, 65536), false).ok());
  PageTable loaded;
  Load(&loaded);
  EXPECT_TRUE(loaded.complete());
  EXPECT_EQ(loaded.sum(), t.sum());
  t.Resize(lock_page, 65536);
  EXPECT_TRUE(t.complete());
  t.Resize(lock_page - 1, 65536);
  EXPECT_TRUE(t.complete());
  t.Resize(lock_page + 2, 65536);
  EXPECT_EQ(t.unknown(), 2u);
}

TEST_F(PageTableTest, ComesBackAsItWasFlushed) {
  PageTable t;
  t.Resize(200, 512);
  for (uint32_t p = 1; p <= 200; p += 3) t.Set(Pgno(p), p * 1000);
  const CapturedState state = State(17, t);
  ASSERT_TRUE(t.Flush(file_, state, true).ok());
  EXPECT_EQ(t.dirty(), 0u);
  PageTable loaded;
  EXPECT_EQ(Load(&loaded), state);
  ExpectEqual(loaded, t);
  EXPECT_EQ(loaded.dirty(), 0u);
}

// Growth, shrinking, edits and flushes at random against a map; what is loaded is what was flushed.
TEST_F(PageTableTest, AgreesWithAMapAtRandom) {
  std::mt19937_64 random(testing::TestSeed());
  PageTable t;
  std::map<uint32_t, uint64_t> model;
  for (int i = 0; i < 3000; ++i) {
    switch (random() % 6) {
      case 0: {
        const auto pages = static_cast<uint32_t>(random() % 300);
        t.Resize(pages, 512);
        model.erase(model.upper_bound(pages), model.end());
        break;
      }
      case 1:
        if (t.pages() != 0) {
          const auto p = static_cast<uint32_t>(1 + random() % t.pages());
          t.Set(Pgno(p), 0);
          model.erase(p);
        }
        break;
      case 2:
        if (i % 5 == 0) {
          ASSERT_TRUE(t.Flush(file_, State(i, t), false).ok());
          PageTable loaded;
          EXPECT_EQ(Load(&loaded).txid, Txid(i));
          ExpectEqual(loaded, t);
          if (random() % 2 == 0) t = loaded;
        }
        break;
      default:
        for (int k = 0; k < 5 && t.pages() != 0; ++k) {
          const auto p = static_cast<uint32_t>(1 + random() % t.pages());
          model[p] = random() | 1;
          t.Set(Pgno(p), model[p]);
        }
    }
    uint64_t sum = 0;
    for (const auto& [p, hash] : model) sum += hash;
    ASSERT_EQ(t.sum(), sum);
    ASSERT_EQ(t.unknown(), t.pages() - model.size());
  }
}

TEST_F(PageTableTest, IsNoTableWithoutAWholeHeader) {
  PageTable t;
  EXPECT_EQ(t.Load(file_).status().tag(), Tag::kNotFound);  // empty
  t.Resize(3, 512);
  for (uint32_t p = 1; p <= 3; ++p) t.Set(Pgno(p), p);
  ASSERT_TRUE(t.Flush(file_, State(1, t), false).ok());
  const std::string whole = *ReadWholeFile(file_.path());
  const size_t header = 84;  // magic to checksum
  for (size_t i = 0; i < header; ++i) {
    std::string torn = whole;
    torn[i] = static_cast<char>(torn[i] ^ 1);
    ASSERT_TRUE(file_.WriteAt(0, AsBytes(torn)).ok());
    PageTable loaded;
    EXPECT_EQ(loaded.Load(file_).status().tag(), Tag::kNotFound) << "byte " << i;
  }
  for (size_t n = 0; n < header; ++n) {
    ASSERT_TRUE(file_.Truncate(0).ok());
    ASSERT_TRUE(file_.WriteAt(0, AsBytes(whole).first(n)).ok());
    PageTable loaded;
    EXPECT_EQ(loaded.Load(file_).status().tag(), Tag::kNotFound) << "cut at " << n;
  }
}

// A power loss may cut the file: what is missing is unknown, not zero-hashed.
TEST_F(PageTableTest, EntriesCutOffAreUnknown) {
  PageTable t;
  t.Resize(10, 512);
  for (uint32_t p = 1; p <= 10; ++p) t.Set(Pgno(p), p);
  ASSERT_TRUE(t.Flush(file_, State(1, t), false).ok());
  ASSERT_TRUE(file_.Truncate(4096 + 6 * 8).ok());
  PageTable loaded;
  const CapturedState state = Load(&loaded);
  EXPECT_EQ(loaded.unknown(), 4u);
  EXPECT_FALSE(loaded.complete());
  EXPECT_NE(loaded.sum(), state.rolling_checksum);
}

// H15: killed between entries and header. Applying everything after the header's transaction again
// makes it whole, growth and shrinking in between included.
TEST_F(PageTableTest, EntriesNewerThanTheHeaderAreMadeWholeByApplyingAgain) {
  struct Change {
    uint32_t pages;
    std::map<uint32_t, uint64_t> set;
  };
  std::mt19937_64 random(testing::TestSeed());
  for (int round = 0; round < 50; ++round) {
    PageTable t;
    t.Resize(20, 512);
    for (uint32_t p = 1; p <= 20; ++p) t.Set(Pgno(p), random());
    const CapturedState old_state = State(1, t);
    ASSERT_TRUE(t.Flush(file_, old_state, false).ok());
    const std::string old_file = *ReadWholeFile(file_.path());
    std::vector<Change> changes;
    for (int i = 0; i < 8; ++i) {
      Change c{static_cast<uint32_t>(1 + random() % 40), {}};
      for (uint32_t p = t.pages() + 1; p <= c.pages; ++p) c.set[p] = random();
      for (int k = 0; k < 3; ++k) c.set[static_cast<uint32_t>(1 + random() % c.pages)] = random();
      changes.push_back(c);
      t.Resize(c.pages, 512);
      for (const auto& [p, hash] : c.set) t.Set(Pgno(p), hash);
    }
    ASSERT_TRUE(t.Flush(file_, State(9, t), false).ok());
    ASSERT_TRUE(file_.WriteAt(0, AsBytes(old_file).first(4096)).ok());
    PageTable loaded;
    EXPECT_EQ(Load(&loaded), old_state);
    for (const Change& c : changes) {
      loaded.Resize(c.pages, 512);
      for (const auto& [p, hash] : c.set) loaded.Set(Pgno(p), hash);
    }
    ExpectEqual(loaded, t);
    // And what is flushed next is that, though the file holds entries it never had in memory.
    ASSERT_TRUE(loaded.Flush(file_, State(9, t), false).ok());
    PageTable again;
    Load(&again);
    ExpectEqual(again, t);
  }
}

TEST_F(PageTableTest, AFailedFlushIsRepeatedInFull) {
  PageTable t;
  t.Resize(3, 512);
  for (uint32_t p = 1; p <= 3; ++p) t.Set(Pgno(p), p);
  auto read_only = File::Open(file_.path(), O_RDONLY);
  ASSERT_TRUE(read_only.ok());
  EXPECT_FALSE(t.Flush(*read_only, State(1, t), false).ok());
  EXPECT_EQ(t.dirty(), 3u);
  ASSERT_TRUE(t.Flush(file_, State(1, t), false).ok());
  PageTable loaded;
  Load(&loaded);
  ExpectEqual(loaded, t);
}

}  // namespace
}  // namespace guildlite
