#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <map>
#include <string>
#include <string_view>

namespace cachalot::openai {

// The string under a key; empty: there is none.
std::string_view text_at(const boost::json::object& object, std::string_view key);

// Writes the messages of a conversation for protocols that tell them in smaller parts. What an assistant thought, said
// and called in a row is one message, as templates want it. Borrows the messages.
class Transcript {
 public:
  explicit Transcript(boost::json::array& messages) : messages_(messages) {}

  // What is said in a row is one message. Behind the beginning there is no system's message: of several, templates show
  // the last one, or all in front of what was computed, or fail; what comes later is said as by the user.
  void say_as_system(std::string_view text);
  void say_as_user(std::string_view text);
  void think(std::string_view thought);
  void answer(std::string_view text);
  // `arguments`: a text of JSON.
  void call(std::string_view id, std::string_view name, std::string_view arguments);
  void give_result(std::string_view call_id, std::string_view text);

 private:
  void say(std::string_view role, std::string_view text);
  // The assistant's message that goes on; else a new one. `is_silent`: it has neither said nor called anything.
  boost::json::object& assistant(bool is_silent);

  boost::json::array& messages_;
  std::map<std::string, std::string, std::less<>> names_;  // of what was called, by the calls' ids
};

}  // namespace cachalot::openai
