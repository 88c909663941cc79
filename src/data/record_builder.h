// Rows to records: columns, unique ids, and where the images lie. Internal to the data module.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "medvqa/data/record.h"
#include "src/data/row_file.h"

namespace medvqa::data {

// Which column holds what, and what becomes of it.
struct RecordForm {
  const char* image = "image";
  bool needs_image = false;
  bool lower_case = false;  // lower-cased and stripped, as the published copies of VQA-RAD are
  bool keep_going = false;  // as Source's
  bool nested = false;      // "label" may be a list, and scalars of the object "meta" are columns
  bool text_only = false;   // as Source's
};

// Question or answer in the form's spelling.
std::string spelled(const std::string& text, const RecordForm& form);

// One for all rows of a source.
class RecordBuilder {
 public:
  explicit RecordBuilder(const RecordForm& form) : form_(form) {}

  Record build(const RowFile& file, const Row& row);
  // Adds the record of a row to `records`, or what is wrong with the row if the form allows that.
  void add(const RowFile& file, const Row& row, Records& records);
  // UserError(ExitCode::data) naming the first of the images that build() did not find.
  void check_images() const;

 private:
  void find_image(const RowFile& file, const Row& row, Record& record);
  std::string unique_id(const RowFile& file, const Row& row);

  RecordForm form_;
  std::set<std::string> ids_;
  std::map<std::filesystem::path, std::filesystem::path> images_;  // as named -> as found
  std::vector<std::string> missing_;
};

}  // namespace medvqa::data
