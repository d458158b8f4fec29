#include "vfs/replicate/table_replay.h"

#include <deque>

#include "vfs/base/bytes.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

// Objects looked at; more would take longer than shipping the pages.
constexpr size_t kObjectsMax = 4096;

class TableVisitor : public BatchVisitor {
 public:
  TableVisitor(CapturedState* state, PageTable* table) : state_(state), table_(table) {}

  Status ReadBase(Pgno, std::span<std::byte>) override {
    return Status(Tag::kChainBroken, "a meta asked for a base");
  }
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
  Status OnTransactionEnd(const Transaction&) override { return Status::Ok(); }

 private:
  CapturedState* state_;
  PageTable* table_;
  bool wanted_ = false;
};

}  // namespace

Result<bool> ReplayTable(ObjectStore& store, const StoreView& view, Slot from, CapturedState* state,
                         PageTable* table) {
  // Back to the object that holds state->txid + 1, then forward.
  std::deque<std::pair<Slot, std::string>> objects;
  const auto fetch = [&](Slot slot) -> Result<std::string> {
    auto got = store.Get(LogKey(slot));
    if (!got.ok()) return got.status();
    return std::move(got->bytes);
  };
  if (from >= view.next) from = Slot(view.next.value - 1);
  for (Slot slot = from; slot.value >= 1 && objects.size() < kObjectsMax;
       slot = Slot(slot.value - 1)) {
    auto bytes = fetch(slot);
    if (!bytes.ok()) {
      if (bytes.status().tag() == Tag::kNotFound) return false;
      return bytes.status();
    }
    const auto object = OpenObject(*bytes, LogKey(slot));
    if (!object.ok()) return object.status();
    const ObjectHeader header = object->header;
    objects.emplace_front(slot, std::move(*bytes));
    if (header.kind == ObjectKind::kData && header.first_txid.value <= state->txid.value + 1) break;
    if (header.kind == ObjectKind::kUndo) return false;
  }
  for (Slot slot = from.Next(); slot < view.next && objects.size() < kObjectsMax;
       slot = slot.Next()) {
    auto bytes = fetch(slot);
    if (!bytes.ok()) {
      if (bytes.status().tag() == Tag::kNotFound) return false;
      return bytes.status();
    }
    objects.emplace_back(slot, std::move(*bytes));
  }
  TableVisitor visitor(state, table);
  for (const auto& [slot, bytes] : objects) {
    const std::string key = LogKey(slot);
    auto object = OpenObject(bytes, key);
    if (!object.ok()) return object.status();
    const ObjectHeader& h = object->header;
    if (h.kind == ObjectKind::kUndo || !h.parts.empty()) return false;
    if (h.kind == ObjectKind::kFence && h.continues_from < state->txid) return false;
    if (h.kind != ObjectKind::kData || h.last_txid <= state->txid) continue;
    const auto source = BytesSource(object->inline_body);
    DecodeSettings settings;
    settings.page_size = state->page_size;
    settings.images = false;
    settings.check_history = false;
    const Status decoded = DecodeBody(*source, settings, visitor, key);
    if (!decoded.ok()) {
      if (decoded.tag() == Tag::kChainBroken) return false;
      return decoded;
    }
  }
  return state->txid == view.tip.txid && state->history_hash == view.tip.history_hash;
}

}  // namespace guildlite
