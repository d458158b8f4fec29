// What ReadPublished() says is what the WAL file holds, and nothing less than a whole header is
// taken.
#include "vfs/shim/wal_index.h"

#include <array>
#include <cstring>

#include "tests/shim/shim_fixture.h"
#include "vfs/base/bytes.h"
#include "vfs/base/file_io.h"

namespace guildlite::testing {
namespace {

constexpr size_t kHeaders = 96;  // two copies

class WalIndex : public ShimTest, public ::testing::WithParamInterface<uint32_t> {};

// The last commit frame as it lies in the file.
struct LastFrame {
  uint32_t index = 0;
  FrameHeader header;
  uint32_t page_size = 0;
};

LastFrame ReadLastFrame(const std::string& wal_path) {
  const std::string wal = std::move(ReadWholeFile(wal_path)).value();
  const auto header = WalHeader::Decode(AsBytes(wal).first<kWalHeaderSize>());
  LastFrame last;
  if (!header) return last;
  last.page_size = header->page_size;
  for (uint32_t n = 1; FrameOffset(n + 1, header->page_size) <= wal.size(); ++n) {
    const FrameHeader frame = FrameHeader::Decode(
        AsBytes(wal).subspan(FrameOffset(n, header->page_size)).first<kFrameHeaderSize>());
    if (frame.salt1 != header->salt1 || frame.salt2 != header->salt2) break;
    if (frame.commit_pages != 0) last = {n, frame, header->page_size};
  }
  return last;
}

TEST_P(WalIndex, PublishedIsTheLastCommitFrame) {
  Connection c(Path("a.db"));
  c.Ok("PRAGMA page_size=" + std::to_string(GetParam()));
  c.Ok("PRAGMA journal_mode=WAL");
  c.Ok("PRAGMA wal_autocheckpoint=0");
  Install(c.db());
  c.Ok("CREATE TABLE t(a)");
  for (int i = 0; i < 20; ++i) {
    c.Ok("INSERT INTO t VALUES(randomblob(" + std::to_string(i * 997) + "))");
    if (i == 12) c.Ok("PRAGMA wal_checkpoint");  // the next one starts a new generation
    uint32_t page_size = 0;
    const std::optional<Published> published = events_->ReadIndex(&page_size);
    ASSERT_TRUE(published);
    const LastFrame last = ReadLastFrame(Path("a.db-wal"));
    EXPECT_EQ(page_size, GetParam());
    EXPECT_EQ(published->max_frame, last.index);
    EXPECT_EQ(published->salt1, last.header.salt1);
    EXPECT_EQ(published->salt2, last.header.salt2);
    EXPECT_EQ(published->cksum1, last.header.checksum.s0);
    EXPECT_EQ(published->cksum2, last.header.checksum.s1);
    EXPECT_EQ(std::to_string(published->database_pages), c.Text("PRAGMA page_count"));
  }
}

INSTANTIATE_TEST_SUITE_P(PageSizes, WalIndex, ::testing::Values(512u, 1024u, 4096u, 32768u, 65536u),
                         ::testing::PrintToStringParamName());

class WalIndexBytes : public ShimTest {
 protected:
  // A private copy of the header of a database with one commit.
  std::array<uint32_t, kHeaders / 4> Copy(const std::string& name = "a.db") {
    std::array<uint32_t, kHeaders / 4> copy{};
    Connection c = OpenWal(name);
    c.Ok("INSERT INTO t VALUES(1)");
    events_->on_call = nullptr;
    const std::string shm = std::move(ReadWholeFile(Path(name + "-shm"))).value();
    std::memcpy(copy.data(), shm.data(), kHeaders);
    return copy;
  }
};

TEST_F(WalIndexBytes, EveryFlippedBitIsRefused) {
  const auto good = Copy();
  ASSERT_TRUE(ReadPublished(good.data(), nullptr));
  for (size_t bit = 0; bit < kHeaders * 4; ++bit) {
    auto bad = good;
    bad[bit / 32] ^= 1u << bit % 32;
    EXPECT_EQ(ReadPublished(bad.data(), nullptr), ReadPublished(good.data(), nullptr)) << bit;
    bad[kHeaders / 8 + bit / 32] ^= 1u << bit % 32;
    EXPECT_FALSE(ReadPublished(bad.data(), nullptr)) << bit;
  }
}

// A writer that was descheduled or killed on its way: "nothing committed" would be a lie.
TEST_F(WalIndexBytes, AWriterThatStandsBetweenTheCopiesHidesNothing) {
  const auto old = Copy();
  const auto now = Copy("b.db");
  const auto before = ReadPublished(old.data(), nullptr);
  const auto after = ReadPublished(now.data(), nullptr);
  ASSERT_TRUE(before && after && *before != *after);
  // Copy 2 first, then copy 1, word by word.
  auto shared = old;
  for (size_t i = 0; i < shared.size(); ++i) {
    const size_t word = (i + shared.size() / 2) % shared.size();
    shared[word] = now[word];
    const auto seen = ReadPublished(shared.data(), nullptr);
    ASSERT_TRUE(seen) << i;
    EXPECT_TRUE(*seen == *before || *seen == *after) << i;
  }
  EXPECT_EQ(ReadPublished(shared.data(), nullptr), after);
}

TEST_F(WalIndexBytes, AnEmptyIndexIsRefused) {
  const std::array<uint32_t, kHeaders / 4> zeros{};
  EXPECT_FALSE(ReadPublished(zeros.data(), nullptr));
}

TEST_F(WalIndexBytes, AnotherVersionIsRefusedEvenWithARightChecksum) {
  auto other = Copy();
  for (size_t copy = 0; copy < 2; ++copy) {
    uint32_t* const h = &other[copy * 12];
    h[0] = 3007001;
    uint32_t s1 = 0;
    uint32_t s2 = 0;
    for (size_t i = 0; i < 10; i += 2) {
      s1 += h[i] + s2;
      s2 += h[i + 1] + s1;
    }
    h[10] = s1;
    h[11] = s2;
  }
  EXPECT_FALSE(ReadPublished(other.data(), nullptr));
}

}  // namespace
}  // namespace guildlite::testing
