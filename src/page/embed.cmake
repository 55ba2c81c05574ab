# cmake -DFOLDER=web/dist -DOUTPUT=page_data.h -P embed.cmake
#
# The page's files as a C++ header: each compressed, with a hash of what it was.
cmake_minimum_required(VERSION 3.25)

set(files
  "index.html|/|text/html\; charset=utf-8"
  "app.js|/page/app.js|text/javascript\; charset=utf-8"
  "style.css|/page/style.css|text/css\; charset=utf-8"
  "icon.svg|/page/icon.svg|image/svg+xml"
  "licenses.txt|/page/licenses.txt|text/plain\; charset=utf-8")
set(arrays "")
set(table "")
set(number 0)
get_filename_component(scratch ${OUTPUT} DIRECTORY)
file(MAKE_DIRECTORY ${scratch})
foreach(file IN LISTS files)
  string(REPLACE "|" ";" parts "${file}")
  list(GET parts 0 name)
  list(GET parts 1 path)
  list(SUBLIST parts 2 -1 type)
  file(SHA256 ${FOLDER}/${name} hash)
  string(SUBSTRING ${hash} 0 16 hash)
  file(ARCHIVE_CREATE OUTPUT ${scratch}/${name}.gz PATHS ${FOLDER}/${name} FORMAT raw COMPRESSION GZip COMPRESSION_LEVEL 9)
  file(READ ${scratch}/${name}.gz bytes HEX)
  # Bytes 4 to 7 are the time at which it was compressed.
  string(SUBSTRING "${bytes}" 0 8 begin)
  string(SUBSTRING "${bytes}" 16 -1 rest)
  set(bytes "${begin}00000000${rest}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(APPEND arrays "inline constexpr unsigned char kBytes${number}[] = {${bytes}};\n")
  string(APPEND table "    {\"${path}\", \"${type}\", \"${hash}\", {reinterpret_cast<const char*>(kBytes${number}), sizeof(kBytes${number})}},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUTPUT} "#pragma once\n\nnamespace cachalot::page {\n\n${arrays}\ninline const PageFile kPageFiles[] = {\n${table}};\n\n}  // namespace cachalot::page\n")
