// One question about one image, as a data set's own files give it.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "medvqa/data/source.h"

namespace medvqa::data {

struct Record {
  std::string id;               // unique inside its source
  std::filesystem::path image;  // empty: text only
  std::string image_name;       // as the data set names it; held out by this
  std::string question, answer;
  std::string place;                           // "FILE, row N", for messages
  std::map<std::string, std::string> columns;  // every scalar column, "question" and "answer" too
};

// What a reader left out, and why, for the start-up report: reason -> number of rows.
using Dropped = std::map<std::string, std::int64_t>;

struct Records {
  std::vector<Record> rows;
  Dropped dropped;
  std::vector<std::string> bad;  // messages, with Source::keep_going
};

// Reads one source. UserError(ExitCode::data) names file, row and column for what is wrong:
// missing file or image, empty question or answer, unknown format or split, no rows left.
Records read_records(const Source& source);
Records read_records(std::span<const Source> sources);

// Moves the records of held-out images to the second list: image names sorted, shuffled with
// torch.randperm(seed), the first ceil(fraction * n) held out. Order inside each list stays.
struct Split {
  std::vector<Record> train, validation;
};
Split hold_out_images(std::vector<Record> records, double fraction, std::uint64_t seed);

}  // namespace medvqa::data
