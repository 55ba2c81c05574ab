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

// Reads keys with the ranges of the table.
class ModelKeys {
 public:
  ModelKeys(JsonKeys& keys, std::string scope = {}) : keys_(keys), scope_(std::move(scope)) {}

  void require(std::string_view key, int& field);
  void require(std::string_view key, double& field);
  void optional(std::string_view key, int& field);
  void optional(std::string_view key, double& field);
  void optional(std::string_view key, bool& field) { keys_.optional(key, field); }
  void optional(std::string_view key, std::string& field) { keys_.optional(key, field); }

 private:
  JsonKeys& keys_;
  std::string scope_;
};

// Refuses by name the keys that change the model otherwise than is done here, and checks the types of the others.
// Appends to `unknown` those that are in no table. `scope`: "" for the whole file, else "rope_scaling" or
// "quantization_config" for the object of that name.
void check_model_keys(JsonKeys& keys, const boost::json::object& object, std::string_view scope,
                      std::vector<std::string>& unknown);

}  // namespace cachalot
