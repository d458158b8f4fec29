#include "vfs/objects/web_identity.h"

#include <pugixml.hpp>

#include "vfs/base/file_io.h"
#include "vfs/base/percent.h"
#include "vfs/base/time_text.h"
#include "vfs/objects/credentials_reply.h"
#include "vfs/objects/s3_xml.h"

namespace guildlite {
namespace {

constexpr int64_t kTimeoutMs = 10000;

std::string Endpoint(const Environment& environment, std::string_view region) {
  for (const char* const name : {"AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"}) {
    std::string url = Variable(environment, name);
    while (url.ends_with('/')) url.pop_back();
    if (!url.empty()) return url;
  }
  if (region.empty()) return "https://sts.amazonaws.com";
  const std::string_view domain =
      region.starts_with("cn-") ? ".amazonaws.com.cn" : ".amazonaws.com";
  return "https://sts." + std::string(region) + std::string(domain);
}

Result<FoundCredentials> Parse(std::string_view body) {
  pugi::xml_document document;
  document.load_buffer(body.data(), body.size());
  const pugi::xml_node node = document.child("AssumeRoleWithWebIdentityResponse")
                                  .child("AssumeRoleWithWebIdentityResult")
                                  .child("Credentials");
  FoundCredentials found;
  found.credentials = {node.child_value("AccessKeyId"), node.child_value("SecretAccessKey"),
                       node.child_value("SessionToken")};
  found.expires_ms = ParseTime(node.child_value("Expiration"));
  if (found.credentials.access_key_id.empty() || found.credentials.secret_access_key.empty() ||
      found.credentials.session_token.empty() || !found.expires_ms) {
    return Status(Tag::kStoreUnreachable, "what answered is no STS", /*retryable=*/true);
  }
  return found;
}

}  // namespace

Result<FoundCredentials> CredentialsFromWebIdentity(const Environment& environment,
                                                    std::string_view region, HttpClient& http) {
  const WebIdentity identity = {Variable(environment, "AWS_WEB_IDENTITY_TOKEN_FILE"),
                                Variable(environment, "AWS_ROLE_ARN"),
                                Variable(environment, "AWS_ROLE_SESSION_NAME")};
  if (identity.token_file.empty())
    return {Tag::kNotFound, "AWS_WEB_IDENTITY_TOKEN_FILE is not set"};
  if (identity.role_arn.empty()) {
    return {Tag::kStoreDenied, "AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not"};
  }
  return AssumeRole(identity, environment, region, http);
}

Result<FoundCredentials> AssumeRole(const WebIdentity& identity, const Environment& environment,
                                    std::string_view region, HttpClient& http) {
  auto token = ReadSecretFile(identity.token_file);
  if (!token.ok()) return token.status();
  const std::string body =
      "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=" +
      PercentEncode(identity.role_arn) + "&RoleSessionName=" +
      PercentEncode(identity.session_name.empty() ? "guildlite" : identity.session_name) +
      "&WebIdentityToken=" + PercentEncode(*token);
  HttpRequest request;
  request.method = "POST";
  request.url = Endpoint(environment, region) + "/";
  request.headers = {{"Content-Type", "application/x-www-form-urlencoded"}};
  request.body = body;
  request.timeout_ms = kTimeoutMs;
  const std::string doing = "ask " + request.url + " for role " + identity.role_arn;
  const auto response = Ask(http, request, doing);
  if (!response.ok()) return response.status();
  if (response->status != 200) {
    const S3Error error = ParseS3Error(response->body);  // STS says it in the same words
    return Refusal(*response, doing, error.code, error.message, *token);
  }
  auto found = Parse(response->body);
  if (!found.ok()) return found.status().Context(doing);
  found->source = "web identity, role " + identity.role_arn;
  return found;
}

}  // namespace guildlite
