#include "vfs/objects/curl_client.h"

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <utility>

#include "vfs/base/ascii.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
// Of an answer whose length is announced; the rest grows as it comes.
constexpr uint64_t kReserveBytesMax = 64 << 20;
// libcurl wakes up for its own timers and for CancelAt(); this only has to be some number.
constexpr int64_t kPollMsMax = 60 * 1000;

void InitializeLibraries() {
  static const bool done = [] {
    // OpenSSL's own exit handler would take it away from requests that still run.
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  }();
  static_cast<void>(done);  // a failure is one of each handle's too
}

// The first that is set and not empty, with its name.
std::pair<std::string, std::string> FirstOf(const Environment& environment,
                                            std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (auto value = environment(name); value && !value->empty()) return {name, *value};
  }
  return {};
}

// A thread that libcurl starts inherits this: it must take no signal of the host's.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

struct HeaderList {
  ~HeaderList() { curl_slist_free_all(list); }
  void Add(const std::string& line) {
    curl_slist* const longer = curl_slist_append(list, line.c_str());
    if (!longer) throw std::bad_alloc();
    list = longer;
  }
  curl_slist* list = nullptr;
};

std::string_view Trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string UrlPart(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, 0) != CURLUE_OK) return {};
  std::string copy(text);
  curl_free(text);
  return copy;
}

// "https://host:port", the port as given: the connections that are alike, and what messages name.
Result<std::string> OriginOf(const std::string& url) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed) throw std::bad_alloc();
  const CURLUcode code =
      curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), CURLU_DISALLOW_USER);
  if (code != CURLUE_OK) {
    return Status(Tag::kBadUrl,
                  std::string("not the url of an HTTP request: ") + curl_url_strerror(code));
  }
  std::string origin = UrlPart(parsed.get(), CURLUPART_SCHEME);
  if (origin != "http" && origin != "https") {
    return Status(Tag::kBadUrl, "not the url of an HTTP request: its scheme is " + origin);
  }
  origin += "://" + UrlPart(parsed.get(), CURLUPART_HOST);
  const std::string port = UrlPart(parsed.get(), CURLUPART_PORT);
  return port.empty() ? origin : origin + ":" + port;
}

Status CheckHeaders(const HttpRequest& request) {
  for (const auto& [name, value] : request.headers) {
    if (name.empty() || name.find_first_of(": \t\r\n") != std::string::npos ||
        value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
      return Status(Tag::kBadArgument, "the header " + LowerCase(Trim(name)) +
                                           " holds a line break or other bytes that no header may");
    }
  }
  return Status::Ok();
}

bool MayBeRepeated(const HttpRequest& request) {
  return request.method == "GET" || request.method == "HEAD";
}

}  // namespace

const std::vector<std::string> CurlClient::kCaPlaces = {
    "/etc/ssl/certs/ca-certificates.crt",                 // Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  // Red Hat, Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",                   // older ones, Amazon Linux
    "/etc/ssl/ca-bundle.pem",                             // SUSE
    "/etc/ssl/cert.pem",                                  // Alpine
};

// One transfer at a time, and the connection it left.
struct CurlClient::Slot {
  Slot() : multi(curl_multi_init()), easy(curl_easy_init()) {
    if (multi) curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1L);
  }
  ~Slot() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

  CURLM* const multi;
  CURL* const easy;
  // Guarded by the pool's mutex.
  bool busy = false;
  std::string origin;     // of its last request
  uint64_t last_use = 0;  // in the order of requests
};

struct CurlClient::Pool {
  ~Pool() { X509_STORE_free(trusted); }

  const pid_t owner_pid = ::getpid();
  std::mutex mutex;
  std::condition_variable freed;
  // Guarded by mutex.
  std::vector<std::unique_ptr<Slot>> slots;
  uint64_t uses = 0;

  std::mutex trust_mutex;  // over reading the files too: whoever needs them has to wait anyway
  X509_STORE* trusted = nullptr;
  std::string trusted_from;
};

// What the callbacks of one request write to.
struct CurlClient::Transfer {
  const HttpRequest& request;
  Pool& pool;
  CURL* easy;
  HttpResponse response = {};
  int sent = 0;  // times
  bool too_long = false;
  bool out_of_memory = false;

  static int BeforeSending(void* self, char*, char*, int, int) {
    auto& t = *static_cast<Transfer*>(self);
    if (t.sent > 0 && !MayBeRepeated(t.request)) return CURL_PREREQFUNC_ABORT;
    ++t.sent;
    return CURL_PREREQFUNC_OK;
  }

  static size_t OnHeader(char* data, size_t, size_t size, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    try {
      const std::string_view line(data, size);
      const size_t colon = line.find(':');
      if (line.starts_with("HTTP/")) {
        t.response.headers.clear();  // of a 100 Continue, or of a proxy's
      } else if (colon != std::string_view::npos) {
        t.response.headers.emplace_back(LowerCase(Trim(line.substr(0, colon))),
                                        Trim(line.substr(colon + 1)));
      }
      return size;
    } catch (const std::bad_alloc&) {
      t.out_of_memory = true;
      return CURL_WRITEFUNC_ERROR;
    }
  }

  static size_t OnBody(char* data, size_t, size_t size, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    Bytes& body = t.response.body;
    const uint64_t most = t.request.body_bytes_max;
    if (size > most - body.size()) {
      t.too_long = true;
      return CURL_WRITEFUNC_ERROR;
    }
    try {
      if (body.empty()) {
        curl_off_t announced = -1;
        curl_easy_getinfo(t.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
        if (announced > 0) {
          body.reserve(std::min({static_cast<uint64_t>(announced), most, kReserveBytesMax}));
        }
      }
      body.append(data, size);
      return size;
    } catch (const std::bad_alloc&) {
      t.out_of_memory = true;
      return CURL_WRITEFUNC_ERROR;
    }
  }

  // One store for all connections: to parse the machine's certificates takes milliseconds and
  // memory.
  static CURLcode OnTls(CURL*, void* context, void* self) {
    SSL_CTX_set1_cert_store(static_cast<SSL_CTX*>(context),
                            static_cast<Transfer*>(self)->pool.trusted);
    return CURLE_OK;
  }
};

CurlClient::CurlClient(Clock& clock, const Environment& environment, std::string user_agent,
                       std::vector<std::string> ca_places)
    : clock_(clock),
      user_agent_(std::move(user_agent)),
      // Not HTTP_PROXY: in a CGI program that is a header of the request.
      http_proxy_(FirstOf(environment, {"http_proxy", "all_proxy", "ALL_PROXY"}).second),
      https_proxy_(
          FirstOf(environment, {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}).second),
      no_proxy_(FirstOf(environment, {"no_proxy", "NO_PROXY"}).second),
      ca_variable_(FirstOf(environment, {"SSL_CERT_FILE", "AWS_CA_BUNDLE"}).first),
      ca_file_(FirstOf(environment, {"SSL_CERT_FILE", "AWS_CA_BUNDLE"}).second),
      ca_extra_file_(FirstOf(environment, {"NODE_EXTRA_CA_CERTS"}).second),
      ca_places_(std::move(ca_places)),
      cancel_at_ms_(kNever),
      pool_(new Pool) {
  InitializeLibraries();
}

CurlClient::~CurlClient() {
  Pool* const pool = pool_.load();
  if (pool->owner_pid == ::getpid()) delete pool;
}

// In a child the parent's pool may have a locked mutex, and its connections are the parent's: it
// stays as it is.
CurlClient::Pool& CurlClient::OwnPool() {
  Pool* pool = pool_.load();
  while (pool->owner_pid != ::getpid()) {
    auto mine = std::make_unique<Pool>();
    if (pool_.compare_exchange_strong(pool, mine.get())) return *mine.release();
  }
  return *pool;
}

void CurlClient::CancelAt(int64_t monotonic_ms) {
  int64_t before = cancel_at_ms_.load();
  while (monotonic_ms < before && !cancel_at_ms_.compare_exchange_weak(before, monotonic_ms)) {
  }
  Pool& pool = OwnPool();
  const std::lock_guard lock(pool.mutex);
  for (const auto& slot : pool.slots) curl_multi_wakeup(slot->multi);
  pool.freed.notify_all();
}

Result<HttpResponse> CurlClient::Send(const HttpRequest& request) {
  const int64_t deadline_ms = clock_.MonotonicMs() + request.timeout_ms;
  auto origin = OriginOf(request.url);
  if (!origin.ok()) return origin.status();
  const std::string doing = request.method + " " + *origin;
  if (Status s = CheckHeaders(request); !s.ok()) return s.Context(doing);
  Pool& pool = OwnPool();
  if (origin->starts_with("https:")) {
    if (Status s = Trust(pool); !s.ok()) return s.Context(doing);
  }
  auto slot = Take(pool, *origin, deadline_ms);
  if (!slot.ok()) return slot.status().Context(doing);
  const int64_t left_ms = std::max<int64_t>(1, deadline_ms - clock_.MonotonicMs());
  struct Release {
    ~Release() {
      const std::lock_guard lock(pool.mutex);
      slot.busy = false;
      pool.freed.notify_one();
    }
    Pool& pool;
    Slot& slot;
  } const release{pool, **slot};
  return Perform(pool, **slot, request, doing, left_ms);
}

// The slot that is connected there already, or a new one, or the one that was used least lately.
Result<CurlClient::Slot*> CurlClient::Take(Pool& pool, const std::string& origin,
                                           int64_t deadline_ms) {
  std::unique_lock lock(pool.mutex);
  for (;;) {
    const int64_t now_ms = clock_.MonotonicMs();
    const int64_t cancel_at_ms = cancel_at_ms_.load();
    if (now_ms >= cancel_at_ms) {
      return Status(Tag::kStoreUnreachable, "not sent: the program is closing");
    }
    Slot* best = nullptr;
    Slot* oldest = nullptr;
    for (const auto& slot : pool.slots) {
      if (slot->busy) continue;
      if (slot->origin == origin && (!best || slot->last_use > best->last_use)) best = slot.get();
      if (!oldest || slot->last_use < oldest->last_use) oldest = slot.get();
    }
    if (!best && pool.slots.size() < kConnectionsMax) {
      auto slot = std::make_unique<Slot>();
      if (!slot->multi || !slot->easy) {
        return Status(Tag::kStoreUnreachable, "libcurl has no memory or no descriptor left", true);
      }
      best = pool.slots.emplace_back(std::move(slot)).get();
    }
    if (!best) best = oldest;
    if (best) {
      best->busy = true;
      best->origin = origin;
      best->last_use = ++pool.uses;
      return best;
    }
    if (now_ms >= deadline_ms) {
      return Status(Tag::kStoreUnreachable,
                    "timed out; all " + std::to_string(kConnectionsMax) + " connections are in use",
                    true);
    }
    clock_.WaitFor(pool.freed, lock, std::min(deadline_ms, cancel_at_ms) - now_ms);
  }
}

Status CurlClient::Trust(Pool& pool) {
  const std::lock_guard lock(pool.trust_mutex);
  if (pool.trusted) return Status::Ok();
  std::unique_ptr<X509_STORE, decltype(&X509_STORE_free)> store(X509_STORE_new(), X509_STORE_free);
  if (!store) throw std::bad_alloc();
  const auto load = [&store](const std::string& file) {
    const bool loaded = X509_STORE_load_file(store.get(), file.c_str()) == 1;
    ERR_clear_error();
    return loaded;
  };
  std::string from;
  if (!ca_file_.empty()) {
    // No other in its place: it may be there to trust fewer.
    if (!load(ca_file_)) {
      return Status(Tag::kTlsNoCa, ca_variable_ + "=" + ca_file_ +
                                       " cannot be read or holds no PEM certificate; correct it, "
                                       "or unset it to use the machine's certificates");
    }
    from = ca_variable_ + "=" + ca_file_;
  } else {
    for (const std::string& place : ca_places_) {
      if (!FileExists(place) || !load(place)) continue;
      from = place;
      break;
    }
  }
  if (!ca_extra_file_.empty()) {
    const bool loaded = load(ca_extra_file_);
    if (!loaded && from.empty()) {
      return Status(Tag::kTlsNoCa, "NODE_EXTRA_CA_CERTS=" + ca_extra_file_ +
                                       " cannot be read or holds no PEM certificate, and this "
                                       "machine has no others; correct it");
    }
    if (!from.empty()) from += loaded ? " and " : ", but not from ";
    from += "NODE_EXTRA_CA_CERTS=" + ca_extra_file_;
  }
  if (from.empty()) {
    std::string places;
    for (const std::string& place : ca_places_) places += (places.empty() ? "" : ", ") + place;
    return Status(Tag::kTlsNoCa,
                  "no CA certificates to check the server with; looked for " + places +
                      "; install the package ca-certificates, or set SSL_CERT_FILE to a file of "
                      "PEM certificates");
  }
  // As libcurl does: an intermediate or a server's own certificate may be the trusted one.
  X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN);
  pool.trusted = store.release();
  pool.trusted_from = from;
  return Status::Ok();
}

Result<HttpResponse> CurlClient::Perform(Pool& pool, Slot& slot, const HttpRequest& request,
                                         const std::string& doing, int64_t timeout_ms) {
  CURL* const easy = slot.easy;
  Transfer transfer{.request = request, .pool = pool, .easy = easy};
  std::array<char, CURL_ERROR_SIZE> reason{};
  HeaderList headers;
  // What libcurl would add by itself, unless asked for.
  std::vector<std::string> unasked = {"accept", "content-type", "expect"};
  for (const auto& [name, value] : request.headers) {
    headers.Add(value.empty() ? name + ";" : name + ": " + value);
    std::erase(unasked, LowerCase(name));
  }
  for (const std::string& name : unasked) headers.Add(name + ":");

  const auto set = [easy](CURLoption option, auto value) { curl_easy_setopt(easy, option, value); };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_PATH_AS_IS, 1L);  // a key may hold "..", and is signed as it is
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_HTTPHEADER, headers.list);
  set(CURLOPT_USERAGENT, user_agent_.c_str());
  // Neither is empty in libcurl's eyes: an unset one it would look up in the environment, from this
  // thread, while the host may be changing it.
  const bool tls = slot.origin.starts_with("https:");
  set(CURLOPT_PROXY, request.direct ? "" : (tls ? https_proxy_ : http_proxy_).c_str());
  set(CURLOPT_NOPROXY, no_proxy_.c_str());
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);  // a hanging name lookup is left behind, not waited for
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout_ms));
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::min(timeout_ms, kConnectTimeoutMs)));
  set(CURLOPT_ERRORBUFFER, reason.data());
  set(CURLOPT_PREREQFUNCTION, &Transfer::BeforeSending);
  set(CURLOPT_PREREQDATA, &transfer);
  set(CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  set(CURLOPT_HEADERDATA, &transfer);
  set(CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
  set(CURLOPT_WRITEDATA, &transfer);
  if (tls) {
    set(CURLOPT_SSL_CTX_FUNCTION, &Transfer::OnTls);
    set(CURLOPT_SSL_CTX_DATA, &transfer);
  }
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (!request.body.empty() || request.method == "PUT" || request.method == "POST") {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    set(CURLOPT_POSTFIELDS, request.body.empty() ? "" : request.body.data());
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  } else if (request.method != "GET") {
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }

  CURLcode code = CURLE_ABORTED_BY_CALLBACK;
  bool done = false;
  bool cancelled = false;
  bool broken = curl_multi_add_handle(slot.multi, easy) != CURLM_OK;
  while (!done && !cancelled && !broken) {
    int running = 0;
    {
      const SignalsBlocked blocked;
      broken = curl_multi_perform(slot.multi, &running) != CURLM_OK;
    }
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(slot.multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      code = message->data.result;
      done = true;
    }
    if (done || broken) break;
    const int64_t until_cancel_ms = cancel_at_ms_.load() - clock_.MonotonicMs();
    cancelled = until_cancel_ms <= 0;
    if (cancelled) break;
    const auto wait_ms = static_cast<int>(std::min(until_cancel_ms, kPollMsMax));
    broken = curl_multi_poll(slot.multi, nullptr, 0, wait_ms, nullptr) != CURLM_OK;
  }
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  curl_multi_remove_handle(slot.multi, easy);
  curl_easy_reset(easy);

  if (done && code == CURLE_OK) {
    transfer.response.status = static_cast<int>(status);
    return std::move(transfer.response);
  }
  const auto failed = [&](Tag tag, const std::string& why, bool retryable) {
    return Status(tag, doing + ": " + why, retryable);
  };
  if (transfer.out_of_memory) throw std::bad_alloc();
  if (transfer.too_long) {
    return failed(Tag::kStoreUnreachable,
                  "the answer is longer than " + std::to_string(request.body_bytes_max) + " bytes",
                  false);
  }
  if (done && (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)) {
    return failed(Tag::kBadUrl, curl_easy_strerror(code), false);
  }
  std::string why = reason[0] ? reason.data() : curl_easy_strerror(code);
  if (cancelled) why = "cancelled: the program is closing";
  if (transfer.sent > 0) {
    if (done && code == CURLE_ABORTED_BY_CALLBACK) why = "the connection ended without an answer";
    return failed(Tag::kOutcomeUnknown, why, true);
  }
  // The second also stands for a peer that hung up; it is what a CA of the same name but another
  // key comes to.
  const bool refused = done && code == CURLE_PEER_FAILED_VERIFICATION;
  if (refused || (done && code == CURLE_SSL_CONNECT_ERROR)) {
    why += " (trusted are the CA certificates of " + pool.trusted_from + ")";
  }
  return failed(Tag::kStoreUnreachable, why, !refused && !cancelled);
}

std::string HttpLibraryVersions() {
  return std::string("OpenSSL ") + OpenSSL_version(OPENSSL_VERSION_STRING) + ", curl " +
         curl_version_info(CURLVERSION_NOW)->version;
}

}  // namespace guildlite
