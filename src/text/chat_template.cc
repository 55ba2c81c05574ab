#include "text/chat_template.h"

#include "base/file.h"
#include "text/folder_config.h"
#include "text/rust_bridge.h"

namespace cachalot {

void ChatTemplate::Deleter::operator()(cachalot_template* handle) const {
  cachalot_template_free(handle);
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::load(const std::string& model_folder) {
  ASSIGN_OR_RETURN(TokenizerConfig config, load_tokenizer_config(model_folder));
  if (!config.chat_template) {
    return make_error(ErrorCode::kNotFound,
                      "{}: no chat template, neither as chat_template in tokenizer_config.json nor as "
                      "chat_template.jinja",
                      model_folder);
  }
  Result<std::unique_ptr<ChatTemplate>> chat_template =
      from_source(*config.chat_template, config.bos_token, config.eos_token);
  if (!chat_template) chat_template.error().message.insert(0, config.template_file + ": ");
  return chat_template;
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::from_file_or_text(const std::string& file_or_text,
                                                                      const std::string& tokenizer_folder) {
  ASSIGN_OR_RETURN(const TokenizerConfig config, load_tokenizer_config(tokenizer_folder));
  const bool is_text = file_or_text.contains("{{") || file_or_text.contains("{%") || file_or_text.contains('\n');
  std::string source = file_or_text;
  if (!is_text) {
    ASSIGN_OR_RETURN(source, read_file(file_or_text));
  }
  Result<std::unique_ptr<ChatTemplate>> chat_template = from_source(source, config.bos_token, config.eos_token);
  if (!chat_template && !is_text) chat_template.error().message.insert(0, file_or_text + ": ");
  return chat_template;
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::from_source(std::string_view source, std::string_view bos_token,
                                                                std::string_view eos_token) {
  std::unique_ptr<ChatTemplate> chat_template(new ChatTemplate);
  cachalot_template* handle = nullptr;
  std::string error;
  const cachalot_text_status status =
      cachalot_template_new(as_view(source), as_view(bos_token), as_view(eos_token), &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, "chat template", error));
  chat_template->handle_.reset(handle);
  return chat_template;
}

Result<std::string> ChatTemplate::render(std::string_view context_json) const {
  std::string text, error;
  const cachalot_text_status status =
      cachalot_template_render(handle_.get(), as_view(context_json), sink_into(text), sink_into(error));
  RETURN_IF_ERROR(to_status(status, "chat template", error));
  return text;
}

}  // namespace cachalot
