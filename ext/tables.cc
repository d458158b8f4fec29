#include "ext/tables.h"

#include <cstring>
#include <functional>
#include <memory>
#include <variant>
#include <vector>

#include "ext/values.h"
#include "vfs/base/time_text.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/orphans.h"
#include "vfs/shim/engine.h"
#include "vfs/shim/register.h"

namespace guildlite {
namespace {

using Value = std::variant<std::monostate, int64_t, std::string>;
using Row = std::vector<Value>;

// One eponymous table: its declaration and where its rows come from. `url` is the hidden argument,
// where the table has one.
struct Definition {
  const char* name;
  const char* declaration;
  int url_column;  // -1: none
  Result<std::vector<Row>> (*rows)(sqlite3* db, const std::optional<std::string>& url);
};

Value Text(std::string text) { return text.empty() ? Value() : Value(std::move(text)); }
Value Number(uint64_t n) { return Value(static_cast<int64_t>(n)); }
Value Time(int64_t ms) { return ms == 0 ? Value() : Value(FormatTime(ms)); }
Value Token(const std::optional<Position>& p) { return p ? Value(p->ToString()) : Value(); }

Result<std::vector<Row>> StatusRows(sqlite3* db, const std::optional<std::string>&) {
  std::vector<Row> rows;
  std::string first;
  if (const auto node = FindNode(db)) first = node->path();
  for (const auto& [path, replicated] : Engine::Get().All()) {
    const ReplicationStatus s = replicated.replicator->status();
    const RequestCounts& requests = *replicated.counts;
    Row row = {
        Text(s.database),
        Text(s.url),
        Text("primary"),
        Text("async"),
        Text(std::string(StateName(s.state))),
        Token(s.position),
        Token(s.durable_position),
        Number(s.epoch.value),
        s.position ? Number(s.position->txid.value) : Value(),
        s.durable_position ? Number(s.durable_position->txid.value) : Value(),
        Value(s.lag_ms),
        Number(s.pending_transactions),
        Number(s.pending_bytes),
        Number(s.wal_bytes),
        Number(s.spool_bytes),
        Number(requests.puts.load()),
        Number(requests.gets.load()),
        Number(requests.lists.load()),
        Number(requests.deletes.load()),
        Number(requests.bytes_sent.load()),
        Number(s.snapshots),
        Number(s.capture.heals),
        Number(s.capture.scanned_pages),
        Number(s.capture.scan_pages),
        Number(s.capture.pages),
        Number(s.capture.pages_without_base),
        Number(s.capture.gate_helped),
        Number(s.capture.gate_refused),
        Number(s.capture.chain_breaks),
        Value(int64_t{WalResetGuardActive()}),
        Text(s.last_error),
        s.last_error.empty() ? Value() : Time(s.last_error_ms),
        Token(replicated.verified),
        Time(replicated.verified_ms),
        Text(s.owner),
        Time(s.owner_since_ms),
        s.owner.empty()
            ? Value()
            : Text(s.owner_read_ms == 0 ? "own claim"
                                        : "manifest read at " + FormatTime(s.owner_read_ms)),
    };
    rows.insert(path == first ? rows.begin() : rows.end(), std::move(row));
  }
  return rows;
}

// The url given, or else this connection's.
struct Source {
  std::string url;
  std::unique_ptr<ObjectStore> store;
  Manifest manifest;
};

Result<Source> SourceOf(sqlite3* db, const std::optional<std::string>& url) {
  std::string from = url.value_or("");
  if (!url) {
    auto known = Engine::Get().UrlOf(db);
    if (!known.ok()) return known.status();
    from = *known;
  }
  auto store = Engine::Get().OpenForReading(from);
  if (!store.ok()) return store.status();
  auto manifest = ReadManifest(**store);
  if (manifest.status().tag() == Tag::kNotFound) {
    return Status(Tag::kNoBackup, (*store)->Describe() + " holds no backup (no manifest)");
  }
  if (!manifest.ok()) return manifest.status();
  return Source{std::move(from), *std::move(store), std::move(manifest->manifest)};
}

Result<std::vector<Row>> OwnerRows(sqlite3* db, const std::optional<std::string>& url) {
  const auto source = SourceOf(db, url);
  if (!source.ok()) return source.status();
  const Manifest& m = source->manifest;
  return std::vector<Row>{{Text(m.owner), Time(m.claimed_ms), Time(m.released_ms),
                           Number(m.epoch.value), Text(source->url)}};
}

Result<std::vector<Row>> SnapshotRows(sqlite3* db, const std::optional<std::string>& url) {
  const auto source = SourceOf(db, url);
  if (!source.ok()) return source.status();
  const Manifest& m = source->manifest;
  ObjectStore& store = *source->store;
  std::vector<Row> rows;
  for (const SnapshotRecord& s : m.snapshots) {
    const Position position{m.lineage, s.epoch, s.usable_from,
                            static_cast<uint32_t>(s.usable_history_hash)};
    rows.push_back({Text(position.ToString()), Number(s.usable_from.value), Time(s.time_ms),
                    Text(s.label), Number(s.bytes), Number(s.database_bytes), Text("snapshot"),
                    Text(source->url)});
  }
  // The newest of what each deposed writer left; nothing in the manifest names that.
  auto names = ListOrphans(store, kOrphanPrefix);
  if (!names.ok()) return names.status();
  for (size_t i = 0; i < names->size(); ++i) {
    const OrphanName& name = (*names)[i];
    if (i + 1 < names->size() && (*names)[i + 1].epoch == name.epoch &&
        (*names)[i + 1].session == name.session) {
      continue;
    }
    auto last = ReadOrphan(store, m.lineage, name);
    if (!last.ok()) return last.status();
    const ObjectHeader& h = last->header;
    rows.push_back({Text(EndPosition(h).ToString()), Number(h.last_txid.value), Time(h.time_ms),
                    Value(), Number(last->size), Number(uint64_t{h.database_pages} * h.page_size),
                    Text("orphan"), Text(source->url)});
  }
  return rows;
}

constexpr Definition kTables[] = {
    {"replication_status",
     "CREATE TABLE x(database TEXT, url TEXT, role TEXT, durability TEXT, state TEXT,"
     " position TEXT, durable_position TEXT, epoch INT, txid INT, durable_txid INT, lag_ms INT,"
     " pending INT, pending_bytes INT, wal_bytes INT, spool_bytes INT, puts INT, gets INT,"
     " lists INT, deletes INT, bytes_sent INT, snapshots INT, heals INT, scanned_pages INT,"
     " scan_pages INT, pages INT, pages_without_base INT, gate_helped INT, gate_refused INT,"
     " chain_breaks INT, wal_reset_guard INT, last_error TEXT, last_error_time TEXT,"
     " verified_position TEXT, verified_time TEXT, owner TEXT, owner_since TEXT,"
     " owner_known TEXT)",
     -1, StatusRows},
    {"snapshot_list",
     "CREATE TABLE x(position TEXT, txid INT, time TEXT, label TEXT, bytes INT,"
     " database_bytes INT, kind TEXT, url TEXT HIDDEN)",
     7, SnapshotRows},
    {"replication_owner",
     "CREATE TABLE x(owner TEXT, since TEXT, released TEXT, epoch INT, url TEXT HIDDEN)", 4,
     OwnerRows},
};

struct Table : sqlite3_vtab {
  sqlite3* db = nullptr;
  const Definition* definition = nullptr;
};

struct TableCursor : sqlite3_vtab_cursor {
  std::vector<Row> rows;
  size_t at = 0;
};

int Connect(sqlite3* db, void* aux, int, const char* const*, sqlite3_vtab** out, char**) noexcept {
  const auto* definition = static_cast<const Definition*>(aux);
  const int rc = sqlite3_declare_vtab(db, definition->declaration);
  if (rc != SQLITE_OK) return rc;
  sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
  return Guarded([&] {
    auto table = std::make_unique<Table>();
    table->db = db;
    table->definition = definition;
    *out = table.release();
    return SQLITE_OK;
  });
}

int Disconnect(sqlite3_vtab* table) noexcept {
  const std::unique_ptr<Table> gone(static_cast<Table*>(table));
  return SQLITE_OK;
}

// idxNum 1: the url is given.
int BestIndex(sqlite3_vtab* vtab, sqlite3_index_info* info) noexcept {
  const auto* table = static_cast<Table*>(vtab);
  info->estimatedCost = 100;
  for (int i = 0; i < info->nConstraint; ++i) {
    const auto& c = info->aConstraint[i];
    if (c.iColumn != table->definition->url_column || c.iColumn < 0 ||
        c.op != SQLITE_INDEX_CONSTRAINT_EQ) {
      continue;
    }
    if (!c.usable) return SQLITE_CONSTRAINT;
    info->aConstraintUsage[i].argvIndex = 1;
    info->aConstraintUsage[i].omit = 1;
    info->idxNum = 1;
    break;
  }
  return SQLITE_OK;
}

int Open(sqlite3_vtab*, sqlite3_vtab_cursor** out) noexcept {
  return Guarded([&] {
    *out = std::make_unique<TableCursor>().release();
    return SQLITE_OK;
  });
}

int Close(sqlite3_vtab_cursor* cursor) noexcept {
  const std::unique_ptr<TableCursor> gone(static_cast<TableCursor*>(cursor));
  return SQLITE_OK;
}

int Filter(sqlite3_vtab_cursor* base, int index, const char*, int argc,
           sqlite3_value** argv) noexcept {
  auto* cursor = static_cast<TableCursor*>(base);
  auto* table = static_cast<Table*>(base->pVtab);
  return Guarded([&] {
    cursor->at = 0;
    cursor->rows.clear();
    const auto fail = [&](const Status& status) {
      sqlite3_free(table->zErrMsg);
      table->zErrMsg = sqlite3_mprintf("%s", status.ToString().c_str());
      return ResultCode(status.tag());
    };
    auto url = TextArgument(index == 1 ? argc : 0, argv, 0, "url");
    if (!url.ok()) return fail(url.status());
    auto rows = table->definition->rows(table->db, *url);
    if (!rows.ok()) return fail(rows.status());
    cursor->rows = std::move(*rows);
    return SQLITE_OK;
  });
}

int Next(sqlite3_vtab_cursor* cursor) noexcept {
  ++static_cast<TableCursor*>(cursor)->at;
  return SQLITE_OK;
}

int Eof(sqlite3_vtab_cursor* base) noexcept {
  const auto* cursor = static_cast<TableCursor*>(base);
  return cursor->at >= cursor->rows.size() ? 1 : 0;
}

int Column(sqlite3_vtab_cursor* base, sqlite3_context* context, int i) noexcept {
  const auto* cursor = static_cast<TableCursor*>(base);
  const Value& value = cursor->rows[cursor->at][static_cast<size_t>(i)];
  if (const auto* number = std::get_if<int64_t>(&value)) {
    sqlite3_result_int64(context, *number);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    SetText(context, *text);
  }
  return SQLITE_OK;
}

int Rowid(sqlite3_vtab_cursor* cursor, sqlite3_int64* rowid) noexcept {
  *rowid = static_cast<sqlite3_int64>(static_cast<TableCursor*>(cursor)->at) + 1;
  return SQLITE_OK;
}

// No xCreate: eponymous only.
constexpr sqlite3_module kModule = {
    .iVersion = 0,
    .xConnect = Connect,
    .xBestIndex = BestIndex,
    .xDisconnect = Disconnect,
    .xOpen = Open,
    .xClose = Close,
    .xFilter = Filter,
    .xNext = Next,
    .xEof = Eof,
    .xColumn = Column,
    .xRowid = Rowid,
};

}  // namespace

int RegisterTables(sqlite3* db) {
  for (const Definition& definition : kTables) {
    const int rc = sqlite3_create_module_v2(db, definition.name, &kModule,
                                            const_cast<Definition*>(&definition), nullptr);
    if (rc != SQLITE_OK) return rc;
  }
  return SQLITE_OK;
}

}  // namespace guildlite
