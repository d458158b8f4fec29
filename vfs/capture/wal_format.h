// The bytes of a -wal file: header and frame header, and when a frame is valid.
//
// Source: "WAL File Format", sqlite.org/fileformat2.html#walformat and walDecodeFrame() in wal.c.
// All integers are big-endian.
//
//   WAL header, 32 bytes                      frame header, 24 bytes, then the page
//    0  u32 magic 0x377f0682 | 1 if the        0  u32 page number
//           checksums are big-endian           4  u32 database size in pages after the commit;
//    4  u32 version 3007000                           0 if not a commit frame
//    8  u32 page size (65536 as itself)        8  u32 salt1, salt2: equal to the header's
//   12  u32 checkpoint sequence               16  u32 cksum1, cksum2: cumulative over bytes 0..7
//   16  u32 salt1, salt2                              and the page, seeded by the predecessor
//   24  u32 cksum1, cksum2 of bytes 0..23             (frame 1: by the header's)
//
// Frame n (1-based) starts at 32 + (n-1) * (24 + page size).
//
// A frame is valid if and only if (1) its salts are the header's, (2) its page number is not 0 and
// (3) its checksum continues the chain.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "guildlite/types.h"
#include "vfs/base/checksum.h"

namespace guildlite {

inline constexpr uint32_t kWalMagic = 0x377f0682;
inline constexpr uint32_t kWalVersion = 3007000;
inline constexpr uint64_t kWalHeaderSize = 32;
inline constexpr uint64_t kFrameHeaderSize = 24;

struct WalHeader {
  bool big_endian_checksums = false;
  uint32_t page_size = 0;
  uint32_t checkpoint_sequence = 0;
  uint32_t salt1 = 0;
  uint32_t salt2 = 0;
  WalChecksum checksum;  // of the header: the seed of frame 1
  bool operator==(const WalHeader&) const = default;

  // nullopt unless magic, version, page size and checksum are all right.
  static std::optional<WalHeader> Decode(std::span<const std::byte, kWalHeaderSize> bytes);
};

struct FrameHeader {
  Pgno pgno;
  uint32_t commit_pages = 0;  // 0: not a commit frame
  uint32_t salt1 = 0;
  uint32_t salt2 = 0;
  WalChecksum checksum;

  static FrameHeader Decode(std::span<const std::byte, kFrameHeaderSize> bytes);
};

constexpr uint64_t FrameOffset(uint32_t frame, uint32_t page_size) {
  return kWalHeaderSize + uint64_t{frame - 1} * (kFrameHeaderSize + page_size);
}

// The chain after a frame whose 24 header bytes and page are given.
WalChecksum ChainFrame(WalChecksum previous, bool big_endian,
                       std::span<const std::byte, kFrameHeaderSize> header,
                       std::span<const std::byte> page);

}  // namespace guildlite
