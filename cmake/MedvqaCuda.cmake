# Which CUDA compiler there is, and whether MEDVQA_CUDA = AUTO means yes: the compiler given, nvcc
# in PATH, in .cuda (scripts/install_cuda.sh), or in NVIDIA's own place.

macro(medvqa_find_cuda)
  if(MEDVQA_CUDA AND NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(MEDVQA_NVCC nvcc PATHS ${CUDAToolkit_ROOT}/bin ENV CUDA_PATH
                 ${PROJECT_SOURCE_DIR}/.cuda/toolkit/bin /usr/local/cuda/bin)
    if(MEDVQA_NVCC)
      set(ENV{CUDACXX} ${MEDVQA_NVCC})
    endif()
  endif()
  if(MEDVQA_CUDA STREQUAL "AUTO")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER}")
      set(MEDVQA_CUDA ON)
    else()
      message(STATUS "CUDA: no nvcc found, building for the CPU only "
                     "(scripts/install_cuda.sh brings one)")
      set(MEDVQA_CUDA OFF)
    endif()
  endif()
endmacro()
