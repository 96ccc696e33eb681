# SPDX-License-Identifier: Apache-2.0
# Protobuf and gRPC of the system, and where Google's API protos are.
find_package(Threads REQUIRED)
find_package(Protobuf 3.21 REQUIRED)
find_package(gRPC REQUIRED)
find_program(LIMPID_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)
set(LIMPID_GOOGLEAPIS "${LIMPID_SITE_PACKAGES}")
if(NOT EXISTS "${LIMPID_GOOGLEAPIS}/google/api/annotations.proto")
  message(FATAL_ERROR
    "No google/api protos in ${LIMPID_GOOGLEAPIS}; run scripts/setup first")
endif()

# limpid_proto_library(NAME ROOT dir PROTOS file... [GRPC file...] [DEPS target...])
# Generates C++ for the files (relative to ROOT) and, for those under GRPC, the
# service stubs. Include path: the binary directory.
function(limpid_proto_library name)
  cmake_parse_arguments(ARG "" "ROOT" "PROTOS;GRPC;DEPS" ${ARGN})
  set(out "${CMAKE_CURRENT_BINARY_DIR}/gen")
  file(MAKE_DIRECTORY "${out}")
  set(sources)
  foreach(proto ${ARG_PROTOS})
    string(REGEX REPLACE "\\.proto$" "" base "${proto}")
    set(generated "${out}/${base}.pb.cc" "${out}/${base}.pb.h")
    set(plugin)
    if(proto IN_LIST ARG_GRPC)
      list(APPEND generated "${out}/${base}.grpc.pb.cc" "${out}/${base}.grpc.pb.h")
      set(plugin "--grpc_out=${out}"
                 "--plugin=protoc-gen-grpc=${LIMPID_GRPC_PLUGIN}")
    endif()
    add_custom_command(
      OUTPUT ${generated}
      COMMAND protobuf::protoc "-I${ARG_ROOT}" "-I${PROJECT_SOURCE_DIR}/proto"
              "-I${LIMPID_GOOGLEAPIS}" "--cpp_out=${out}" ${plugin} "${proto}"
      DEPENDS "${ARG_ROOT}/${proto}"
      COMMENT "Generating C++ from ${proto}"
      VERBATIM)
    list(APPEND sources ${generated})
  endforeach()
  add_library(limpid_${name} STATIC ${sources})
  add_library(limpid::${name} ALIAS limpid_${name})
  target_include_directories(limpid_${name} SYSTEM PUBLIC
    "$<BUILD_INTERFACE:${out}>")
  target_link_libraries(limpid_${name} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(limpid_${name} PUBLIC gRPC::grpc++)
  endif()
endfunction()
