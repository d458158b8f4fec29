// Reading what a wal-index says is committed, without a lock, as any SQLite reader does.
//
// Source: walIndexTryHdr() and walIndexWriteHdr() of wal.c. A writer fills copy 2, then copy 1; a
// reader takes copy 1, then copy 2: two equal copies with a right checksum are a header somebody
// published. SQLite's readers recover where the copies stay unequal; we only want to know what is
// committed, and one whole copy says that.
//
//   offset in a copy of 48 bytes            byte order
//    0  u32 version 3007000                 native
//    4  u32 unused
//    8  u32 change counter                  native
//   12  u8  isInit, u8 bigEndCksum
//   14  u16 page size; bit 0 stands for 65536
//   16  u32 mxFrame, u32 nPage              native
//   24  u32 aFrameCksum[2]                  native; big-endian once in a frame header
//   32  u32 aSalt[2]                        as the bytes of the WAL header: big-endian
//   40  u32 aCksum[2]                       native; over bytes 0..39
//
// It does not map anything and does not know how long the region stays mapped: the caller does.
#pragma once

#include <cstdint>
#include <optional>

#include "vfs/capture/wal_tailer.h"

namespace guildlite {

// The two copies at the start of region 0. Whatever was committed before the call is in it, even if
// a writer stands still between the copies. nullopt: not initialised, or of another version.
// `page_size` may be null; 0 is stored when the index was never written with frames. REQUIRES:
// region0 is 4-byte aligned and stays mapped.
std::optional<Published> ReadPublished(const volatile void* region0, uint32_t* page_size);

}  // namespace guildlite
