// Every setting of a replicated database, and the one parser of all the places it can be given in.
//
// Weakest first, each layer applied over the one before: the defaults below, the sidecar
// (ApplyPersistedOptions), the environment (ApplyEnvironment), SQL (ApplyOptionsJson).
// OptionTable() is the list they all read, and the README's table is generated from it.
//
//   1. What is not understood is refused by name (BAD_ARGUMENT): an option that is misspelled, of
//      the wrong type or out of range never falls back to a default. The one exception is an
//      unknown name in the sidecar, which a newer version wrote: rolling back to this one must
//      still open the database.
//   2. Secrets are no options: store urls hold none (store_url.h refuses them), so what is
//      persisted holds none.
//   3. This is the only reader of the process's environment.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/status.h"

namespace guildlite {

struct Options {
  std::string url;  // of the store; "" = none
  bool wal = true;
  int64_t sync_interval_ms = 1000;
  uint64_t spool_limit_bytes = uint64_t{1} << 30;
  uint64_t wal_limit_bytes = uint64_t{1} << 30;
  int64_t open_wait_ms = 10000;
  int64_t takeover_after_ms = 0;
  int64_t close_timeout_ms = 5000;
  std::string durability = "async";
  std::string restore = "if_missing";
  std::string on_diverged = "refuse";
  uint64_t snapshot_min_bytes = uint64_t{8} << 20;
  uint64_t join_slots = 5000;
  int64_t retention_ms = 0;
  int64_t delete_after_ms = int64_t{24} * 60 * 60 * 1000;
  bool operator==(const Options&) const = default;
};

// The value of an environment variable, nullopt when unset. Tests pass their own.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
// getenv(3): not to be called while another thread calls setenv.
Environment ProcessEnvironment();

// `base` with what the JSON object names. "" and "null" name nothing. A REAL without a fraction is
// an integer: better-sqlite3 and JSON.stringify make no difference.
Result<Options> ApplyOptionsJson(const Options& base, std::string_view json);

// `base` with what GUILDLITE_* variables name; an empty variable is an unset one. The url is taken
// only where UrlFromEnvironment() has one for this database.
Result<Options> ApplyEnvironment(const Options& base, const Environment& environment,
                                 std::string_view database_path);

// GUILDLITE_URL for the database of this absolute path: nullopt when it is unset, or when
// GUILDLITE_MATCH is set and no glob in it matches the path (fnmatch(3), FNM_PATHNAME: '*' stops at
// '/'). {name} in the url becomes the path's last component without its last extension, with every
// byte that is not [A-Za-z0-9._~-] percent-encoded; then GUILDLITE_MATCH is required, or a backup
// tool's temporary database would get a place in the store. Two paths that end on one url are the
// caller's to notice (PREFIX_CLASH).
Result<std::optional<std::string>> UrlFromEnvironment(const Environment& environment,
                                                      std::string_view database_path);

// For the sidecar: the options that differ from the defaults, as a JSON object.
std::string PersistOptions(const Options& options);
Result<Options> ApplyPersistedOptions(const Options& base, std::string_view json);

struct OptionInfo {
  std::string_view name;  // in JSON; "" = environment only
  std::string_view environment;
  std::string default_value;  // "" = none
  std::string_view unit;      // "ms", "bytes", "" = none
  std::string_view doc;       // one line
};
const std::vector<OptionInfo>& OptionTable();

}  // namespace guildlite
