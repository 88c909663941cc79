// What a run tells of itself: report, log, progress, the picture of its loss.
#include "medvqa/train/report.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "medvqa/train/loss_plot.h"
#include "medvqa/train/progress.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

TEST(Report, MarksWhatTheLossIsComputedOn) {
  const TempFolder folder;
  const Config config = load(folder, fixture_config(folder));
  const Session session(config, Session::Purpose::train);
  std::string all;
  for (const std::string& line : start_report(session)) {
    EXPECT_EQ(line.find('\n'), std::string::npos);
    all += line + "\n";
  }
  for (const char* part : {"device cpu: ", "trainable", "memory MiB", "<image x ", "<|im_end|>]]",
                           "4 optimizer steps of 2 x 2"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << " in\n" << all;
  }
  // A CPU's memory is the machine's.
  EXPECT_EQ(device_memory_report(session), "");
  const data::Example& first = session.data().train.examples.front();
  const std::string text = session.data().processor->describe(first);
  const data::Record record = data::read_records(config.data.train).rows.front();
  EXPECT_NE(text.find("[[" + record.answer + "<|im_end|>]]"), std::string::npos) << text;
  EXPECT_EQ(text.find("<|image_pad|>"), std::string::npos);
}

TEST(Report, NamesWhatWasTooLongInBothSets) {
  const TempFolder folder;
  const std::string image = (fixture() / "images/image00.jpg").string();
  std::string text;
  for (int i = 0; i < 6; ++i) {
    const std::string question(i % 3 == 0 ? 10 : 600, 'x');
    text += json{{"image", image}, {"question", question}, {"answer", "yes"}}.dump() + "\n";
  }
  const std::string file = folder.write("rows.jsonl", text).string();
  json c = fixture_config(folder);
  const json sources = json::array({{{"format", "jsonl"}, {"path", file}}});
  c["data"]["train"] = sources;
  c["data"]["validation"] = sources;
  const Config config = load(folder, c, {"data.too_long=drop", "data.max_length=400"});
  const DataInputs data = open_data(config, open_model(config, true));
  const std::vector<std::string> lines = too_long_report(data);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].rfind("4 training samples are longer than data.max_length", 0), 0u);
  EXPECT_EQ(lines[1].rfind("4 validation samples are longer than data.max_length", 0), 0u);
  for (const std::string& line : lines) {
    for (const char* part : {"row 2", "row 3", "row 5", "..."}) {
      EXPECT_NE(line.find(part), std::string::npos) << line;
    }
  }
  const Config whole = load(folder, fixture_config(folder));
  EXPECT_TRUE(too_long_report(open_data(whole, open_model(whole, true))).empty());
}

TEST(Report, ALogKeepsWhatTheTerminalDoesNotShow) {
  const TempFolder folder;
  {
    RunLog log(folder.path());
    spdlog::info("told");
    log.note("noted");
  }
  spdlog::info("too late");
  const std::string text = folder.read("log.txt");
  EXPECT_NE(text.find("info told\n"), std::string::npos) << text;
  EXPECT_NE(text.find("info noted\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("too late"), std::string::npos);
  expect_user_error(ExitCode::io, {"log.txt"}, [&] { RunLog(folder.path() / "log.txt"); });
}

TEST(Report, PaceLeavesTheFirstStepOut) {
  Pace pace;
  pace.add(100);
  EXPECT_FALSE(pace.known());
  pace.add(2);
  pace.add(4);
  EXPECT_DOUBLE_EQ(pace.seconds_per_step(), 3);
  EXPECT_EQ(duration_text(8.2), "8 s");
  EXPECT_EQ(duration_text(200), "3 min 20 s");
  EXPECT_EQ(duration_text(3720), "1 h 02 min");
  EXPECT_EQ(bar_text(0, 4, 4), "[....]   0 %");
  EXPECT_EQ(bar_text(3, 4, 4), "[###.]  75 %");
  EXPECT_EQ(bar_text(4, 4, 4), "[####] 100 %");
  // Test programs have no terminal, or nobody looks at it.
  EXPECT_EQ(terminal_style(true, false), BarStyle::none);
}

TEST(LossPlot, DrawsCurvesPointsAndAxes) {
  LossCurves curves;
  for (int i = 1; i <= 100; ++i) curves.train.push_back({i, 2.0 / i});
  curves.evaluation = {{50, 0.3}, {100, 0.2}};
  const std::string svg = loss_plot(curves, "a < b & c");
  for (const char* part : {"<svg ", "a &lt; b &amp; c", "class=\"raw\"", "class=\"smooth\"",
                           "step 50: held out 0.3000", "optimizer step", "loss a label token",
                           "prefers-color-scheme: dark", "</svg>\n"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

// One point, equal points, only evaluations, very many points.
TEST(LossPlot, StandsOddRuns) {
  LossCurves many;
  for (int i = 1; i <= 100000; ++i) many.train.push_back({i, 1.0});
  for (const LossCurves& curves :
       {LossCurves{{{1, 0.0}}, {}}, LossCurves{{{1, 3.0}, {2, 3.0}}, {}},
        LossCurves{{}, {{7, 1e-12}}}, LossCurves{{{1, -2.0}, {2, 1e6}}, {}}, many}) {
    const std::string svg = loss_plot(curves, "t");
    EXPECT_LT(svg.size(), 60000u);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
  }
}

TEST(LossPlot, IsMadeOfTheMetrics) {
  const TempFolder folder;
  folder.write("run/metrics.jsonl",
               "{\"event\":\"step\",\"step\":1,\"loss\":2.5}\n{\"event\":\"eval\",\"step\":1,"
               "\"loss\":2}\n{\"event\":\"step\",\"step\":2,\"loss\":null}\n{\"event\":\"st");
  const LossCurves curves = read_loss_curves(folder.path() / "run/metrics.jsonl");
  ASSERT_EQ(curves.train.size(), 1u);
  EXPECT_DOUBLE_EQ(curves.train[0].loss, 2.5);
  ASSERT_EQ(curves.evaluation.size(), 1u);
  write_loss_plot(folder.path() / "run");
  EXPECT_NE(folder.read("run/loss.svg").find("Loss of run"), std::string::npos);
  folder.write("empty/metrics.jsonl", "");
  write_loss_plot(folder.path() / "empty");
  EXPECT_FALSE(fs::exists(folder.path() / "empty/loss.svg"));
}

}  // namespace
}  // namespace medvqa::train
