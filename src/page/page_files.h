#pragma once

#include <span>
#include <string_view>

#include "http/server.h"

// The page as files, which the program holds: what web/ builds into web/dist/ (docs/page.md).
namespace cachalot::page {

struct PageFile {
  std::string_view path, content_type, hash;  // of the bytes before they are compressed
  std::string_view gzip;
};

std::span<const PageFile> page_files();

// Whether it is one of the files, which are open to all: they hold nothing of the cluster.
bool is_page(std::string_view path);

void register_page(http::Server& server);

}  // namespace cachalot::page
