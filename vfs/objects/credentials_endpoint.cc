#include "vfs/objects/credentials_endpoint.h"

#include <arpa/inet.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "vfs/base/ascii.h"
#include "vfs/base/percent.h"
#include "vfs/objects/credentials_reply.h"

namespace guildlite {
namespace {

// Both answer from memory, on the same machine.
constexpr int64_t kContainerTimeoutMs = 5000;
// Where there is no instance's metadata, packets may vanish: whoever has no credentials at all
// waits this long to hear of it. AWS's tools take the same second.
constexpr int64_t kInstanceTimeoutMs = 1000;

constexpr const char* kEcs = "http://169.254.170.2";

std::string Text(const nlohmann::json& object, std::string_view name) {
  if (!object.is_object()) return "";
  const auto at = object.find(name);
  if (at == object.end() || !at->is_string()) return "";
  std::string text = at->get<std::string>().substr(0, 300);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7e; }, ' ');
  return text;
}

// "host" of scheme://host[:port][/...]; "" for what is not of this form.
std::string_view HostOf(std::string_view rest) {
  rest = rest.substr(0, rest.find_first_of("/?#"));
  // User names and what clients disagree about.
  if (rest.find_first_of("@\\ ") != std::string_view::npos) return "";
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    return close == std::string_view::npos ? "" : rest.substr(1, close - 1);
  }
  return rest.substr(0, rest.find(':'));
}

// The reply of ECS, EKS and EC2 when all is well; they have errors of their own with a 200, too.
Result<FoundCredentials> Parse(const HttpResponse& response, const std::string& doing,
                               std::string_view secret) {
  const auto json = nlohmann::json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  // {"code", "message"} of ECS and EKS, {"Code", "Message"} of EC2.
  std::string code = Text(json, "Code");
  if (code.empty()) code = Text(json, "code");
  std::string message = Text(json, "Message");
  if (message.empty()) message = Text(json, "message");
  if (response.status != 200 || (!code.empty() && code != "Success")) {
    return Refusal(response, doing, code, message, secret);
  }
  auto found = ParseCredentialsJson(response.body, "Token");
  if (!found.ok()) {
    return Status(Tag::kStoreUnreachable,
                  doing + ": the answer is none of AWS's: " + found.status().message(),
                  /*retryable=*/true);
  }
  return found;
}

}  // namespace

bool IsContainerUrl(std::string_view url) {
  constexpr std::string_view kHttp = "http://", kHttps = "https://";
  if (url.starts_with(kHttps)) return !HostOf(url.substr(kHttps.size())).empty();
  if (!url.starts_with(kHttp)) return false;
  const std::string host(HostOf(url.substr(kHttp.size())));
  if (host == "localhost" || host == "169.254.170.2" || host == "169.254.170.23") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{}, eks{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return false;
  inet_pton(AF_INET6, "fd00:ec2::23", &eks);
  return std::memcmp(&v6, &in6addr_loopback, sizeof v6) == 0 ||
         std::memcmp(&v6, &eks, sizeof v6) == 0;
}

Result<FoundCredentials> CredentialsFromContainer(const Environment& environment,
                                                  HttpClient& http) {
  const std::string relative = Variable(environment, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  const std::string full = Variable(environment, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (relative.empty() && full.empty()) {
    return {Tag::kNotFound,
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI are not "
            "set"};
  }
  HttpRequest request;
  request.timeout_ms = kContainerTimeoutMs;
  if (!relative.empty()) {
    if (!relative.starts_with('/')) {
      return {Tag::kStoreDenied, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with /"};
    }
    request.url = kEcs + relative;
  } else {
    request.url = full;
    if (!IsContainerUrl(full)) {
      return {Tag::kStoreDenied,
              "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http to this machine or to "
              "where ECS and EKS answer; the token would be sent to anybody else"};
    }
  }
  request.direct = request.url.starts_with("http:");
  std::string token = Variable(environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
  if (const std::string path = Variable(environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
      !path.empty()) {
    auto read = ReadSecretFile(path);
    if (!read.ok()) return read.status();
    token = *read;
  }
  if (token.find_first_of("\r\n") != std::string::npos) {
    return {Tag::kStoreDenied, "AWS_CONTAINER_AUTHORIZATION_TOKEN has a line break"};
  }
  if (!token.empty()) request.headers.emplace_back("Authorization", token);

  // Without path and query: the relative one is as good as a password on ECS.
  const std::string doing =
      "ask " + request.url.substr(0, request.url.find_first_of("/?", request.url.find("//") + 2));
  const auto response = Ask(http, request, doing);
  if (!response.ok()) return response.status();
  auto found = Parse(*response, doing, token);
  if (found.ok()) found->source = "the container's endpoint";
  return found;
}

Result<FoundCredentials> CredentialsFromInstance(const Environment& environment, HttpClient& http) {
  if (LowerCase(Variable(environment, "AWS_EC2_METADATA_DISABLED")) == "true") {
    return {Tag::kNotFound, "AWS_EC2_METADATA_DISABLED is true"};
  }
  std::string base = Variable(environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
  if (base.empty()) base = "http://169.254.169.254";
  while (base.ends_with('/')) base.pop_back();
  const std::string doing = "ask " + base;

  HttpRequest request;
  request.timeout_ms = kInstanceTimeoutMs;
  request.direct = true;
  request.method = "PUT";
  request.url = base + "/latest/api/token";
  request.headers = {{"X-aws-ec2-metadata-token-ttl-seconds", "60"}};  // for these three requests
  const auto token = Ask(http, request, doing);
  if (!token.ok()) {
    return {Tag::kNotFound, token.status().message()};
  }
  if (token->status != 200) {
    Status refusal = Refusal(*token, doing, "", "", "");
    if (refusal.retryable()) return refusal;
    return {Tag::kNotFound, refusal.message()};  // switched off, or somebody else's service
  }

  const std::string& secret = token->body;
  if (secret.empty() || secret.find_first_of("\r\n") != std::string::npos) {
    return {Tag::kNotFound, doing + ": it does not answer as an instance's metadata service"};
  }
  request.method = "GET";
  request.headers = {{"X-aws-ec2-metadata-token", secret}};
  request.url = base + "/latest/meta-data/iam/security-credentials/";
  const std::string list = request.url;
  const auto roles = Ask(http, request, doing);
  if (!roles.ok()) return roles.status();
  if (roles->status == 404) return {Tag::kNotFound, doing + ": the instance has no role"};
  if (roles->status != 200) return Refusal(*roles, doing, "", "", secret);
  const std::string role = roles->body.substr(0, roles->body.find_first_of("\r\n"));
  if (role.empty()) return {Tag::kNotFound, doing + ": the instance has no role"};

  request.url = list + PercentEncode(role);
  const auto response = Ask(http, request, doing);
  if (!response.ok()) return response.status();
  auto found = Parse(*response, doing, secret);
  if (found.ok()) found->source = "the role of the EC2 instance";
  return found;
}

}  // namespace guildlite
