#include "vfs/objects/credentials_profile.h"

#include <fcntl.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "vfs/base/ascii.h"
#include "vfs/base/child_process.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

constexpr uint64_t kFileBytesMax = 1 << 20;  // these files are written by hand
// A person may have to touch a key; what needs longer needs a browser, and is none for a server.
constexpr int64_t kProcessTimeoutMs = 60000;
constexpr size_t kProcessBytesMax = 64 * 1024;

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

// The profile of a section's header, without its brackets; "" = the section is none of ours.
std::string ProfileOf(std::string_view header, SharedFile file) {
  header = Trim(header);
  if (file == SharedFile::kCredentials || header == "default") return std::string(header);
  constexpr std::string_view kWord = "profile";
  if (!header.starts_with(kWord) || header.size() == kWord.size() || !IsBlank(header[kWord.size()]))
    return "";
  header = Trim(header.substr(kWord.size()));
  const bool quoted = header.size() >= 2 && (header.front() == '"' || header.front() == '\'') &&
                      header.front() == header.back();
  return std::string(quoted ? header.substr(1, header.size() - 2) : header);
}

std::string Get(const ProfileSettings& settings, const std::string& name) {
  const auto at = settings.find(name);
  return at == settings.end() ? "" : at->second;
}

struct ReadFile {
  std::map<std::string, ProfileSettings> profiles;
  std::string note;  // " (not there)"
};

Result<std::string> ReadBounded(const std::string& path) {
  auto file = File::Open(path, O_RDONLY | O_NONBLOCK);
  if (!file.ok()) return file.status();
  std::string text(kFileBytesMax + 1, '\0');
  const auto n = file->ReadAt(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  if (!n.ok()) return n.status();
  if (*n > kFileBytesMax) return {Tag::kBadArgument, "it is larger than 1 MiB"};
  text.resize(*n);
  return text;
}

// kStoreDenied: it is damaged.
Result<ReadFile> Read(const std::string& path, SharedFile kind) {
  ReadFile file;
  if (path.empty()) {
    file.note = " (HOME is not set)";
    return file;
  }
  const auto text = ReadBounded(path);
  if (!text.ok() && text.status().tag() != Tag::kBadArgument) {
    file.note = text.status().tag() == Tag::kNotFound ? " (not there)" : " (not readable)";
    return file;
  }
  auto profiles = text.ok() ? ParseSharedFile(*text, kind)
                            : Result<std::map<std::string, ProfileSettings>>(text.status());
  if (!profiles.ok()) return {Tag::kStoreDenied, path + ": " + profiles.status().message()};
  file.profiles = std::move(*profiles);
  return file;
}

std::string PathOf(const Environment& environment, const std::string& variable,
                   const std::string& name) {
  const std::string home = Variable(environment, "HOME");
  std::string path = Variable(environment, variable);
  if (path.starts_with("~/") && !home.empty()) path.replace(0, 1, home);
  if (!path.empty()) return path;
  return home.empty() ? "" : home + "/.aws/" + name;
}

// Keys of one file. kNotFound: it has none.
Result<FoundCredentials> Keys(const ProfileSettings& settings) {
  FoundCredentials found;
  found.credentials = {Get(settings, "aws_access_key_id"), Get(settings, "aws_secret_access_key"),
                       Get(settings, "aws_session_token")};
  const bool has_id = !found.credentials.access_key_id.empty();
  const bool has_secret = !found.credentials.secret_access_key.empty();
  if (has_id && has_secret) return found;
  if (!has_id && !has_secret) return {Tag::kNotFound, "has no aws_access_key_id"};
  return {Tag::kStoreDenied, has_id ? "has aws_access_key_id without aws_secret_access_key"
                                    : "has aws_secret_access_key without aws_access_key_id"};
}

Result<FoundCredentials> FromProcess(const std::string& command, Clock& clock) {
  const auto printed = RunShellCommand(command, kProcessTimeoutMs, kProcessBytesMax, clock);
  if (!printed.ok()) {
    return Status(Tag::kStoreUnreachable, "credential_process: " + printed.status().message(),
                  /*retryable=*/true);
  }
  auto found = ParseCredentialsJson(*printed, "SessionToken");
  if (!found.ok()) {
    return {Tag::kStoreDenied,
            "credential_process did not print credentials as JSON: " + found.status().message()};
  }
  const auto json = nlohmann::json::parse(*printed, nullptr, /*allow_exceptions=*/false);
  const auto version = json.find("Version");
  if (version == json.end() || *version != 1) {
    return {Tag::kStoreDenied, "credential_process printed another Version than 1"};
  }
  return found;
}

}  // namespace

Result<std::map<std::string, ProfileSettings>> ParseSharedFile(std::string_view text,
                                                               SharedFile file) {
  std::map<std::string, ProfileSettings> profiles;
  ProfileSettings other;
  ProfileSettings* section = nullptr;
  const auto bad = [](int line) {
    return Status(Tag::kBadArgument, "line " + std::to_string(line) +
                                         " is no [section], no name = value and no # comment");
  };
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // some editors put it there
  for (int number = 1; !text.empty(); number++) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view line = Trim(raw);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (IsBlank(raw.front()) && section != nullptr) continue;
    if (line.front() == '[') {
      const size_t close = line.find(']');
      if (close == std::string_view::npos) return bad(number);
      const std::string profile = ProfileOf(line.substr(1, close - 1), file);
      section = profile.empty() ? &other : &profiles[profile];
      continue;
    }
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos || equals == 0 || section == nullptr) return bad(number);
    section->insert_or_assign(LowerCase(Trim(line.substr(0, equals))),
                              std::string(Trim(line.substr(equals + 1))));
  }
  return profiles;
}

Result<Profile> ReadProfile(const Environment& environment) {
  Profile profile;
  profile.name = Variable(environment, "AWS_PROFILE");
  const bool asked_for = !profile.name.empty();
  if (!asked_for) profile.name = "default";
  const std::string credentials_path =
      PathOf(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
  const std::string config_path = PathOf(environment, "AWS_CONFIG_FILE", "config");
  const auto credentials = Read(credentials_path, SharedFile::kCredentials);
  if (!credentials.ok()) return credentials.status();
  const auto config = Read(config_path, SharedFile::kConfig);
  if (!config.ok()) return config.status();
  profile.where = "profile \"" + profile.name + "\" of " + credentials_path + credentials->note +
                  " and " + config_path + config->note;

  const auto in_credentials = credentials->profiles.find(profile.name);
  const auto in_config = config->profiles.find(profile.name);
  const bool has_credentials = in_credentials != credentials->profiles.end();
  const bool has_config = in_config != config->profiles.end();
  if (has_credentials) profile.credentials = in_credentials->second;
  if (has_config) profile.config = in_config->second;
  if (has_credentials || has_config) return profile;
  return {asked_for ? Tag::kStoreDenied : Tag::kNotFound, "there is no " + profile.where};
}

Result<FoundCredentials> CredentialsFromProfile(const Environment& environment, HttpClient& http,
                                                Clock& clock) {
  const auto profile = ReadProfile(environment);
  if (!profile.ok()) return profile.status();
  ProfileSettings both = profile->config;
  for (const auto& [name, value] : profile->credentials) both.insert_or_assign(name, value);

  const auto found = [&]() -> Result<FoundCredentials> {
    if (!Get(both, "role_arn").empty()) {
      const WebIdentity identity = {Get(both, "web_identity_token_file"), Get(both, "role_arn"),
                                    Get(both, "role_session_name")};
      if (!identity.token_file.empty()) {
        return AssumeRole(identity, environment, AwsRegion(environment), http);
      }
      return {Tag::kStoreDenied,
              "has role_arn, which is known here only with web_identity_token_file; set "
              "credential_process = aws configure export-credentials --profile <this one>"};
    }
    for (const auto& [name, value] : both) {
      if (name.starts_with("sso_") || name == "login_session") {
        return {Tag::kStoreDenied,
                "has " + name +
                    ": there is no logging in here; use another profile with "
                    "credential_process = aws configure export-credentials --profile <this one>"};
      }
    }
    auto keys = Keys(profile->credentials);
    if (keys.status().tag() != Tag::kNotFound) return keys;
    if (const std::string command = Get(both, "credential_process"); !command.empty()) {
      return FromProcess(command, clock);
    }
    return Keys(profile->config);
  }();
  if (!found.ok()) {
    const Status& status = found.status();
    return Status(status.tag(), profile->where + " " + status.message(), status.retryable());
  }
  FoundCredentials named = *found;
  named.source = profile->where;
  return named;
}

std::string AwsRegion(const Environment& environment) {
  for (const char* const name : {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
    if (const std::string region = Variable(environment, name); !region.empty()) return region;
  }
  const auto profile = ReadProfile(environment);
  if (!profile.ok()) return "";  // its error is for who asks for credentials
  const std::string region = Get(profile->config, "region");
  return region.empty() ? Get(profile->credentials, "region") : region;
}

}  // namespace guildlite
