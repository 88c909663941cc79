#include "medvqa/train/report.h"
#include "medvqa/train/available_memory.h"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>

namespace medvqa::train {

namespace {

constexpr double kMiB = 1024.0 * 1024.0;

double mebibytes(std::size_t bytes) {
  return static_cast<double>(bytes) / kMiB;
}

// 1234567 as 1,234,567.
std::string grouped(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto i = static_cast<std::ptrdiff_t>(digits.size()) - 3; i > 0; i -= 3) {
    digits.insert(static_cast<std::size_t>(i), 1, ',');
  }
  return digits;
}

std::string device_line(const Session& session) {
  const ops::Backend& device = session.backend();
  return fmt::format("device {}: {} threads, {:.1f} GiB free; compute {}", device.traits().name,
                     std::thread::hardware_concurrency(),
                     mebibytes(available_memory(device)) / 1024,
                     medvqa::name_of(session.model_inputs().settings.compute));
}

std::string memory_line(const MemoryPlan& m) {
  return fmt::format(
      "memory MiB: weights {:.1f}, adapters {:.1f}, step {:.1f}, block {:.1f}, scratch {:.1f}, "
      "total {:.1f}, host {:.1f}; {}",
      mebibytes(m.sizes.weights), mebibytes(m.sizes.adapters), mebibytes(m.sizes.step),
      mebibytes(m.sizes.block), mebibytes(m.sizes.scratch), mebibytes(m.sizes.total()),
      mebibytes(m.sizes.host), in_words(m.policy));
}

// Smallest, middle and largest.
std::string spread(std::vector<std::int64_t> values) {
  std::sort(values.begin(), values.end());
  return fmt::format("{} / {} / {}", values.front(), values[values.size() / 2], values.back());
}

void add_data_lines(const DataInputs& d, std::vector<std::string>& lines) {
  lines.push_back(fmt::format("{} training samples, {} held out", d.train.examples.size(),
                              d.validation.examples.size()));
  for (const auto& reason : d.dropped) {
    lines.push_back(fmt::format("left out: {} rows, {}", reason.second, reason.first));
  }
  std::vector<std::int64_t> tokens, image_tokens, labels;
  for (const data::Example& e : d.train.examples) {
    tokens.push_back(static_cast<std::int64_t>(e.ids.size()));
    labels.push_back(e.label_count());
    if (!e.image.empty()) image_tokens.push_back(e.image_tokens);
  }
  lines.push_back(fmt::format(
      "tokens of a sample, min / median / max: {}; of its image: {}; "
      "counted in the loss: {}",
      spread(tokens), image_tokens.empty() ? "no images" : spread(image_tokens), spread(labels)));
}

std::int64_t count_of(const data::Dataset& dataset, std::size_t class_index) {
  return std::count_if(dataset.examples.begin(), dataset.examples.end(), [&](const auto& e) {
    return e.class_index == static_cast<std::int32_t>(class_index);
  });
}

void add_class_lines(const DataInputs& d, const data::Classes& classes,
                     std::vector<std::string>& lines) {
  for (std::size_t i = 0; i < classes.labels.size(); ++i) {
    lines.push_back(fmt::format("class {} ({}): {} training samples, {} held out",
                                classes.labels[i], classes.texts[i], count_of(d.train, i),
                                count_of(d.validation, i)));
  }
}

// One line of a text that has several.
std::string on_one_line(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\n' ? std::string("\\n") : std::string(1, c);
  return out;
}

}  // namespace

std::vector<std::string> start_report(const Session& session) {
  const MemoryPlan& m = session.memory();
  const data::Example& first = session.data().train.examples.front();
  const TrainConfig& train = session.config().train;
  std::vector<std::string> lines{device_line(session)};
  lines.push_back(fmt::format("{} parameters, {} trainable in {} linears{}",
                              grouped(m.parameters.frozen + m.parameters.trainable),
                              grouped(m.parameters.trainable), session.model().modules().size(),
                              session.model().head().grad ? " and the head" : ""));
  lines.push_back(memory_line(m));
  add_data_lines(session.data(), lines);
  if (session.config().data.classes) {
    add_class_lines(session.data(), *session.config().data.classes, lines);
  }
  lines.push_back(fmt::format("sample {}, the loss is computed on [[...]]: {}", first.id,
                              on_one_line(session.data().processor->describe(first))));
  lines.push_back(fmt::format("{} optimizer steps of {} x {} samples, {:.2f} epochs",
                              session.steps().size(), train.batch_size, train.gradient_accumulation,
                              session.steps().back().epoch));
  return lines;
}

std::vector<std::string> too_long_report(const DataInputs& data) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> lines;
  const auto add = [&](const char* set, const std::vector<std::string>& places) {
    if (places.empty()) return;
    const auto shown = static_cast<std::ptrdiff_t>(std::min(kShown, places.size()));
    const std::vector<std::string> first(places.begin(), places.begin() + shown);
    lines.push_back(fmt::format("{} {} samples are longer than data.max_length and dropped: {}{}",
                                places.size(), set, fmt::join(first, "; "),
                                places.size() > kShown ? "; ..." : ""));
  };
  add("training", data.train_too_long);
  add("validation", data.validation_too_long);
  return lines;
}

std::string device_memory_report(const Session& session) {
  const std::optional<std::size_t> before = session.free_at_start();
  const std::optional<std::size_t> now = session.backend().free_memory();
  if (!before || !now) return {};
  return fmt::format("device memory MiB: {:.1f} free before the arenas, {:.1f} after a step",
                     mebibytes(*before), mebibytes(*now));
}

struct RunLog::State {
  std::shared_ptr<spdlog::logger> logger;
  std::shared_ptr<spdlog::sinks::basic_file_sink_mt> sink;
};

RunLog::RunLog(const std::filesystem::path& run) : state_(std::make_unique<State>()) {
  const std::filesystem::path file = run / "log.txt";
  try {
    state_->sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
  } catch (const spdlog::spdlog_ex&) {
    throw UserError(ExitCode::io, fmt::format("cannot write {}; mend its permissions or choose "
                                              "another output folder",
                                              file.string()));
  }
  state_->sink->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
  state_->logger = spdlog::default_logger();
  state_->logger->sinks().push_back(state_->sink);
  // A full disk is told by the files that matter, in one line.
  state_->logger->set_error_handler([](const std::string&) {});
  state_->logger->flush_on(spdlog::level::info);
}

RunLog::~RunLog() {
  auto& sinks = state_->logger->sinks();
  sinks.erase(std::remove(sinks.begin(), sinks.end(), state_->sink), sinks.end());
}

void RunLog::note(const std::string& line) {
  try {
    state_->sink->log({state_->logger->name(), spdlog::level::info, line});
    state_->sink->flush();
  } catch (const spdlog::spdlog_ex&) {
    // As above.
  }
}

}  // namespace medvqa::train
