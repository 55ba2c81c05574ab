#include "page/page_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "page/page_data.h"

namespace cachalot::page {

namespace {

// Of what the page may load and ask: its own files, and the server that it came from.
constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify";

// "gzip;q=0" refuses it; where nothing is said, all is taken.
bool takes_gzip(const http::Request& request) {
  const auto field = request.headers.find("Accept-Encoding");
  if (!field) return true;
  for (const std::string_view name : {"gzip", "*"})
    if (const size_t at = field->find(name); at != field->npos)
      return !field->substr(at + name.size()).starts_with(";q=0") ||
             field->substr(at + name.size()).starts_with(";q=0.");
  return false;
}

http::Response answer(const PageFile& file, const http::Request& request) {
  const std::string tag = fmt::format("\"{}\"", file.hash);
  // The document names the others with their hashes, and is asked for anew each time.
  const bool is_fixed = request.target.ends_with(fmt::format("?v={}", file.hash));
  http::Response response{200,
                          {{"Content-Type", std::string(file.content_type)},
                           {"ETag", tag},
                           {"Cache-Control", is_fixed ? "public, max-age=31536000, immutable" : "no-cache"},
                           {"Vary", "Accept-Encoding"},
                           {"Content-Security-Policy", std::string(kPolicy)},
                           {"X-Content-Type-Options", "nosniff"},
                           {"Referrer-Policy", "no-referrer"},
                           {"Cross-Origin-Opener-Policy", "same-origin"},
                           {"Cross-Origin-Resource-Policy", "same-origin"},
                           {"Permissions-Policy", "camera=(), geolocation=(), microphone=()"}},
                          {}};
  if (request.headers.find("If-None-Match").value_or("").find(tag) != std::string_view::npos) {
    response.status = 304;
  } else if (takes_gzip(request)) {
    response.headers.add("Content-Encoding", "gzip");
    response.body = file.gzip;
  } else {
    response.status = 406;
    response.body = "the page is sent in gzip alone\n";
  }
  return response;
}

}  // namespace

std::span<const PageFile> page_files() {
  return kPageFiles;
}

bool is_page(std::string_view path) {
  return std::ranges::find(kPageFiles, path, &PageFile::path) != std::end(kPageFiles);
}

void register_page(http::Server& server) {
  for (const PageFile& file : kPageFiles)
    server.route("GET", std::string(file.path),
                 [&file](const http::Request& request) { return answer(file, request); });
}

}  // namespace cachalot::page
