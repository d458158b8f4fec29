#include "vfs/objects/credentials_source.h"

#include <nlohmann/json.hpp>

#include "vfs/base/time_text.h"

namespace guildlite {
namespace {

// "" when it is missing or no text.
std::string Text(const nlohmann::json& object, const std::string& name) {
  const auto at = object.find(name);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

}  // namespace

std::string Variable(const Environment& environment, const std::string& name) {
  return environment(name).value_or("");
}

Result<FoundCredentials> ParseCredentialsJson(std::string_view text,
                                              const std::string& token_name) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return {Tag::kStoreUnreachable, "it is no JSON object"};
  FoundCredentials found;
  found.credentials = {Text(json, "AccessKeyId"), Text(json, "SecretAccessKey"),
                       Text(json, token_name)};
  if (found.credentials.access_key_id.empty() || found.credentials.secret_access_key.empty()) {
    return {Tag::kStoreUnreachable, "it has no AccessKeyId or no SecretAccessKey"};
  }
  if (const std::string expiration = Text(json, "Expiration"); !expiration.empty()) {
    found.expires_ms = ParseTime(expiration);
    if (!found.expires_ms) return {Tag::kStoreUnreachable, "its Expiration is no time"};
  }
  return found;
}

}  // namespace guildlite
