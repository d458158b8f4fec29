#include "vfs/objects/object_key.h"

#include <algorithm>
#include <charconv>

namespace guildlite {
namespace {

std::string Hex(uint64_t value, size_t digits) {
  std::string out(digits, '0');
  for (size_t i = digits; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 15];
  return out;
}
std::string Hex16(uint64_t value) { return Hex(value, 16); }
std::string Hex8(uint32_t value) { return Hex(value, 8); }

// Takes a key apart from the left. After the first piece that does not fit, everything fails.
class KeyReader {
 public:
  explicit KeyReader(std::string_view key) : rest_(key) {}

  KeyReader& Literal(std::string_view text) {
    ok_ = ok_ && rest_.starts_with(text);
    if (ok_) rest_.remove_prefix(text.size());
    return *this;
  }
  uint64_t Hex16() { return Number(16); }
  uint32_t Hex8() { return static_cast<uint32_t>(Number(8)); }
  // As std::to_string writes it.
  uint32_t Decimal() {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), decimal_);
    const auto digits = static_cast<size_t>(end - rest_.data());
    ok_ = ok_ && error == std::errc() && (digits == 1 || rest_[0] != '0');
    if (!ok_) return 0;
    rest_.remove_prefix(digits);
    return decimal_;
  }
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  uint64_t Number(size_t digits) {
    ok_ = ok_ && rest_.size() >= digits;
    if (!ok_) return 0;
    uint64_t value = 0;
    for (const char c : rest_.substr(0, digits)) {
      if (c >= '0' && c <= '9') {
        value = value << 4 | static_cast<uint64_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value << 4 | static_cast<uint64_t>(c - 'a' + 10);
      } else {
        ok_ = false;
        return 0;
      }
    }
    rest_.remove_prefix(digits);
    return value;
  }

  std::string_view rest_;
  uint32_t decimal_ = 0;
  bool ok_ = true;
};

bool IsKeyByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

}  // namespace

std::string LogKey(Slot slot) { return std::string(kLogPrefix) + Hex16(slot.value); }

std::optional<Slot> ParseLogKey(std::string_view key) {
  KeyReader reader(key);
  const Slot slot(reader.Literal(kLogPrefix).Hex16());
  if (!reader.AtEnd()) return std::nullopt;
  return slot;
}

std::string SnapshotKey(Txid as_of, Txid usable_from, Epoch epoch, uint64_t random) {
  return std::string(kSnapshotPrefix) + Hex16(as_of.value) + "-" + Hex16(usable_from.value) + "-" +
         Hex8(epoch.value) + "-" + Hex16(random);
}

std::optional<SnapshotName> ParseSnapshotKey(std::string_view key) {
  KeyReader reader(key);
  SnapshotName name;
  name.as_of = Txid(reader.Literal(kSnapshotPrefix).Hex16());
  name.usable_from = Txid(reader.Literal("-").Hex16());
  name.epoch = Epoch(reader.Literal("-").Hex8());
  name.random = reader.Literal("-").Hex16();
  if (!reader.AtEnd()) return std::nullopt;
  return name;
}

std::string PartKey(Epoch epoch, uint64_t slot_or_txid, uint32_t index, uint64_t random) {
  return std::string(kPartPrefix) + Hex8(epoch.value) + "-" + Hex16(slot_or_txid) + "-" +
         Hex8(index) + "-" + Hex16(random);
}

std::optional<PartName> ParsePartKey(std::string_view key) {
  KeyReader reader(key);
  PartName name;
  name.epoch = Epoch(reader.Literal(kPartPrefix).Hex8());
  name.slot_or_txid = reader.Literal("-").Hex16();
  name.index = reader.Literal("-").Hex8();
  name.random = reader.Literal("-").Hex16();
  if (!reader.AtEnd()) return std::nullopt;
  return name;
}

std::string SegmentKey(uint32_t level, Slot first, Slot last, Epoch epoch, uint64_t random) {
  return std::string(kSegmentPrefix) + std::to_string(level) + "/" + Hex16(first.value) + "-" +
         Hex16(last.value) + "-" + Hex8(epoch.value) + "-" + Hex16(random);
}

std::optional<SegmentName> ParseSegmentKey(std::string_view key) {
  SegmentName name;
  KeyReader reader(key);
  name.level = reader.Literal(kSegmentPrefix).Decimal();
  name.first = Slot(reader.Literal("/").Hex16());
  name.last = Slot(reader.Literal("-").Hex16());
  name.epoch = Epoch(reader.Literal("-").Hex8());
  name.random = reader.Literal("-").Hex16();
  if (!reader.AtEnd()) return std::nullopt;
  return name;
}

std::string OrphanPrefix(Epoch epoch) {
  return std::string(kOrphanPrefix) + Hex8(epoch.value) + "-";
}

std::string OrphanPrefix(Epoch epoch, Session session) {
  return OrphanPrefix(epoch) + Hex16(session.value) + "/";
}

std::string OrphanKey(Epoch epoch, Session session, Slot slot) {
  return OrphanPrefix(epoch, session) + Hex16(slot.value);
}

std::optional<OrphanName> ParseOrphanKey(std::string_view key) {
  KeyReader reader(key);
  OrphanName name;
  name.epoch = Epoch(reader.Literal(kOrphanPrefix).Hex8());
  name.session = Session(reader.Literal("-").Hex16());
  name.slot = Slot(reader.Literal("/").Hex16());
  if (!reader.AtEnd()) return std::nullopt;
  return name;
}

std::string OrphanPartKey(const OrphanName& of, uint32_t index, uint64_t random) {
  return OrphanKey(of.epoch, of.session, of.slot) + "-" + Hex8(index) + "-" + Hex16(random);
}

std::string ProbeKey(uint64_t made_ms, uint64_t random) {
  return std::string(kProbePrefix) + Hex16(made_ms) + "-" + Hex16(random);
}

std::optional<uint64_t> ParseProbeKey(std::string_view key) {
  KeyReader reader(key);
  const uint64_t made_ms = reader.Literal(kProbePrefix).Hex16();
  (void)reader.Literal("-").Hex16();
  if (!reader.AtEnd()) return std::nullopt;
  return made_ms;
}

bool IsValidKey(std::string_view key) {
  if (key.empty() || key.size() > kKeyBytesMax) return false;
  while (true) {
    const size_t slash = key.find('/');
    const std::string_view segment = key.substr(0, slash);
    if (segment.empty() || segment.size() > kKeySegmentBytesMax || segment == "." ||
        segment == ".." || !std::all_of(segment.begin(), segment.end(), IsKeyByte)) {
      return false;
    }
    if (slash == std::string_view::npos) return true;
    key.remove_prefix(slash + 1);
  }
}

}  // namespace guildlite
