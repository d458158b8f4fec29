#include "vfs/capture/wal_format.h"

#include "vfs/base/bytes.h"

namespace guildlite {

// walIndexRecover() in wal.c makes the same checks in the same order.
std::optional<WalHeader> WalHeader::Decode(std::span<const std::byte, kWalHeaderSize> bytes) {
  const std::byte* p = bytes.data();
  const uint32_t magic = LoadBig32(p);
  if ((magic & ~1u) != kWalMagic) return std::nullopt;

  WalHeader header;
  header.big_endian_checksums = (magic & 1) != 0;
  header.page_size = LoadBig32(p + 8);
  header.checkpoint_sequence = LoadBig32(p + 12);
  header.salt1 = LoadBig32(p + 16);
  header.salt2 = LoadBig32(p + 20);
  header.checksum = {LoadBig32(p + 24), LoadBig32(p + 28)};
  if (LoadBig32(p + 4) != kWalVersion || !IsValidPageSize(header.page_size)) return std::nullopt;

  WalChecksum computed;
  computed.Update(bytes.first<24>(), header.big_endian_checksums);
  if (computed != header.checksum) return std::nullopt;
  return header;
}

FrameHeader FrameHeader::Decode(std::span<const std::byte, kFrameHeaderSize> bytes) {
  const std::byte* p = bytes.data();
  return {Pgno(LoadBig32(p)),
          LoadBig32(p + 4),
          LoadBig32(p + 8),
          LoadBig32(p + 12),
          {LoadBig32(p + 16), LoadBig32(p + 20)}};
}

// walEncodeFrame() in wal.c: the salts are not part of the sum, they seed it through the header.
WalChecksum ChainFrame(WalChecksum previous, bool big_endian,
                       std::span<const std::byte, kFrameHeaderSize> header,
                       std::span<const std::byte> page) {
  previous.Update(header.first<8>(), big_endian);
  previous.Update(page, big_endian);
  return previous;
}

}  // namespace guildlite
