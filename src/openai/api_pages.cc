#include "openai/api_pages.h"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <utility>

#include "base/text.h"
#include "config/json.h"
#include "openai/api_document.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr std::string_view kNoEmbeddings =
    "embeddings are not served here: the model writes text, and gives no vectors";
constexpr std::string_view kNoPictures = "images are not served here: the model reads and writes text";
constexpr std::string_view kNoSound = "audio is not served here: the model reads and writes text";
constexpr std::string_view kNoScores = "scores of texts are not served here: the model writes text";
constexpr std::string_view kNoFiles = "files and batches are not kept here: send each request by itself";

constexpr std::pair<std::string_view, std::string_view> kAbsent[] = {
    {"/v1/embeddings", kNoEmbeddings},
    {"/v1/images/", kNoPictures},
    {"/v1/videos", kNoPictures},
    {"/v1/audio/", kNoSound},
    {"/v1/realtime", kNoSound},
    {"/v1/moderations", kNoScores},
    {"/v1/rerank", kNoScores},
    {"/v1/score", kNoScores},
    {"/v1/files", kNoFiles},
    {"/v1/uploads", kNoFiles},
    {"/v1/batches", kNoFiles},
    {"/v1/messages/batches", kNoFiles},
    {"/v1/vector_stores", kNoFiles},
    {"/v1/fine_tuning/", "models are not trained here"},
    {"/v1/assistants", "assistants and threads are not kept here: /v1/responses goes on with stored responses"},
    {"/v1/threads", "assistants and threads are not kept here: /v1/responses goes on with stored responses"},
    {"/v1/conversations", "conversations are not kept here: /v1/responses goes on with stored responses"},
    {"/v1/complete", "Anthropic's older completions are not served here: use /v1/messages"},
};

std::string escaped(std::string_view text) {
  std::string html;
  for (const char byte : text) {
    if (byte == '<')
      html += "&lt;";
    else if (byte == '&')
      html += "&amp;";
    else
      html += byte;
  }
  return html;
}

std::string_view text_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string_view(value->get_string()) : std::string_view();
}

// A field's type and bounds, as short as can be.
std::string kind_of(const json::object& field) {
  const auto words = [](const json::value& value) {
    std::string list;
    if (!value.is_array()) return json_text(value);
    for (const json::value& item : value.get_array())
      if (!item.is_null() && item != json::value("null")) list += (list.empty() ? "" : ", ") + json_text(item);
    return list;
  };
  std::string kind;
  for (const char* key : {"$ref", "type", "enum", "const"})
    if (const json::value* value = field.if_contains(key)) kind += (kind.empty() ? "" : ": ") + words(*value);
  for (const char* key : {"minimum", "exclusiveMinimum", "maximum", "default"})
    if (const json::value* value = field.if_contains(key)) kind += fmt::format("; {} {}", key, json_text(*value));
  std::erase(kind, '"');
  return kind;
}

std::string table_of(const json::object& schema) {
  const json::value* fields = schema.if_contains("properties");
  if (!fields) return "";
  std::string rows;
  for (const auto& [name, value] : fields->as_object()) {
    const json::object& field = value.as_object();
    rows +=
        fmt::format("<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td></tr>\n",
                    escaped(std::string_view(name)), escaped(kind_of(field)), escaped(text_of(field, "description")));
  }
  return "<table><thead><tr><th>Field</th><th>Kind</th><th></th></tr></thead><tbody>\n" + rows + "</tbody></table>\n";
}

std::string page_of(const json::object& document) {
  std::string paths, schemas;
  for (const auto& [path, operations] : document.at("paths").as_object())
    for (const auto& [method, operation] : operations.as_object()) {
      const json::object& known = operation.as_object();
      std::string body;
      if (const json::value* request = known.if_contains("requestBody")) {
        const std::string_view ref = request->at("content").at("application/json").at("schema").at("$ref").as_string();
        const std::string_view name = ref.substr(ref.rfind('/') + 1);
        body = fmt::format(" <a href=\"#{}\">{}</a>", name, name);
      }
      std::string upper(method);
      for (char& letter : upper) letter = static_cast<char>(letter - 'a' + 'A');
      paths += fmt::format("<tr><td>{}</td><th scope=\"row\"><code>{}</code></th><td>{}.{}</td></tr>\n", upper,
                           escaped(std::string_view(path)), escaped(text_of(known, "summary")), body);
    }
  for (const auto& [name, schema] : document.at("components").at("schemas").as_object())
    if (const std::string table = table_of(schema.as_object()); !table.empty())
      schemas += fmt::format("<h2 id=\"{0}\">{0}</h2>\n{1}", std::string_view(name), table);
  const json::object& info = document.at("info").as_object();
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}: API</title>\n"
      "<meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" "
      "href=\"/docs/style.css\"></head>\n"
      "<body><main><h1>{0} {1}</h1>\n<p>{2}</p>\n<p><a href=\"/openapi.json\">openapi.json</a></p>\n"
      "<table><tbody>\n{3}</tbody></table>\n{4}</main></body></html>\n",
      escaped(text_of(info, "title")), escaped(text_of(info, "version")), escaped(text_of(info, "description")), paths,
      schemas);
}

json::value document_of(std::string_view version) {
  json::value document = json::parse(kApiDocument);
  document.as_object().at("info").as_object()["version"] = version;
  return document;
}

}  // namespace

std::string api_document(std::string_view version) {
  return json_text(document_of(version));
}

std::string api_page(std::string_view version) {
  return page_of(document_of(version).as_object());
}

std::string_view api_page_style() {
  return ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0}"
         "main{max-width:60rem;margin:0 auto;padding:1rem}table{border-collapse:collapse;width:100%}"
         "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid "
         "#8884;font-weight:normal}"
         "code{font-size:.95em}h2{margin-top:2rem}";
}

std::string_view reason_for_absence(std::string_view path) {
  for (const auto& [prefix, reason] : kAbsent)
    if (path.starts_with(prefix) &&
        (prefix.ends_with('/') || path.size() == prefix.size() || path[prefix.size()] == '/'))
      return reason;
  return {};
}

}  // namespace cachalot::openai
