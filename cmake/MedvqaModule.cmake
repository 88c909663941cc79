# How every module is built: one static library a module, the same flags everywhere.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

find_program(MEDVQA_CCACHE ccache)
if(MEDVQA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MEDVQA_CCACHE})
endif()

add_library(medvqa_flags INTERFACE)
target_compile_options(medvqa_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow)
if(MEDVQA_WARNINGS_AS_ERRORS)
  target_compile_options(medvqa_flags INTERFACE -Werror)
endif()
# gcc 12 takes std::string's own copies for overlapping at -O3 (its bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(medvqa_flags INTERFACE -Wno-restrict)
endif()
# Bit equality with the reference stack decides where products and sums are fused: nowhere, unless
# std::fma says so. Math functions set no errno, so that loops over them vectorise.
target_compile_options(medvqa_flags INTERFACE -ffp-contract=off -fno-math-errno -fno-trapping-math)
target_include_directories(medvqa_flags INTERFACE ${PROJECT_SOURCE_DIR}/include
                                                  ${PROJECT_SOURCE_DIR})
if(MEDVQA_SANITIZE)
  target_compile_options(medvqa_flags INTERFACE -fsanitize=address,undefined
                         -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(medvqa_flags INTERFACE -fsanitize=address,undefined)
  # gcc warns of what it cannot follow through its own instrumentation (std::regex, gcc 12).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(medvqa_flags INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()

# Programs that are installed find libraries, and what those need, beside them
# (scripts/make_bundle.sh) or where they were built from. Only DT_RPATH holds for both.
set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib")
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
add_link_options(-Wl,--disable-new-dtags)

# medvqa_module(<name> [SOURCE_DIR dir] [DEPS public...] [PRIVATE_DEPS private...] [WITHOUT file])
# Makes the library medvqa_<name> of every .cpp under src/<name>, or under SOURCE_DIR, but WITHOUT.
function(medvqa_module name)
  cmake_parse_arguments(ARG "" "SOURCE_DIR;WITHOUT" "DEPS;PRIVATE_DEPS" ${ARGN})
  if(NOT ARG_SOURCE_DIR)
    set(ARG_SOURCE_DIR src/${name})
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${ARG_SOURCE_DIR}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  if(ARG_WITHOUT)
    list(FILTER sources EXCLUDE REGEX "/${ARG_WITHOUT}$")
  endif()
  if(sources)
    add_library(medvqa_${name} STATIC ${sources})
    target_link_libraries(medvqa_${name} PUBLIC ${ARG_DEPS}
                          PRIVATE medvqa_flags ${ARG_PRIVATE_DEPS})
    target_include_directories(medvqa_${name} PUBLIC ${PROJECT_SOURCE_DIR}/include
                               ${PROJECT_SOURCE_DIR})
  else()
    add_library(medvqa_${name} INTERFACE)
    target_link_libraries(medvqa_${name} INTERFACE ${ARG_DEPS})
    target_include_directories(medvqa_${name} INTERFACE ${PROJECT_SOURCE_DIR}/include
                               ${PROJECT_SOURCE_DIR})
  endif()
endfunction()

# medvqa_devices(<name> kernels...): the library medvqa_<name> that makes backends of these kernels.
# A program links one of them; which devices it has is decided there.
function(medvqa_devices name)
  add_library(medvqa_${name} STATIC ${PROJECT_SOURCE_DIR}/src/train/backend_factory.cpp)
  target_link_libraries(medvqa_${name} PUBLIC medvqa_kernels_cpu ${ARGN}
                        PRIVATE medvqa_flags fmt::fmt)
  if(ARGN)
    target_compile_definitions(medvqa_${name} PRIVATE MEDVQA_CUDA)
  endif()
endfunction()

# The one executable, and the link medvqa-train beside it; installed with the configurations and
# their schema, where src/app/find_config.cpp looks for them.
function(medvqa_program)
  if(NOT EXISTS ${PROJECT_SOURCE_DIR}/src/app/main.cpp)
    return()
  endif()
  add_executable(medvqa ${PROJECT_SOURCE_DIR}/src/app/main.cpp)
  target_link_libraries(medvqa PRIVATE medvqa_app medvqa_flags)
  add_custom_command(TARGET medvqa POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E create_symlink medvqa medvqa-train
    WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_target_properties(medvqa PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  include(GNUInstallDirs)
  install(TARGETS medvqa RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/medvqa-train DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/configs/ DESTINATION share/medvqa/configs
          FILES_MATCHING PATTERN "*.json" PATTERN "*.md")
endfunction()
