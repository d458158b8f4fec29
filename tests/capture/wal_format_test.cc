#include "vfs/capture/wal_format.h"

#include <gtest/gtest.h>

#include "tests/support/wal_builder.h"
#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

using testing::WalBuilder;

std::optional<WalHeader> Decode(std::string_view bytes) {
  return WalHeader::Decode(AsBytes(bytes).first<kWalHeaderSize>());
}

// The header again with its checksum made right, as only a program that means it would write it.
std::string Sealed(std::string header, bool big_endian = false) {
  header.resize(24);
  WalChecksum checksum;
  checksum.Update(AsBytes(header), big_endian);
  PutBig32(&header, checksum.s0);
  PutBig32(&header, checksum.s1);
  return header;
}

TEST(WalFormat, HeaderGivesEveryField) {
  for (const bool big_endian : {false, true}) {
    WalBuilder wal(4096, big_endian, 0x11223344, 0x55667788);
    wal.Reset(0x11223345, 0x99aabbcc);
    const auto header = Decode(wal.bytes());
    ASSERT_TRUE(header);
    EXPECT_EQ(header->big_endian_checksums, big_endian);
    EXPECT_EQ(header->page_size, 4096u);
    EXPECT_EQ(header->checkpoint_sequence, 1u);
    EXPECT_EQ(header->salt1, 0x11223345u);
    EXPECT_EQ(header->salt2, 0x99aabbccu);
    EXPECT_EQ(header->checksum.s0, wal.mark().cksum1);
    EXPECT_EQ(header->checksum.s1, wal.mark().cksum2);
  }
}

TEST(WalFormat, HeaderRefusesAFlipOfAnyBit) {
  const std::string good = WalBuilder(65536).bytes();
  ASSERT_TRUE(Decode(good));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(Decode(bad)) << "bit " << bit;
  }
}

TEST(WalFormat, HeaderRefusesForeignVersionsAndPageSizesThoughSealed) {
  const auto with = [](size_t offset, uint32_t value) {
    std::string header = WalBuilder(512).bytes(), field;
    PutBig32(&field, value);
    return Sealed(header.replace(offset, 4, field));
  };
  EXPECT_TRUE(Decode(with(4, 3007000)));
  EXPECT_FALSE(Decode(with(4, 3007001)));
  EXPECT_FALSE(Decode(with(0, 0x377f0680)));
  for (const uint32_t size : {0u, 1u, 256u, 511u, 513u, 1000u, 131072u, 0x80000000u}) {
    EXPECT_FALSE(Decode(with(8, size))) << size;
  }
  for (uint32_t size = 512; size <= 65536; size *= 2) EXPECT_TRUE(Decode(with(8, size))) << size;
}

TEST(WalFormat, FrameHeaderGivesEveryField) {
  WalBuilder wal(512);
  wal.Frame(7, 9, uint64_t{1});
  const auto frame =
      FrameHeader::Decode(AsBytes(wal.bytes()).subspan(kWalHeaderSize).first<kFrameHeaderSize>());
  EXPECT_EQ(frame.pgno, Pgno(7));
  EXPECT_EQ(frame.commit_pages, 9u);
  EXPECT_EQ(frame.salt1, wal.mark().salt1);
  EXPECT_EQ(frame.salt2, wal.mark().salt2);
  EXPECT_EQ(frame.checksum.s0, wal.mark().cksum1);
  EXPECT_EQ(frame.checksum.s1, wal.mark().cksum2);
}

TEST(WalFormat, FramesChainInBothByteOrders) {
  for (const bool big_endian : {false, true}) {
    WalBuilder wal(1024, big_endian);
    WalChecksum chain = Decode(wal.bytes())->checksum;
    for (uint32_t frame = 1; frame <= 4; ++frame) {
      wal.Frame(frame, frame % 2, uint64_t{frame});
      const auto bytes = AsBytes(wal.bytes()).subspan(FrameOffset(frame, 1024));
      chain = ChainFrame(chain, big_endian, bytes.first<kFrameHeaderSize>(),
                         bytes.subspan(kFrameHeaderSize, 1024));
      EXPECT_EQ(chain, (WalChecksum{wal.mark().cksum1, wal.mark().cksum2}));
    }
  }
}

TEST(WalFormat, FrameOffsetsDoNotOverflow) {
  EXPECT_EQ(FrameOffset(1, 4096), 32u);
  EXPECT_EQ(FrameOffset(2, 4096), 32u + 4120);
  EXPECT_EQ(FrameOffset(0xffffffffu, 65536), 32u + uint64_t{0xfffffffe} * 65560);
}

}  // namespace
}  // namespace guildlite
