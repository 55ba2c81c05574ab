# Headers that are compiled once. Most of a first build goes into the same few headers; each of the programs and libraries
# takes one of these instead. Only headers of other projects: one of ours would compile the whole tree anew at each change.
function(cachalot_precompiled name)
  file(WRITE ${CMAKE_BINARY_DIR}/precompiled/${name}.cc "")
  add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/precompiled/${name}.cc)
  target_link_libraries(${name} PRIVATE ${ARGN})
endfunction()

set(standard <algorithm> <array> <atomic> <chrono> <condition_variable> <cstdint> <cstring> <expected> <functional> <limits>
  <map> <memory> <mutex> <numeric> <optional> <span> <string> <string_view> <thread> <unordered_map> <utility> <variant>
  <vector> <fmt/format.h> <fmt/ranges.h>)
set(network <boost/json.hpp> <boost/asio/as_tuple.hpp> <boost/asio/co_spawn.hpp> <boost/asio/detached.hpp>
  <boost/asio/ip/tcp.hpp> <boost/asio/post.hpp> <boost/asio/steady_timer.hpp> <boost/asio/use_awaitable.hpp>)

cachalot_precompiled(cachalot_headers cachalot_flags)
target_precompile_headers(cachalot_headers PRIVATE ${standard} <boost/json.hpp>)
cachalot_precompiled(cachalot_network_headers cachalot_flags)
target_precompile_headers(cachalot_network_headers PRIVATE ${standard} ${network})
if(CACHALOT_TESTS)
  cachalot_precompiled(cachalot_network_test_headers cachalot_test_flags)
  target_precompile_headers(cachalot_network_test_headers PRIVATE ${standard} ${network} <gmock/gmock.h>)
endif()
