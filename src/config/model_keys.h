#pragma once

#include <boost/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "config/json.h"

// Every key of a config.json that this program knows, with its range, in one table (model_keys.cc): those that are
// read; those that are for training, for other programs, or repeat another key; and those that change the model in a
// way that is not done here, with the value that changes nothing.
namespace cachalot {

// How a word of a file is shown in an error.
std::string in_double_quotes(const std::string& word);

// The keys of one object. `scope` names its table in model_keys.cc: "" for a language model's.
class ModelKeys : public JsonKeys {
 public:
  ModelKeys(const boost::json::object& object, std::string path, std::string prefix = {}, std::string scope = {})
      : JsonKeys(object, std::move(path), std::move(prefix)), scope_(std::move(scope)) {}
  ModelKeys nested(std::string_view key, const boost::json::object& object, std::string scope) const {
    return {object, path(), full_name(key) + ".", std::move(scope)};
  }

  // Numbers, with the ranges of the table.
  template <class Number>
  void require(std::string_view key, Number& field) {
    JsonKeys::require(key, field, range(key).min, range(key).max);
  }
  using JsonKeys::optional;
  void optional(std::string_view key, int& field) { optional(key, field, range(key).min, range(key).max); }
  void optional(std::string_view key, double& field) { optional(key, field, range(key).min, range(key).max); }

  // A word that must be `wanted`, in any case of letters; `word` is what an absent one stands for.
  void require_word(std::string_view key, std::string word, std::string_view wanted);

  // Whether the key says something: null, [], {}, "" and objects of nothing else do not.
  bool says(std::string_view key) const;

  // Refuses by name the keys that change the model otherwise than is done here, and checks the types of the others.
  // Appends to `unknown` those that are in no table.
  void check(std::vector<std::string>& unknown);

 private:
  struct Range {
    double min, max;
  };
  Range range(std::string_view key) const;

  std::string scope_;
};

}  // namespace cachalot
