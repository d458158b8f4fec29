// The files that AWS's tools share: profiles with keys, a region, or where to get them.
//
//   docs.aws.amazon.com/sdkref/latest/guide/file-format.html, file-location.html
//   docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
//
//   1. ~/.aws/credentials has sections [name]; ~/.aws/config has [default] and [profile name]; its
//      other sections (sso-session, services) are none of ours. AWS_SHARED_CREDENTIALS_FILE and
//      AWS_CONFIG_FILE name other files, AWS_PROFILE another profile than "default".
//   2. A section given twice is one; of a setting given twice the last counts. What is indented
//      belongs to a setting above it that has settings of its own, and is left out. There are no
//      comments behind a value.
//   3. Of one profile in both files, keys in the credentials file come first, then
//      credential_process, then keys in the config file: as in the AWS CLI. A role (role_arn) or a
//      login (sso_*, login_session) comes before all of them, so that nobody is taken for somebody
//      else; the only such that works here is a role with web_identity_token_file.
//   4. A file that is not there, or may not be read, has no profiles.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "guildlite/clock.h"
#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/objects/credentials_source.h"
#include "vfs/objects/web_identity.h"

namespace guildlite {

enum class SharedFile { kCredentials, kConfig };
using ProfileSettings = std::map<std::string, std::string>;  // by lower-case name
// By profile. kBadArgument: line n is no section, setting or comment; nothing of it is quoted.
Result<std::map<std::string, ProfileSettings>> ParseSharedFile(std::string_view text,
                                                               SharedFile file);

// The profile that AWS_PROFILE names.
struct Profile {
  std::string name;
  std::string where;  // both files and what is wrong with them, for messages
  ProfileSettings credentials;
  ProfileSettings config;
};
// kNotFound: "default" is in neither file. kStoreDenied: another one is not, or a file is damaged.
Result<Profile> ReadProfile(const Environment& environment);

// As a source: credentials_source.h.
Result<FoundCredentials> CredentialsFromProfile(const Environment& environment, HttpClient& http,
                                                Clock& clock);

// AWS_REGION, AWS_DEFAULT_REGION, the profile's; "" where none of them says.
std::string AwsRegion(const Environment& environment);

}  // namespace guildlite
