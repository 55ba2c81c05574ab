#pragma once

#include <boost/json/array.hpp>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "http/client.h"
#include "openai/api_address.h"

namespace cachalot {

struct ChatOptions {
  std::string url;
  std::string model;  // empty: the server's first
  std::string api_key;
  std::string system;
  std::optional<double> temperature;
  std::optional<int> max_tokens;
};

// A conversation with any server that speaks OpenAI's API. ask() belongs to one thread; stop() to any.
class ChatSession {
 public:
  enum class Part { kReasoning, kContent };
  using Sink = std::function<void(Part part, std::string_view text)>;

  // Borrows the threads.
  ChatSession(const http::IoThreads& threads, ChatOptions options);

  // Finds out the model's name if none was given, and that the server is there.
  Status connect();
  const std::string& model() const { return options_.model; }

  // Streams the answer into the sink; gives the reason why it ended ("stop", "length", ...). An answer that was stopped
  // ends with kCancelled; what came of it stays in the conversation.
  Result<std::string> ask(std::string_view text, const Sink& sink);
  void stop();
  // Forgets what was said.
  void reset();

 private:
  // What has come of one answer.
  struct Answer {
    std::string content, finish;
    bool done = false;
  };

  http::awaitable<Status> stream(http::ClientRequest request, const Sink& sink, Answer& answer) const;
  Status take_event(const std::string& data, const Sink& sink, Answer& answer) const;

  const http::IoThreads& threads_;
  http::Client client_;
  ChatOptions options_;
  const openai::ApiAddress address_;
  boost::json::array messages_;

  std::mutex mutex_;  // guards what stop() needs
  std::optional<http::Running<Status>> running_;
};

}  // namespace cachalot
