#include "medvqa/io/json.h"

#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

TEST(Json, BuildsWhatItReads) {
  const char* text = R"({"a": [1, -2, 3.5, true, null, "x"], "b": {"c": {}, "d": []}, "e": 1})";
  EXPECT_EQ(parse_json(text, "t"), nlohmann::json::parse(text));
  EXPECT_EQ(parse_json("7", "t"), 7);
}

TEST(Json, AcceptsCommentsOnlyWhereTold) {
  const std::string text = "{ // why\n  \"a\": 1 }";
  EXPECT_EQ(parse_json(text, "t", {ExitCode::config, true}).at("a"), 1);
  expect_user_error(ExitCode::config, {"t, line 1"}, [&] { parse_json(text, "t"); });
}

TEST(Json, NamesPlaceAndProblem) {
  const auto fails = [](const std::string& text, const std::vector<std::string>& parts) {
    expect_user_error(ExitCode::data, parts,
                      [&] { parse_json(text, "some.json", {ExitCode::data}); });
  };
  fails("{\n  \"a\": 1,\n}", {"some.json, line 3, column 1"});
  fails("{\"a\": 1", {"some.json, line 1", "end of input"});
  fails("{\"a\": 1} x", {"some.json, line 1"});
  fails("", {"some.json"});
  fails("{\"a\": 1, \"b\": 2, \"a\": 3}", {"\"a\"", "twice"});
  fails("{\"x\": {\"a\": 1, \"a\": 1}}", {"\"a\"", "twice"});
  fails("{\"a\": 1e999}", {"some.json"});
  fails("{\"a\": \"\xff\"}", {"some.json, line 1"});
  fails(std::string(100, '[') + std::string(100, ']'), {"deeper than 64"});
}

TEST(Json, TypedAccessNamesKeyFoundAndExpected) {
  const nlohmann::json value = parse_json(
      R"({"n": 3, "x": 0.5, "s": "t", "b": true, "z": null, "big": 18446744073709551615,
          "list": [1, 2], "mixed": [1, "a"], "o": {"p": 1}})",
      "t");
  const JsonObject object(value, "c.json");
  EXPECT_EQ(object.integer("n"), 3);
  EXPECT_EQ(object.integer_or("z", 9), 9);
  EXPECT_EQ(object.number("n"), 3.0);
  EXPECT_TRUE(object.boolean_or("b", false));
  EXPECT_EQ(object.string_or("absent", "d"), "d");
  EXPECT_EQ(object.integers("list"), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(object.object("o").integer("p"), 1);
  const auto fails = [](const std::vector<std::string>& parts, const std::function<void()>& f) {
    expect_user_error(ExitCode::config, parts, f);
  };
  fails({"c.json", "\"absent\" is missing"}, [&] { object.integer("absent"); });
  fails({"\"s\" must be an integer", "\"t\""}, [&] { object.integer("s"); });
  fails({"\"x\" must be an integer", "0.5"}, [&] { object.integer("x"); });
  fails({"\"n\" must be from 5 to 9", "3"}, [&] { object.integer("n", 5, 9); });
  fails({"\"big\""}, [&] { object.integer("big"); });
  fails({"\"n\" must be a string"}, [&] { object.string("n"); });
  fails({"\"n\" must be true or false"}, [&] { object.boolean_or("n", true); });
  fails({"\"mixed\"", "\"a\""}, [&] { object.integers("mixed"); });
  fails({"\"list\" must hold strings"}, [&] { object.strings("list"); });
  fails({"c.json: \"n\"", "expected an object"}, [&] { object.object("n"); });
}

}  // namespace
}  // namespace medvqa::io
