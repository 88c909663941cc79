#include "medvqa/io/file.h"

#include <sys/wait.h>

#include "medvqa/io/sha256.h"
#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

namespace fs = std::filesystem;

std::size_t entries_in(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(File, MapsAndMoves) {
  const TempFolder folder;
  MappedFile file(folder.write("a", "hello"));
  EXPECT_EQ(file.text(), "hello");
  MappedFile other = std::move(file);
  EXPECT_EQ(other.text(), "hello");
  EXPECT_TRUE(MappedFile(folder.write("empty", "")).bytes().empty());
}

TEST(File, NamesWhatCannotBeOpened) {
  const TempFolder folder;
  expect_user_error(ExitCode::model, {"nothing", "No such file"},
                    [&] { MappedFile(folder.path() / "nothing", ExitCode::model); });
  expect_user_error(ExitCode::io, {"not a regular file"}, [&] { MappedFile file(folder.path()); });
  const fs::path file = folder.write("a", "hello");
  expect_user_error(ExitCode::config, {"5 bytes", "4"},
                    [&] { read_text_file(file, ExitCode::config, 4); });
}

TEST(File, AtomicWriteReplacesWholeAndLeavesNothingAside) {
  const TempFolder folder;
  const fs::path file = folder.write("a", "old");
  write_file_atomically(file, std::string_view("new text"));
  EXPECT_EQ(folder.read("a"), "new text");
  {
    AtomicFile abandoned(file);
    abandoned.append(bytes_of("half"));
  }
  EXPECT_EQ(folder.read("a"), "new text");
  EXPECT_EQ(entries_in(folder.path()), 1u);
  write_file_atomically(folder.path() / "deep" / "er" / "b", std::string_view(""));
  EXPECT_EQ(folder.read("deep/er/b"), "");
}

TEST(File, FullDiskAndForbiddenFoldersAreIoErrors) {
  expect_user_error(ExitCode::io, {"/proc/medvqa"},
                    [] { write_file_atomically("/proc/medvqa/a", std::string_view("x")); });
  const TempFolder folder;
  const fs::path file = folder.write("plain", "x");
  expect_user_error(ExitCode::io, {"plain"},
                    [&] { write_file_atomically(file / "below", std::string_view("x")); });
  expect_user_error(ExitCode::io, {"reserve", "big"}, [&] {
    AtomicFile big(folder.path() / "big");
    big.reserve(std::uint64_t{1} << 60);
  });
  EXPECT_EQ(entries_in(folder.path()), 1u);
}

TEST(File, AtomicFolderAppearsWholeOrNotAtAll) {
  const TempFolder folder;
  const fs::path target = folder.path() / "run";
  {
    AtomicFolder abandoned(target);
    abandoned.write("a", "half");
  }
  EXPECT_EQ(entries_in(folder.path()), 0u);
  AtomicFolder first(target);
  first.write("a", "1");
  first.commit();
  AtomicFolder second(folder.path() / "run/");
  second.write("b", "2");
  second.copy_in(folder.write("c", "3"));
  EXPECT_EQ(folder.read("run/a"), "1");
  second.commit();
  EXPECT_FALSE(fs::exists(target / "a"));
  EXPECT_EQ(folder.read("run/b"), "2");
  EXPECT_EQ(folder.read("run/c"), "3");
  EXPECT_EQ(entries_in(folder.path()), 2u);
}

TEST(AtomicFolder, WhatKilledProcessesLeftIsRemoved) {
  const TempFolder folder;
  // A process that has been waited for is no more.
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(gone, nullptr, 0), gone);
  const std::string dead = std::to_string(gone);
  folder.write(".tmp-out-" + dead + "/model.safetensors", "half");
  folder.write(".old-out-" + dead + "/model.safetensors", "the only copy");
  folder.write(".tmp-out-" + std::to_string(::getpid()) + "/a", "of a process that lives");
  folder.write(".tmp-out-" + dead + "x/a", "not ours");
  folder.write(".tmp-other-" + dead + "/a", "of another target");
  remove_leftovers_of(folder.path() / "out");
  EXPECT_EQ(entries_in(folder.path()), 4u);
  EXPECT_FALSE(fs::exists(folder.path() / (".tmp-out-" + dead)));
  folder.write("out/model.safetensors", "whole");
  remove_leftovers_of(folder.path() / "out" / "");
  EXPECT_FALSE(fs::exists(folder.path() / (".old-out-" + dead)));
  EXPECT_EQ(entries_in(folder.path()), 4u);
}

TEST(Sha256, IsTheStandards) {
  EXPECT_EQ(sha256(bytes_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(bytes_of("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, ManifestSeesEveryAlteration) {
  const TempFolder folder;
  folder.write("a", "1");
  folder.write("deep/b", "2");
  write_manifest(folder.path());
  EXPECT_NE(folder.read("manifest.json").find("deep/b"), std::string::npos);
  check_manifest(folder.path());
  folder.write("deep/b", "3");
  expect_user_error(ExitCode::io, {"deep/b", "altered"}, [&] { check_manifest(folder.path()); });
  fs::remove(folder.path() / "deep/b");
  expect_user_error(ExitCode::io, {"deep/b", "No such file"},
                    [&] { check_manifest(folder.path()); });
  folder.write("manifest.json", R"({"files": {"../x": {"sha256": ""}}})");
  expect_user_error(ExitCode::io, {"../x", "leaves"}, [&] { check_manifest(folder.path()); });
}

}  // namespace
}  // namespace medvqa::io
