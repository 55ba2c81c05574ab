#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/tool_call_parser.h"

struct cachalot_template;  // of the Rust part

namespace cachalot {

// The Jinja chat template of a model folder. Thread-safe.
class ChatTemplate {
 public:
  // From tokenizer_config.json's chat_template (a string, or a list with one named "default") or chat_template.jinja;
  // or ours, where config.json names a model that is published with none. kNotFound: neither.
  static Result<std::unique_ptr<ChatTemplate>> load(const std::string& model_folder);
  // A file's, or one that is written out (it has "{{" or "{%" or a line break in it), with the tokens of the folder.
  static Result<std::unique_ptr<ChatTemplate>> from_file_or_text(const std::string& file_or_text,
                                                                 const std::string& tokenizer_folder);
  static Result<std::unique_ptr<ChatTemplate>> from_source(std::string_view source, std::string_view bos_token,
                                                           std::string_view eos_token);

  // `context_json`: an object with messages, and whatever else the template reads (tools, add_generation_prompt, ...);
  // bos_token and eos_token are added. Errors: the template's own raise_exception() and missing fields,
  // kInvalidArgument.
  Result<std::string> render(std::string_view context_json) const;

  // How the model that it was written for calls tools, by what stands in it; null: it cannot, or not in a known way.
  const ToolCallSyntax* tool_calls() const { return tool_calls_; }
  // Messages in the form that this template reads. Calls (arguments as strings, contents perhaps empty): some want
  // arguments as objects, some show calls only beside a content that is null; found by trying, when it is loaded. And
  // what a developer says is the system's, where the template knows no such role.
  boost::json::array messages_as_wanted(const boost::json::array& messages) const;
  // What the code beside a model's tokenizer does to what its template is given: Kimi's sorts the tools, declares them
  // in TypeScript and names switches. `context`: with messages, tools and whatever the request says.
  void complete(boost::json::object& context) const;
  // One of ours knows a form of the answer, too: `response_format`, a JSON schema.
  bool is_own() const { return is_own_; }

 private:
  struct Deleter {
    void operator()(cachalot_template* handle) const;
  };
  ChatTemplate() = default;
  void try_calls();

  std::unique_ptr<cachalot_template, Deleter> handle_;
  const ToolCallSyntax* tool_calls_ = nullptr;
  bool wants_objects_ = false, wants_null_ = false, is_own_ = false;
  bool sorts_tools_ = false, reads_typescript_ = false;
};

}  // namespace cachalot
