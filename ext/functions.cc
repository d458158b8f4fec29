#include "ext/functions.h"

#include <unistd.h>
#include <zstd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "ext/guild_shard.h"
#include "ext/values.h"
#include "vfs/base/file_io.h"
#include "vfs/format/segment_format.h"
#include "vfs/objects/curl_client.h"
#include "vfs/objects/manifest.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/restore/restorer.h"
#include "vfs/shim/engine.h"
#include "vfs/shim/register.h"

namespace guildlite {
namespace {

using Arguments = sqlite3_value**;

constexpr int64_t kTimeoutMsMax = 24 * 3600 * 1000;
constexpr int64_t kSyncTimeoutMs = 30000;
constexpr int64_t kSnapshotTimeoutMs = 24 * 3600 * 1000;

// What a function does with its context; an error becomes the function's error.
template <Status (*body)(sqlite3_context*, int, Arguments)>
void Call(sqlite3_context* context, int argc, Arguments argv) noexcept {
  try {
    if (const Status status = body(context, argc, argv); !status.ok()) SetError(context, status);
  } catch (const std::bad_alloc&) {
    sqlite3_result_error_nomem(context);
  } catch (const std::exception& e) {
    SetError(context, Status(Tag::kLocalIo, e.what()));
  }
}

Status OutsideTransaction(sqlite3_context* context, std::string_view function) {
  if (sqlite3_get_autocommit(sqlite3_context_db_handle(context)) != 0) return Status::Ok();
  return Status(Tag::kInTransaction,
                std::string(function) + "() inside a transaction: COMMIT or ROLLBACK first");
}

Status Run(sqlite3* db, const char* sql, std::string* first_column) {
  sqlite3_stmt* statement = nullptr;
  int rc = sqlite3_prepare_v2(db, sql, -1, &statement, nullptr);
  while (rc == SQLITE_OK && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
    if (text && first_column) *first_column = text;
    rc = SQLITE_OK;
  }
  const std::string message = sqlite3_errmsg(db);
  const int final_rc = sqlite3_finalize(statement);
  if (rc == SQLITE_DONE && final_rc == SQLITE_OK) return Status::Ok();
  const Tag tag = (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED ? Tag::kBusy
                  : (rc & 0xff) == SQLITE_FULL                               ? Tag::kDiskFull
                  : (rc & 0xff) == SQLITE_IOERR                              ? Tag::kLocalIo
                                                                             : Tag::kBadArgument;
  return Status(tag, std::string(sql) + ": " + message, tag == Tag::kBusy);
}

Status Version(sqlite3_context* context, int, Arguments) {
  std::array<char, 256> text;
  std::snprintf(text.data(), text.size(), "guildlite %s, format %d, SQLite %s%s, %s, zstd %s",
                GUILDLITE_VERSION, kFormatVersion, sqlite3_libversion(),
                WalResetGuardActive() ? " (WAL-reset bug: guarded)" : "",
                HttpLibraryVersions().c_str(), ZSTD_versionString());
  SetText(context, text.data());
  return Status::Ok();
}

// What is wrong with a store is better known before a database is changed for its sake. What may
// pass is left to those who wait for it.
Status CheckStore(ObjectStore& store) {
  const Status status = ReadManifest(store).status();
  return status.tag() == Tag::kNotFound || status.retryable() ? Status::Ok() : status;
}

// Whether a store's answer is no, and not merely none yet.
bool IsRefusal(Tag tag) {
  switch (tag) {
    case Tag::kStoreDenied:
    case Tag::kStoreUnsafe:
    case Tag::kNoBucket:
    case Tag::kPrefixClash:
    case Tag::kFormatTooNew:
    case Tag::kChainBroken:
      return true;
    default:
      return false;
  }
}

// A url in a statement may be mistyped: what it holds is not put in place of an empty database, and
// taken over, by default.
bool AsksForRestore(std::string_view json) {
  Options unasked;
  unasked.restore = "never";
  const auto asked = ApplyOptionsJson(unasked, json);
  return asked.ok() && asked->restore == "if_missing";
}

Status ReplicationStart(sqlite3_context* context, int argc, Arguments argv) {
  sqlite3* const db = sqlite3_context_db_handle(context);
  GUILDLITE_RETURN_IF_ERROR(OutsideTransaction(context, "replication_start"));
  auto url = TextArgument(argc, argv, 0, "url");
  if (!url.ok()) return url.status();
  auto json = TextArgument(argc, argv, 1, "options");
  if (!json.ok()) return json.status();
  const char* const file = sqlite3_db_filename(db, "main");
  if (!file || *file == '\0') {
    return Status(Tag::kBadArgument,
                  "replication_start() needs a database file; this connection's main database is "
                  "in memory or temporary");
  }
  if (sqlite3_db_readonly(db, "main") == 1) {
    return Status(Tag::kBadArgument, std::string(file) +
                                         " is open read-only; replicate it from a connection that "
                                         "may write");
  }
  Engine& engine = Engine::Get();
  if (!*url) {
    auto known = engine.UrlOf(db);
    if (!known.ok()) return known.status();
    *url = *known;
  }
  // Checked before anything is changed.
  auto options = engine.OptionsFor(db, **url, json->value_or(""));
  if (!options.ok()) return options.status();
  auto store = engine.OpenForReading(**url);
  if (!store.ok()) return store.status();
  GUILDLITE_RETURN_IF_ERROR(
      engine.RestoreIfEmpty(db, *options, AsksForRestore(json->value_or(""))));
  GUILDLITE_RETURN_IF_ERROR(engine.RejoinMain(db, *options));
  std::string mode;
  GUILDLITE_RETURN_IF_ERROR(Run(db, "PRAGMA main.journal_mode", &mode));
  const std::string mode_before = mode;
  const bool known_before = engine.UrlOf(db).ok();
  if (mode != "wal") {
    if (!options->wal) {
      return Status(Tag::kBadArgument, std::string(file) + " is in journal mode " + mode +
                                           " and \"wal\":false was given; only WAL mode can be "
                                           "replicated");
    }
    GUILDLITE_RETURN_IF_ERROR(CheckStore(**store));
    GUILDLITE_RETURN_IF_ERROR(Run(db, "PRAGMA main.journal_mode=WAL", &mode));
    if (mode != "wal") {
      return Status(Tag::kBusy,
                    "the journal mode of " + std::string(file) + " stayed " + mode +
                        " (another connection is using it); try again",
                    true);
    }
  }
  // Opens the WAL and maps its index: the scan and the claim look there.
  GUILDLITE_RETURN_IF_ERROR(Run(db, "SELECT count(*) FROM main.sqlite_schema", nullptr));
  auto position = engine.Start(db, *options);
  if (!position.ok()) {
    // What was refused must not be tried again by the next open.
    if (!known_before && IsRefusal(position.status().tag())) {
      const Status forgotten = Sidecar(std::string(file) + "-guildlite").ForgetState();
      if (!forgotten.ok()) return forgotten.Context(position.status().message());
    }
    // Back to what it was, unless replication is remembered: then it goes on at the next open.
    // Where others use the database by now it stays in WAL mode, which harms nobody.
    if (mode_before != mode && !engine.UrlOf(db).ok()) {
      static_cast<void>(Run(db, ("PRAGMA main.journal_mode=" + mode_before).c_str(), nullptr));
    }
    return position.status();
  }
  SetText(context, position->ToString());
  return Status::Ok();
}

Status ReplicationStop(sqlite3_context* context, int argc, Arguments argv) {
  GUILDLITE_RETURN_IF_ERROR(OutsideTransaction(context, "replication_stop"));
  auto timeout = IntegerArgument(argc, argv, 0, "timeout_ms", kSyncTimeoutMs, 0, kTimeoutMsMax);
  if (!timeout.ok()) return timeout.status();
  sqlite3* const db = sqlite3_context_db_handle(context);
  auto found = Engine::Get().Find(db);
  if (!found.ok()) return found.status();
  GUILDLITE_RETURN_IF_ERROR(Engine::Get().Stop(db, *timeout));
  if (const auto position = found->replicator->durable_position())
    SetText(context, position->ToString());
  return Status::Ok();
}

// Commits in another journal mode are not captured: nothing may be promised of them.
Status InWalMode(sqlite3* db) {
  std::string mode;
  GUILDLITE_RETURN_IF_ERROR(Run(db, "PRAGMA main.journal_mode", &mode));
  if (mode == "wal") return Run(db, "SELECT count(*) FROM main.sqlite_schema", nullptr);
  return Status(Tag::kNotReplicated,
                "the database is in journal mode " + mode +
                    ", whose commits are not captured; set PRAGMA journal_mode=WAL");
}

Status ReplicationSync(sqlite3_context* context, int argc, Arguments argv) {
  GUILDLITE_RETURN_IF_ERROR(OutsideTransaction(context, "replication_sync"));
  auto timeout = IntegerArgument(argc, argv, 0, "timeout_ms", kSyncTimeoutMs, 0, kTimeoutMsMax);
  if (!timeout.ok()) return timeout.status();
  sqlite3* const db = sqlite3_context_db_handle(context);
  auto found = Engine::Get().Find(db);
  if (!found.ok()) return found.status();
  GUILDLITE_RETURN_IF_ERROR(InWalMode(db));
  GUILDLITE_RETURN_IF_ERROR(found->replicator->Sync(*timeout));
  if (const auto durable = found->replicator->durable_position()) {
    SetText(context, durable->ToString());
  }
  return Status::Ok();
}

Status ReplicationWait(sqlite3_context* context, int argc, Arguments argv) {
  auto text = TextArgument(argc, argv, 0, "position");
  if (!text.ok()) return text.status();
  if (!*text) return Status(Tag::kBadArgument, "replication_wait() needs a position");
  const auto position = Position::Parse(**text);
  if (!position) {
    return Status(Tag::kBadArgument, "'" + **text +
                                         "' is not a position (lineage-epoch-txid-check, as "
                                         "replication_position() returns it)");
  }
  auto timeout = IntegerArgument(argc, argv, 1, "timeout_ms", kSyncTimeoutMs, 0, kTimeoutMsMax);
  if (!timeout.ok()) return timeout.status();
  auto found = Engine::Get().Find(sqlite3_context_db_handle(context));
  if (!found.ok()) return found.status();
  auto durable = found->replicator->Wait(*position, *timeout);
  if (!durable.ok()) {
    if (durable.status().tag() != Tag::kTimeout) return durable.status();
    durable = false;
  }
  sqlite3_result_int(context, *durable ? 1 : 0);
  return Status::Ok();
}

Status ReplicationPosition(sqlite3_context* context, int, Arguments) {
  auto found = Engine::Get().Find(sqlite3_context_db_handle(context));
  if (!found.ok()) return found.status();
  if (const auto position = found->replicator->position()) SetText(context, position->ToString());
  return Status::Ok();
}

Status ReplicationDurable(sqlite3_context* context, int, Arguments) {
  auto found = Engine::Get().Find(sqlite3_context_db_handle(context));
  if (!found.ok()) return found.status();
  if (const auto position = found->replicator->durable_position()) {
    SetText(context, position->ToString());
  }
  return Status::Ok();
}

Status ReplicationError(sqlite3_context* context, int, Arguments) {
  auto found = Engine::Get().Find(sqlite3_context_db_handle(context));
  if (!found.ok()) {
    if (found.status().tag() == Tag::kNotReplicated) return Status::Ok();
    return found.status();
  }
  const std::string error = found->replicator->last_error();
  if (!error.empty()) SetText(context, error);
  return Status::Ok();
}

Status SnapshotCreate(sqlite3_context* context, int argc, Arguments argv) {
  GUILDLITE_RETURN_IF_ERROR(OutsideTransaction(context, "snapshot_create"));
  auto label = TextArgument(argc, argv, 0, "label");
  if (!label.ok()) return label.status();
  if (*label && (**label).size() > 255) {
    return Status(Tag::kBadArgument, "label is longer than 255 bytes");
  }
  auto found = Engine::Get().Find(sqlite3_context_db_handle(context));
  if (!found.ok()) return found.status();
  auto position = found->replicator->CreateSnapshot(label->value_or(""), kSnapshotTimeoutMs);
  if (!position.ok()) return position.status();
  SetText(context, position->ToString());
  return Status::Ok();
}

struct RestoreOptions {
  bool skip_if_exists = false;
  bool skip_if_missing = false;
  RestoreCheck check = RestoreCheck::kChecksum;
};

Result<RestoreOptions> ParseRestoreOptions(std::string_view json) {
  RestoreOptions options;
  if (json.empty()) return options;
  const auto parsed = nlohmann::json::parse(json, nullptr, false);
  if (!parsed.is_object()) {
    return Status(Tag::kBadArgument, "restore options must be a JSON object");
  }
  for (const auto& [name, value] : parsed.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : std::string();
    if (name == "if_exists" || name == "if_missing") {
      if (text != "error" && text != "skip") {
        return Status(Tag::kBadArgument, name + " must be \"error\" or \"skip\"");
      }
      (name == "if_exists" ? options.skip_if_exists : options.skip_if_missing) = text == "skip";
    } else if (name == "check") {
      if (text != "checksum" && text != "quick" && text != "full") {
        return Status(Tag::kBadArgument, "check must be \"checksum\", \"quick\" or \"full\"");
      }
      options.check = text == "quick"  ? RestoreCheck::kQuick
                      : text == "full" ? RestoreCheck::kFull
                                       : RestoreCheck::kChecksum;
    } else {
      return Status(Tag::kBadArgument, "unknown restore option \"" + name +
                                           "\"; known are if_exists, if_missing, check");
    }
  }
  return options;
}

// The store to read from, everything this process has for it flushed first.
Result<std::unique_ptr<ObjectStore>> SourceOf(sqlite3* db, const std::optional<std::string>& given,
                                              std::string* url) {
  Engine& engine = Engine::Get();
  if (given) {
    *url = *given;
  } else {
    auto known = engine.UrlOf(db);
    if (!known.ok()) return known.status();
    *url = *known;
  }
  auto store = engine.OpenForReading(*url);
  if (!store.ok()) {
    if (given && given->find("://") == std::string::npos) {
      return Status(Tag::kBadUrl, store.status().message() + " (are path and url swapped?)");
    }
    return store.status();
  }
  return store;
}

Status SqliteCheck(const std::string& path, RestoreCheck check) {
  sqlite3* db = nullptr;
  // Read-only and immutable: no -wal, no -shm, no lock beside a file that is not in place yet.
  std::string uri = "file:";
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      std::array<char, 4> hex;
      std::snprintf(hex.data(), hex.size(), "%%%02x", static_cast<unsigned char>(c));
      uri += hex.data();
    } else {
      uri += c;
    }
  }
  uri += "?immutable=1";
  int rc = sqlite3_open_v2(uri.c_str(), &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, nullptr);
  std::string answer;
  Status status;
  if (rc == SQLITE_OK) {
    status = Run(
        db, check == RestoreCheck::kFull ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)",
        &answer);
  } else {
    status = Status(Tag::kChainBroken, sqlite3_errmsg(db));
  }
  sqlite3_close(db);
  if (!status.ok()) return Status(Tag::kChainBroken, status.message());
  if (answer == "ok") return Status::Ok();
  return Status(Tag::kChainBroken, "SQLite's check of the restored file says: " + answer);
}

// The moment meant; nothing given: the newest.
Result<RestoreTarget> AtArgument(int argc, Arguments argv, int i) {
  if (i < argc && sqlite3_value_type(argv[i]) == SQLITE_FLOAT) {
    // Every JavaScript number arrives as a REAL.
    auto txid = IntegerArgument(argc, argv, i, "at", 0, 0, 9007199254740991);
    if (!txid.ok()) return txid.status();
    return RestoreTarget::Parse(std::to_string(*txid));
  }
  auto text = TextArgument(argc, argv, i, "at");
  if (!text.ok()) return text.status();
  return RestoreTarget::Parse(text->value_or(""));
}

Status SnapshotRestore(sqlite3_context* context, int argc, Arguments argv) {
  GUILDLITE_RETURN_IF_ERROR(OutsideTransaction(context, "snapshot_restore"));
  sqlite3* const db = sqlite3_context_db_handle(context);
  auto path = TextArgument(argc, argv, 0, "path");
  auto url = TextArgument(argc, argv, 1, "url");
  auto json = TextArgument(argc, argv, 3, "options");
  for (const auto* argument : {&path, &url, &json}) {
    if (!argument->ok()) return argument->status();
  }
  if (!*path || (**path).empty()) {
    return Status(Tag::kBadArgument, "snapshot_restore() needs the path of the new file");
  }
  if ((**path).find("://") != std::string::npos) {
    return Status(Tag::kBadArgument, "'" + **path +
                                         "' is a url, not a path; snapshot_restore(path, url): are "
                                         "they swapped?");
  }
  auto options = ParseRestoreOptions(json->value_or(""));
  if (!options.ok()) return options.status();
  auto target = AtArgument(argc, argv, 2);
  if (!target.ok()) return target.status();
  if (options->skip_if_exists && FileExists(**path)) return Status::Ok();
  std::string source_url;
  auto store = SourceOf(db, *url, &source_url);
  if (!store.ok()) return store.status();
  if (const auto replicator = Engine::Get().ShippingTo(source_url)) {
    GUILDLITE_RETURN_IF_ERROR(
        replicator->Sync(kSyncTimeoutMs).Context("flush before snapshot_restore()"));
  }
  RestoreSettings settings;
  settings.random = &SystemRandom();
  if (options->check != RestoreCheck::kChecksum) {
    settings.sqlite_check = [&](const std::string& temp) {
      return SqliteCheck(temp, options->check);
    };
  }
  auto report = Restore(**store, **path, *target, settings);
  if (!report.ok()) {
    if (options->skip_if_missing && report.status().tag() == Tag::kNoBackup) return Status::Ok();
    if (options->skip_if_exists && report.status().tag() == Tag::kExists) return Status::Ok();
    return report.status();
  }
  SetText(context, report->position.ToString());
  return Status::Ok();
}

Status SnapshotVerify(sqlite3_context* context, int argc, Arguments argv) {
  GUILDLITE_RETURN_IF_ERROR(OutsideTransaction(context, "snapshot_verify"));
  sqlite3* const db = sqlite3_context_db_handle(context);
  auto url = TextArgument(argc, argv, 0, "url");
  if (!url.ok()) return url.status();
  auto target = AtArgument(argc, argv, 1);
  if (!target.ok()) return target.status();
  std::string source_url;
  auto store = SourceOf(db, *url, &source_url);
  if (!store.ok()) return store.status();
  // Beside the database, where there is room for one; else where temporary files go.
  const char* const file = sqlite3_db_filename(db, "main");
  const std::string directory = file && *file ? DirectoryOf(file) : std::string(P_tmpdir);
  const auto replicator = Engine::Get().ShippingTo(source_url);
  if (replicator) {
    GUILDLITE_RETURN_IF_ERROR(
        replicator->Sync(kSyncTimeoutMs).Context("flush before snapshot_verify()"));
  }
  RestoreSettings settings;
  settings.random = &SystemRandom();
  auto report = Verify(**store, directory, *target, settings);
  if (!report.ok()) return report.status();
  if (replicator) Engine::Get().SetVerified(replicator->path(), report->position);
  SetText(context, report->position.ToString());
  return Status::Ok();
}

Status GuildShardFunction(sqlite3_context* context, int argc, Arguments argv) {
  for (int i = 0; i < argc; ++i) {
    if (sqlite3_value_type(argv[i]) == SQLITE_NULL) return Status::Ok();  // NULL in, NULL out
  }
  const auto bad = [](std::string_view why) {
    return Status(Tag::kBadId,
                  "guild_shard(): a guild id is TEXT or INTEGER, 1 to 2^64-1" + std::string(why));
  };
  uint64_t id = 0;
  switch (sqlite3_value_type(argv[0])) {
    case SQLITE_INTEGER: {
      const sqlite3_int64 value = sqlite3_value_int64(argv[0]);
      if (value <= 0) return bad("; ids from 2^63 up must be TEXT");
      id = static_cast<uint64_t>(value);
      break;
    }
    case SQLITE_TEXT: {
      const auto* text = reinterpret_cast<const char*>(sqlite3_value_text(argv[0]));
      const auto parsed =
          ParseSnowflake({text ? text : "", static_cast<size_t>(sqlite3_value_bytes(argv[0]))});
      if (!parsed) return bad(", decimal digits only");
      id = *parsed;
      break;
    }
    case SQLITE_FLOAT:
      return bad(
          "; this is a REAL: a JavaScript number has already lost bits, pass a string or a "
          "BigInt");
    default:
      return bad("");
  }
  auto shards = IntegerArgument(argc, argv, 1, "guild_shard(): shards", 1, 1, 1'000'000);
  if (!shards.ok()) return shards.status();
  sqlite3_result_int64(context,
                       static_cast<sqlite3_int64>(GuildShard(id, static_cast<uint64_t>(*shards))));
  return Status::Ok();
}

struct Function {
  const char* name;
  int least;
  int most;
  bool pure;
  void (*call)(sqlite3_context*, int, Arguments);
};

constexpr Function kFunctions[] = {
    {"guildlite_version", 0, 0, false, Call<Version>},
    {"replication_start", 0, 2, false, Call<ReplicationStart>},
    {"replication_stop", 0, 1, false, Call<ReplicationStop>},
    {"replication_sync", 0, 1, false, Call<ReplicationSync>},
    {"replication_wait", 1, 2, false, Call<ReplicationWait>},
    {"replication_position", 0, 0, false, Call<ReplicationPosition>},
    {"replication_durable", 0, 0, false, Call<ReplicationDurable>},
    {"replication_error", 0, 0, false, Call<ReplicationError>},
    {"snapshot_create", 0, 1, false, Call<SnapshotCreate>},
    {"snapshot_restore", 1, 4, false, Call<SnapshotRestore>},
    {"snapshot_verify", 0, 2, false, Call<SnapshotVerify>},
    {"guild_shard", 2, 2, true, Call<GuildShardFunction>},
};

}  // namespace

int RegisterFunctions(sqlite3* db) {
  for (const Function& f : kFunctions) {
    const int flags =
        SQLITE_UTF8 | (f.pure ? SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS : SQLITE_DIRECTONLY);
    for (int argc = f.least; argc <= f.most; ++argc) {
      const int rc = sqlite3_create_function_v2(db, f.name, argc, flags, nullptr, f.call, nullptr,
                                                nullptr, nullptr);
      if (rc != SQLITE_OK) return rc;
    }
  }
  return SQLITE_OK;
}

}  // namespace guildlite
