#include "medvqa/data/synth.h"

#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "medvqa/core/error.h"
#include "medvqa/io/file.h"
#include "src/data/synth_plan.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kMostImages = 1'000'000;

void check(const SynthRequest& r) {
  const auto fail = [](const std::string& what) { throw UserError(ExitCode::usage, what); };
  if (r.count < 1 || r.count > kMostImages) {
    fail(fmt::format("--count {}: expected 1 to {}", r.count, kMostImages));
  }
  if (r.size < kSmallestPhantom || r.size > kLargestPhantom) {
    fail(fmt::format("--size {}: expected {} to {} pixels", r.size, kSmallestPhantom,
                     kLargestPhantom));
  }
  if (!(r.validation >= 0 && r.validation < 1)) {
    fail(fmt::format("--validation {}: expected a share from 0 to below 1", r.validation));
  }
  if (r.per_image < 0) {
    fail(fmt::format("--per-image {}: expected a number of questions, or 0 for all", r.per_image));
  }
  if (r.findings.empty()) fail("--findings: expected at least one");
  std::error_code error;
  if (fs::exists(r.out, error) && (!fs::is_directory(r.out) || !fs::is_empty(r.out))) {
    fail(fmt::format("--out {} is not empty; choose another folder or remove it", r.out.string()));
  }
}

std::string stem_of(std::size_t image) {
  return fmt::format("phantom-{:06}", image);
}

fs::path image_name(std::size_t image, ImageFormat format) {
  return fs::path("images") / (stem_of(image) + (format == ImageFormat::png ? ".png" : ".jpg"));
}

void write_image(const fs::path& file, const Image& image, ImageFormat format) {
  const std::vector<std::byte> bytes = encode_image(image, format);
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) {
    throw UserError(ExitCode::io, fmt::format("cannot write {}; is the disk full?", file.string()));
  }
}

// Draws and writes every image, on all cores; returns the boxes.
std::vector<std::vector<FindingBox>> draw_images(const SynthRequest& r,
                                                 const std::vector<SynthCase>& cases,
                                                 const fs::path& folder) {
  std::error_code error;
  fs::create_directory(folder / "images", error);
  if (error) {
    throw UserError(ExitCode::io, fmt::format("cannot make a folder in {}: {}", folder.string(),
                                              error.message()));
  }
  std::vector<std::vector<FindingBox>> boxes(cases.size());
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < cases.size(); i = next++) {
        Drawing drawing = draw_phantom(cases[i].phantom, r.size, r.seed, i);
        write_image(folder / image_name(i, r.format), drawing.image, r.format);
        boxes[i] = std::move(drawing.boxes);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      next = cases.size();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < std::max(1u, std::thread::hardware_concurrency()); ++t) {
    threads.emplace_back(work);
  }
  for (std::thread& t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
  return boxes;
}

Json labels_of(const Phantom& p) {
  Json labels = Json::array();
  for (const Finding f : kFindings) {
    if (f != Finding::marker && p.has(f)) labels.push_back(name_of(f));
  }
  if (labels.empty()) labels.push_back("normal");
  return labels;
}

Json boxes_of(const Phantom& p, const std::vector<FindingBox>& boxes) {
  Json list = Json::array();
  for (const FindingBox& b : boxes) {
    Json box{{"finding", name_of(b.finding)}};
    if (b.finding != Finding::cardiomegaly) box["side"] = name_of(p.side(b.finding));
    box.update(Json{{"x", b.x}, {"y", b.y}, {"width", b.width}, {"height", b.height}});
    list.push_back(std::move(box));
  }
  return list;
}

// One record a line, so that a text tool finds its way.
void append_records(const SynthRequest& r, std::size_t i, const SynthCase& c, const Json& boxes,
                    std::string& text) {
  for (const SynthQuestion& q : c.questions) {
    Json record{{"id", stem_of(i) + "-" + q.name}};
    if (!r.text_only) record["image"] = image_name(i, r.format).string();
    record.update(Json{{"question", q.question},
                       {"answer", q.answer},
                       {"split", c.is_validation ? "val" : "train"},
                       {"label", labels_of(c.phantom)},
                       {"report", report_of(c.phantom)},
                       {"dictation", dictation_of(c.phantom, r.seed, i)},
                       {"meta", Json{{"kind", q.closed ? "closed" : "open"}}}});
    if (!r.text_only) record["meta"]["boxes"] = boxes;
    text += (text.empty() ? "[\n" : ",\n") + record.dump();
  }
}

}  // namespace

SynthCounts write_synthetic_dataset(const SynthRequest& request) {
  check(request);
  const std::vector<SynthCase> cases = plan_cases(request);
  io::AtomicFolder folder(request.out);
  std::vector<std::vector<FindingBox>> boxes(cases.size());
  if (!request.text_only) boxes = draw_images(request, cases, folder.aside());
  SynthCounts counts;
  std::string text;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    append_records(request, i, cases[i], boxes_of(cases[i].phantom, boxes[i]), text);
    ++counts.images;
    (cases[i].is_validation ? counts.validation : counts.train) +=
        static_cast<std::int64_t>(cases[i].questions.size());
  }
  folder.write("dataset.json", text + "\n]\n");
  folder.commit();
  return counts;
}

}  // namespace medvqa::data
