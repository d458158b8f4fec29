// The few value types that name things across the whole project.
//
// Each is its own type so that a transaction number can never be passed for a page number or a log
// slot. They are plain values: copied, compared, printed; they own nothing.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace guildlite {

template <class Tag, class Rep>
struct Strong {
  Rep value{};
  constexpr Strong() = default;
  constexpr explicit Strong(Rep v) : value(v) {}
  constexpr auto operator<=>(const Strong&) const = default;
  constexpr Strong Next() const { return Strong(static_cast<Rep>(value + 1)); }
};

// Captured transactions of one lineage, dense, from 1. 0 is the state before the first.
using Txid = Strong<struct TxidTag, uint64_t>;
// SQLite page numbers, from 1.
using Pgno = Strong<struct PgnoTag, uint32_t>;
// Ownership of a log: every claim takes the next one. From 1.
using Epoch = Strong<struct EpochTag, uint32_t>;
// Index of an object in the log, dense, from 1.
using Slot = Strong<struct SlotTag, uint64_t>;
// 64 random bits made with the manifest; names one history for ever.
using Lineage = Strong<struct LineageTag, uint64_t>;
// 64 random bits of one writer's uninterrupted ownership; kept in its sidecar.
using Session = Strong<struct SessionTag, uint64_t>;

// SQLite never stores data in the page that holds byte 0x40000000, the lock bytes of
// os_unix.c (PENDING_BYTE). No transaction, snapshot or checksum ever includes it.
constexpr Pgno LockPage(uint32_t page_size) { return Pgno(0x40000000u / page_size + 1); }

constexpr bool IsValidPageSize(uint32_t n) { return n >= 512 && n <= 65536 && (n & (n - 1)) == 0; }

// A point in a WAL file: everything up to and including `frame` (1-based; 0 = right after the
// header), with the cumulative checksum there. See "The WAL File Format",
// sqlite.org/walformat.html.
struct WalMark {
  uint32_t salt1 = 0;
  uint32_t salt2 = 0;
  uint32_t frame = 0;
  uint32_t cksum1 = 0;
  uint32_t cksum2 = 0;
  auto operator<=>(const WalMark&) const = default;
  bool SameGeneration(const WalMark& o) const { return salt1 == o.salt1 && salt2 == o.salt2; }
};

// The token users see: `lineage-epoch-txid-check`, fixed-width lower-case hex (16-8-16-8).
// `check` is the low 32 bits of the history hash at txid. Never compare tokens of different epochs
// as numbers.
struct Position {
  Lineage lineage;
  Epoch epoch;
  Txid txid;
  uint32_t check = 0;
  auto operator<=>(const Position&) const = default;
  std::string ToString() const;
  static std::optional<Position> Parse(std::string_view text);
};

}  // namespace guildlite
