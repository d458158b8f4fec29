#include "vfs/replicate/table_replay.h"

#include <deque>
#include <string>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/read_ahead.h"

namespace guildlite {
namespace {

// Objects looked at; more would take longer than shipping the pages.
constexpr size_t kObjectsMax = 4096;
// Of the objects read on the way back, which are kept until they are replayed.
constexpr uint64_t kKeptBytesMax = 64 << 20;

class TableVisitor final : public MetaVisitor {
 public:
  TableVisitor(CapturedState* state, PageTable* table) : state_(state), table_(table) {}

  Status OnTransaction(const Transaction& t) override {
    wanted_ = t.txid > state_->txid;
    if (!wanted_) return Status::Ok();
    if (t.txid != state_->txid.Next()) {
      return Status(Tag::kChainBroken,
                    "transactions are missing before txid " + std::to_string(t.txid.value));
    }
    if (t.database_pages != table_->pages()) table_->Resize(t.database_pages, state_->page_size);
    *state_ = CapturedState::After(t, state_->page_size);
    return Status::Ok();
  }
  Status OnPage(Pgno pgno, uint64_t hash, std::span<const std::byte>) override {
    if (wanted_) table_->Set(pgno, hash);
    return Status::Ok();
  }

 private:
  CapturedState* state_;
  PageTable* table_;
  bool wanted_ = false;
};

}  // namespace

Result<bool> ReplayTable(ObjectStore& store, const StoreView& view, Slot from, CapturedState* state,
                         PageTable* table) {
  if (from >= view.next) from = Slot(view.next.value - 1);
  // Back to the object that holds state->txid + 1.
  std::deque<std::string> kept;
  {
    ReadAhead back(store, ReadAhead::End::kUnknown);
    uint64_t kept_bytes = 0;
    Slot ask = from;
    for (Slot slot = from;; slot = Slot(slot.value - 1)) {
      for (; ask.value >= 1 && back.HasRoom(); ask = Slot(ask.value - 1)) back.Ask(LogKey(ask));
      if (slot.value == 0 || kept.size() == kObjectsMax) return false;
      auto got = back.Answer();
      if (got.status().tag() == Tag::kNotFound) return false;
      if (!got.ok()) return got.status();
      const auto object = OpenObject(got->bytes, LogKey(slot));
      if (!object.ok()) return object.status();
      const ObjectHeader& h = object->header;
      if (h.kind == ObjectKind::kUndo) return false;
      const bool found = h.kind == ObjectKind::kData && h.first_txid.value <= state->txid.value + 1;
      kept_bytes += got->bytes.size();
      if (kept_bytes > kKeptBytesMax) return false;
      kept.push_front(std::move(got->bytes));
      if (found) break;
    }
  }
  // And forward to the tip.
  const uint64_t objects = kept.size() + (view.next.value - 1 - from.value);
  if (objects > kObjectsMax) return false;
  ReadAhead ahead(store, ReadAhead::End::kKnown);
  Slot ask = from.Next();
  TableVisitor visitor(state, table);
  for (Slot slot(from.value + 1 - kept.size()); slot < view.next; slot = slot.Next()) {
    for (; ask < view.next && ahead.HasRoom(); ask = ask.Next()) ahead.Ask(LogKey(ask));
    std::string bytes;
    if (kept.empty()) {
      auto got = ahead.Answer();
      if (got.status().tag() == Tag::kNotFound) return false;
      if (!got.ok()) return got.status();
      bytes = std::move(got->bytes);
    } else {
      bytes = std::move(kept.front());
      kept.pop_front();
    }
    const std::string key = LogKey(slot);
    auto object = OpenObject(bytes, key);
    if (!object.ok()) return object.status();
    const ObjectHeader& h = object->header;
    if (h.kind == ObjectKind::kUndo || !h.parts.empty()) return false;
    if (h.kind == ObjectKind::kFence && h.continues_from < state->txid) return false;
    if (h.kind != ObjectKind::kData || h.last_txid <= state->txid) continue;
    const Status decoded = DecodeBody(
        *BytesSource(object->inline_body),
        {.page_size = state->page_size, .images = false, .check_history = false}, visitor, key);
    if (!decoded.ok()) {
      if (decoded.tag() == Tag::kChainBroken) return false;
      return decoded;
    }
  }
  return state->txid == view.tip.txid && state->history_hash == view.tip.history_hash;
}

}  // namespace guildlite
