#include "vfs/objects/orphans.h"

#include "vfs/format/segment_reader.h"

namespace guildlite {
namespace {

constexpr size_t kListPage = 1000;

}  // namespace

Result<std::vector<OrphanName>> ListOrphans(ObjectStore& store, std::string_view prefix) {
  std::vector<OrphanName> names;
  std::string after;
  for (;;) {
    auto page = store.List(prefix, after, kListPage);
    if (!page.ok()) return page.status().Context("list " + std::string(prefix));
    for (const ListEntry& entry : *page) {
      if (const auto name = ParseOrphanKey(entry.key)) names.push_back(*name);
    }
    if (page->size() < kListPage) return names;
    after = page->back().key;
  }
}

Result<LogEntry> ReadOrphan(ObjectStore& store, Lineage lineage, const OrphanName& name) {
  LogEntry entry;
  entry.key = OrphanKey(name.epoch, name.session, name.slot);
  auto object = store.Get(entry.key);
  if (!object.ok()) return object.status().Context("read " + entry.key);
  const auto view = OpenObject(object->bytes, entry.key);
  if (!view.ok()) return view.status();
  const ObjectHeader& h = view->header;
  const bool snapshot = h.kind == ObjectKind::kSnapshot;
  if (h.lineage != lineage || h.epoch != name.epoch ||
      (!snapshot && (h.kind != ObjectKind::kData || h.slot != name.slot))) {
    return Status(Tag::kChainBroken, entry.key + ": not what a writer of that epoch left there");
  }
  entry.header = h;
  entry.object_hash = entry.follow_hash = view->object_hash;
  entry.size = object->bytes.size();
  return entry;
}

SnapshotRecord RecordOf(const LogEntry& snapshot) {
  const ObjectHeader& h = snapshot.header;
  SnapshotRecord record;
  record.key = snapshot.key;
  record.txid = h.first_txid;
  record.usable_from = h.last_txid;
  record.first_slot = record.end_slot = Slot(1);
  record.epoch = h.epoch;
  record.history_hash = record.usable_history_hash = h.history_hash;
  record.time_ms = h.time_ms;
  record.bytes = snapshot.size;
  for (const BodyPart& part : h.parts) record.bytes += part.size;
  record.database_bytes = uint64_t{h.database_pages} * h.page_size;
  return record;
}

Position EndPosition(const ObjectHeader& h) {
  return {h.lineage, h.epoch, h.last_txid, static_cast<uint32_t>(h.history_hash)};
}

}  // namespace guildlite
