#include "tests/support/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

namespace guildlite {
namespace {

constexpr size_t kHeadBytesMax = 64 * 1024;

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Up to the next CRLF, which is taken too.
std::string_view TakeLine(std::string_view& text) {
  const size_t end = text.find("\r\n");
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
  return line;
}

// False: it is no HTTP/1.1.
bool ParseHead(std::string_view head, TestHttpServer::Request& request) {
  std::string_view line = TakeLine(head);
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || last <= first + 1 || line.substr(last + 1) != "HTTP/1.1") {
    return false;
  }
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, last - first - 1);
  while (!head.empty()) {
    line = TakeLine(head);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) return false;
    request.headers.emplace_back(LowerCase(line.substr(0, colon)), Trim(line.substr(colon + 1)));
  }
  return request.Header("transfer-encoding").empty();
}

std::string Hex(size_t n) {
  char text[24];
  std::snprintf(text, sizeof text, "%zx", n);
  return text;
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

}  // namespace

void Gate::Open() {
  const std::lock_guard lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

void Gate::Wait() {
  std::unique_lock lock(mutex_);
  ++arrivals_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return open_; });
}

void Gate::AwaitArrivals(int n) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return arrivals_ >= n; });
}

std::string_view TestHttpServer::Request::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

// The bytes of one connection: the only place that knows the socket.
class TestHttpServer::Stream {
 public:
  // TLS where a context is given.
  Stream(int fd, SSL_CTX* tls) : fd_(fd) {
    if (!tls) return;
    // SSL_write has no MSG_NOSIGNAL; what is pending ends with this thread.
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    tls_.reset(SSL_new(tls));
    SSL_set_fd(tls_.get(), fd);
    broken_ = SSL_accept(tls_.get()) != 1;
  }

  // Up to and without the empty line; nullopt when the connection ends or too much comes before.
  std::optional<std::string> ReadHead() {
    size_t end;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (buffer_.size() > kHeadBytesMax || !Fill()) return std::nullopt;
    }
    std::string head = buffer_.substr(0, end);
    buffer_.erase(0, end + 4);
    return head;
  }

  // False when the connection ends before.
  bool ReadBody(size_t size, std::string& body) {
    while (buffer_.size() < size) {
      if (!Fill()) return false;
    }
    body = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return true;
  }

  // Says that no more will come, and reads on until the client has seen it: to close over unread
  // bytes would reset the connection, and may take the answer with it.
  void EndAnswer() {
    shutdown(fd_, SHUT_WR);
    while (Fill()) buffer_.clear();
  }

  // Passes bytes to and fro until one end has no more. The proxy's own side is never TLS.
  void Tunnel(uint16_t port) {
    const sockaddr_in address = Loopback(port);
    const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(other, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      const auto pass = [](int from, int to) {
        char chunk[16 * 1024];
        const ssize_t n = recv(from, chunk, sizeof chunk, 0);
        return n > 0 && send(to, chunk, static_cast<size_t>(n), MSG_NOSIGNAL) == n;
      };
      pollfd ends[2] = {{fd_, POLLIN, 0}, {other, POLLIN, 0}};
      bool open = true;
      while (open && poll(ends, 2, -1) > 0) {
        if (ends[0].revents != 0) open = pass(fd_, other);
        if (open && ends[1].revents != 0) open = pass(other, fd_);
      }
    }
    close(other);
  }

  bool Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = tls_ ? SSL_write(tls_.get(), bytes.data(), static_cast<int>(bytes.size()))
                             : send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

 private:
  bool Fill() {
    char chunk[64 * 1024];
    if (broken_) return false;
    const ssize_t n =
        tls_ ? SSL_read(tls_.get(), chunk, sizeof chunk) : recv(fd_, chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    buffer_.append(chunk, static_cast<size_t>(n));
    return true;
  }

  const int fd_;
  std::unique_ptr<SSL, decltype(&SSL_free)> tls_{nullptr, SSL_free};
  bool broken_ = false;
  std::string buffer_;  // read and not yet taken
};

TestHttpServer::TestHttpServer(Handler handler, HeadHandler on_head, std::shared_ptr<SSL_CTX> tls)
    : handler_(std::move(handler)), on_head_(std::move(on_head)), tls_(std::move(tls)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  if (listener_ < 0 || bind(listener_, name, size) != 0 || listen(listener_, 128) != 0 ||
      getsockname(listener_, name, &size) != 0) {
    std::perror("TestHttpServer");
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

TestHttpServer::~TestHttpServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& gate : gates_) gate->Open();
  }
  shutdown(listener_, SHUT_RDWR);  // wakes accept
  acceptor_.join();
  CloseConnections();
  {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return open_.empty(); });
  }
  close(listener_);
}

std::string TestHttpServer::url() const {
  return (tls_ ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(port_);
}

void TestHttpServer::CloseNextConnections(int n) {
  const std::lock_guard lock(mutex_);
  close_next_ = n;
}

void TestHttpServer::CloseConnections() {
  const std::lock_guard lock(mutex_);
  for (const int fd : open_) shutdown(fd, SHUT_RDWR);
}

int TestHttpServer::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

int TestHttpServer::open() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(open_.size());
}

int TestHttpServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void TestHttpServer::Accept() {
  for (;;) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      if (fd >= 0) close(fd);
      return;
    }
    if (fd < 0) continue;
    ++connections_;
    if (close_next_ > 0) {
      --close_next_;
      close(fd);
      continue;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    open_.insert(fd);
    std::thread([this, fd] { Serve(fd); }).detach();
  }
}

void TestHttpServer::Serve(int fd) {
  {
    Stream stream(fd, tls_.get());
    while (ServeOne(stream)) {
    }
  }
  const std::lock_guard lock(mutex_);
  open_.erase(fd);
  close(fd);
  ended_.notify_all();
}

// One request and its answer; false when the connection is over.
bool TestHttpServer::ServeOne(Stream& stream) {
  const auto head = stream.ReadHead();
  if (!head) return false;
  Request request;
  if (!ParseHead(*head, request)) {
    ADD_FAILURE() << "no HTTP/1.1 as this server has it:\n" << *head;
    return false;
  }
  if (on_head_) {
    if (const auto reply = on_head_(request)) {
      {
        const std::lock_guard lock(mutex_);
        ++requests_;
      }
      if (Answer(stream, request, *reply)) stream.EndAnswer();
      return false;
    }
  }
  if (LowerCase(request.Header("expect")) == "100-continue" &&
      !stream.Write("HTTP/1.1 100 Continue\r\n\r\n")) {
    return false;
  }
  const std::string length(request.Header("content-length"));
  if (!stream.ReadBody(std::strtoull(length.c_str(), nullptr, 10), request.body)) return false;
  {
    const std::lock_guard lock(mutex_);
    ++requests_;
  }
  return Answer(stream, request, handler_(request)) &&
         LowerCase(request.Header("connection")) != "close";
}

// False when the connection is over.
bool TestHttpServer::Answer(Stream& stream, const Request& request, const Reply& reply) {
  if (reply.gate && !PassGate(reply.gate)) return false;
  if (reply.close_before_answering) return false;
  const bool bare = request.method == "HEAD" || reply.status == 204 || reply.status == 304;
  std::string text = "HTTP/1.1 " + std::to_string(reply.status) + " Status\r\n";
  bool has_length = reply.chunked || reply.status == 204;
  bool keep = true;
  for (const auto& [name, value] : reply.headers) {
    text += name + ": " + value + "\r\n";
    has_length = has_length || LowerCase(name) == "content-length";
    if (LowerCase(name) == "connection" && LowerCase(value) == "close") keep = false;
  }
  if (reply.tunnel_to) {
    if (stream.Write(text + "\r\n")) stream.Tunnel(*reply.tunnel_to);
    return false;
  }
  if (reply.chunked) text += "Transfer-Encoding: chunked\r\n";
  if (!has_length) text += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n";
  text += "\r\n";
  if (bare) return stream.Write(text) && keep && !reply.close_after_body_bytes;

  const std::string_view body =
      std::string_view(reply.body)
          .substr(0, reply.close_after_body_bytes.value_or(reply.body.size()));
  if (reply.chunked && !body.empty()) text += Hex(body.size()) + "\r\n";
  text += body;
  if (reply.chunked && !body.empty()) text += "\r\n";
  if (reply.chunked && body.size() == reply.body.size()) text += "0\r\n\r\n";
  return stream.Write(text) && keep && !reply.close_after_body_bytes;
}

// False when the server ends.
bool TestHttpServer::PassGate(const std::shared_ptr<Gate>& gate) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    gates_.push_back(gate);
  }
  gate->Wait();
  const std::lock_guard lock(mutex_);
  return !stopping_;
}

}  // namespace guildlite
