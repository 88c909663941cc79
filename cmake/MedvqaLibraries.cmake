# Third-party libraries, all of them Debian packages (scripts/install_dependencies.sh).

find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(JPEG REQUIRED)
find_package(PNG REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(OpenMP REQUIRED COMPONENTS CXX)

# Debian's libdnnl-dev, libonig-dev, libutf8proc-dev and libcli11-dev bring no usable CMake
# package of one name over all releases, so the library and its header are found directly.
function(medvqa_find_library target header library)
  find_path(${target}_INCLUDE_DIR ${header} REQUIRED)
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${target} SYSTEM INTERFACE ${${target}_INCLUDE_DIR})
  if(library)
    find_library(${target}_LIBRARY ${library} REQUIRED)
    target_link_libraries(${target} INTERFACE ${${target}_LIBRARY})
  endif()
endfunction()

medvqa_find_library(DNNL::dnnl oneapi/dnnl/dnnl.hpp dnnl)
medvqa_find_library(medvqa_onig oniguruma.h onig)
medvqa_find_library(medvqa_utf8proc utf8proc.h utf8proc)
medvqa_find_library(medvqa_cli11 CLI/CLI.hpp "")
