#include "vfs/objects/s3_xml.h"

#include <charconv>
#include <pugixml.hpp>
#include <sstream>

namespace guildlite {
namespace {

constexpr size_t kShownMax = 300;

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kShownMax)) out += c >= 0x20 && c < 0x7f ? c : ' ';
  return out;
}

std::optional<uint64_t> Number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Status BadList(std::string_view why) {
  return Status(Tag::kStoreUnreachable, "the answer is no listing of S3's: " + std::string(why));
}

}  // namespace

S3Error ParseS3Error(std::string_view body) {
  pugi::xml_document document;
  S3Error error;
  if (!document.load_buffer(body.data(), body.size())) return error;
  pugi::xml_node node = document.child("Error");
  // Some answers of AWS's other services, which proxies of S3 copy, are wrapped once.
  if (!node) node = document.child("ErrorResponse").child("Error");
  error.code = Printable(node.child_value("Code"));
  if (error.code.empty()) return error;
  error.message = Printable(node.child_value("Message"));
  error.request_id = Printable(node.child_value("RequestId"));
  error.region = Printable(node.child_value("Region"));
  error.object_size = Number(node.child_value("ActualObjectSize"));
  return error;
}

Result<S3ListPage> ParseS3List(std::string_view body) {
  pugi::xml_document document;
  if (!document.load_buffer(body.data(), body.size())) return BadList("it is no XML");
  const pugi::xml_node root = document.child("ListBucketResult");
  if (!root) return BadList("no ListBucketResult");
  S3ListPage page;
  for (const pugi::xml_node node : root.children("Contents")) {
    const std::string_view key = node.child_value("Key");
    const auto size = Number(node.child_value("Size"));
    if (key.empty() || !size) return BadList("an entry without its key or size");
    page.entries.push_back({std::string(key), *size});
  }
  const std::string_view truncated = root.child_value("IsTruncated");
  if (truncated != "true" && truncated != "false") return BadList("it does not say if it is whole");
  if (truncated == "true") {
    page.next = root.child_value("NextContinuationToken");
    if (page.next.empty()) return BadList("it goes on, but does not say where");
  }
  return page;
}

std::string S3DeleteRequest(std::span<const std::string> keys) {
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("Delete");
  root.append_attribute("xmlns") = "http://s3.amazonaws.com/doc/2006-03-01/";
  root.append_child("Quiet").text() = "true";
  for (const std::string& key : keys) {
    root.append_child("Object").append_child("Key").text() = key.c_str();
  }
  std::ostringstream out;
  document.save(out, "", pugi::format_raw);
  return out.str();
}

Result<S3Error> ParseS3Deleted(std::string_view body) {
  pugi::xml_document document;
  if (!document.load_buffer(body.data(), body.size()) || !document.child("DeleteResult")) {
    return Status(Tag::kStoreUnreachable, "the answer is no DeleteResult of S3's");
  }
  S3Error error;
  for (const pugi::xml_node node : document.child("DeleteResult").children("Error")) {
    if (std::string_view(node.child_value("Code")) == "NoSuchKey") continue;
    error.code = Printable(node.child_value("Code"));
    error.message =
        Printable(node.child_value("Key")) + ": " + Printable(node.child_value("Message"));
    if (error.code.empty()) error.code = "InternalError";
    break;
  }
  return error;
}

}  // namespace guildlite
