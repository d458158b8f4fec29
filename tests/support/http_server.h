// TestHttpServer: HTTP/1.1 on a free port of 127.0.0.1, answering as a test's handler says, or
// breaking off where it says.
//
//   TestHttpServer server([](const TestHttpServer::Request& request) {
//     TestHttpServer::Reply reply;
//     reply.status = request.method == "PUT" ? 200 : 404;
//     return reply;
//   });
//   client.Send({.url = server.url() + "/key"});
//
//   1. The handler gets whole requests, and runs on the thread of its connection: several at a
//      time when there are several connections.
//   2. Connections are kept alive unless the client or the reply says "Connection: close" or a
//      fault ends them. "Expect: 100-continue" is answered before the body is read.
//   3. Nothing sleeps. What must wait, waits on a Gate; what a test must wait for, is counted.
//   4. The destructor opens the gates that are waited on, ends all connections and waits for their
//      threads.
//
// Given a TLS context (test_ca.h) it speaks https; a connection that fails its handshake ends
// there.
//
// It does not speak HTTP/1.0, chunked requests or pipelining, and fails the test (and closes the
// connection) when it is sent something else than HTTP. As a proxy it gets the whole url as target,
// or CONNECT.
#pragma once

#include <openssl/ssl.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "vfs/objects/http_client.h"

namespace guildlite {

// Holds back whoever waits on it until it is opened, for good.
class Gate {
 public:
  void Open();
  void Wait();                // counts an arrival, then waits
  void AwaitArrivals(int n);  // until n have come to Wait(), in all

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int arrivals_ = 0;
};

class TestHttpServer {
 public:
  struct Request {
    std::string method;
    std::string target;   // as sent: "/bucket/a%20b?list-type=2"
    HttpHeaders headers;  // names in lower case
    std::string body;
    std::string_view Header(std::string_view name) const;  // lower case; "" when there is none
  };

  struct Reply {
    int status = 200;
    HttpHeaders headers;   // Content-Length is added unless it is here (then it may lie)
    std::string body;      // not sent to HEAD, nor with 204 and 304
    bool chunked = false;  // Transfer-Encoding: chunked, in place of Content-Length
    // Faults.
    std::shared_ptr<Gate> gate = nullptr;  // waited on before the first byte of the answer
    bool close_before_answering = false;
    // The connection ends after so many bytes of the body, without having said so; with the
    // body's size, after a whole answer.
    std::optional<size_t> close_after_body_bytes = std::nullopt;
    // To CONNECT: what follows goes to this port of 127.0.0.1, and what comes from there, back.
    std::optional<uint16_t> tunnel_to = std::nullopt;
  };

  using Handler = std::function<Reply(const Request&)>;
  // Gets a request of which the body has not been read. A reply is sent in its place, and the
  // connection closed: what S3 does with a put that it refuses by its headers.
  using HeadHandler = std::function<std::optional<Reply>(const Request&)>;

  explicit TestHttpServer(Handler handler, HeadHandler on_head = nullptr,
                          std::shared_ptr<SSL_CTX> tls = nullptr);
  ~TestHttpServer();
  TestHttpServer(const TestHttpServer&) = delete;
  TestHttpServer& operator=(const TestHttpServer&) = delete;

  uint16_t port() const { return port_; }
  std::string url() const;  // "http://127.0.0.1:port", or https

  // The next n connections are closed as soon as they are accepted, nothing read.
  void CloseNextConnections(int n);
  // Ends all connections now, as a server does that has been idle for long.
  void CloseConnections();

  int connections() const;  // accepted so far
  int open() const;         // not ended yet
  int requests() const;     // read so far, whole or (refused by on_head) their headers

 private:
  class Stream;
  void Accept();
  void Serve(int fd);
  bool ServeOne(Stream& stream);
  bool Answer(Stream& stream, const Request& request, const Reply& reply);
  bool PassGate(const std::shared_ptr<Gate>& gate);

  const Handler handler_;
  const HeadHandler on_head_;
  const std::shared_ptr<SSL_CTX> tls_;  // null: http
  int listener_ = -1;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool stopping_ = false;
  int connections_ = 0;
  int requests_ = 0;
  int close_next_ = 0;
  std::set<int> open_;                        // sockets of connections, each with its thread
  std::vector<std::shared_ptr<Gate>> gates_;  // seen so far
  std::condition_variable ended_;             // a connection
  // Last: it uses all of the above.
  std::thread acceptor_;
};

}  // namespace guildlite
