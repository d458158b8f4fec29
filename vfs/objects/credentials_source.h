// What one source of AWS credentials finds, and the JSON in which most of them say it.
//
// A source is a function; every one of them answers in one of three ways:
//   FoundCredentials
//   kNotFound          nothing is configured there: the next source is asked. The message says what
//                      was looked for.
//   any other status   something is configured there and does not work. The next source is not
//                      asked: to go on as somebody else would be worse than to stop.
// No status holds a secret.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/objects/sigv4.h"

namespace guildlite {

struct FoundCredentials {
  AwsCredentials credentials;
  std::optional<int64_t> expires_ms = std::nullopt;  // unix time; nullopt = never
  std::string source;                                // "the environment": for messages
  bool operator==(const FoundCredentials&) const = default;
};

// The value of a variable; "" is how a container unsets one.
std::string Variable(const Environment& environment, const std::string& name);

// {"AccessKeyId", "SecretAccessKey", `token_name`, "Expiration"} of a JSON object; the last two may
// be missing. `source` is left to the caller. The message of an error is the reason alone.
Result<FoundCredentials> ParseCredentialsJson(std::string_view json, const std::string& token_name);

}  // namespace guildlite
