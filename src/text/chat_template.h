#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

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

 private:
  struct Deleter {
    void operator()(cachalot_template* handle) const;
  };
  ChatTemplate() = default;

  std::unique_ptr<cachalot_template, Deleter> handle_;
};

}  // namespace cachalot
