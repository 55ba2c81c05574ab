#pragma once

#include <boost/json/array.hpp>
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
  // From tokenizer_config.json's chat_template (a string, or a list with one named "default") or chat_template.jinja.
  // kNotFound if the folder has none.
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
  // Messages with calls (arguments as strings, contents perhaps empty) in the form that this template reads: some want
  // arguments as objects, some show calls only beside a content that is null. Found by trying, when it is loaded.
  boost::json::array with_calls_as_wanted(const boost::json::array& messages) const;

 private:
  struct Deleter {
    void operator()(cachalot_template* handle) const;
  };
  ChatTemplate() = default;
  void try_calls();

  std::unique_ptr<cachalot_template, Deleter> handle_;
  const ToolCallSyntax* tool_calls_ = nullptr;
  bool wants_objects_ = false, wants_null_ = false;
};

}  // namespace cachalot
