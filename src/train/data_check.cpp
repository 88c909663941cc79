#include "medvqa/train/data_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>

#include "medvqa/io/sha256.h"
#include "medvqa/train/run_inputs.h"

namespace medvqa::train {

namespace {

namespace fs = std::filesystem;
using data::Record;

struct ImageState {
  std::string hash, error;
};
using Images = std::map<fs::path, ImageState>;
using Triple = std::tuple<std::string, std::string, std::string>;

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

void look_at(const fs::path& path, ImageState& state) {
  try {
    state.hash = io::sha256_of_file(path);
  } catch (const UserError& error) {
    state.error = error.what();
  }
}

// Of every image the records name: what its bytes are.
void add_images(const std::vector<Record>& records, Images& images) {
  std::vector<Images::iterator> found;
  for (const Record& r : records) {
    if (r.image.empty()) continue;
    const auto added = images.try_emplace(r.image);
    if (added.second) found.push_back(added.first);
  }
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < found.size(); i = next++) {
      look_at(found[i]->first, found[i]->second);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
  work();
  for (std::thread& t : threads) t.join();
}

class Checker {
 public:
  Checker(const Config& config, bool decode) : config_(config), decode_(decode) {
    check_.max_length = config.data.max_length;
    check_.decoded = decode;
  }
  DataCheck run();

 private:
  std::vector<Record> read(const std::string& set, const std::vector<data::Source>& sources);
  std::vector<Record> read_tests();
  void check_set(const std::string& name, const std::vector<Record>& records);
  void check_record(const Record& record, SetCounts& counts);
  void find_leaks(const std::string& a, const std::vector<Record>& first, const std::string& b,
                  const std::vector<Record>& second);
  Triple triple_of(const Record& r) const;
  void bad(const Record& record, const std::string& what) {
    check_.bad.push_back(fmt::format("{}: {}", record.place, what));
  }

  const Config& config_;
  bool decode_;
  std::unique_ptr<data::Processor> processor_;
  Images images_;
  std::set<fs::path> decoded_;
  DataCheck check_;
};

Triple Checker::triple_of(const Record& r) const {
  std::pair<std::string, std::string> content{r.question, r.answer};
  try {
    content = processor_->content(r);
  } catch (const UserError&) {
    // check_record() says what is wrong with it.
  }
  return {r.image.empty() ? "" : images_.at(r.image).hash, lower(content.first),
          lower(content.second)};
}

std::vector<Record> Checker::read(const std::string& set,
                                  const std::vector<data::Source>& sources) {
  std::vector<Record> all;
  for (data::Source source : sources) {
    source.keep_going = true;
    SourceCounts counts{set, source, 0, 0, {}};
    try {
      data::Records records = data::read_records(source);
      counts.rows = static_cast<std::int64_t>(records.rows.size());
      counts.bad = static_cast<std::int64_t>(records.bad.size());
      counts.dropped = records.dropped;
      std::move(records.rows.begin(), records.rows.end(), std::back_inserter(all));
      check_.bad.insert(check_.bad.end(), records.bad.begin(), records.bad.end());
    } catch (const UserError& error) {
      if (error.code() != ExitCode::data) throw;
      counts.bad = 1;
      check_.bad.emplace_back(error.what());
    }
    check_.sources.push_back(std::move(counts));
  }
  return all;
}

// The test rows that lie beside the training rows, if there are any.
std::vector<Record> Checker::read_tests() {
  std::vector<Record> all;
  for (data::Source source : config_.data.train) {
    if (source.split.empty() || source.split == "test") continue;
    source.split = "test";
    source.keep_going = true;
    try {
      data::Records records = data::read_records(source);
      std::move(records.rows.begin(), records.rows.end(), std::back_inserter(all));
    } catch (const UserError&) {
      // None there, or none that can be read: it is not part of this run.
    }
  }
  return all;
}

void Checker::check_record(const Record& record, SetCounts& counts) {
  const bool has_image = !record.image.empty();
  if (has_image && !images_.at(record.image).error.empty()) {
    bad(record, images_.at(record.image).error);
    return;
  }
  try {
    const data::Example e = processor_->prepare(record);
    if (has_image && decode_ && decoded_.insert(record.image).second) {
      std::vector<float> patches;
      processor_->load_patches(e, patches);
    }
    const auto length = static_cast<std::int64_t>(e.ids.size());
    counts.tokens.push_back(length);
    counts.labels.push_back(e.label_count());
    if (has_image) ++counts.image_tokens[e.image_tokens];
    ++counts.samples;
    if (length > config_.data.max_length) {
      ++counts.too_long;
      const std::string what =
          fmt::format("{} tokens ({} of them for the image), data.max_length is {}", length,
                      e.image_tokens, config_.data.max_length);
      check_.too_long.push_back(fmt::format("{}: {}", record.place, what));
      if (!config_.data.drop_too_long) bad(record, what);
    } else if (e.label_count() == 0) {
      bad(record, "no token to learn from");
    }
  } catch (const UserError& error) {
    if (error.code() != ExitCode::data) throw;
    bad(record, error.what());
  }
}

void Checker::check_set(const std::string& name, const std::vector<Record>& records) {
  SetCounts counts;
  counts.name = name;
  std::set<fs::path> images;
  std::set<Triple> seen;
  for (const Record& record : records) {
    if (record.image.empty()) ++counts.without_image;
    if (!record.image.empty()) images.insert(record.image);
    if (!seen.insert(triple_of(record)).second) ++counts.repeated;
    check_record(record, counts);
  }
  counts.images = static_cast<std::int64_t>(images.size());
  std::sort(counts.tokens.begin(), counts.tokens.end());
  std::sort(counts.labels.begin(), counts.labels.end());
  check_.sets.push_back(std::move(counts));
}

void Checker::find_leaks(const std::string& a, const std::vector<Record>& first,
                         const std::string& b, const std::vector<Record>& second) {
  constexpr std::size_t kExamples = 3;
  std::set<std::string> images;
  std::set<Triple> triples;
  for (const Record& r : first) {
    triples.insert(triple_of(r));
    if (!r.image.empty()) images.insert(images_.at(r.image).hash);
  }
  Leak leak{a, b, 0, 0, {}};
  std::set<std::string> counted;
  for (const Record& r : second) {
    const std::string hash = r.image.empty() ? "" : images_.at(r.image).hash;
    const bool same = triples.contains(triple_of(r));
    const bool is_new = images.contains(hash) && counted.insert(hash).second;
    if (same) ++leak.triples;
    if (is_new) ++leak.images;
    if ((same || is_new) && leak.examples.size() < kExamples) leak.examples.push_back(r.place);
  }
  if (leak.images > 0 || leak.triples > 0) check_.leaks.push_back(std::move(leak));
}

DataCheck Checker::run() {
  const ModelInputs model = open_model(config_, /*need_weights=*/false);
  processor_ = open_processor(config_.data, model);
  std::vector<Record> train = read("train", config_.data.train);
  std::vector<Record> validation = read("validation", config_.data.validation);
  if (config_.data.validation_fraction && !train.empty()) {
    data::Split split = data::hold_out_images(std::move(train), *config_.data.validation_fraction,
                                              config_.train.seed);
    train = std::move(split.train);
    validation = std::move(split.validation);
  }
  const std::vector<Record> test = read_tests();
  add_images(train, images_);
  add_images(validation, images_);
  add_images(test, images_);
  check_set("train", train);
  check_set("validation", validation);
  find_leaks("train", train, "validation", validation);
  find_leaks("train", train, "test", test);
  find_leaks("validation", validation, "test", test);
  return std::move(check_);
}

}  // namespace

DataCheck check_data(const Config& config, bool decode) {
  return Checker(config, decode).run();
}

}  // namespace medvqa::train
