# SPDX-License-Identifier: Apache-2.0
# Language level, build type, warnings, sanitizers and where binaries go.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
# -O2 without -DNDEBUG surprises: assertions of ours are cheap and stay on in
# every build but Release.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

add_library(limpid_options INTERFACE)
target_compile_options(limpid_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${LIMPID_WERROR}>>:-Werror>)
target_include_directories(limpid_options INTERFACE "${PROJECT_SOURCE_DIR}")

if(LIMPID_SANITIZE)
  add_compile_options(
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LIMPID_SANITIZE}>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=undefined>)
  add_link_options(-fsanitize=${LIMPID_SANITIZE})
endif()
