// The readers of the single formats. Internal to the data module.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "medvqa/data/record.h"

namespace medvqa::data {

// A folder with train.jsonl and test.jsonl, the original JSON, or MEVF's trainset.json and
// testset.json; or one such file. The two JSON forms are normalised as the published copies are.
Records read_vqa_rad(const Source& source);
// A JSON Lines file, or a folder with <split>.jsonl or dataset.jsonl.
Records read_jsonl(const Source& source);
// A CSV file, or a folder with <split>.csv or dataset.csv.
Records read_csv(const Source& source);
// A file dataset.json (a list or JSON Lines), or the folder with it.
Records read_json(const Source& source);

// "valid" and "validation" are "val", and case does not count.
std::string split_name(const std::string& name);
[[noreturn]] void fail_split(const Source& source, const std::set<std::string>& found);

// The names in a folder that end in `extension`, sorted.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder,
                                            const std::string& extension);

}  // namespace medvqa::data
