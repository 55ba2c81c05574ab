# The libraries that Cachalot stands on, all from Debian's packages (scripts/install_packages.sh) but one: third_party/raft.
find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS json)
find_package(OpenSSL REQUIRED COMPONENTS Crypto SSL)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_library(LIBEDIT_LIBRARY edit REQUIRED)  # libedit-dev: lines that are typed at `cachalot chat`
find_package(prometheus-cpp REQUIRED CONFIG)
find_package(ucx 1.13 REQUIRED CONFIG)
if(CACHALOT_TESTS)
  find_package(GTest REQUIRED)
  find_package(ZLIB REQUIRED)  # compressed fixtures
endif()

add_library(cachalot_flags INTERFACE)
target_include_directories(cachalot_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(cachalot_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wno-missing-field-initializers -fno-math-errno -ffp-contract=off)
# The same for all, so that all can share precompiled headers.
target_compile_definitions(cachalot_flags INTERFACE
  SPDLOG_FMT_EXTERNAL $<TARGET_PROPERTY:Boost::json,INTERFACE_COMPILE_DEFINITIONS>)
target_link_libraries(cachalot_flags INTERFACE Boost::headers fmt::fmt Threads::Threads)
if(CACHALOT_TESTS)
  # Tests are compiled at -O1, in half of the time that -O2 takes; what they test stays as it is.
  add_library(cachalot_test_flags INTERFACE)
  target_link_libraries(cachalot_test_flags INTERFACE cachalot_flags GTest::gmock GTest::gtest)
  target_compile_options(cachalot_test_flags INTERFACE $<$<CONFIG:Release>:-O1>)
endif()
set(sanitizers "")
if(CACHALOT_SANITIZE OR CACHALOT_FUZZ)
  set(sanitizers -fsanitize=address,undefined)
elseif(CACHALOT_THREADS)
  set(sanitizers -fsanitize=thread -Wno-tsan)  # it does not know fences, which only stand between atomics here
endif()
if(sanitizers)
  target_compile_options(cachalot_flags INTERFACE ${sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(cachalot_flags INTERFACE ${sanitizers})
  if(NOT CACHALOT_FUZZ)
    target_compile_options(cachalot_flags INTERFACE -O1 -g1)  # half of the time to compile; enough for their reports
  endif()
endif()
if(CACHALOT_FUZZ)
  target_compile_options(cachalot_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
