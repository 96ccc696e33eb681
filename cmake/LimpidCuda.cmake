# SPDX-License-Identifier: Apache-2.0
# Decides whether this is a CUDA build: LIMPID_WITH_CUDA.
set(LIMPID_WITH_CUDA OFF)
if(NOT LIMPID_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(LIMPID_WITH_CUDA ON)
  elseif(LIMPID_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LIMPID_CUDA=ON, but no CUDA compiler (nvcc) was found")
  endif()
endif()
if(LIMPID_WITH_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90 CACHE STRING
        "GPU architectures: machine code for A100 and H100, PTX for newer")
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  # CMake 3.25 deprecates this target whether it exists or not; CUDA 13 has no
  # such library.
  if(NOT TARGET CUDA::nvToolsExt)
    add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
  endif()
  find_package(CUDAToolkit REQUIRED)
endif()
message(STATUS "limpid: CUDA kernels ${LIMPID_WITH_CUDA}")
