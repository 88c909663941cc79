#include "medvqa/data/synth.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "medvqa/io/json.h"
#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double mean_of(const Image& image, const FindingBox& b) {
  double sum = 0;
  for (int y = b.y; y < b.y + b.height; ++y) {
    for (int x = b.x; x < b.x + b.width; ++x) {
      sum += image.rgb[static_cast<std::size_t>(y * image.width + x) * 3];
    }
  }
  return sum / (b.width * b.height);
}

Phantom with(Finding f, Side side) {
  Phantom p;
  p.present[static_cast<std::size_t>(f)] = true;
  p.sides[static_cast<std::size_t>(f)] = side;
  return p;
}

TEST(Phantoms, DependOnSeedAndIndexOnly) {
  const Phantom p = with(Finding::effusion, Side::left);
  const Drawing d = draw_phantom(p, 64, 5, 3);
  EXPECT_EQ(d.image.width, 64);
  EXPECT_EQ(d.image.height, 64);
  EXPECT_EQ(d.image.rgb, draw_phantom(p, 64, 5, 3).image.rgb);
  EXPECT_NE(d.image.rgb, draw_phantom(p, 64, 5, 4).image.rgb);
  EXPECT_NE(d.image.rgb, draw_phantom(p, 64, 6, 3).image.rgb);
}

// Sums of pixels, written down once: another machine or compiler must find the same.
TEST(Phantoms, AreTheSameOnEveryMachine) {
  Phantom p = with(Finding::effusion, Side::left);
  p.present.fill(true);
  const Drawing d = draw_phantom(p, 64, 1, 0);
  std::uint32_t hash = 2166136261u;  // FNV-1a
  for (const std::uint8_t byte : d.image.rgb) hash = (hash ^ byte) * 16777619u;
  EXPECT_EQ(hash, 2193274531u);
}

// The same film with and without: in the box it must be clearly brighter, or darker for free air.
TEST(Phantoms, ShowTheirFindingsInTheirBoxes) {
  for (const Finding f : kFindings) {
    for (const Side side : {Side::left, Side::right}) {
      for (std::uint64_t index = 0; index < 5; ++index) {
        const Drawing shown = draw_phantom(with(f, side), 96, 11, index);
        const Drawing clear = draw_phantom({}, 96, 11, index);
        ASSERT_EQ(shown.boxes.size(), 1u) << name_of(f);
        EXPECT_TRUE(clear.boxes.empty());
        const FindingBox& box = shown.boxes[0];
        EXPECT_EQ(box.finding, f);
        EXPECT_GE(box.x, 0);
        EXPECT_GE(box.y, 0);
        EXPECT_LE(box.x + box.width, 96);
        EXPECT_LE(box.y + box.height, 96);
        const double difference = mean_of(shown.image, box) - mean_of(clear.image, box);
        if (f == Finding::pneumothorax) {
          EXPECT_LT(difference, -5) << index;
        } else {
          EXPECT_GT(difference, 8) << name_of(f) << " " << index;
        }
        if (f == Finding::cardiomegaly) continue;
        // The patient's left is on the right of the picture.
        EXPECT_EQ(box.x + box.width / 2 > 48, side == Side::left) << name_of(f) << " " << index;
      }
    }
  }
}

class SynthData : public ::testing::Test {
 protected:
  json dataset(const SynthRequest& r) {
    counts_ = write_synthetic_dataset(r);
    return io::read_json_file(r.out / "dataset.json");
  }
  SynthRequest request(const std::string& name) const {
    SynthRequest r;
    r.out = folder_.path() / name;
    r.count = 40;
    r.size = 32;
    r.seed = 3;
    r.validation = 0.25;
    return r;
  }
  TempFolder folder_;
  SynthCounts counts_;
};

TEST_F(SynthData, OfTextAloneHasTheSameQuestions) {
  SynthRequest r = request("pictures");
  json pictures = dataset(r);
  r.out = folder_.path() / "text";
  r.text_only = true;
  EXPECT_EQ(counts_.images, 40);
  const json text = dataset(r);
  EXPECT_FALSE(std::filesystem::exists(r.out / "images"));
  for (json& row : pictures) {
    row.erase("image");
    row["meta"].erase("boxes");
  }
  EXPECT_EQ(text, pictures);
}

using Tally = std::map<std::string, std::map<std::string, int>>;

// Per split and question, how often each answer is right.
Tally answers_of(const json& rows) {
  Tally tally;
  for (const json& row : rows) {
    const std::string key =
        row.at("split").get<std::string>() + " " + row.at("question").get<std::string>();
    ++tally[key][row.at("answer").get<std::string>()];
  }
  return tally;
}

void expect_even(const Tally& tally) {
  for (const auto& question : tally) {
    if (question.first.find("show") != std::string::npos) continue;
    std::vector<int> counts;
    for (const auto& answer : question.second) counts.push_back(answer.second);
    ASSERT_EQ(counts.size(), 2u) << question.first;
    EXPECT_LE(std::abs(counts[0] - counts[1]), 1) << question.first;
  }
}

TEST_F(SynthData, AnswersComeOutEven) {
  SynthRequest r = request("all");
  const json all = dataset(r);
  EXPECT_EQ(counts_.images, 40);
  EXPECT_EQ(counts_.train + counts_.validation, static_cast<std::int64_t>(all.size()));
  // Five closed questions and one open one of every image; three findings on half of them.
  EXPECT_EQ(all.size(), 40u * 6u + 3u * 20u);
  expect_even(answers_of(all));
  r = request("some");
  r.questions = QuestionKind::closed;
  r.per_image = 2;
  const json some = dataset(r);
  EXPECT_EQ(some.size(), 80u);
  expect_even(answers_of(some));
}

TEST_F(SynthData, ShowOnlyTheFindingsAskedFor) {
  SynthRequest r = request("two");
  r.findings = {Finding::cardiomegaly, Finding::effusion};
  for (const json& row : dataset(r)) {
    for (const json& box : row.at("meta").at("boxes")) {
      EXPECT_TRUE(box.at("finding") == "cardiomegaly" || box.at("finding") == "pleural effusion");
    }
    EXPECT_EQ(row.at("question").get<std::string>().find("pneumothorax"), std::string::npos);
  }
}

// Each in its own words, and none says of an effusion what is not there.
TEST_F(SynthData, DictationsSayTheReportInOtherWords) {
  std::map<std::string, std::string> dictations;  // by image
  for (const json& row : dataset(request("set"))) {
    const auto text = row.at("dictation").get<std::string>();
    const auto known = dictations.emplace(row.at("image").get<std::string>(), text);
    EXPECT_EQ(known.first->second, text) << "one text an image";
    bool found = false;
    for (const std::string side : {"left", "right"}) {
      found = found || text.find("effusion on the " + side) != std::string::npos ||
              text.find("a " + side + " pleural effusion") != std::string::npos ||
              text.find("The " + side + " costophrenic angle is blunted") != std::string::npos;
    }
    const auto report = row.at("report").get<std::string>();
    EXPECT_EQ(found, report.find("No pleural effusion") == std::string::npos) << report << text;
  }
  std::set<std::string> distinct;
  for (const auto& one : dictations) distinct.insert(one.second);
  EXPECT_GE(10 * distinct.size(), 9 * dictations.size());
}

TEST_F(SynthData, RecordsAgreeWithThemselves) {
  for (const json& row : dataset(request("set"))) {
    const auto label = row.at("label").get<std::vector<std::string>>();
    const auto report = row.at("report").get<std::string>();
    std::set<std::string> boxed;
    for (const json& box : row.at("meta").at("boxes")) {
      boxed.insert(box.at("finding").get<std::string>());
      if (box.at("finding") == "pleural effusion") {
        const std::string side = box.at("side") == "left" ? "Left" : "Right";
        EXPECT_NE(report.find(side + " pleural effusion"), std::string::npos) << report;
      }
    }
    const bool has_marker = boxed.erase("side marker") > 0;
    if (label == std::vector<std::string>{"normal"}) {
      EXPECT_TRUE(boxed.empty());
    } else {
      EXPECT_EQ(boxed, std::set<std::string>(label.begin(), label.end()));
    }
    const std::map<std::string, bool> closed{
        {"Is there a side marker?", has_marker},
        {"Is the heart enlarged?", boxed.contains("cardiomegaly")},
        {"Is there a pneumothorax?", boxed.contains("pneumothorax")}};
    const auto found = closed.find(row.at("question").get<std::string>());
    if (found != closed.end()) {
      EXPECT_EQ(row.at("answer") == "yes", found->second) << row.at("id");
    }
  }
}

TEST_F(SynthData, AreReadBySplit) {
  const SynthRequest r = request("set");
  const json rows = dataset(r);
  const Records train = read_records({"json", r.out, "train"});
  const Records held_out = read_records({"json", r.out, "val"});
  EXPECT_EQ(static_cast<std::int64_t>(train.rows.size()), counts_.train);
  EXPECT_EQ(static_cast<std::int64_t>(held_out.rows.size()), counts_.validation);
  std::set<std::string> seen;
  for (const Record& record : train.rows) seen.insert(record.image_name);
  for (const Record& record : held_out.rows) EXPECT_FALSE(seen.contains(record.image_name));
  EXPECT_EQ(load_image(held_out.rows[0].image).width, 32);
}

TEST_F(SynthData, RepeatToTheByte) {
  write_synthetic_dataset(request("a"));
  write_synthetic_dataset(request("b"));
  EXPECT_EQ(folder_.read("a/dataset.json"), folder_.read("b/dataset.json"));
  EXPECT_EQ(folder_.read("a/images/phantom-000007.png"),
            folder_.read("b/images/phantom-000007.png"));
  EXPECT_FALSE(folder_.read("a/images/phantom-000007.png").empty());
}

TEST_F(SynthData, ComeAsJpegToo) {
  SynthRequest r = request("jpeg");
  r.format = ImageFormat::jpeg;
  r.count = 4;
  EXPECT_EQ(dataset(r)[0].at("image"), "images/phantom-000000.jpg");
  EXPECT_EQ(load_image(r.out / "images/phantom-000000.jpg").height, 32);
}

TEST_F(SynthData, RefuseWhatCannotBe) {
  folder_.write("full/note.txt", "mine");
  SynthRequest r = request("full");
  const auto expect_refusal = [](const SynthRequest& request, const std::string& part) {
    expect_user_error(ExitCode::usage, {part}, [&] { write_synthetic_dataset(request); });
  };
  expect_refusal(r, "is not empty");
  EXPECT_EQ(folder_.read("full/note.txt"), "mine");
  r = request("x");
  r.size = 31;
  expect_refusal(r, "--size 31");
  r = request("x");
  r.count = 0;
  expect_refusal(r, "--count 0");
  r = request("x");
  r.validation = 1;
  expect_refusal(r, "--validation 1");
  r = request("x");
  r.per_image = -1;
  expect_refusal(r, "--per-image -1");
  EXPECT_FALSE(fs::exists(folder_.path() / "x"));
}

}  // namespace
}  // namespace medvqa::data
